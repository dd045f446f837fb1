"""Many cells at once: draws, masks and networks, stacked, each made by one program.

A program takes seeds and counts, a few numbers a cell, and leaves what it makes on the
device. On a CPU core a stack has one network, and the program is that of one network,
whose sums keep their order; on an accelerator it has tens, under ``vmap``. Sets are
padded to the largest n of the grid, so that no program knows n. Alone, a network is
scored on its set padded to its own size: its mask depends on nothing else in the grid.
"""

import functools
import itertools
import logging
import operator
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from nfp_jax.engine.devices import is_out_of_memory
from nfp_jax.engine.examples import padded_size
from nfp_jax.engine.jobs import Networks
from nfp_jax.engine.training import NO_LIMIT, TrainResult
from nfp_jax.grid import DENSE, Cell
from nfp_jax.lab.each import AHEAD, Once, Shared, ahead, each
from nfp_jax.lab.jobs import Step
from nfp_jax.lab.masking import (
    counts_of,
    mask_fn_of,
    refuse,
    takes_score,
    wide_for,
)
from nfp_jax.lab.names import SELECTS
from nfp_jax.lab.one_network import (
    Draws,
    ablated_one,
    cut_mask,
    draw_one,
    mask_on,
    own_mask,
    rows_of,
    scored_mask,
    shown_of,
)
from nfp_jax.lab.setup import Setup
from nfp_jax.pruners.by_score import ByScore
from nfp_jax.pruners.contract import Trajectory, warn_of_one_shot
from nfp_jax.pruners.selects import Among, SelectFn
from nfp_jax.types import Mask, Params

_LOG = logging.getLogger(__name__)

AT_ONCE = 32  # networks in a stack, where lanes are many


class Points(NamedTuple):
    """The points of a data set, on the host: inputs, labels and label noise."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray


class Stacks:
    """The programs of a run that make networks, and what they make.

    Args:
      setup: of the run.
      any_count: whether a mask may keep another number of weights than it is asked for:
        rows then say so. Else its cell fails.
    """

    def __init__(self, setup: Setup, *, any_count: bool = False) -> None:
        self.setup, self.any_count = setup, any_count
        cpu = jax.default_backend() == "cpu"
        lanes = setup.spec.engine.lanes or (1 if cpu else 2)
        self.size = setup.spec.engine.score_at_once or (1 if lanes == 1 else AT_ONCE)
        # Of the grid, and not of what is left of it: sums keep their order.
        room = padded_size(max(setup.spec.grid.n), setup.spec.train.batch_size)
        self.room = room if setup.pool is None else min(room, len(setup.pool.y))
        chosen = {cell["select"] for cell in setup.todo} - {""}
        self.selects = tuple(name for name in SELECTS if name in chosen) or ("global",)
        self.among = Among(tuple(SELECTS[name] for name in self.selects))
        self.programs: dict[Any, Once] = {}
        self.lock = threading.Lock()
        for pruner in setup.pruners.values():  # once a run: programs can't warn
            if isinstance(by := getattr(pruner, "start", pruner), ByScore):
                warn_of_one_shot(by.score_fn, by.rounds)
        self.fetched: tuple[Any, Any] = (None, None)

    def ahead(
        self, makers: Iterable[Callable[[], list[Networks]]]
    ) -> Iterator[Networks]:
        """Yields what the makers make; large stacks are made ahead, by threads."""
        return ahead(makers, AHEAD if self.size > 1 else 1)

    # ---- Programs

    def program(self, name: Any, fn: Callable[..., Any], size: int) -> Any:
        """A function of one network, over a stack of a size, compiled once."""
        return self.compiled((name, size), each(fn, size))

    def compiled(self, name: Any, fn: Callable[..., Any]) -> Any:
        """A function of stacks, jitted; of threads that call it the first compiles."""
        with self.lock:
            if name not in self.programs:
                self.programs[name] = Once(jax.jit(fn))
            return self.programs[name]

    def at(
        self,
        cells: Sequence[Cell],
        size: int,
        folds: Mapping[int, Sequence[int]] | None = None,
    ) -> dict[str, np.ndarray]:
        """What a draw is made from, of each cell; and what keys are folded with."""
        seeds = ("init_seed", "data_seed", "train_seed")
        found = {
            name: filled([cell[name] for cell in cells], size, np.uint32)
            for name in seeds
        }
        folded = {
            f"fold {stream}": filled(numbers, size, np.uint32)
            for stream, numbers in (folds or {}).items()
        }
        noise = filled([cell["noise"] for cell in cells], size, np.float32)
        return {**found, **folded, "noise": noise}

    # ---- As many at once as memory holds

    def made(
        self,
        owners: Sequence[list[Cell]],
        items: Sequence[Any],
        make: Callable[[list[Any]], list[Networks]],
    ) -> list[Networks]:
        """Returns the networks that are made of items, a stack of them at a time.

        Where memory runs out, it goes on with half as many in a stack, from now on.
        Any other error fails the cells of the stack, and those of no other.

        Args:
          owners: the cells that need each item.
          items: what networks are made of.
          make: makes networks of up to as many items as a stack has networks.
        """
        found: list[Networks] = []
        done = 0
        while done < len(items):
            size = self.size
            part = slice(done, done + size)
            try:
                networks = make(list(items[part]))
                # Made when it is waited for: memory may run out until then.
                jax.block_until_ready([x[:4] for x in networks])
            except Exception as error:
                if is_out_of_memory(error) and size > 1:
                    self.halve(size)
                    continue
                self.setup.failures.add(itertools.chain(*owners[part]), error)
            else:
                found += networks
            done += size
        return found

    def halve(self, size: int) -> None:
        """Makes stacks half of this size, unless another thread has done so."""
        with self.lock:
            if self.size == size:
                self.size = size // 2
                _LOG.warning("out of memory: %d networks in a stack", self.size)

    def draws(
        self,
        cells: Sequence[Cell],
        folds: Mapping[int, Sequence[int]] | None = None,
        labels: Sequence[np.ndarray] | None = None,
        streams: Mapping[int, Sequence[int]] | None = None,
    ) -> Draws:
        """Returns the draws of up to as many cells as a stack has networks.

        Args:
          cells: with seeds and noise.
          folds: by stream of randomness, what the key of each draw is folded with;
            ``None``: with nothing.
          labels: uniform labels ``[n]`` of each, in place of those of its noise.
          streams: by stream of randomness, the one that each draw has in its place.
        """
        # Another thread may have halved the size since these cells were chosen.
        size = max(self.size, len(cells))
        at: dict[str, Any] = self.at(cells, size, folds)
        for stream, others in (streams or {}).items():
            at[f"stream {stream}"] = filled(others, size, np.uint32)
        if labels is not None:
            more = self.room - len(labels[0])
            padded = [np.pad(np.asarray(y, np.int32), (0, more)) for y in labels]
            at["labels"] = filled(padded, size)
        pool = None if self.setup.pool is None else self.setup.pool.clean
        draw = functools.partial(draw_one, self.setup, self.room)
        name = ("draw", *sorted(at))
        found: Draws = self.program(name, draw, size)(at, Shared(pool))
        return found

    # ---- Masks

    def masks(
        self, cells: Sequence[Cell], draws: Draws, sizes: Sequence[int]
    ) -> tuple[Mask, Any]:
        """Returns masks at initialization, and of which a score was NaN.

        Args:
          cells: of one pruner.
          draws: of these cells.
          sizes: how many points each mask is found on; all the same if the pruner takes
            no padded batch.
        """
        first, count = cells[0], size_of(draws)
        if first["pruner"] == DENSE:
            return draws.dense, np.zeros((count, 1), np.int32)
        mask_fn: Any = mask_fn_of(self.setup, first)
        counts = [np.asarray(counts_of(self.setup, cell)) for cell in cells]
        keep: Any = filled(counts, count, np.int32)
        if isinstance(mask_fn, ByScore):
            select, keep = self.selection(mask_fn.select, cells, keep)
            return self.scored(select, cells, draws, sizes, keep)
        find = functools.partial(own_mask, self.setup, mask_fn)
        return self.found(find, mask_fn, cells, draws, sizes, keep)

    def scored(
        self,
        select: SelectFn,
        cells: Sequence[Cell],
        draws: Draws,
        sizes: Sequence[int],
        keep: Any,
    ) -> tuple[Mask, Any]:
        """Returns masks by score, as ``masks`` does, by any selection.

        Args:
          select: of weights by their scores.
          cells: of one pruner, that has a score.
          draws: of these cells.
          sizes: as in ``masks``.
          keep: what the selection takes, of each round, ``[k, rounds]``.
        """
        mask_fn: Any = mask_fn_of(self.setup, cells[0])
        find = functools.partial(scored_mask, select, self.setup, mask_fn)
        return self.found(find, (mask_fn, select), cells, draws, sizes, keep)

    def found(
        self,
        find: Callable[..., Any],
        name: Any,
        cells: Sequence[Cell],
        draws: Draws,
        sizes: Sequence[int],
        keep: Any,
    ) -> tuple[Mask, Any]:
        """Returns what a function finds on what the cells' pruner sees of each draw.

        Args:
          find: ``find(draw, batch, keep)``.
          name: what its program is known by.
          cells: of one pruner.
          draws: of these cells.
          sizes: as in ``masks``.
          keep: stacked.
        """
        setup, pruner, count = self.setup, cells[0]["pruner"], size_of(draws)
        sees = setup.sees[pruner]
        n: int | None = sizes[0]
        size = None
        if sees == "nothing":
            n = None
        elif pruner in setup.padded:
            n, size = None, self.scored_size(sizes[0], count)
        shown = functools.partial(shown_of, sees, n, size)
        find = functools.partial(mask_on, find, shown)
        make = self.program((name, n, size), find, count)
        with wide_for(getattr(mask_fn_of(setup, cells[0]), "score_fn", None)):
            many = filled(sizes, count, np.int32)
            masks: tuple[Mask, Any] = make(draws, Shared(setup.inputs), many, keep)
        return masks

    def scored_size(self, n: int, count: int) -> int:
        """What sets are padded to for scoring: one program for all n of the grid.

        Alone, a mask does not depend on the largest n of the grid.
        """
        if count > 1:
            return self.room
        return min(padded_size(n, self.setup.spec.train.batch_size), self.room)

    def selection(
        self, own: SelectFn | None, cells: Sequence[Cell], keep: np.ndarray
    ) -> tuple[SelectFn, Any]:
        """The selection of cells, and what it takes: the pruner's own, or by number.

        Args:
          own: the selection of the pruner; ``None``: each cell has one of the run's.
          cells: of one pruner.
          keep: what each keeps, ``[k, rounds]``; of a selection by quota
            ``[k, rounds, layers]``.
        """
        if own is not None:
            return own, keep
        chosen = [cell["select"] or self.selects[0] for cell in cells]
        numbers = [self.selects.index(name) for name in chosen]
        codes = filled(numbers, len(keep), np.int32)
        return self.among, (keep, np.repeat(codes[:, None], keep.shape[1], axis=1))

    def cut(
        self,
        pruner: Trajectory,
        cells: Sequence[Cell],
        keeps: Sequence[Any],
        trained: tuple[Params, Mask],
        rows: Sequence[int],
        size: int,
    ) -> tuple[Mask, Params, Any]:
        """Returns masks cut from trained weights within their masks; these weights; and
        of which a score was NaN.

        Args:
          pruner: with the score of trained weights, and the selection if it has one.
          cells: of which each mask's selection is.
          keeps: how many weights each mask keeps, or each of its layers.
          trained: weights and masks of networks that ended together, stacked.
          rows: which of them each mask is cut from.
          size: of the stack that is returned.
        """
        score_fn, counts = pruner.score_fn, filled(keeps, size, np.int32)[:, None]
        select, keep = self.selection(pruner.select, cells, counts)
        cut = functools.partial(cut_mask, select, self.setup.prunable, score_fn)

        def cut_rows(trained: Any, rows: Any, keep: Any) -> Any:
            return each(cut, size)(rows_of(trained, rows), keep)

        program = self.compiled(("cut", score_fn, select, size), cut_rows)
        with wide_for(score_fn):
            found: tuple[Mask, Params, Any] = program(
                trained, filled(rows, size, np.int32), keep
            )
        return found

    def refused(self, owners: Sequence[list[Cell]], nans: Any) -> list[list[Cell]]:
        """The cells of masks that can't be used, now among the run's failures."""
        failed = []
        for cells, counts in zip(owners, np.asarray(nans), strict=False):
            if not counts.any():
                continue
            if takes_score(self.setup, cells[0]) or not self.any_count:
                failed.append(cells)
                with self.setup.failures.reporting(cells):
                    refuse(self.setup, cells[0], counts)
        return failed

    # ---- On the host

    def points(self, n: int, draws: Draws, row: int) -> Points:
        """The first n points of a draw, on the host."""
        own, index, labels = draws.examples
        assert labels is not None  # every draw has some
        y, z = (np.asarray(leaf)[row, :n] for leaf in labels[:2])
        if own is None:
            assert self.setup.pool is not None  # the set is one or the other
            pool = np.asarray(self.setup.pool.x)
            return Points(pool[np.asarray(index)[row, :n]], y, z)
        return Points(np.asarray(own)[row, :n], y, z)

    def weights(self, results: TrainResult, row: int) -> Params:
        """The weights of a network that ended, on the host."""
        fetched = self.fetched  # once: other threads set it, too
        if fetched[0] is not results.params:
            fetched = (results.params, jax.device_get(results.params))
            self.fetched = fetched
        return jax.tree.map(operator.itemgetter(row), fetched[1])

    # ---- Networks

    def taken(self, stacked: Any, rows: Sequence[int], size: int) -> Any:
        """Returns these networks' part of a stack, as a stack of another size."""
        taken = self.compiled(("taken", size), rows_of)
        return taken(stacked, filled(rows, size, np.int32))

    def networks(
        self,
        sizes: Sequence[int],
        draws: Draws,
        mask: Mask,
        start: Params,
        steps: Sequence[Step],
        *,
        limits: Sequence[int | None] | None = None,
    ) -> Networks:
        """Returns networks to train: a step and a draw each, from these weights.

        Args:
          sizes: on how many points of its draw each is trained.
          draws: of these networks.
          mask: masks, stacked.
          start: weights, stacked, masked or not.
          steps: what each is for.
          limits: after how many optimizer steps to end; ``None``: at convergence.
        """
        size = size_of(mask)
        known = [NO_LIMIT if x is None else x for x in limits or [None]]
        return Networks(
            start,
            mask,
            draws.examples,
            draws.train_key,
            None if limits is None else filled(known, size, np.int32),
            filled(sizes, size, np.int32),
            max(sizes),
            steps,
        )

    def ablated(
        self,
        cells: Sequence[Cell],
        mask: Mask,
        start: Params,
        folds: Mapping[int, Sequence[int]] | None = None,
    ) -> tuple[Mask, Params]:
        """Returns masks, and the weights to train from, after the cells' ablations.

        Args:
          cells: with the ablation of each.
          mask: masks, stacked.
          start: weights, stacked.
          folds: as in ``draws``.
        """
        kinds = {cell["ablation"] for cell in self.setup.todo}
        kinds &= {"shuffle", "reinitialize", "rescale"}
        if not kinds:
            return mask, start  # the training masks them
        ablate = functools.partial(ablated_one, self.setup, frozenset(kinds))
        size = size_of(mask)
        which = {
            kind: filled([cell["ablation"] == kind for cell in cells], size, bool)
            for kind in kinds
        }
        found: tuple[Mask, Params] = self.program("ablate", ablate, size)(
            self.at(cells, size, folds), which, mask, start
        )
        return found


def filled(values: Sequence[Any], size: int, dtype: Any = None) -> np.ndarray:
    """Returns numbers of cells along an axis, filled up to the size of a stack."""
    listed = [*values, *[values[0]] * (size - len(values))]
    return np.asarray(listed, dtype)


def size_of(stacked: Any) -> int:
    """Returns how many networks a stack has, those that fill it up among them."""
    return int(jax.tree.leaves(stacked)[0].shape[0])
