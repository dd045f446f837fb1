"""How much masks know of the data: K data sets a draw, a mask of each, bounds in nats.

The initial weights (``init_seed``) and the algorithm's own randomness (``train_seed``:
the order of batches and the scores' draws) are fixed; ``data_seed`` names the inputs
and the family of data sets, whose set ``k`` is drawn with ``fold_in(key, k)``. Under
``"labels"`` inputs and clean labels are those of the draw, and only the noise is drawn
anew; under ``"data"`` all is. No network is trained under a cell's final mask.
All trainings of a draw end at about the same time, and its rows come then.
"""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax import ensemble, information, masks
from nfp_jax.engine.bars import NoBar, bar_of
from nfp_jax.engine.jobs import Networks, Stats
from nfp_jax.engine.training import TrainResult
from nfp_jax.fields import SpecError
from nfp_jax.grid import Cell, by_draw
from nfp_jax.information.stacks import row_identities
from nfp_jax.lab.chains import Chains, Found, count_trainings
from nfp_jax.lab.each import AHEAD, parts
from nfp_jax.lab.jobs import AddRow, Failure, Step
from nfp_jax.lab.kept import keep_masks, kept_masks
from nfp_jax.lab.masking import counts_of, make_group, refuse
from nfp_jax.lab.run import summed
from nfp_jax.lab.setup import Engine, Setup, is_moving, is_through, set_up
from nfp_jax.lab.stacked import Stacks
from nfp_jax.lab.training import train_stacks
from nfp_jax.questions.information.family import (
    Family,
    filled,
    label_probabilities,
)
from nfp_jax.questions.information.reading import bound_masks, is_free
from nfp_jax.questions.information.simulated import reader_of_trained
from nfp_jax.results import Results, row_key
from nfp_jax.spec import Spec
from nfp_jax.types import Batch, Mask

# Data sets scored in one call, always: another number sums in another order, and a tie
# that falls the other way would read as information. 8 keep a core's cache, 32 a GPU.
AT_ONCE_CPU, AT_ONCE = 8, 32


class Made(NamedTuple):
    """The masks of a cell as they are kept on file.

    Attributes:
      masks: ``uint8[sets, ceil(P / 8)]``, the prunable weights, packed.
      labels: ``[sets, n]``, what each was made from.
      irreproducible: share of the masks made again that came out different.
      seconds: what making them took; of trainings shared with other cells, its part.
      out_of_budget: trainings on the way to all of them that used up their budget.
    """

    masks: np.ndarray
    labels: np.ndarray
    irreproducible: float
    seconds: float
    out_of_budget: int


def run(
    spec: Spec,
    todo: list[Cell],
    add_row: AddRow,
    *,
    progress: bool = False,
    store: Results | None = None,
    engine: Engine = ensemble.run,
) -> tuple[list[Failure], Stats]:
    """Makes the masks of the cells and hands over a row for each, with its bounds.

    Arguments and errors are those of ``experiments.run``. Masks are kept in ``store``
    as soon as a cell has all of them, and taken from there.
    """
    start = time.perf_counter()
    setup = set_up(spec, todo, engine=engine)
    check_init(setup)
    work, trained = Information(setup, add_row, store), []
    for group in by_draw(todo):
        with setup.failures.reporting(group):
            trained += work.do(group, progress=progress)
    return setup.failures.kept, summed(trained, time.perf_counter() - start)


def check_init(setup: Setup) -> None:
    """Raises where initial weights saw what is resampled.

    Masks then know of it through the weights too, which are held fixed here.
    """
    given = {"nothing", "inputs"}
    if setup.spec.settings.conditioning == "data":
        given = {"nothing"}
    if setup.init_sees not in given:
        raise SpecError(
            f"model.init is {setup.spec.model.settings['init']!r}, whose weights saw "
            f"points of {setup.spec.data.name!r}: what they know would have to be "
            "counted, expected a set without a common point, as 'half'"
        )


class Information:
    """From cells to masks, found on file or made, and from these to rows."""

    def __init__(self, setup: Setup, add_row: AddRow, store: Results | None) -> None:
        self.setup, self.add_row, self.store = setup, add_row, store
        cpu = jax.default_backend() == "cpu"
        usual = AT_ONCE_CPU if cpu else AT_ONCE
        self.at_once = setup.spec.engine.score_at_once or usual
        self.stacks = Stacks(setup)
        ravel = functools.partial(masks.ravel_mask, prunable=setup.prunable)
        self.pack = jax.jit(lambda mask: jnp.packbits(jax.vmap(ravel)(mask), axis=1))
        self.collapsed = jax.jit(jax.vmap(self.row_collapsed))

    def do(self, group: list[Cell], *, progress: bool) -> list[Stats]:
        """Hands over the rows of a draw's cells; what its trainings took, if any."""
        family = Family(self.setup, group[0])
        missing = []
        for cell in group:
            with self.setup.failures.reporting([cell]):
                if made := self.on_file(family, cell):
                    self.finish(family, cell, made)
                else:
                    missing.append(cell)
        direct = [cell for cell in missing if not self.trains(cell)]
        shown = progress and direct
        with bar_of(len(direct), "cell") if shown else NoBar() as bar:
            for cell in direct:
                with self.setup.failures.reporting([cell]):
                    self.finish(family, cell, self.make_direct(family, cell))
                bar.update(1)
        through = [cell for cell in missing if self.trains(cell)]
        if not through:
            return []
        packed, late, stats = self.make_through_training(
            family, through, progress=progress
        )
        seconds = stats.seconds / len(through)
        whole = []  # all are put on file before any is bounded, which may take long
        for cell in self.without_failures(through):
            with self.setup.failures.reporting([cell]):
                key = row_key(cell)
                made = self.made(
                    family, cell, packed[key], seconds, int(late[key].sum())
                )
                whole.append((cell, made))
        for cell, made in whole:
            with self.setup.failures.reporting([cell]):
                self.finish(family, cell, made)
        return [stats]

    def trains(self, cell: Cell) -> bool:
        """Whether its masks come through training, or move during it."""
        return is_through(self.setup, cell) or is_moving(self.setup, cell)

    def on_file(self, family: Family, cell: Cell) -> Made | None:
        """The masks of a cell, if all of them are on file."""
        count, n = family.labels.shape
        shapes: dict[str, tuple[int, ...]] = {
            "masks": (count, -(-self.setup.total // 8)),
            "labels": (count, n),
            **dict.fromkeys(("irreproducible", "seconds", "out_of_budget"), ()),
        }
        arrays = kept_masks(self.store, cell, shapes)
        if arrays is None:
            return None
        return Made(
            arrays["masks"][:count],
            arrays["labels"][:count],
            float(arrays["irreproducible"]),
            float(arrays["seconds"]),
            int(arrays["out_of_budget"]),
        )

    def make_direct(self, family: Family, cell: Cell) -> Made:
        """Makes the masks of a cell that is pruned at initialization.

        Group by group, by one program, whose masks are packed where they are. A few
        groups are under way at a time, so the memory is theirs and ``ceil(P / 8)``
        bytes a mask; the host takes them when all are dispatched.
        """
        start, size = time.perf_counter(), self.at_once
        sees = self.setup.sees[cell["pruner"]]
        groups = parts(family.order, size)
        # All sets look alike to it: one group is every group, made twice to compare.
        alike = sees == "nothing" or (sees == "inputs" and not family.resampled)
        keep, found = counts_of(self.setup, cell), []
        for sets in [groups[0]] * 2 if alike else groups:
            x_axis, batch = self.shown(sees, family, sets)
            mask, nans = make_group(
                self.setup,
                cell,
                family.draw.params,
                batch,
                family.draw.score_key,
                in_axes=(None, (x_axis, 0), None),
                keep=keep,
            )
            found.append((self.pack(mask), nans))
            if len(found) > AHEAD:
                jax.block_until_ready(found[-1 - AHEAD])
        bits, counts = zip(*jax.device_get(found), strict=True)
        packed, nans = np.concatenate(bits), np.concatenate(counts)
        if nans.any():
            refuse(self.setup, cell, nans[nans.any(axis=1)][0])
        if alike:
            count, places = len(family.labels), np.arange(len(family.order))
            packed = packed[places % size + np.where(places < count, 0, size)]
        seconds = time.perf_counter() - start
        return self.made(family, cell, packed[: len(family.order)], seconds, 0)

    def shown(
        self, sees: str, family: Family, sets: list[int]
    ) -> tuple[int | None, Batch]:
        """The sets as a pruner is shown them, and the axis of their inputs.

        Zeros for labels that it does not see; the draw's inputs where it sees none.
        """
        x, y = family.batch(sets, self.at_once)
        if sees == "nothing":
            return None, (family.x, np.zeros_like(y))
        axis = 0 if family.resampled else None
        return axis, (x, np.zeros_like(y) if sees == "inputs" else y)

    def make_through_training(
        self, family: Family, through: list[Cell], *, progress: bool
    ) -> tuple[dict[Any, np.ndarray], dict[Any, np.ndarray], Stats]:
        """The masks of cells that come through training, from the same trainings; how
        many of these used up their budget, of each mask; and what they took.
        """
        shape = len(family.order), -(-self.setup.total // 8)
        packed = {row_key(cell): np.zeros(shape, np.uint8) for cell in through}
        late = {row_key(cell): np.zeros(shape[0], int) for cell in through}

        def keep(found: Found) -> list[Networks]:
            for i, bits in enumerate(self.packed(found.mask)[: len(found.cells)]):
                key, place = row_key(found.cells[i]), found.wheres[i]
                packed[key][place], late[key][place] = bits, found.late[i]
            return []

        def moved(
            steps: list[Step], rows: list[int], results: TrainResult
        ) -> list[Networks]:
            bits = self.packed(results.mask)
            for step, row in zip(steps, rows, strict=True):
                key, place = row_key(step.cells[0]), step.of
                packed[key][place] = bits[row]
                late[key][place] = not (results.converged[row] or results.diverged[row])
            return []

        stacks = self.stacks
        draws_of = functools.partial(family.draws, stacks)
        chains = Chains(stacks, draws_of, keep)
        moving = [cell for cell in through if is_moving(self.setup, cell)]

        def makers() -> Iterator[Callable[[], list[Networks]]]:
            for places in parts(list(range(len(family.order))), stacks.size):
                left = self.without_failures(through)
                for cell in (cell for cell in left if cell in moving):
                    yield functools.partial(move, cell, places)
                if rest := [cell for cell in left if cell not in moving]:
                    yield functools.partial(
                        chains.begin, [(rest, place) for place in places]
                    )

        def move(cell: Cell, places: list[int]) -> list[Networks]:
            """The trainings that move the masks of a cell."""
            begin = functools.partial(move_together, cell)
            return stacks.made([[cell]] * len(places), places, begin)

        def move_together(cell: Cell, places: list[int]) -> list[Networks]:
            cells, draws = [cell] * len(places), draws_of(places)
            sizes = [cell["n"]] * len(places)
            mask, nans = stacks.masks(cells, draws, sizes)
            if stacks.refused([[cell]] * len(places), nans):
                return []
            steps = [Step([cell], moved, place) for place in places]
            return [stacks.networks(sizes, draws, mask, draws.params, steps)]

        rest = [cell for cell in through if cell not in moving]
        each = len(moving) + count_trainings(self.setup, rest)
        networks = stacks.ahead(makers())
        total = len(family.order) * each
        return (
            packed,
            late,
            train_stacks(self.setup, networks, total, progress=progress),
        )

    def packed(self, mask: Mask) -> np.ndarray:
        """Stacked masks as bits of prunable weights, ``uint8[k, ceil(P / 8)]``."""
        found: np.ndarray = jax.device_get(self.pack(mask))
        return found

    def without_failures(self, cells: list[Cell]) -> list[Cell]:
        """The cells of which no mask has failed."""
        failed = self.setup.failures.cells()
        return [cell for cell in cells if cell not in failed]

    def made(
        self,
        family: Family,
        cell: Cell,
        packed: np.ndarray,
        seconds: float,
        late: int,
    ) -> Made:
        """The masks of a cell made in the order of the family, and put on file."""
        count = len(family.labels)
        differ = np.any(packed[count:] != packed[family.again], axis=1)
        share = float(differ.mean())
        made = Made(packed[:count], family.labels, share, seconds, late)
        keep_masks(self.store, cell, made._asdict())
        return made

    def finish(self, family: Family, cell: Cell, made: Made) -> None:
        """Hands over the row of a cell."""
        setup, settings = self.setup, self.setup.spec.settings
        drawn = family.of_drawn()
        packed, labels = made.masks[drawn], made.labels[drawn].astype(np.int32)
        found = np.unpackbits(packed, axis=1, count=setup.total).view(bool)
        start = time.perf_counter()
        # Those of thousands of sets are large, and nothing would look at them.
        x = None if is_free(setup, cell) else family.inputs()
        trained = functools.partial(
            reader_of_trained, self.stacks, family, cell, settings.decoded
        )
        interval, fallbacks = bound_masks(
            setup, family.draw, cell, found, labels, x, trained
        )
        seconds = time.perf_counter() - start
        _, first, counts = np.unique(
            row_identities(packed), return_index=True, return_counts=True
        )
        collapsed = self.which_collapsed(packed[first])
        probabilities = label_probabilities(setup, family.draw, cell)
        kept = int(found[0].sum())
        p_eff = information.effective_parameters(kept, interval)
        ids = row_identities(made.masks) if family.enumerated else None
        exact = None if ids is None else information.entropy(ids)
        self.add_row(
            {
                **cell,
                "information_lower": interval.lower,
                "information_upper": interval.upper,
                "information_exact": exact,
                "information_lower_by": interval.lower_by,
                "information_upper_by": interval.upper_by,
                "decoder_fallbacks": fallbacks,
                "p_eff_lower": p_eff[0],
                "p_eff_upper": p_eff[1],
                "kept": kept,
                "datasets": settings.datasets,
                "conditioning": settings.conditioning,
                "confidence": settings.confidence,
                "irreproducible": made.irreproducible,
                "distinct_masks": len(counts),
                "collapsed_share": float(collapsed @ counts / counts.sum()),
                "out_of_budget": made.out_of_budget,
                "seconds": made.seconds,
                "bound_seconds": seconds,
                "classes": setup.classes,
                "label_entropy": None
                if probabilities is None
                else information.label_entropy(probabilities, conditioning="labels"),
                "prunable": setup.total,
            }
        )

    def which_collapsed(self, packed: np.ndarray) -> np.ndarray:
        """Which packed masks have no path left, ``bool[k]``; a group at a time."""
        groups = parts(list(range(len(packed))), self.at_once)
        found = [self.collapsed(packed[filled(x, self.at_once)]) for x in groups]
        return np.concatenate(jax.device_get(found))[: len(packed)]

    def row_collapsed(self, bits: jax.Array) -> jax.Array:
        """Whether a packed mask has no path left."""
        setup = self.setup
        row = jnp.unpackbits(bits, count=setup.total).astype(bool)
        mask = masks.unravel_mask(row, setup.shapes, prunable=setup.prunable)
        return masks.collapsed(setup.model.apply, mask, setup.input_shape)
