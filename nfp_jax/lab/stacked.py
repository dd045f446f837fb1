"""Many cells at once: draws, masks and networks, stacked, each made by one program.

A program takes seeds and counts, a few numbers a cell, and leaves what it makes on the
device. On a CPU core a stack has one network, and the program is that of one network,
whose sums keep their order; on an accelerator it has tens, under ``vmap``. Sets are
padded to the largest n of the grid, so that no program knows n. Alone, a network is
scored on its set padded to its own size: its mask depends on nothing else in the grid.
"""

import functools
import operator
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax import data, masks, pruning
from nfp_jax.data import Labels
from nfp_jax.engine.examples import Examples, padded_size
from nfp_jax.engine.jobs import Networks
from nfp_jax.engine.training import NO_LIMIT, TrainResult
from nfp_jax.grid import DENSE, Cell
from nfp_jax.lab.draws import DATA, INIT, NOISE, REINITIALIZE, SCORE, SHUFFLE, TRAIN
from nfp_jax.lab.each import AHEAD, Once, Shared, ahead, each
from nfp_jax.lab.jobs import Step
from nfp_jax.lab.masking import counts_of, mask_fn_of, needs_x64
from nfp_jax.lab.names import SELECTS
from nfp_jax.lab.setup import Setup
from nfp_jax.losses import first_of
from nfp_jax.pruners.by_score import ByScore
from nfp_jax.pruners.contract import ScoreFn
from nfp_jax.pruners.rounds import prune_traced
from nfp_jax.pruners.selects import Among
from nfp_jax.types import Mask, Params

AT_ONCE = 32  # networks in a stack, where lanes are many


class Draws(NamedTuple):
    """Data sets, initial weights and keys of several cells, stacked, on the device.

    Attributes:
      params: initial weights, ``[k, ...]``.
      dense: masks that keep all of them.
      examples: sets padded to the room of the run, ``[k, room, ...]``; without inputs,
        where all draws share those of the pool.
      score_key: the randomness of scores, ``[k]``.
      train_key: the order of batches, ``[k]``.
    """

    params: Params
    dense: Mask
    examples: Examples
    score_key: jax.Array
    train_key: jax.Array

    def data(self) -> "Draws":
        """Returns them without weights and masks: what is kept until networks end."""
        return self._replace(params=None, dense=None)


class Points(NamedTuple):
    """The points of a data set, on the host: inputs, labels and label noise."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray


class Stacks:
    """The programs of a run that make networks, and what they make."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
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
        self.fetched: tuple[Any, Any] = (None, None)

    def ahead(
        self, makers: Iterable[Callable[[], list[Networks]]]
    ) -> Iterator[Networks]:
        """Yields what the makers make; large stacks are made ahead, by threads."""
        return ahead(makers, AHEAD if self.size > 1 else 1)

    # ---- Programs

    def program(self, name: Any, fn: Callable[..., Any]) -> Any:
        """A function of one network, over the axis of a stack, compiled once."""
        return self.compiled(name, each(fn, self.size))

    def compiled(self, name: Any, fn: Callable[..., Any]) -> Any:
        """A function of stacks, jitted; of threads that call it the first compiles."""
        with self.lock:
            if name not in self.programs:
                self.programs[name] = Once(jax.jit(fn))
            return self.programs[name]

    def filled(self, values: Sequence[Any], dtype: Any = None) -> np.ndarray:
        """Numbers of cells along an axis, filled up to the size of a stack."""
        listed = [*values, *[values[0]] * (self.size - len(values))]
        return np.asarray(listed, dtype)

    def at(
        self, cells: Sequence[Cell], folds: Mapping[int, Sequence[int]] | None = None
    ) -> dict[str, np.ndarray]:
        """What a draw is made from, of each cell; and what keys are folded with."""
        seeds = ("init_seed", "data_seed", "train_seed")
        found = {
            name: self.filled([cell[name] for cell in cells], np.uint32)
            for name in seeds
        }
        folded = {
            f"fold {stream}": self.filled(numbers, np.uint32)
            for stream, numbers in (folds or {}).items()
        }
        noise = self.filled([cell["noise"] for cell in cells], np.float32)
        return {**found, **folded, "noise": noise}

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
        at: dict[str, Any] = self.at(cells, folds)
        for stream, others in (streams or {}).items():
            at[f"stream {stream}"] = self.filled(others, np.uint32)
        if labels is not None:
            more = self.room - len(labels[0])
            padded = [np.pad(np.asarray(y, np.int32), (0, more)) for y in labels]
            at["labels"] = self.filled(padded)
        pool = None if self.setup.pool is None else self.setup.pool.clean
        draw = functools.partial(_draw, self.setup, self.room)
        name = ("draw", *sorted(at))
        found: Draws = self.program(name, draw)(at, Shared(pool))
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
        setup, first = self.setup, cells[0]
        if first["pruner"] == DENSE:
            return draws.dense, np.zeros((self.size, 1), np.int32)
        mask_fn: Any = mask_fn_of(setup, first)
        sees = setup.sees[first["pruner"]]
        n: int | None = sizes[0]
        size = None
        if sees == "nothing":
            n = None
        elif first["pruner"] in setup.padded:
            n, size = None, self.scored_size(sizes[0])
        shown = functools.partial(_shown, sees, n, size)
        counts = [np.asarray(counts_of(setup, cell)) for cell in cells]
        keep: Any = self.filled(counts, np.int32)
        if isinstance(mask_fn, ByScore):
            keep = (keep, np.repeat(self.codes(cells)[:, None], keep.shape[1], axis=1))
            find = functools.partial(_scored, self.among, setup, mask_fn)
        else:
            find = functools.partial(_made, setup, mask_fn)
        name = (mask_fn, n, size)
        make = self.program(name, functools.partial(_on, find, shown))
        inputs = Shared(setup.inputs)
        wide = isinstance(mask_fn, ByScore) and needs_x64(mask_fn.score_fn)
        with jax.enable_x64(wide or jax.config.jax_enable_x64):  # type: ignore[attr-defined]
            many = self.filled(sizes, np.int32)
            found: tuple[Mask, Any] = make(draws, inputs, many, keep)
        return found

    def scored_size(self, n: int) -> int:
        """What sets are padded to for scoring: one program for all n of the grid.

        Alone, a mask does not depend on the largest n of the grid.
        """
        if self.size > 1:
            return self.room
        return min(padded_size(n, self.setup.spec.train.batch_size), self.room)

    def codes(self, cells: Sequence[Cell]) -> np.ndarray:
        """Which of the run's selections each cell has."""
        chosen = [cell["select"] or self.selects[0] for cell in cells]
        return self.filled([self.selects.index(name) for name in chosen], np.int32)

    def cut(
        self,
        score_fn: ScoreFn,
        cells: Sequence[Cell],
        keeps: Sequence[int],
        trained: tuple[Params, Mask],
        rows: Sequence[int],
    ) -> tuple[Mask, Params, Any]:
        """Returns masks cut from trained weights within their masks; these weights; and
        of which a score was NaN.

        Args:
          score_fn: of trained weights.
          cells: of which each mask's selection is.
          keeps: how many weights each mask keeps.
          trained: weights and masks of networks that ended together, stacked.
          rows: which of them each mask is cut from.
        """
        keep = self.filled(keeps, np.int32)[:, None], self.codes(cells)[:, None]
        cut = functools.partial(_cut, self.among, self.setup.prunable, score_fn)

        def cut_rows(trained: Any, rows: Any, keep: Any) -> Any:
            return each(cut, self.size)(_rows(trained, rows), keep)

        wide = needs_x64(score_fn)
        with jax.enable_x64(wide or jax.config.jax_enable_x64):  # type: ignore[attr-defined]
            found: tuple[Mask, Params, Any] = self.compiled(
                ("cut", score_fn), cut_rows
            )(trained, self.filled(rows, np.int32), keep)
        return found

    def refused(self, owners: Sequence[list[Cell]], nans: Any) -> list[list[Cell]]:
        """The cells of masks of which a score is NaN, now among the run's failures."""
        failed = []
        for cells, counts in zip(owners, np.asarray(nans), strict=False):
            if counts.any():
                failed.append(cells)
                with self.setup.failures.reporting(cells):
                    self.refuse(counts)
        return failed

    def refuse(self, counts: np.ndarray) -> None:
        """Raises for NaN scores, naming their layer."""
        leaves = masks.named_leaves(self.setup.shapes)
        for (path, leaf), count in zip(leaves, counts, strict=True):
            masks.refuse_nan(path, int(count), leaf.size)

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

    def taken(self, stacked: Any, rows: Sequence[int]) -> Any:
        """Returns these networks' part of a stack, as a stack."""
        return self.compiled("taken", _rows)(stacked, self.filled(rows, np.int32))

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
        known = [NO_LIMIT if x is None else x for x in limits or [None]]
        return Networks(
            start,
            mask,
            draws.examples,
            draws.train_key,
            None if limits is None else self.filled(known, np.int32),
            self.filled(sizes, np.int32),
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
        kinds &= {"shuffle", "reinitialize"}
        if not kinds:
            return mask, start  # the training masks them
        ablate = functools.partial(_ablated, self.setup, frozenset(kinds))
        which = {
            kind: self.filled([cell["ablation"] == kind for cell in cells], bool)
            for kind in kinds
        }
        found: tuple[Mask, Params] = self.program("ablate", ablate)(
            self.at(cells, folds), which, mask, start
        )
        return found


def _rows(stacked: Any, rows: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[rows], stacked)


def _key(setup: Setup, at: dict[str, Any], stream: int, seed: str) -> jax.Array:
    """The key of a stream, or of the one in its place, and a seed; folded once more."""
    root, which = jax.random.key(setup.spec.seed), at.get(f"stream {stream}", stream)
    key = jax.random.fold_in(jax.random.fold_in(root, which), at[seed])
    fold = at.get(f"fold {stream}")
    return key if fold is None else jax.random.fold_in(key, fold)


def _draw(setup: Setup, room: int, at: dict[str, Any], pool: Shared) -> Draws:
    """The draw of a cell; ``pool`` has the clean labels of an image set."""
    key_of = functools.partial(_key, setup, at)
    params = setup.init(key_of(INIT, "init_seed"))
    data_key = key_of(DATA, "data_seed")
    inputs: Any = None
    if setup.make is not None:
        made = setup.make(data_key, n=room)
        inputs, clean, index = made.x, made.clean, jnp.arange(room)
    else:
        index = jnp.asarray(data.subset_index(len(pool.of), room, data_key))
        clean = jnp.asarray(pool.of)[index]
    if "labels" in at:
        z = jax.nn.one_hot(at["labels"], setup.classes) - np.float32(1 / setup.classes)
        labels = Labels(at["labels"], z, jnp.ones(room, bool))
    else:
        noise_key = key_of(NOISE, "data_seed")
        labels = data.redraw(clean, noise_key, at["noise"], classes=setup.classes)
    return Draws(
        params,
        masks.dense_mask(params),
        Examples(inputs, index.astype(jnp.int32), labels),
        key_of(SCORE, "train_seed"),
        key_of(TRAIN, "train_seed"),
    )


def _shown(
    sees: str, n: int | None, size: int | None, x: Any, y: Any, counts: Any
) -> Any:
    """What a pruner sees of a padded set: cut to ``n``; or to ``size``, and counted."""
    if sees == "nothing":
        return None
    batch = x, None if sees == "inputs" else y
    batch = jax.tree.map(lambda leaf: leaf[: size if n is None else n], batch)
    return first_of(batch, counts) if n is None else batch


def _on(
    find: Callable[..., Any],
    shown: Callable[..., Any],
    draw: Draws,
    inputs: Shared,
    size: Any,
    keep: Any,
) -> tuple[Mask, Any]:
    """The mask of one draw, and whether a score was NaN."""
    own, index, labels = draw.examples
    assert labels is not None  # every draw has some
    x = inputs.of[index] if own is None else own
    found: tuple[Mask, Any] = find(draw, shown(x, labels[0], size), keep)
    return found


def _scored(
    among: Among, setup: Setup, by: ByScore, draw: Draws, batch: Any, keep: Any
) -> tuple[Mask, Any]:
    return prune_traced(
        by.score_fn,
        draw.params,
        batch,
        draw.score_key,
        keep=keep,
        select=among,
        prunable=setup.prunable,
        **by.options,
    )


def _made(
    setup: Setup, mask_fn: Any, draw: Draws, batch: Any, keep: Any
) -> tuple[Mask, Any]:
    found = mask_fn(
        draw.params, batch, draw.score_key, keep=keep[-1], prunable=setup.prunable
    )
    return found, jnp.zeros(len(jax.tree.leaves(found)), jnp.int32)


def _cut(
    among: Among, prunable: Any, score_fn: ScoreFn, trained: Any, keep: Any
) -> tuple[Mask, Params, Any]:
    params, mask = trained
    found, nan = prune_traced(
        score_fn,
        params,
        None,
        None,
        keep=keep,
        select=among,
        prunable=prunable,
        mask=mask,
    )
    return found, params, nan


def _ablated(
    setup: Setup,
    kinds: frozenset[str],
    at: dict[str, Any],
    which: dict[str, Any],
    mask: Mask,
    start: Params,
) -> tuple[Mask, Params]:
    def where(kind: str, changed: Any, same: Any) -> Any:
        pick = functools.partial(jnp.where, which[kind])
        return jax.tree.map(pick, changed, same)

    if "shuffle" in kinds:
        key = _key(setup, at, SHUFFLE, "train_seed")
        moved = masks.shuffle_within_layers(mask, key, prunable=setup.prunable)
        mask = where("shuffle", moved, mask)
    if "reinitialize" in kinds:
        key = _key(setup, at, REINITIALIZE, "init_seed")
        fresh = pruning.reinitialize(setup.init, mask, key)
        start = where("reinitialize", fresh, start)
    return mask, start
