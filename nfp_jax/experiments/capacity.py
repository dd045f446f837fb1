"""How many points a masked network can memorize: one search over n a cell.

``n`` of a cell is the end of its search. At each n that is tried the mask is found
anew, on the first n points of the cell's set, and the network is retrained under it;
the searches of all cells share one queue. An n counts as not fitted when
``capacity.tries`` trainings, each with its own order of batches, have failed; where one
of the deciding failures used up its budget, the capacity is "at least".
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax

from nfp_jax import capacity, ensemble, training
from nfp_jax.experiments.lab import (
    AddRow,
    Draw,
    Failure,
    Lab,
    keep_network,
    kept_networks,
)
from nfp_jax.experiments.tables import comes_through_training, settled
from nfp_jax.experiments.trainer import Budget
from nfp_jax.masks import Mask, Params
from nfp_jax.results import Results
from nfp_jax.spec import Cell, Spec, SpecError


def run(
    spec: Spec,
    todo: list[Cell],
    add_row: AddRow,
    *,
    progress: bool = False,
    store: Results | None = None,
) -> tuple[list[Failure], ensemble.Stats]:
    """Searches the capacity of each cell and hands over a row for it.

    Arguments and errors are those of ``experiments.run``. What a search has tried is
    kept in ``store``, where a resumed run goes on from it.

    Raises:
      SpecError: the share asked for is one that a constant reaches.
    """
    share = spec.capacity.share
    budget = Budget(settled(spec.train, share), spec.capacity.max_steps)
    lab = Lab(spec, todo, budget)
    if share <= 1 / lab.classes:
        raise SpecError(
            f"capacity.share is {share}, expected more than chance, 1/{lab.classes}"
        )

    def begin(cell: Cell) -> list[ensemble.Job]:
        return Searched(lab, cell, add_row, store).following()

    def jobs() -> Iterator[ensemble.Job]:
        # What takes longest first: the trajectories of the sparsest networks.
        for cell in sorted(todo, key=lambda cell: not comes_through_training(cell)):
            yield from lab.guarded([cell], begin, cell)

    # How many networks a search takes is known only when it has ended.
    stats = lab.train(jobs(), None, progress=progress)
    return lab.failures, stats


class Searched:
    """The search of one cell: from what it has tried to the next jobs, or its row."""

    def __init__(
        self, lab: Lab, cell: Cell, add_row: AddRow, store: Results | None = None
    ) -> None:
        self.lab, self.cell, self.add_row, self.store = lab, cell, add_row, store
        self.search = capacity.Search(cell["n"], lab.spec.capacity.precision)
        self.draw = lab.draw(cell)
        self.tried: list[dict[str, Any]] = []
        self.on_file = {one["n"]: one for one in kept_networks(store, cell)}

    def following(self) -> list[ensemble.Job]:
        """The jobs of the next n to try; none, and the row, where there is no more."""
        while (n := self.search.next_n()) in self.on_file:
            self.take(self.on_file[n])
        if n is None:
            self.finish()
            return []
        draw, cell = self.draw.first(n), self.cell
        if cell["pruner"] == "dense" or not comes_through_training(cell):
            return self.train(draw, cell, self.lab.mask(draw, cell), draw.params)
        return self.lab.dense_job(draw, [cell], self.train)

    def train(
        self,
        draw: Draw,
        cell: Cell,
        mask: Mask,
        start: Params,
        failed: int = 0,
        spent: float = 0.0,
    ) -> list[ensemble.Job]:
        """The training under the mask that was found; ``failed`` of them have not
        fitted the points in ``spent`` seconds, and this one sees batches in another
        order.
        """
        key = (
            draw.train_key if not failed else jax.random.fold_in(draw.train_key, failed)
        )

        def again(draw: Draw, spent: float) -> list[ensemble.Job]:
            return self.train(draw, cell, mask, start, failed + 1, spent)

        then = functools.partial(self.judge, draw, failed, spent, again)
        return self.lab.job(draw._replace(train_key=key), cell, mask, start, then)

    def judge(
        self,
        draw: Draw,
        failed: int,
        spent: float,
        again: Callable[[Draw, float], list[ensemble.Job]],
        mask: Mask,
        result: training.TrainResult,
    ) -> list[ensemble.Job]:
        """Whether the points are fitted, and the jobs that follow from it."""
        n, accuracy = len(draw.data[1]), float(result.metrics["accuracy"])
        share = self.lab.spec.capacity.share
        fitted = not result.diverged and capacity.fits(accuracy, n, share)
        late = draw.late + (not fitted and result.out_of_budget)
        tries, spent = failed + 1, spent + result.seconds
        if not fitted and tries < self.lab.spec.capacity.tries:
            return again(draw._replace(late=late), spent)
        derived = self.lab.derived(draw, mask, result)
        one = {
            "n": n,
            "fits": fitted,
            "accuracy": accuracy,
            "bits": derived["memorized_bits"],
            "collapsed": derived["collapsed"],
            "tries": tries,
            "out_of_budget": late,
            "diverged": bool(result.diverged),
            "kept": self.lab.kept(mask),
            "seconds": spent,
        }
        self.take(one)
        keep_network(self.store, self.cell, one)
        return self.following()

    def take(self, one: dict[str, Any]) -> None:
        """Goes on with what is known of an n that was tried."""
        self.tried.append(one)
        self.search = self.search.told(one["n"], one["fits"])

    def undecided(self, of_n: dict[int, dict[str, Any]]) -> bool:
        """Whether the failure that ended the search was one of the budget."""
        unfitted = self.search.unfitted
        return unfitted is not None and of_n[unfitted]["out_of_budget"] > 0

    def finish(self) -> None:
        """Hands over the row."""
        search, tried = self.search, sorted(self.tried, key=lambda one: one["n"])
        kept = tried[-1]["kept"]
        of_n = {one["n"]: one for one in tried}
        bits = of_n[search.fitted]["bits"] if search.fitted else 0.0
        self.add_row(
            {
                **self.cell,
                "capacity": search.fitted,
                "capacity_upper": search.unfitted,
                "capacity_at_least": search.at_least or self.undecided(of_n),
                "capacity_bits": bits,
                "capacity_bits_per_weight": bits and bits / kept,
                "share": self.lab.spec.capacity.share,
                "tried": [one["n"] for one in tried],
                "fitted": [one["accuracy"] for one in tried],
                "out_of_budget": sum(one["out_of_budget"] for one in tried),
                "trainings": sum(one["tries"] for one in tried),
                "diverged": any(one["diverged"] for one in tried),
                "collapsed": tried[-1]["collapsed"],
                "kept": kept,
                "classes": self.lab.classes,
                "seconds": sum(one["seconds"] for one in tried),
            }
        )
