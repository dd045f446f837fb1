"""How much a masked network memorizes: one network a cell, trained to convergence.

Masks found at initialization or through training, retrained from where ``resume`` says,
with their ablations; the rows have accuracy, points and bits memorized, and the
correlation with the label noise. Networks are made in stacks, as lanes ask for them,
and stay on the device; what was measured of those that ended becomes their rows.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nfp_jax import capacity, ensemble
from nfp_jax.engine.jobs import Networks, Stats
from nfp_jax.engine.training import TrainResult
from nfp_jax.grid import BUT_SEEDS, DENSE, Cell, by_draw
from nfp_jax.lab.chains import Chains, Found, Link, count_trainings
from nfp_jax.lab.columns import Last, measured_of, summary_of
from nfp_jax.lab.jobs import AddRow, Failure, Row, Step
from nfp_jax.lab.setup import Engine, Setup, is_through, set_up
from nfp_jax.lab.stacked import Points, Stacks
from nfp_jax.lab.training import train_stacks
from nfp_jax.results import Results
from nfp_jax.spec import Spec
from nfp_jax.types import Params

# Further columns of a row, of its points and its trained network, on the host.
More = Callable[[Points, Params], Row]


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

    Arguments and errors are those of ``experiments.run``; rows in ``store`` tell which
    networks take long.
    """
    setup = set_up(spec, todo, engine=engine)
    return train_rows(setup, add_row, store=store, progress=progress)


def train_rows(
    setup: Setup,
    add_row: AddRow,
    more: More | None = None,
    *,
    store: Results | None = None,
    progress: bool = False,
) -> tuple[list[Failure], Stats]:
    """Trains the networks of the cells and hands over a row for each.

    Args:
      setup: of the run.
      add_row: called once a cell.
      more: returns further columns of a row.
      store: rows on file of other seeds, which tell what takes long.
      progress: whether to show a bar.
    """
    networks = Memorization(setup, add_row, more, store).networks()
    stats = train_stacks(
        setup,
        networks,
        count_networks(setup),
        summary=summary_of(setup),
        measured_on=test_set(setup),
        progress=progress,
    )
    return setup.failures.kept, stats


def count_networks(setup: Setup) -> int:
    """Returns how many networks will be trained."""
    count = sum(cell["pruner"] != DENSE for cell in setup.todo)
    for group in by_draw(setup.todo):
        through = [cell for cell in group if is_through(setup, cell)]
        count += count_trainings(setup, through)
    return count


class Memorization:
    """From cells to networks, and from networks that ended to rows."""

    def __init__(
        self,
        setup: Setup,
        add_row: AddRow,
        more: More | None = None,
        store: Results | None = None,
    ) -> None:
        self.setup, self.add_row, self.more = setup, add_row, more
        self.epochs = store.epochs() if store else {}
        self.stacks = Stacks(setup)

    def networks(self) -> Iterator[Networks]:
        """Yields the first networks of all draws, as they are asked for.

        Chains of trainings come first, and of the other networks those that will take
        longest: as rows on file say, or else the sparsest.
        """
        setup, stacks = self.setup, self.stacks
        chains = Chains(
            stacks, stacks.draws, self.begun, self.dense_ended, length=self.length
        )
        through = [cell for cell in setup.todo if is_through(setup, cell)]
        groups = [(group, group[0]) for group in by_draw(through)]
        direct = [(cell, cell) for cell in setup.todo if not is_through(setup, cell)]
        yield from stacks.ahead(chains.makers(groups, direct))

    def length(self, cell: Cell) -> tuple[float, float]:
        """What orders cells by how long their networks will take."""
        key = tuple(cell[name] for name in BUT_SEEDS)
        return self.epochs.get(key, math.inf), cell["sparsity"]

    def begun(self, found: Found) -> list[Networks]:
        """The last trainings of cells, under masks that were found."""
        cells, _, sizes, draws, mask, start, late, epochs = found
        mask, start = self.stacks.ablated(cells, mask, start)
        data = draws.data()
        steps = [
            Step(
                [cell],
                self.ended,
                Last(data, row, sizes[row], late[row], epochs=epochs[row]),
            )
            for row, cell in enumerate(cells)
        ]
        return [self.stacks.networks(sizes, draws, mask, start, steps)]

    def dense_ended(
        self, links: list[Link], rows: list[int], results: TrainResult
    ) -> None:
        """Hands over the rows of dense networks, where the grid has them."""
        found = [
            (Step([cell], self.ended, Last(link.draws, link.row, link.size)), row)
            for link, row in zip(links, rows, strict=True)
            for cell in link.branch
            if cell["pruner"] == DENSE
        ]
        if found:
            self.ended([step for step, _ in found], [row for _, row in found], results)

    def ended(
        self, steps: list[Step], rows: list[int], results: TrainResult
    ) -> list[Networks]:
        """Hands over the rows of networks that ended together."""
        setup = self.setup
        measured = measured_of(self.stacks, steps, rows, results)
        for step, row, known in zip(steps, rows, measured, strict=True):
            [cell] = step.cells
            with setup.failures.reporting([cell]):
                self.add_row(
                    {
                        **cell,
                        **known,
                        **_end(setup, row, results),
                        **_speed(setup, row, results),
                        "test_accuracy": _test_accuracy(setup, row, results),
                        **_kept(setup, row, results),
                        "pruning_gradients": _pruning_gradients(setup, cell, step.of),
                        **_history(row, results),
                        **self.further(step, row, results),
                    }
                )
        return []

    def further(self, step: Step, row: int, results: TrainResult) -> Row:
        """The columns that another question adds."""
        if self.more is None:
            return {}
        last = step.of
        points = self.stacks.points(last.size, last.draws, last.row)
        return self.more(points, self.stacks.weights(results, row))


def test_set(setup: Setup) -> Any:
    """Returns the test points of an image set with their labels; or None."""
    if setup.pool is None or setup.pool.x_test is None:
        return None
    return setup.pool.x_test, setup.pool.y_test


# ---- Columns


def _end(setup: Setup, row: int, results: TrainResult) -> Row:
    """What the network is like at the end, and why its training ended."""
    rule, converged = setup.spec.train.stop, bool(results.converged[row])
    return {
        "train_accuracy": float(results.metrics["accuracy"][row]),
        "noise_correlation": float(results.metrics["noise_correlation"][row]),
        "loss": float(results.metrics["loss"][row]),
        "epochs": int(results.epochs[row]),
        "converged": converged,
        "settled": converged if rule == "settled" else None,
    }


def _speed(setup: Setup, row: int, results: TrainResult) -> Row:
    """How fast it memorized."""
    accuracy = results.history["accuracy"][row][: int(results.epochs[row])]
    budget = max(setup.spec.train.max_epochs, 2)  # the log of 1 epoch is 0
    times = {
        f"epochs_to_{percent}": capacity.epochs_to(accuracy, percent / 100)
        for percent in (50, 90, 99, 100)
    }
    return {**times, "memorization_area": capacity.memorization_area(accuracy, budget)}


def _kept(setup: Setup, row: int, results: TrainResult) -> Row:
    """How many weights its layers keep."""
    layers = setup.layers
    kept = [int(count) for count in results.summary["kept"][row]]
    return {
        "layers": list(layers),
        "kept_by_layer": kept,
        "size_by_layer": list(layers.values()),
    }


def _pruning_gradients(setup: Setup, cell: Cell, last: Last) -> int | None:
    """The gradient evaluations that its mask took; an epoch of training is one more."""
    own = setup.gradients.get(cell["pruner"])
    return None if own is None else own + last.epochs


def _history(row: int, results: TrainResult) -> Row:
    """The metrics by epoch, of the epochs that a row keeps."""
    entries = kept_epochs(int(results.epochs[row]))
    history = {
        name: values[row][entries - 1].tolist()
        for name, values in results.history.items()
    }
    return {
        "history_epochs": entries.tolist(),
        "loss_by_epoch": history["loss"],
        "train_accuracy_by_epoch": history["accuracy"],
        "noise_correlation_by_epoch": history["noise_correlation"],
    }


def _test_accuracy(setup: Setup, row: int, results: TrainResult) -> float | None:
    """The accuracy on the test points, where the set has some."""
    if "test_correct" not in results.summary:
        return None
    _, y = test_set(setup)
    return float(results.summary["test_correct"][row] / len(y))


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
