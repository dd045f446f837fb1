"""How much a masked network memorizes: one network a cell, trained to convergence.

Masks found at initialization or through training, retrained from where ``resume`` says,
with their ablations; the rows have accuracy, points and bits memorized, and the
correlation with the label noise. Jobs are made as lanes ask for them.
"""

import functools
import itertools
import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax import capacity, data, ensemble, masks, pruning, training
from nfp_jax.experiments.lab import AddRow, Draw, Failure, Lab, Row
from nfp_jax.experiments.tables import SELECTS, comes_through_training
from nfp_jax.masks import Mask, Params
from nfp_jax.results import Results
from nfp_jax.spec import Cell, Spec

SCORED_AT_ONCE = 32  # networks, on an accelerator
# Further columns of a row, of its draw and its trained network.
More = Callable[[Draw, training.TrainResult], Row]


def run(
    spec: Spec,
    todo: list[Cell],
    add_row: AddRow,
    *,
    progress: bool = False,
    store: Results | None = None,
) -> tuple[list[Failure], ensemble.Stats]:
    """Trains the networks of the cells and hands over a row for each.

    Arguments and errors are those of ``experiments.run``; ``store`` is not looked at.
    """
    lab = Lab(spec, todo)
    work = Memorization(lab, add_row)
    stats = lab.train(work.jobs(), work.networks(), progress=progress)
    return lab.failures, stats


class _Item(NamedTuple):
    """A cell to prune at initialization, and what its mask is made from."""

    cell: Cell
    draw: Draw
    keep: Any


class Memorization:
    """From cells to jobs, and from their results to rows."""

    def __init__(
        self, lab: Lab, add_row: AddRow, more: More = lambda draw, result: {}
    ) -> None:
        self.lab, self.add_row, self.more = lab, add_row, more
        cpu = jax.default_backend() == "cpu"
        least = 1 if cpu else SCORED_AT_ONCE
        self.at_once = lab.spec.engine.score_at_once or least

    def networks(self) -> int:
        """How many networks will be trained."""
        count = sum(cell["pruner"] != "dense" for cell in self.lab.todo)
        for group in self.lab.draws():
            through = [cell for cell in group if comes_through_training(cell)]
            count += self.lab.trainings(through)
        return count

    def jobs(self) -> Iterator[ensemble.Job]:
        """The first jobs of all draws, made as they are asked for; chains first."""
        for group in self.lab.draws():
            through = [cell for cell in group if comes_through_training(cell)]
            if through:
                yield from self.lab.guarded(through, self.dense_job, through)
        sizes: dict[int, list[list[Cell]]] = {}
        for group in self.lab.draws():
            direct = [cell for cell in group if not comes_through_training(cell)]
            if direct:
                sizes.setdefault(direct[0]["n"], []).append(direct)
        for groups in sizes.values():
            for part in _parts(groups, self.at_once):
                yield from self.direct_jobs(part)

    def direct_jobs(self, groups: list[list[Cell]]) -> Iterator[ensemble.Job]:
        """The jobs of draws of one size, whose cells are pruned at initialization."""
        items: list[_Item] = []
        for group in groups:
            try:
                draw = self.lab.draw(group[0])
                items += [_Item(cell, draw, self.lab.keep(cell)) for cell in group]
            except Exception as error:
                self.lab.fail(group, error)

        def program(item: _Item) -> tuple[str, str, bool]:
            cell = item.cell
            return cell["pruner"], cell["select"], cell["ablation"] == "invert"

        # The sparsest first: they take longest.
        items.sort(key=lambda item: (program(item), -item.cell["sparsity"]))
        for _, same in itertools.groupby(items, key=program):
            for part in _parts(list(same), self.at_once):
                for item, mask in self.prune(part):
                    yield from self.lab.guarded(
                        [item.cell],
                        self.final_job,
                        *(item.draw, item.cell, mask, item.draw.params),
                    )

    def prune(self, items: list[_Item]) -> list[tuple[_Item, Mask]]:
        """The masks of items that share a program; those that raise are reported."""
        if not items:
            return []
        cell = items[0].cell
        options: Any = {
            "select": SELECTS[cell["select"]],
            "prunable": self.lab.prunable,
        }
        batches = [(self.lab.x(item.draw), item.draw.data[1]) for item in items]
        try:
            if self.at_once == 1:
                (item,), (batch,) = items, batches
                mask = pruning.prune(
                    self.lab.scorer(cell),
                    item.draw.params,
                    batch,
                    item.draw.score_key,
                    keep=item.keep,
                    **options,
                )
                return [(item, mask)]
            parts = [
                (item.draw.params, batch, item.draw.score_key, item.keep)
                for item, batch in zip(items, batches, strict=True)
            ]
            params, batch, key, keep = jax.tree.map(lambda *x: jnp.stack(x), *parts)
            found = pruning.prune_many(
                self.lab.scorer(cell),
                *(params, batch, key),
                keep=keep,
                at_once=self.at_once,
                **options,
            )
        except pruning.NanScores as error:
            self.lab.fail([items[i].cell for i in error.networks], error)
            # The others again: a mask does not depend on its neighbors.
            return self.prune(
                [item for i, item in enumerate(items) if i not in error.networks]
            )
        except Exception as error:
            self.lab.fail([item.cell for item in items], error)
            return []
        return [
            (item, jax.tree.map(operator.itemgetter(i), found))
            for i, item in enumerate(items)
        ]

    def dense_job(self, through: list[Cell]) -> list[ensemble.Job]:
        """Trains the dense network of a draw, from which everything else follows."""
        draw = self.lab.draw(through[0])
        return self.lab.dense_job(draw, through, self.final_job, self.finish_dense)

    def final_job(
        self, draw: Draw, cell: Cell, mask: Mask, start: Params
    ) -> list[ensemble.Job]:
        """The last training of a cell, its ablation applied."""
        finish = functools.partial(self.finish, draw, cell)
        return self.lab.job(draw, cell, mask, start, finish)

    # From results to rows

    def finish_dense(
        self,
        draw: Draw,
        through: list[Cell],
        mask: Mask,
        result: training.TrainResult,
    ) -> list[ensemble.Job]:
        """Hands over the row of the dense network, where a cell asks for it."""
        for cell in through:
            if cell["pruner"] == "dense":
                self.finish(draw, cell, mask, result)
        return []

    def finish(
        self, draw: Draw, cell: Cell, mask: Mask, result: training.TrainResult
    ) -> list[ensemble.Job]:
        """Hands over the row of a trained network."""
        epochs, train = int(result.epochs), self.lab.spec.train
        entries = kept_epochs(epochs)
        history = {
            name: values[entries - 1].tolist()
            for name, values in result.history.items()
        }
        accuracy = result.history["accuracy"][:epochs]
        flags = jax.tree.leaves(self.lab.prunable)
        layers = dict(itertools.compress(masks.named_leaves(mask), flags))
        kept = [int(np.sum(leaf)) for leaf in layers.values()]
        self.add_row(
            {
                **cell,
                **self.lab.derived(draw, mask, result),
                "train_accuracy": float(result.metrics["accuracy"]),
                "test_accuracy": self.test_accuracy(draw.dataset, result.params),
                "noise_correlation": float(result.metrics["noise_correlation"]),
                "loss": float(result.metrics["loss"]),
                "epochs": epochs,
                "converged": bool(result.converged),
                "settled": bool(result.converged) if train.stop == "settled" else None,
                "out_of_budget": draw.late + result.out_of_budget,
                "diverged": bool(result.diverged),
                **{
                    f"epochs_to_{percent}": capacity.epochs_to(accuracy, percent / 100)
                    for percent in (50, 90, 99, 100)
                },
                "memorization_area": capacity.memorization_area(
                    accuracy,
                    max(train.max_epochs, 2),  # the log of 1 epoch is 0
                ),
                "kept": sum(kept),
                "seconds": result.seconds,
                "history_epochs": entries.tolist(),
                "loss_by_epoch": history["loss"],
                "train_accuracy_by_epoch": history["accuracy"],
                "noise_correlation_by_epoch": history["noise_correlation"],
                "layers": list(layers),
                "kept_by_layer": kept,
                "size_by_layer": [leaf.size for leaf in layers.values()],
                **self.more(draw, result),
            }
        )
        return []

    def test_accuracy(self, dataset: data.Dataset, params: Params) -> float | None:
        """The accuracy on the test points, where the set has some."""
        if dataset.x_test is None:
            return None
        logits = self.lab.logits(params, dataset.x_test)
        return float(np.mean(np.argmax(logits, axis=-1) == dataset.y_test))


def kept_epochs(epochs: int) -> np.ndarray:
    """Returns the epochs whose metrics a row keeps: all to 128, 64 an octave beyond.

    And the last one.

    >>> kept_epochs(3).tolist(), len(kept_epochs(12_800))
    ([1, 2, 3], 548)
    """
    every = [np.arange(1, min(epochs, 128) + 1)]
    start, step = 128, 2
    while start < epochs:
        every.append(np.arange(start + step, min(2 * start, epochs) + 1, step))
        start, step = 2 * start, 2 * step
    return np.unique(np.concatenate([*every, [epochs]]))


def _parts(whole: list[Any], size: int) -> list[list[Any]]:
    return [whole[i : i + size] for i in range(0, len(whole), size)]
