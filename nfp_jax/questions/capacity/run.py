"""How many points a masked network can memorize: one search over n a cell.

``n`` of a cell is the end of its search. At each n that is tried the mask is found
anew, on the first n points of the cell's set, and the network is retrained under it;
the searches of all cells share one queue. An n counts as not fitted when
``capacity.tries`` trainings, each with its own order of batches, have failed; where one
of the deciding failures used up its budget, the capacity is "at least".
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from nfp_jax import capacity, ensemble
from nfp_jax.engine.jobs import Networks, Stats
from nfp_jax.engine.training import TrainResult
from nfp_jax.fields import SpecError
from nfp_jax.grid import DENSE, Cell, grouped
from nfp_jax.lab.chains import Chains, Found
from nfp_jax.lab.columns import Last, measured_of, summary_of
from nfp_jax.lab.jobs import AddRow, Failure, Row, Step
from nfp_jax.lab.kept import keep_network, kept_networks
from nfp_jax.lab.names import settled
from nfp_jax.lab.one_network import Draws
from nfp_jax.lab.setup import Engine, Setup, is_through, set_up
from nfp_jax.lab.stacked import Stacks, filled
from nfp_jax.lab.trainer import Budget
from nfp_jax.lab.training import train_stacks
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
    work = Capacity(setup, add_row, store)
    # How many networks a search takes is known only when it has ended.
    stats = train_stacks(
        setup, work.networks(), None, summary=summary_of(setup), progress=progress
    )
    return setup.failures.kept, stats


class Place(NamedTuple):
    """The first n points of a cell's set, on which its search is."""

    searched: "Searched"
    n: int


class Try(NamedTuple):
    """A training under the mask that was found.

    Attributes:
      place: the search, and its n.
      mask: masks, stacked, of which it has one in the row of its draw.
      start: weights to train from, likewise.
      failed: trainings before it that have not fitted the points, each with another
        order of batches.
      spent: their seconds.
    """

    place: Place
    mask: Mask
    start: Params
    failed: int = 0
    spent: float = 0.0


class Capacity:
    """The searches of a run: from what each has tried to its next networks."""

    def __init__(
        self, setup: Setup, add_row: AddRow, store: Results | None = None
    ) -> None:
        self.setup, self.add_row, self.store = setup, add_row, store
        self.stacks = Stacks(setup)
        self.chains = Chains(
            self.stacks, self.draws_of, self.begun, size_of=lambda cell, where: where.n
        )

    def draws_of(self, wheres: list[Place]) -> Draws:
        """The sets of these searches."""
        return self.stacks.draws([where.searched.cell for where in wheres])

    def networks(self) -> Iterator[Networks]:
        """Yields the first networks of all searches, as they are asked for."""
        searches = []
        for cell in self.setup.todo:
            with self.setup.failures.reporting([cell]):
                search = Searched(self.setup, cell, self.add_row, self.store)
                searches.append(search)
        yield from self.stacks.ahead(self.makers(searches))

    def makers(
        self, searches: list["Searched"]
    ) -> Iterator[Callable[[], list[Networks]]]:
        """What makes the networks of the next n of these searches, where there is one.

        What takes longest comes first: trainings on the way to masks.
        """
        through, direct = [], []
        for searched in searches:
            cell = searched.cell
            with self.setup.failures.reporting([cell]):
                if (n := searched.next_n()) is None:
                    continue
                where = Place(searched, n)
                if is_through(self.setup, cell) and cell["pruner"] != DENSE:
                    through.append(([cell], where))
                else:
                    direct.append((cell, where))
        yield from self.chains.makers(through, direct)

    def begun(self, found: Found) -> list[Networks]:
        """The first trainings under masks that were found."""
        mask, start = self.stacks.ablated(found.cells, found.mask, found.start)
        draws = found.draws.data()
        steps = [
            Step(
                [cell],
                self.ended,
                Last(draws, row, where.n, late, Try(where, mask, start)),
            )
            for row, (cell, where, late) in enumerate(
                zip(found.cells, found.wheres, found.late, strict=True)
            )
        ]
        return [self.stacks.networks(found.sizes, draws, mask, start, steps)]

    def ended(
        self, steps: list[Step], rows: list[int], results: TrainResult
    ) -> list[Networks]:
        """Judges networks that ended together; returns what is trained next."""
        again, on = [], []
        measured = measured_of(self.stacks, steps, rows, results)
        for step, row, network in zip(steps, rows, measured, strict=True):
            with self.setup.failures.reporting(step.cells):
                accuracy = float(results.metrics["accuracy"][row])
                searched = step.of.of.place.searched
                if following := searched.judge(step.of, accuracy, network):
                    again.append(Step(step.cells, self.ended, following))
                else:
                    on.append(searched)
        further = self.repeated(again)
        for make in self.makers(on):
            further += make()
        return further

    def repeated(self, steps: list[Step]) -> list[Networks]:
        """Trainings under masks of before, with another order of batches."""
        further = []
        for same in grouped(steps, lambda step: id(step.of.of.mask)):
            owners = [step.cells for step in same]
            further += self.stacks.made(owners, same, self.repeated_together)
        return further

    def repeated_together(self, steps: list[Step]) -> list[Networks]:
        """Those of a stack, whose masks are of one stack."""
        stacks, lasts = self.stacks, [step.of for step in steps]
        first, size = lasts[0], max(self.stacks.size, len(lasts))
        draws, mask, start, key = stacks.compiled(("again", size), _again)(
            first.draws,
            first.of.mask,
            first.of.start,
            filled([last.row for last in lasts], size, np.int32),
            filled([last.of.failed for last in lasts], size, np.uint32),
        )
        again = []
        for row, step in enumerate(steps):
            trial = step.of.of._replace(mask=mask, start=start)
            last = step.of._replace(draws=draws, row=row, of=trial)
            again.append(Step(step.cells, self.ended, last))
        other, sizes = draws._replace(train_key=key), [last.size for last in lasts]
        return [stacks.networks(sizes, other, mask, start, again)]


# What is kept of an n that was tried.
FIELDS = frozenset(
    {
        "n",
        "fits",
        "accuracy",
        "bits",
        "collapsed",
        "tries",
        "out_of_budget",
        "diverged",
        "kept",
        "seconds",
    }
)


class Searched:
    """The search of one cell: from what it has tried to the next n, or its row."""

    def __init__(
        self, setup: Setup, cell: Cell, add_row: AddRow, store: Results | None = None
    ) -> None:
        self.setup, self.cell, self.add_row, self.store = setup, cell, add_row, store
        self.search = capacity.Search(cell["n"], setup.spec.settings.precision)
        self.tried: list[Row] = []
        kept = kept_networks(store, cell, FIELDS)
        self.on_file = {one["n"]: one for one in kept}

    def next_n(self) -> int | None:
        """The next n to try; where there is none, the row is handed over."""
        while (n := self.search.next_n()) in self.on_file:
            self.take(self.on_file[n])
        if n is None:
            self.add_row(self.row())
        return n

    def judge(self, last: Last, accuracy: float, network: Row) -> Last | None:
        """Whether the points are fitted; what is tried again, if anything is.

        Args:
          last: the training that ended.
          accuracy: on its points.
          network: what else was measured of it.
        """
        settings, trial = self.setup.spec.settings, last.of
        diverged = network["diverged"]
        fitted = not diverged and capacity.fits(accuracy, last.size, settings.share)
        late = last.late if fitted else network["out_of_budget"]
        tries, spent = trial.failed + 1, trial.spent + network["seconds"]
        if not fitted and tries < settings.tries:
            return last._replace(
                late=late, of=trial._replace(failed=tries, spent=spent)
            )
        one = {
            "n": last.size,
            "fits": fitted,
            "accuracy": accuracy,
            "bits": network["memorized_bits"],
            "collapsed": network["collapsed"],
            "tries": tries,
            "out_of_budget": late,
            "diverged": diverged,
            "kept": network["kept"],
            "seconds": spent,
        }
        self.take(one)
        keep_network(self.store, self.cell, one)
        return None

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


def _again(
    draws: Draws, mask: Mask, start: Params, rows: Any, failed: Any
) -> tuple[Draws, Mask, Params, jax.Array]:
    """Draws, masks and weights of these rows, and the keys of other orders of batches.

    Each is of the first order, however often the network has failed.
    """
    draws, mask, start = jax.tree.map(lambda leaf: leaf[rows], (draws, mask, start))
    key = jax.vmap(jax.random.fold_in)(draws.train_key, failed)
    return draws, mask, start, key
