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

from nfp_jax import capacity, ensemble
from nfp_jax.engine.jobs import Job, Stats
from nfp_jax.engine.training import TrainResult
from nfp_jax.fields import SpecError
from nfp_jax.grid import DENSE, Cell
from nfp_jax.lab.columns import derived, kept
from nfp_jax.lab.draws import Draw, draw_of, first
from nfp_jax.lab.jobs import AddRow, Failure, Row
from nfp_jax.lab.kept import keep_network, kept_networks
from nfp_jax.lab.masking import make_mask
from nfp_jax.lab.names import settled
from nfp_jax.lab.setup import Engine, Setup, is_through, set_up
from nfp_jax.lab.trainer import Budget
from nfp_jax.lab.training import last_job, train_all
from nfp_jax.lab.trajectories import dense_job
from nfp_jax.results import Results
from nfp_jax.spec import Spec
from nfp_jax.types import Mask, Params


def run(
    spec: Spec,
    todo: list[Cell],
    add_row: AddRow,
    *,
    progress: bool = False,
    store: Results | None = None,
    engine: Engine = ensemble.run,
) -> tuple[list[Failure], Stats]:
    """Searches the capacity of each cell and hands over a row for it.

    Arguments and errors are those of ``experiments.run``. What a search has tried is
    kept in ``store``, where a resumed run goes on from it.

    Raises:
      SpecError: the share asked for is one that a constant reaches.
    """
    share = spec.settings.share
    budget = Budget(settled(spec.train, share), spec.settings.max_steps)
    setup = set_up(spec, todo, budget=budget, engine=engine)
    if share <= 1 / setup.classes:
        raise SpecError(
            f"capacity.share is {share}, expected more than chance, 1/{setup.classes}"
        )

    def begin(cell: Cell) -> list[Job]:
        return Searched(setup, cell, add_row, store).following()

    def jobs() -> Iterator[Job]:
        # What takes longest first: the trajectories of the sparsest networks.
        for cell in sorted(todo, key=lambda cell: not is_through(setup, cell)):
            yield from setup.failures.guarded([cell], begin, cell)

    # How many networks a search takes is known only when it has ended.
    stats = train_all(setup, jobs(), None, progress=progress)
    return setup.failures.kept, stats


class Searched:
    """The search of one cell: from what it has tried to the next jobs, or its row."""

    def __init__(
        self, setup: Setup, cell: Cell, add_row: AddRow, store: Results | None = None
    ) -> None:
        self.setup, self.cell, self.add_row, self.store = setup, cell, add_row, store
        self.search = capacity.Search(cell["n"], setup.spec.settings.precision)
        self.draw = draw_of(setup, cell)
        self.tried: list[Row] = []
        self.on_file = {one["n"]: one for one in kept_networks(store, cell)}

    def following(self) -> list[Job]:
        """The jobs of the next n to try; none, and the row, where there is no more."""
        while (n := self.search.next_n()) in self.on_file:
            self.take(self.on_file[n])
        if n is None:
            self.add_row(self.row())
            return []
        draw, cell = first(self.draw, n), self.cell
        if cell["pruner"] == DENSE or not is_through(self.setup, cell):
            mask = make_mask(self.setup, draw, cell)
            return self.train(draw, cell, mask, draw.params)
        return dense_job(self.setup, draw, [cell], self.train)

    def train(
        self,
        draw: Draw,
        cell: Cell,
        mask: Mask,
        start: Params,
        failed: int = 0,
        spent: float = 0.0,
    ) -> list[Job]:
        """The training under the mask that was found; ``failed`` of them have not
        fitted the points in ``spent`` seconds, and this one sees batches in another
        order.
        """
        key = jax.random.fold_in(draw.train_key, failed) if failed else None

        def again(draw: Draw, spent: float) -> list[Job]:
            return self.train(draw, cell, mask, start, failed + 1, spent)

        then = functools.partial(self.judge, draw, failed, spent, again)
        return [last_job(self.setup, draw, cell, mask, start, then, key=key)]

    def judge(
        self,
        draw: Draw,
        failed: int,
        spent: float,
        again: Callable[[Draw, float], list[Job]],
        result: TrainResult,
    ) -> list[Job]:
        """Whether the points are fitted, and the jobs that follow from it."""
        n, accuracy = draw.n, float(result.metrics["accuracy"])
        settings = self.setup.spec.settings
        fitted = not result.diverged and capacity.fits(accuracy, n, settings.share)
        late = draw.late + (not fitted and result.out_of_budget)
        tries, spent = failed + 1, spent + result.seconds
        if not fitted and tries < settings.tries:
            return again(draw._replace(late=late), spent)
        columns = derived(self.setup, draw, result)
        one = {
            "n": n,
            "fits": fitted,
            "accuracy": accuracy,
            "bits": columns["memorized_bits"],
            "collapsed": columns["collapsed"],
            "tries": tries,
            "out_of_budget": late,
            "diverged": bool(result.diverged),
            "kept": kept(self.setup, result.mask),
            "seconds": spent,
        }
        self.take(one)
        keep_network(self.store, self.cell, one)
        return self.following()

    def take(self, one: Row) -> None:
        """Goes on with what is known of an n that was tried."""
        self.tried.append(one)
        self.search = self.search.told(one["n"], one["fits"])

    def undecided(self, by_n: dict[int, Row]) -> bool:
        """Whether the failure that ended the search was one of the budget."""
        unfitted = self.search.unfitted
        return unfitted is not None and by_n[unfitted]["out_of_budget"] > 0

    def row(self) -> Row:
        """The row of the cell."""
        search, tried = self.search, sorted(self.tried, key=lambda one: one["n"])
        weights = tried[-1]["kept"]
        by_n: dict[int, Any] = {one["n"]: one for one in tried}
        bits = by_n[search.fitted]["bits"] if search.fitted else 0.0
        return {
            **self.cell,
            "capacity": search.fitted,
            "capacity_upper": search.unfitted,
            "capacity_at_least": search.at_least or self.undecided(by_n),
            "capacity_bits": bits,
            "capacity_bits_per_weight": bits and bits / weights,
            "share": self.setup.spec.settings.share,
            "tried": [one["n"] for one in tried],
            "fitted": [one["accuracy"] for one in tried],
            "out_of_budget": sum(one["out_of_budget"] for one in tried),
            "trainings": sum(one["tries"] for one in tried),
            "diverged": any(one["diverged"] for one in tried),
            "collapsed": tried[-1]["collapsed"],
            "kept": weights,
            "classes": self.setup.classes,
            "seconds": sum(one["seconds"] for one in tried),
        }
