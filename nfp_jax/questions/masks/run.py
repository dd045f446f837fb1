"""Masks as they are: how many weights they keep, by which ties, how fast, and which.

No network is trained under a cell's final mask. A row has the mask itself, packed, so
that the overlap of any two masks of a draw is known from rows alone.
"""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax import ensemble, masks
from nfp_jax.engine.jobs import Networks, Stats
from nfp_jax.engine.training import TrainResult
from nfp_jax.grid import Cell, by_draw
from nfp_jax.lab.chains import Chains, Found, count_trainings
from nfp_jax.lab.jobs import AddRow, Failure, Row, Step
from nfp_jax.lab.masking import counts_of, mask_fn_of
from nfp_jax.lab.setup import Engine, Setup, is_moving, is_through, set_up
from nfp_jax.lab.stacked import Stacks, filled, size_of
from nfp_jax.lab.training import train_stacks
from nfp_jax.masks.prunable import prunable_leaves
from nfp_jax.masks.values import unflatten_mask
from nfp_jax.pruners.by_score import ByScore
from nfp_jax.results import Results
from nfp_jax.spec import Spec
from nfp_jax.types import Mask, Prunable, Scores


def run(
    spec: Spec,
    todo: list[Cell],
    add_row: AddRow,
    *,
    progress: bool = False,
    store: Results | None = None,
    engine: Engine = ensemble.run,
) -> tuple[list[Failure], Stats]:
    """Makes the masks of the cells and hands over a row for each.

    Arguments and errors are those of ``experiments.run``. Rows of masks that come
    through training are handed over when all of these trainings have ended, with their
    part of the seconds.
    """
    setup = set_up(spec, todo, engine=engine)
    work = Masks(setup, add_row)
    stats = train_stacks(setup, work.networks(), work.count(), progress=progress)
    if work.trained:
        seconds = stats.train_seconds / len(work.trained)
        for row in work.trained:
            with setup.failures.reporting([row]):
                add_row({**row, "seconds": seconds})
    return setup.failures.kept, stats


class Masks:
    """From cells to masks, and from these to rows."""

    def __init__(self, setup: Setup, add_row: AddRow) -> None:
        self.setup, self.add_row = setup, add_row
        self.stacks = Stacks(setup, any_count=True)
        self.trained: list[Row] = []  # rows that wait for their seconds
        self.measured = jax.jit(jax.vmap(functools.partial(measured_one, setup)))
        through = [cell for cell in setup.todo if is_through(setup, cell)]
        self.groups = by_draw(through)
        self.moving = [cell for cell in setup.todo if is_moving(setup, cell)]

    def count(self) -> int:
        """How many networks will be trained on the way to masks."""
        trajectories = (count_trainings(self.setup, group) for group in self.groups)
        return len(self.moving) + sum(trajectories)

    def networks(self) -> Iterator[Networks]:
        """Makes the masks at initialization; yields what is trained for the others."""
        trains = [*self.moving, *(cell for group in self.groups for cell in group)]
        for cell in self.setup.todo:
            if cell not in trains:
                with self.setup.failures.reporting([cell]):
                    self.at_initialization(cell)
        chains = Chains(self.stacks, self.stacks.draws, self.cut)
        makers = chains.makers([(group, group[0]) for group in self.groups], [])
        yield from self.stacks.ahead([*makers, *map(self.mover, self.moving)])

    def at_initialization(self, cell: Cell) -> None:
        """Hands over the row of a mask before training.

        It is made twice: the first call compiles, the second is timed.
        """
        stacks, sizes = self.stacks, [cell["n"]]
        draws = stacks.draws([cell])
        mask, nans = stacks.masks([cell], draws, sizes)
        if stacks.refused([[cell]], nans):
            return
        start = time.perf_counter()
        jax.block_until_ready(stacks.masks([cell], draws, sizes))
        seconds = (time.perf_counter() - start) / size_of(draws)
        tied = ties_of(stacks, cell, draws)
        [row] = self.rows([cell], mask, [0])
        self.add_row({**row, "tied": tied, "seconds": seconds})

    def cut(self, found: Found) -> list[Networks]:
        """Keeps the rows of masks that were cut from trained weights."""
        self.trained += self.rows(found.cells, found.mask, found.late)
        return []

    def mover(self, cell: Cell) -> Callable[[], list[Networks]]:
        """What makes the training that moves the mask of a cell."""
        return functools.partial(self.stacks.made, [[cell]], [cell], self.move)

    def move(self, cells: list[Cell]) -> list[Networks]:
        """The trainings that move masks."""
        stacks, sizes = self.stacks, [cell["n"] for cell in cells]
        draws = stacks.draws(cells)
        mask, nans = stacks.masks(cells, draws, sizes)
        if stacks.refused([[cell] for cell in cells], nans):
            return []
        steps = [Step([cell], self.moved, None) for cell in cells]
        return [stacks.networks(sizes, draws, mask, draws.params, steps)]

    def moved(
        self, steps: list[Step], rows: list[int], results: TrainResult
    ) -> list[Networks]:
        """Keeps the rows of masks at the end of the trainings that moved them."""
        cells = [step.cells[0] for step in steps]
        ended = np.asarray(results.converged | results.diverged)
        taken = self.stacks.taken(results.mask, rows, len(rows))
        self.trained += self.rows(cells, taken, [int(not ended[row]) for row in rows])
        return []

    def rows(self, cells: list[Cell], mask: Mask, late: list[int]) -> list[Row]:
        """The rows of stacked masks, one a cell, without seconds."""
        setup = self.setup
        bits, kept, collapsed = jax.device_get(self.measured(mask))
        return [
            {
                **cell,
                "asked": int(np.asarray(counts_asked(setup, cell))),
                "kept": int(kept[i].sum()),
                "prunable": setup.total,
                "mask": bits[i].tobytes(),
                "layers": list(setup.layers),
                "kept_by_layer": kept[i].tolist(),
                "size_by_layer": list(setup.layers.values()),
                "collapsed": bool(collapsed[i]),
                "out_of_budget": late[i],
                "classes": setup.classes,
            }
            for i, cell in enumerate(cells)
        ]


def counts_asked(setup: Setup, cell: Cell) -> int:
    """Returns how many weights a cell is asked to keep, after its last round."""
    if is_through(setup, cell):
        return masks.keep_count(setup.total, cell["sparsity"])
    return int(counts_of(setup, cell)[-1])


def measured_one(setup: Setup, mask: Mask) -> tuple[Any, Any, Any]:
    """Returns the packed bits of a mask, the counts of its layers, if it is cut off."""
    layers = prunable_leaves(mask, setup.prunable)
    return (
        jnp.packbits(masks.ravel_mask(mask, prunable=setup.prunable)),
        jnp.stack([jnp.sum(leaf, dtype=jnp.int32) for leaf in layers]),
        masks.collapsed(setup.model.apply, mask, setup.input_shape),
    )


# ---- Ties


def ties_of(stacks: Stacks, cell: Cell, draws: Any) -> int | None:
    """Returns how many weights a mask keeps for their place among equal scores.

    That is: how many of them it does not keep where the last, and not the first, of
    equal scores are kept, in every round. ``None``: the pruner has no score, or the
    selection is not over all layers.
    """
    if cell["select"] != "global":
        return None
    mask_fn = mask_fn_of(stacks.setup, cell)
    if not isinstance(mask_fn, ByScore) or mask_fn.select is not None:
        return None
    counts = np.asarray(counts_of(stacks.setup, cell))
    keep: Any = filled([counts], size_of(draws), np.int32)
    both = []
    for last in (False, True):
        order = keep, np.full(keep.shape, last)
        mask, _ = stacks.scored(by_order, [cell], draws, [cell["n"]], order)
        one = jax.tree.map(lambda leaf: leaf[0], mask)
        both.append(masks.ravel_mask(one, prunable=stacks.setup.prunable))
    return int(jnp.sum(both[0] & ~both[1]))


def by_order(
    scores: Scores, keep: Any, *, prunable: Prunable = None, mask: Mask = None
) -> Mask:
    """Returns the highest scores over all layers; of equal ones the first or the last.

    A ``SelectFn`` whose ``keep`` is a count, and whether the last are kept; both may be
    traced. Those are the first and last by flat index.
    """
    count, last = keep
    found = masks.top_k(scores, count, prunable=prunable, mask=mask)
    kept = masks.ravel_mask(found, prunable=prunable)
    flat = jnp.concatenate([x.ravel() for x in prunable_leaves(scores, prunable)])
    among = True if mask is None else masks.ravel_mask(mask, prunable=prunable)
    tied = (flat == jnp.min(jnp.where(kept, flat, jnp.inf))) & among
    from_the_end = jnp.cumsum(tied[::-1])[::-1]
    others = (kept & ~tied) | (tied & (from_the_end <= jnp.sum(kept & tied)))
    return unflatten_mask(jnp.where(last, others, kept), scores, prunable)
