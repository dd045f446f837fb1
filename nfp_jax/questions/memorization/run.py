"""How much a masked network memorizes: one network a cell, trained to convergence.

Masks found at initialization or through training, retrained from where ``resume`` says,
with their ablations; the rows have accuracy, points and bits memorized, and the
correlation with the label noise. Jobs are made as lanes ask for them.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax import capacity, ensemble, masks, pruning
from nfp_jax.engine.jobs import Job, Stats
from nfp_jax.engine.training import TrainResult
from nfp_jax.grid import DENSE, Cell, by_draw
from nfp_jax.lab.columns import derived, kept_by_layer
from nfp_jax.lab.draws import Draw, draw_of
from nfp_jax.lab.jobs import AddRow, Failure, Row
from nfp_jax.lab.masking import counts_of, make_mask, make_masks, parted, shown_to
from nfp_jax.lab.setup import Engine, Setup, is_through, set_up
from nfp_jax.lab.training import last_job, train_all
from nfp_jax.lab.trajectories import count_trainings, dense_job
from nfp_jax.results import Results
from nfp_jax.spec import Spec
from nfp_jax.types import Mask, Params

SCORED_AT_ONCE = 32  # networks, on an accelerator
# Further columns of a row, of its draw and its trained network.
More = Callable[[Draw, TrainResult], Row]


def run(
    spec: Spec,
    todo: list[Cell],
    add_row: AddRow,
    *,
    progress: bool = False,
    store: Results | None = None,
    engine: Engine = ensemble.run,
) -> tuple[list[Failure], Stats]:
    """Trains the networks of the cells and hands over a row for each.

    Arguments and errors are those of ``experiments.run``; ``store`` is not looked at.
    """
    setup = set_up(spec, todo, engine=engine)
    return train_rows(setup, add_row, progress=progress)


def no_more(draw: Draw, result: TrainResult) -> Row:
    """Returns no further columns."""
    return {}


def train_rows(
    setup: Setup, add_row: AddRow, more: More = no_more, *, progress: bool = False
) -> tuple[list[Failure], Stats]:
    """Trains the networks of the cells and hands over a row for each.

    Args:
      setup: of the run.
      add_row: called once a cell.
      more: returns further columns of a row.
      progress: whether to show a bar.
    """
    total = count_networks(setup)
    stats = train_all(setup, first_jobs(setup, add_row, more), total, progress=progress)
    return setup.failures.kept, stats


def count_networks(setup: Setup) -> int:
    """Returns how many networks will be trained."""
    count = sum(cell["pruner"] != DENSE for cell in setup.todo)
    for group in by_draw(setup.todo):
        through = [cell for cell in group if is_through(setup, cell)]
        count += count_trainings(setup, through)
    return count


def first_jobs(setup: Setup, add_row: AddRow, more: More = no_more) -> Iterator[Job]:
    """Yields the first jobs of all draws, made as they are asked for; chains first."""
    finish = functools.partial(_finish, setup, add_row, more)

    def on_mask(draw: Draw, cell: Cell, mask: Mask, start: Params) -> list[Job]:
        then = functools.partial(finish, draw, cell)
        return [last_job(setup, draw, cell, mask, start, then)]

    def on_dense(draw: Draw, cells: list[Cell], result: TrainResult) -> list[Job]:
        for cell in cells:
            if cell["pruner"] == DENSE:
                finish(draw, cell, result)
        return []

    def chain(through: list[Cell]) -> list[Job]:
        draw = draw_of(setup, through[0])
        return dense_job(setup, draw, through, on_mask, on_dense)

    groups = by_draw(setup.todo)
    for group in groups:
        through = [cell for cell in group if is_through(setup, cell)]
        if through:
            yield from setup.failures.guarded(through, chain, through)
    sizes: dict[int, list[list[Cell]]] = {}
    for group in groups:
        direct = [cell for cell in group if not is_through(setup, cell)]
        if direct:
            sizes.setdefault(direct[0]["n"], []).append(direct)
    for same_size in sizes.values():
        for part in _parts(same_size, _at_once(setup)):
            for item, mask in _direct_masks(setup, part):
                yield from setup.failures.guarded(
                    [item.cell],
                    on_mask,
                    item.draw,
                    item.cell,
                    mask,
                    item.draw.params,
                )


# ---- Masks before training


class _Item(NamedTuple):
    """A cell to prune at initialization, and what its mask is made from."""

    cell: Cell
    draw: Draw
    keep: Any


def _at_once(setup: Setup) -> int:
    """How many networks are pruned at once."""
    least = 1 if jax.default_backend() == "cpu" else SCORED_AT_ONCE
    return setup.spec.engine.score_at_once or least


def _direct_masks(
    setup: Setup, groups: list[list[Cell]]
) -> Iterator[tuple[_Item, Mask]]:
    """The masks of draws of one size, whose cells are pruned before training."""
    items: list[_Item] = []
    for group in groups:
        with setup.failures.reporting(group):
            draw = draw_of(setup, group[0])
            items += [_Item(cell, draw, counts_of(setup, cell)) for cell in group]

    def program(item: _Item) -> tuple[str, str, bool]:
        cell = item.cell
        return cell["pruner"], cell["select"], cell["ablation"] == "invert"

    # The sparsest first: they take longest.
    items.sort(key=lambda item: (program(item), -item.cell["sparsity"]))
    for _, same in itertools.groupby(items, key=program):
        for part in _parts(list(same), _at_once(setup)):
            yield from _pruned(setup, part)


def _pruned(setup: Setup, items: list[_Item]) -> list[tuple[_Item, Mask]]:
    """The masks of items that share a program; those that raise are reported."""
    if not items:
        return []
    first, at_once = items[0], _at_once(setup)
    try:
        if at_once == 1:
            mask = make_mask(setup, first.draw, first.cell, keep=first.keep)
            return [(first, mask)]
        parts = [
            (
                item.draw.params,
                shown_to(setup, item.draw, item.cell),
                item.draw.score_key,
                item.keep,
            )
            for item in items
        ]
        params, batch, key, keep = jax.tree.map(lambda *x: jnp.stack(x), *parts)
        found = make_masks(
            setup,
            first.cell,
            params,
            batch,
            key,
            in_axes=(0, 0, 0),
            keep=keep,
            at_once=at_once,
        )
    except pruning.NanScores as error:
        setup.failures.add([items[i].cell for i in error.networks], error)
        # The others again: a mask does not depend on its neighbors.
        rest = [item for i, item in enumerate(items) if i not in error.networks]
        return _pruned(setup, rest)
    except Exception as error:
        setup.failures.add([item.cell for item in items], error)
        return []
    return list(zip(items, parted(found, len(items)), strict=True))


# ---- Rows


def _finish(
    setup: Setup,
    add_row: AddRow,
    more: More,
    draw: Draw,
    cell: Cell,
    result: TrainResult,
) -> list[Job]:
    """Hands over the row of a trained network."""
    layers = kept_by_layer(setup, result.mask)
    shapes = dict(masks.named_leaves(result.mask))
    add_row(
        {
            **cell,
            **derived(setup, draw, result),
            **_end(setup, draw, result),
            **_speed(setup, result),
            "test_accuracy": _test_accuracy(setup, result.params),
            "kept": sum(layers.values()),
            "seconds": result.seconds,
            **_history(result),
            "layers": list(layers),
            "kept_by_layer": list(layers.values()),
            "size_by_layer": [shapes[layer].size for layer in layers],
            **more(draw, result),
        }
    )
    return []


def _end(setup: Setup, draw: Draw, result: TrainResult) -> Row:
    """What the network is like at the end, and why its training ended."""
    rule = setup.spec.train.stop
    return {
        "train_accuracy": float(result.metrics["accuracy"]),
        "noise_correlation": float(result.metrics["noise_correlation"]),
        "loss": float(result.metrics["loss"]),
        "epochs": int(result.epochs),
        "converged": bool(result.converged),
        "settled": bool(result.converged) if rule == "settled" else None,
        "out_of_budget": draw.late + result.out_of_budget,
        "diverged": bool(result.diverged),
    }


def _speed(setup: Setup, result: TrainResult) -> Row:
    """How fast it memorized."""
    accuracy = result.history["accuracy"][: int(result.epochs)]
    budget = max(setup.spec.train.max_epochs, 2)  # the log of 1 epoch is 0
    times = {
        f"epochs_to_{percent}": capacity.epochs_to(accuracy, percent / 100)
        for percent in (50, 90, 99, 100)
    }
    return {**times, "memorization_area": capacity.memorization_area(accuracy, budget)}


def _history(result: TrainResult) -> Row:
    """The metrics by epoch, of the epochs that a row keeps."""
    entries = kept_epochs(int(result.epochs))
    history = {
        name: values[entries - 1].tolist() for name, values in result.history.items()
    }
    return {
        "history_epochs": entries.tolist(),
        "loss_by_epoch": history["loss"],
        "train_accuracy_by_epoch": history["accuracy"],
        "noise_correlation_by_epoch": history["noise_correlation"],
    }


def _test_accuracy(setup: Setup, params: Params) -> float | None:
    """The accuracy on the test points, where the set has some."""
    if setup.pool is None or setup.pool.x_test is None:
        return None
    logits = setup.logits(params, setup.pool.x_test)
    return float(np.mean(np.argmax(logits, axis=-1) == setup.pool.y_test))


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
