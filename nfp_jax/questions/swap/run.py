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
from typing import Any

from nfp_jax import capacity, ensemble
from nfp_jax.engine.jobs import Job, Stats
from nfp_jax.engine.training import TrainResult
from nfp_jax.fields import SpecError
from nfp_jax.grid import Cell, by_draw
from nfp_jax.lab.columns import derived, kept
from nfp_jax.lab.draws import (
    OTHER_DATA,
    OTHER_INIT,
    OTHER_NOISE,
    Draw,
    draw_labels,
    draw_of,
    draw_points,
    key_of,
)
from nfp_jax.lab.jobs import AddRow, Failure, Row
from nfp_jax.lab.kept import keep_network, kept_networks
from nfp_jax.lab.masking import make_mask
from nfp_jax.lab.names import cards_of
from nfp_jax.lab.setup import Engine, Setup, is_through, set_up
from nfp_jax.lab.training import last_job, train_all
from nfp_jax.lab.trajectories import count_trainings, dense_job
from nfp_jax.results import Results, row_key
from nfp_jax.spec import Spec
from nfp_jax.types import Mask, Params

Place = tuple[int, str, str]  # of a network among a cell's: pair, set, start
OWN, LABELS, ALL = "own", "labels", "data"  # what the mask's network is trained on
SETS, STARTS = (OWN, LABELS, ALL), ("", "_reinit")
# The columns' prefix for each set that is not the mask's own.
GAPS = {LABELS: "swap_gap", ALL: "swap_gap_data"}


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
    stats = train_all(setup, work.jobs(), work.networks(), progress=progress)
    return setup.failures.kept, stats


class Swap:
    """From cells to jobs, and from the results of a cell's pairs to its row."""

    def __init__(
        self, setup: Setup, add_row: AddRow, store: Results | None = None
    ) -> None:
        self.setup, self.add_row, self.store = setup, add_row, store
        self.pairs = setup.spec.settings.pairs
        # A cell's results by pair, set and start; they come from several threads.
        self.found: dict[tuple[Any, ...], dict[Place, Row]] = {
            row_key(cell): self.on_file(cell) for cell in setup.todo
        }
        self.lock = threading.Lock()

    def on_file(self, cell: Cell) -> dict[Place, Row]:
        """What an earlier run knew of the networks of a cell."""
        kept = kept_networks(self.store, cell)
        return {tuple(network.pop("place")): network for network in kept}

    def places(self, cell: Cell, pair: int) -> list[Place]:
        """The networks of a pair that are not known yet."""
        every = itertools.product((pair,), SETS, STARTS)
        return [place for place in every if place not in self.found[row_key(cell)]]

    def chains(self) -> Iterator[tuple[list[Cell], int]]:
        """The cells that come through one dense training, and its pair."""
        for group in by_draw(self.setup.todo):
            through = [cell for cell in group if is_through(self.setup, cell)]
            for pair in range(self.pairs):
                if cells := [cell for cell in through if self.places(cell, pair)]:
                    yield cells, pair

    def networks(self) -> int:
        """How many networks will be trained."""
        last = itertools.product(self.setup.todo, range(self.pairs))
        return sum(len(self.places(*one)) for one in last) + sum(
            count_trainings(self.setup, cells) for cells, _ in self.chains()
        )

    def jobs(self) -> Iterator[Job]:
        """The first jobs of all pairs, made as they are asked for; chains first."""
        for cell in self.setup.todo:  # those of which all but the row is on file
            with self.setup.failures.reporting([cell]):
                self.finish(cell)
        for through, pair in self.chains():
            yield from self.setup.failures.guarded(through, self.chain, through, pair)
        direct = [cell for cell in self.setup.todo if not is_through(self.setup, cell)]
        for cell, pair in itertools.product(direct, range(self.pairs)):
            if self.places(cell, pair):
                yield from self.setup.failures.guarded([cell], self.at_once, cell, pair)

    def chain(self, through: list[Cell], pair: int) -> list[Job]:
        """The dense training of a pair, from which the masks of these cells come."""
        draw = draw_of(self.setup, through[0], pair)
        on_mask = functools.partial(self.retrain, pair)
        return dense_job(self.setup, draw, through, on_mask)

    def at_once(self, cell: Cell, pair: int) -> list[Job]:
        """The jobs of a cell that is pruned at initialization."""
        draw = draw_of(self.setup, cell, pair)
        return self.retrain(
            pair, draw, cell, make_mask(self.setup, draw, cell), draw.params
        )

    def retrain(
        self, pair: int, draw: Draw, cell: Cell, mask: Mask, start: Params
    ) -> list[Job]:
        """The jobs of a pair's mask: on each set, from each start."""
        other_key = key_of(self.setup, OTHER_INIT, cell["init_seed"], pair)
        starts = dict(zip(STARTS, (start, self.setup.init(other_key)), strict=True))
        sets = self.sets(draw, cell, pair)
        jobs = []
        for place in self.places(cell, pair):
            _, name, fresh = place
            then = functools.partial(self.take, sets[name], cell, place)
            job = last_job(self.setup, sets[name], cell, mask, starts[fresh], then)
            jobs.append(job)
        return jobs

    def sets(self, draw: Draw, cell: Cell, pair: int) -> dict[str, Draw]:
        """The mask's own set; its inputs with fresh labels; a fresh set."""
        setup, seed = self.setup, cell["data_seed"]
        noise_key = key_of(setup, OTHER_NOISE, seed, pair)
        other = draw_points(setup, cell["n"], key_of(setup, OTHER_DATA, seed, pair))
        fresh = {
            name: draw._replace(
                points=points, labels=draw_labels(setup, points, cell, noise_key)
            )
            for name, points in ((LABELS, draw.points), (ALL, other))
        }
        return {OWN: draw, **fresh}

    def take(
        self, draw: Draw, cell: Cell, place: Place, result: TrainResult
    ) -> list[Job]:
        """Keeps what a network memorized; with the last of a cell comes its row."""
        network = {
            **derived(self.setup, draw, result),
            "out_of_budget": draw.late + result.out_of_budget,
            "diverged": bool(result.diverged),
            "kept": kept(self.setup, result.mask),
            "seconds": result.seconds,
        }
        with self.lock:
            self.found[row_key(cell)][place] = network
            keep_network(self.store, cell, {"place": place, **network})
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
