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

from nfp_jax import capacity, ensemble, training
from nfp_jax.experiments.lab import (
    OTHER_DATA,
    OTHER_INIT,
    OTHER_NOISE,
    AddRow,
    Draw,
    Failure,
    Lab,
    Row,
    keep_network,
    kept_networks,
)
from nfp_jax.experiments.tables import comes_through_training
from nfp_jax.masks import Mask, Params
from nfp_jax.results import Results, row_key
from nfp_jax.spec import Cell, Spec

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
) -> tuple[list[Failure], ensemble.Stats]:
    """Retrains each mask on its own data and on others; a row with the gaps a cell.

    Arguments and errors are those of ``experiments.run``. What networks memorized is
    kept in ``store``; a resumed run trains the others.
    """
    lab = Lab(spec, todo)
    work = Swap(lab, add_row, store)
    stats = lab.train(work.jobs(), work.networks(), progress=progress)
    return lab.failures, stats


class Swap:
    """From cells to jobs, and from the results of a cell's pairs to its row."""

    def __init__(self, lab: Lab, add_row: AddRow, store: Results | None = None) -> None:
        self.lab, self.add_row, self.store = lab, add_row, store
        self.pairs = lab.spec.swap.pairs
        # A cell's results by pair, set and start; they come from several threads.
        self.found: dict[tuple[Any, ...], dict[Place, Row]] = {
            row_key(cell): self.on_file(cell) for cell in lab.todo
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
        for group in self.lab.draws():
            through = [cell for cell in group if comes_through_training(cell)]
            for pair in range(self.pairs):
                if cells := [cell for cell in through if self.places(cell, pair)]:
                    yield cells, pair

    def networks(self) -> int:
        """How many networks will be trained."""
        last = itertools.product(self.lab.todo, range(self.pairs))
        return sum(len(self.places(*one)) for one in last) + sum(
            self.lab.trainings(cells) for cells, _ in self.chains()
        )

    def jobs(self) -> Iterator[ensemble.Job]:
        """The first jobs of all pairs, made as they are asked for; chains first."""
        for cell in self.lab.todo:  # those of which all but the row is on file
            with self.lab.reporting([cell]):
                self.finish(cell)
        for through, pair in self.chains():
            yield from self.lab.guarded(through, self.chain, through, pair)
        direct = [cell for cell in self.lab.todo if not comes_through_training(cell)]
        for cell, pair in itertools.product(direct, range(self.pairs)):
            if self.places(cell, pair):
                yield from self.lab.guarded([cell], self.at_once, cell, pair)

    def chain(self, through: list[Cell], pair: int) -> list[ensemble.Job]:
        """The dense training of a pair, from which the masks of these cells come."""
        draw = self.lab.draw(through[0], pair)
        return self.lab.dense_job(draw, through, functools.partial(self.retrain, pair))

    def at_once(self, cell: Cell, pair: int) -> list[ensemble.Job]:
        """The jobs of a cell that is pruned at initialization."""
        draw = self.lab.draw(cell, pair)
        return self.retrain(pair, draw, cell, self.lab.mask(draw, cell), draw.params)

    def retrain(
        self, pair: int, draw: Draw, cell: Cell, mask: Mask, start: Params
    ) -> list[ensemble.Job]:
        """The jobs of a pair's mask: on each set, from each start."""
        other = self.lab.init(self.lab.key(OTHER_INIT, cell["init_seed"], pair))
        starts = dict(zip(STARTS, (start, other), strict=True))
        sets = self.sets(draw, cell, pair)
        return [
            job
            for place in self.places(cell, pair)
            for job in self.lab.job(
                sets[place[1]],
                cell,
                mask,
                starts[place[2]],
                functools.partial(self.take, sets[place[1]], cell, place),
            )
        ]

    def sets(self, draw: Draw, cell: Cell, pair: int) -> dict[str, Draw]:
        """The mask's own set; its inputs with fresh labels; a fresh set."""
        seed = cell["data_seed"]
        noise_key = self.lab.key(OTHER_NOISE, seed, pair)
        other = self.lab.dataset(cell["n"], self.lab.key(OTHER_DATA, seed, pair))
        return {
            OWN: draw,
            LABELS: draw.on(self.lab.relabeled(draw.dataset, cell, noise_key)),
            ALL: draw.on(self.lab.relabeled(other, cell, noise_key)),
        }

    def take(
        self,
        own: Draw,
        cell: Cell,
        place: Place,
        mask: Mask,
        result: training.TrainResult,
    ) -> list[ensemble.Job]:
        """Keeps what a network memorized; with the last of a cell comes its row."""
        network = {
            **self.lab.derived(own, mask, result),
            "out_of_budget": own.late + result.out_of_budget,
            "diverged": bool(result.diverged),
            "kept": self.lab.kept(mask),
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
        own = [found[pair, OWN, ""] for pair in range(self.pairs)]
        other = [found[pair, LABELS, ""] for pair in range(self.pairs)]
        points = [[one["memorized_points"] for one in some] for some in (own, other)]
        row = {
            **cell,
            "pairs": self.pairs,
            "confidence": self.lab.spec.swap.confidence,
            "memorized_points": sum(points[0]) / self.pairs,
            "memorized_points_swapped": sum(points[1]) / self.pairs,
            "swap_gaps": self.differences(found, LABELS, ""),
            "swap_gaps_reinit": self.differences(found, LABELS, "_reinit"),
            "margin": self.lab.spec.swap.margin,
            "out_of_budget": sum(one["out_of_budget"] for one in everyone),
            "trainings": len(everyone),
            "diverged": any(one["diverged"] for one in everyone),
            "collapsed_share": sum(one["collapsed"] for one in own) / self.pairs,
            "kept": own[0]["kept"],
            "classes": self.lab.classes,
            "seconds": sum(one["seconds"] for one in everyone),
        }
        for (name, prefix), start in itertools.product(GAPS.items(), STARTS):
            of = {
                which: [found[pair, which, start] for pair in range(self.pairs)]
                for which in (OWN, name)
            }
            row |= self.gaps(of[OWN], of[name], f"{prefix}{start}")
        return row

    def differences(self, found: dict[Place, Row], name: str, start: str) -> list[Any]:
        """The gap of each pair, in points: the mask's own set less another one."""
        return [
            found[pair, OWN, start]["memorized_points"]
            - found[pair, name, start]["memorized_points"]
            for pair in range(self.pairs)
        ]

    def gaps(self, own: list[Row], other: list[Row], prefix: str) -> Row:
        """The columns of one kind of gap; None where it is undefined."""
        columns = {
            f"{prefix}_out_of_budget": sum(one["out_of_budget"] for one in own + other)
        }
        for unit, names in {
            "memorized_points": ("points", "lower", "upper"),
            "memorized_bits": ("bits", "bits_lower", "bits_upper"),
        }.items():
            values = [[one[unit] for one in some] for some in (own, other)]
            known = None not in itertools.chain(*values)
            gap = (
                capacity.paired_gap(*values, confidence=self.lab.spec.swap.confidence)
                if known
                else (None,) * 3
            )
            for name, value in zip(names, gap, strict=True):
                columns[f"{prefix}_{name}"] = value if value == value else None
        return columns
