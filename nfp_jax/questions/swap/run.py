"""What a mask's own data buy: networks retrained on them, and on data it never saw.

The control that the theory asks for. A row has ``swap.pairs`` independent draws, each
with its own initialization, inputs and labels D. The mask found on D is retrained on D,
on fresh labels of the same inputs, and on a fresh set; from the initial weights that it
was found at, and from fresh ones. Of the others' labels the mask knows nothing, so the
differences are what the information in it is worth. A difference is taken
between networks that start from the same weights and see batches in the same order.
"""

import functools
import itertools
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax import capacity, ensemble
from nfp_jax.engine.jobs import Networks, Stats
from nfp_jax.engine.training import TrainResult
from nfp_jax.fields import SpecError
from nfp_jax.grid import Cell, by_draw
from nfp_jax.lab.chains import Chains, Found, count_trainings
from nfp_jax.lab.columns import Last, measured_of, summary_of
from nfp_jax.lab.draws import (
    DATA,
    INIT,
    NOISE,
    OTHER_DATA,
    OTHER_INIT,
    OTHER_NOISE,
    SCORE,
    SHUFFLE,
    TRAIN,
)
from nfp_jax.lab.jobs import AddRow, Failure, Row, Step
from nfp_jax.lab.kept import keep_network, kept_networks
from nfp_jax.lab.names import cards_of
from nfp_jax.lab.one_network import Draws
from nfp_jax.lab.setup import Engine, Setup, is_through, set_up
from nfp_jax.lab.stacked import Stacks, filled, size_of
from nfp_jax.lab.training import train_stacks
from nfp_jax.results import Results, row_key
from nfp_jax.spec import Spec
from nfp_jax.types import Mask, Params

Place = tuple[int, str, str]  # of a network among a cell's: pair, set, start
OWN, LABELS, ALL = "own", "labels", "data"  # what the mask's network is trained on
SETS, STARTS = (OWN, LABELS, ALL), ("", "_reinit")
# The columns' prefix for each set that is not the mask's own.
GAPS = {LABELS: "swap_gap", ALL: "swap_gap_data"}


class Pair(NamedTuple):
    """A draw of a cell: one of its pairs."""

    cell: Cell
    pair: int


def run(
    spec: Spec,
    todo: list[Cell],
    add_row: AddRow,
    *,
    progress: bool = False,
    store: Results | None = None,
    engine: Engine = ensemble.run,
) -> tuple[list[Failure], Stats]:
    """Retrains each mask on its own data and on others; a row with the gaps a cell.

    Arguments and errors are those of ``experiments.run``. What networks memorized is
    kept in ``store``; a resumed run trains the others.

    Raises:
      SpecError: a pruner that moves masks during training: such a mask has no training
        of its own labels that another could be swapped for.
    """
    for pruner in cards_of(spec).values():  # of the whole grid: nothing is trained
        if pruner.when == "during":
            raise SpecError(
                f"grid.pruner has {pruner.name!r}, expected masks that stay during "
                "training for question 'swap'"
            )
    setup = set_up(spec, todo, engine=engine)
    work = Swap(setup, add_row, store)
    stats = train_stacks(
        setup,
        work.networks(),
        work.count(),
        summary=summary_of(setup),
        progress=progress,
    )
    return setup.failures.kept, stats


# What a row needs of each network that is kept.
FIELDS = frozenset(
    {
        "place",
        "memorized_points",
        "memorized_bits",
        "out_of_budget",
        "diverged",
        "collapsed",
        "kept",
        "seconds",
    }
)


class Swap:
    """From cells to networks, and from those of a cell's pairs to its row."""

    def __init__(
        self, setup: Setup, add_row: AddRow, store: Results | None = None
    ) -> None:
        self.setup, self.add_row, self.store = setup, add_row, store
        self.pairs, self.stacks = setup.spec.settings.pairs, Stacks(setup)
        # A cell's results by pair, set and start; they come from several threads.
        self.found: dict[tuple[Any, ...], dict[Place, Row]] = {
            row_key(cell): self.on_file(cell) for cell in setup.todo
        }
        self.lock = threading.Lock()

    def on_file(self, cell: Cell) -> dict[Place, Row]:
        """What an earlier run knew of the networks of a cell."""
        kept = kept_networks(self.store, cell, FIELDS)
        return {tuple(network.pop("place")): network for network in kept}

    def places(self, cell: Cell, pair: int) -> list[Place]:
        """The networks of a pair that are not known yet."""
        every = itertools.product((pair,), SETS, STARTS)
        return [place for place in every if place not in self.found[row_key(cell)]]

    def through(self) -> list[tuple[list[Cell], Pair]]:
        """The cells that come through one dense training, and its draw."""
        found = []
        for group in by_draw(self.setup.todo):
            cells = [cell for cell in group if is_through(self.setup, cell)]
            for pair in range(self.pairs):
                if left := [cell for cell in cells if self.places(cell, pair)]:
                    found.append((left, Pair(left[0], pair)))
        return found

    def count(self) -> int:
        """How many networks will be trained."""
        last = itertools.product(self.setup.todo, range(self.pairs))
        return sum(len(self.places(*one)) for one in last) + sum(
            count_trainings(self.setup, cells) for cells, _ in self.through()
        )

    def networks(self) -> Iterator[Networks]:
        """Yields the first networks of all pairs, as they are asked for."""
        for cell in self.setup.todo:  # those of which all but the row is on file
            with self.setup.failures.reporting([cell]):
                self.finish(cell)
        direct = [
            (cell, Pair(cell, pair))
            for cell in self.setup.todo
            for pair in range(self.pairs)
            if not is_through(self.setup, cell) and self.places(cell, pair)
        ]
        chains = Chains(self.stacks, self.own, self.retrain)
        yield from self.stacks.ahead(chains.makers(self.through(), direct))

    def own(self, wheres: list[Pair]) -> Draws:
        """The draws that masks are found on."""
        places = [(pair, OWN, "") for _, pair in wheres]
        return self.draws([cell for cell, _ in wheres], places)

    def draws(self, cells: list[Cell], places: list[Place]) -> Draws:
        """The sets and the initial weights of these places, stacked.

        A mask's own set; its inputs with fresh labels; a fresh set.
        """
        pairs = [pair for pair, _, _ in places]
        streams = {
            INIT: [INIT if start == "" else OTHER_INIT for _, _, start in places],
            DATA: [OTHER_DATA if which == ALL else DATA for _, which, _ in places],
            NOISE: [NOISE if which == OWN else OTHER_NOISE for _, which, _ in places],
        }
        folds = dict.fromkeys((INIT, DATA, NOISE, SCORE, TRAIN), pairs)
        return self.stacks.draws(cells, folds, streams=streams)

    def retrain(self, found: Found) -> list[Networks]:
        """The networks of masks that were found: on each set, from each start."""
        stacks, pairs = self.stacks, [where.pair for where in found.wheres]
        mask, start = stacks.ablated(
            found.cells, found.mask, found.start, {SHUFFLE: pairs}
        )
        every = [
            (row, place)
            for row, cell in enumerate(found.cells)
            for place in self.places(cell, pairs[row])
        ]
        owners = [[found.cells[row]] for row, _ in every]
        begin = functools.partial(self.begin_together, found, mask, start)
        return stacks.made(owners, every, begin)

    def begin_together(
        self, found: Found, mask: Mask, start: Params, part: list[tuple[int, Place]]
    ) -> list[Networks]:
        """Those of a stack: of each the row of its mask among those found."""
        stacks = self.stacks
        rows, places = [row for row, _ in part], [place for _, place in part]
        cells = [found.cells[row] for row in rows]
        sizes = [found.sizes[row] for row in rows]
        draws = self.draws(cells, places)
        size = size_of(draws)
        fresh = filled([start != "" for _, _, start in places], size, bool)
        under, weights = stacks.compiled(("begin", size), _begin)(
            mask, start, filled(rows, size, np.int32), draws.params, fresh
        )
        data = draws.data()
        steps = [
            Step(
                [cells[i]], self.ended, Last(data, i, sizes[i], found.late[row], place)
            )
            for i, (row, place) in enumerate(part)
        ]
        return [stacks.networks(sizes, draws, under, weights, steps)]

    def ended(
        self, steps: list[Step], rows: list[int], results: TrainResult
    ) -> list[Networks]:
        """Keeps what networks memorized; with the last of a cell comes its row."""
        measured = measured_of(self.stacks, steps, rows, results)
        for step, network in zip(steps, measured, strict=True):
            [cell] = step.cells
            with self.setup.failures.reporting([cell]), self.lock:
                self.found[row_key(cell)][step.of.of] = network
                keep_network(self.store, cell, {"place": step.of.of, **network})
                self.finish(cell)
        return []

    def finish(self, cell: Cell) -> None:
        """Hands over the row of a cell of which all networks are known."""
        found = self.found[row_key(cell)]
        if len(found) == self.pairs * len(SETS) * len(STARTS):
            self.add_row(self.row(cell, found))

    def row(self, cell: Cell, found: dict[Place, Row]) -> Row:
        """The row of a cell from its networks."""
        everyone = list(found.values())
        first = [found[pair, OWN, ""] for pair in range(self.pairs)]
        swapped = [found[pair, LABELS, ""] for pair in range(self.pairs)]
        row = {
            **cell,
            "pairs": self.pairs,
            "confidence": self.setup.spec.settings.confidence,
            "memorized_points": self.mean_points(first),
            "memorized_points_swapped": self.mean_points(swapped),
            "swap_gaps": self.differences(found, LABELS, ""),
            "swap_gaps_reinit": self.differences(found, LABELS, "_reinit"),
            "margin": self.setup.spec.settings.margin,
            "out_of_budget": sum(one["out_of_budget"] for one in everyone),
            "trainings": len(everyone),
            "diverged": any(one["diverged"] for one in everyone),
            "collapsed_share": sum(one["collapsed"] for one in first) / self.pairs,
            "kept": first[0]["kept"],
            "classes": self.setup.classes,
            "seconds": sum(one["seconds"] for one in everyone),
        }
        for (name, prefix), start in itertools.product(GAPS.items(), STARTS):
            both = [
                [found[pair, which, start] for pair in range(self.pairs)]
                for which in (OWN, name)
            ]
            row |= self.gaps(both[0], both[1], f"{prefix}{start}")
        return row

    def mean_points(self, networks: list[Row]) -> float:
        """The points that they memorized, on average."""
        return float(sum(one["memorized_points"] for one in networks) / self.pairs)

    def differences(self, found: dict[Place, Row], name: str, start: str) -> list[Any]:
        """The gap of each pair, in points: the mask's own set less another one."""
        return [
            found[pair, OWN, start]["memorized_points"]
            - found[pair, name, start]["memorized_points"]
            for pair in range(self.pairs)
        ]

    def gaps(self, first: list[Row], other: list[Row], prefix: str) -> Row:
        """The columns of one kind of gap; None where it is undefined."""
        late = sum(one["out_of_budget"] for one in first + other)
        columns: Row = {f"{prefix}_out_of_budget": late}
        confidence = self.setup.spec.settings.confidence
        for unit, names in {
            "memorized_points": ("points", "lower", "upper"),
            "memorized_bits": ("bits", "bits_lower", "bits_upper"),
        }.items():
            values = [[one[unit] for one in networks] for networks in (first, other)]
            gap: Any = (None,) * 3
            if None not in itertools.chain(values[0], values[1]):
                gap = capacity.paired_gap(values[0], values[1], confidence=confidence)
            for name, value in zip(names, gap, strict=True):
                columns[f"{prefix}_{name}"] = value if value == value else None
        return columns


def _begin(
    mask: Mask, start: Params, rows: Any, other: Params, fresh: Any
) -> tuple[Mask, Params]:
    """Stacked masks of these rows, and the weights to train from: theirs, or others."""
    mask, start = jax.tree.map(lambda leaf: leaf[rows], (mask, start))
    where = functools.partial(jax.vmap(jnp.where), fresh)
    return mask, jax.tree.map(where, other, start)
