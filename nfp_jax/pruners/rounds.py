"""From a score to a mask, in one round or many, inside one ``jit``.

``prune`` makes one mask, ``prune_many`` those of many networks or data sets.
Depends on masks and the scores.
"""

import functools
import operator
import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.masks import (
    Mask,
    Params,
    Prunable,
    Schedule,
    apply_mask,
    check_mask,
    dense_mask,
    has_x64,
    is_concrete,
    keep_counts,
    named_leaves,
    prunable_kernels,
    prunable_size,
    ravel_mask,
    refuse_nan,
    top_k,
)
from nfp_jax.pruners.contract import InitFn, Score, ScoreFn
from nfp_jax.pruners.selects import SelectFn
from nfp_jax.trees import in_a_line, same_structure
from nfp_jax.types import Batch


def exponential(density: float, fraction: float) -> float:
    """Returns the density after a fraction of the rounds: ``density ** fraction``.

    >>> exponential(0.01, 0.5)
    0.1

    Reference: Tanaka et al. 2020, https://arxiv.org/abs/2006.05467, algorithm 1.
    """
    return density**fraction


def linear(density: float, fraction: float) -> float:
    """Returns the density after a fraction of the rounds: ``1 - (1-density)·fraction``.

    >>> linear(0.5, 0.5)
    0.75
    """
    return 1.0 - (1.0 - density) * fraction


def prune(
    score_fn: ScoreFn,
    params: Params,
    batch: Batch = None,
    key: jax.Array | None = None,
    *,
    sparsity: float | Fraction | None = None,
    keep: Any = None,
    rounds: int = 1,
    select: SelectFn = top_k,
    schedule: Schedule = exponential,
    nested: bool = True,
    fresh_keys: bool = False,
    init_fn: InitFn | None = None,
    prunable: Prunable = None,
    mask: Mask = None,
) -> Mask:
    """Returns the mask of a pruner, found in one round or many.

    Every round scores the masked network, with the same batch and key, and selects
    within the mask of the round before: masks are nested, the last one keeps exactly
    ``keep_count(P, sparsity)``. All rounds run in one ``jit``, compiled anew for
    another ``score_fn``, ``select``, shape or number of rounds, not for another
    sparsity, batch or key. Call it under ``vmap`` to prune many networks.

    Args:
      score_fn: from ``nfp_jax.scores``, or your own. Keep it and call ``prune`` again
        with it: a new closure compiles again.
      params: pytree of arrays.
      batch: what the score takes as data, often ``(x, y)``.
      key: what the score takes as its randomness.
      sparsity: share of prunable weights removed, a Python number in [0, 1).
      keep: instead of ``sparsity`` and ``schedule``: an integer array or a list
        ``[rounds]`` (for ``top_k_by_quota`` a pytree of them), which may be traced, so
        that one program serves many sparsities.
      rounds: number of rounds; taken from ``keep`` where that is given.
      select: ``top_k`` (global), ``top_k_per_layer``, ``top_k_erk`` or
        ``top_k_by_quota``.
      schedule: ``exponential`` or ``linear``: ``(density, fraction) -> density``.
      nested: whether a round selects among the weights that the round before kept.
        ``False``: removed weights may return (FORCE). The score is then given all
        weights, and the mask of the round before beside them.
      fresh_keys: whether round ``t``, from 0, has the key ``fold_in(key, t)``.
      init_fn: ``init_fn(key) -> params``: every round scores weights drawn anew with
        the key of the round (NTK-SAP), and not ``params``.
      prunable: static pytree of bools; ``None``: ``prunable_kernels(params)``.
      mask: an earlier mask to start from; ``None``: the dense one. Sparsity still
        counts all prunable weights.

    Returns:
      A bool pytree like ``params``; ``True`` on leaves that may not be pruned.

    Raises:
      ValueError: a NaN score (names the layer; under a transform NaN ranks lowest), a
        sparsity out of range, both or neither of ``sparsity`` and ``keep``, an earlier
        mask that does not fit (names the path) or has fewer weights left than are
        to be kept, no key where a round needs its key.

    >>> from nfp_jax.pruners.magnitude import magnitude
    >>> params = {"w": jnp.array([[1.0, -3.0, 2.0, 0.5]])}
    >>> prune(magnitude(), params, sparsity=0.5)["w"].tolist()
    [[False, True, True, False]]

    Reference: Tanaka et al. 2020, https://arxiv.org/abs/2006.05467, algorithm 1.
    """
    prunable = prunable_kernels(params) if prunable is None else prunable
    total = prunable_size(params, prunable)
    keep = _counts(params, total, sparsity, keep, rounds, schedule)
    if is_concrete(keep):
        _check_keep(keep, total)
    _warn_of_one_shot(score_fn, jax.tree.leaves(keep)[0].shape[0])
    if mask is None:
        mask = dense_mask(params)
    else:
        check_mask(params, mask)
        _check_left(mask, keep, prunable)
    plan = _plan(score_fn, select, prunable, nested, fresh_keys, init_fn, key)
    inputs = (params, batch, key, keep, mask)
    turn_on = plan.needs_x64 and is_concrete(inputs)
    with jax.enable_x64(turn_on or has_x64()):
        mask, nans = _rounds(plan, params, batch, key, keep, mask)
    if is_concrete(nans):
        for (path, leaf), count in zip(named_leaves(params), nans, strict=True):
            refuse_nan(path, int(count), jnp.size(leaf))
    return mask


def prune_many(
    score_fn: ScoreFn,
    params: Params,
    batch: Batch = None,
    key: jax.Array | None = None,
    *,
    in_axes: tuple[Any, Any, Any] = (0, 0, 0),
    sparsity: float | Fraction | None = None,
    keep: Any = None,
    rounds: int = 1,
    select: SelectFn = top_k,
    schedule: Schedule = exponential,
    nested: bool = True,
    fresh_keys: bool = False,
    init_fn: InitFn | None = None,
    prunable: Prunable = None,
    at_once: int | None = None,
) -> Mask:
    """Returns the masks of many networks or data sets, ``prune`` under ``vmap``.

    Networks are taken ``at_once`` in one call of one program, the last of them filled
    up, so that a mask does not depend on how many others are made; it is that of
    ``prune`` up to the order of sums.

    Args:
      score_fn: as in ``prune``.
      params: as in ``prune``, along a leading axis where ``in_axes`` says 0.
      batch: likewise.
      key: likewise.
      in_axes: of ``params``, ``batch`` and ``key``, as in ``jax.vmap``: 0 or ``None``,
        or for ``batch`` a tuple of them. ``(None, 0, None)``: many data sets at one
        initialization.
      sparsity: share of prunable weights removed.
      keep: instead of ``sparsity``: integers ``[rounds]``, or ``[networks, rounds]``
        for a count of each network's own.
      rounds: number of rounds.
      select: the selection.
      schedule: the densities after each round.
      nested: as in ``prune``.
      fresh_keys: as in ``prune``.
      init_fn: as in ``prune``.
      prunable: static pytree of bools, of the parameters of one network.
      at_once: networks in one call, which bounds the memory; ``None``: all.

    Returns:
      A bool pytree like the parameters of one network, each leaf ``[networks, ...]``.

    Raises:
      NanScores: a NaN score (names networks and layer).
      ValueError: as ``prune``; leading axes that differ, or none; ``at_once`` below 1.

    >>> from nfp_jax.pruners.magnitude import magnitude
    >>> params = {"w": jnp.array([[[1.0, -3.0]], [[2.0, 0.5]]])}
    >>> prune_many(magnitude(), params, sparsity=0.5)["w"].tolist()
    [[[False, True]], [[True, False]]]

    Reference: as ``prune``.
    """
    if at_once is not None and at_once < 1:
        raise ValueError(f"at_once is {at_once}, expected at least 1 or None")
    absent = [arg is None for arg in (params, batch, key)]
    axes: Any = tuple(
        None if no else axis for no, axis in zip(absent, in_axes, strict=True)
    )
    one = params if axes[0] is None else jax.tree.map(lambda leaf: leaf[0], params)
    prunable = prunable_kernels(one) if prunable is None else prunable
    total = prunable_size(one, prunable)
    keep = _counts(one, total, sparsity, keep, rounds, schedule)
    each = jax.tree.leaves(keep)[0].ndim == 2
    _check_keep(jax.tree.map(jnp.ravel, keep) if each else keep, total)
    args = (params, batch, key, keep)
    axes = (*axes, 0 if each else None)
    count = _networks(args, axes)
    _warn_of_one_shot(score_fn, jax.tree.leaves(keep)[0].shape[-1])
    plan = _plan(score_fn, select, prunable, nested, fresh_keys, init_fn, key)
    size = at_once or count
    masks, nans = [], []
    with jax.enable_x64(plan.needs_x64 or has_x64()):
        for start in range(0, count, size):
            index = np.minimum(np.arange(start, start + size), count - 1)
            part = _along(axes, args, operator.itemgetter(index))
            found = _many_rounds(plan, axes, *part)
            wanted = operator.itemgetter(slice(count - start))
            mask, nan = jax.tree.map(wanted, found)
            masks.append(mask)
            nans.append(nan)
    _refuse_nans(one, np.concatenate(jax.device_get(nans), axis=1))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *masks)


def prune_traced(
    score_fn: ScoreFn,
    params: Params,
    batch: Batch,
    key: jax.Array | None,
    *,
    keep: Any,
    select: SelectFn,
    prunable: Prunable,
    mask: Mask = None,
    nested: bool = True,
    fresh_keys: bool = False,
    init_fn: InitFn | None = None,
) -> tuple[Mask, jax.Array]:
    """Returns what ``prune`` does, and the number of NaN scores of each leaf.

    For use in a program: nothing can be raised there, so NaN ranks lowest, and the
    caller looks at the numbers, int ``[leaves]``.
    Arguments are those of ``prune``, ``keep`` that of all rounds. A score that needs
    64 bits must be called in JAX's 64-bit mode.
    """
    plan = _plan(score_fn, select, prunable, nested, fresh_keys, init_fn, key)
    first = dense_mask(params) if mask is None else mask
    found, nans = _rounds(plan, params, batch, key, keep, first)
    return found, jnp.stack(nans)


class NanScores(ValueError):
    """Scores that are NaN; ``networks`` has the places of the networks."""

    def __init__(self, message: str, networks: list[int]) -> None:
        super().__init__(message)
        self.networks = networks


def _refuse_nans(params: Params, nans: np.ndarray) -> None:
    """Raises for networks with NaN scores: their number ``[leaves, networks]``."""
    networks = np.flatnonzero(nans.any(axis=0)).tolist()
    if networks:
        for (path, leaf), count in zip(named_leaves(params), nans, strict=True):
            try:
                refuse_nan(path, int(count[networks[0]]), jnp.size(leaf))
            except ValueError as error:
                raise NanScores(f"networks {networks}: {error}", networks) from None


def _along(axes: Any, args: Any, fn: Callable[[Any], Any]) -> Any:
    """The arguments, with ``fn`` of every leaf that has an axis of networks."""

    def at(axis: Any, arg: Any) -> Any:
        return arg if axis is None else jax.tree.map(fn, arg)

    return jax.tree.map(at, axes, args, is_leaf=lambda axis: axis is None)


def _networks(args: Any, axes: Any) -> int:
    """The number of networks, the common leading size of what has their axis."""
    sizes: set[int] = set()

    def see(leaf: Any) -> None:
        sizes.add((*jnp.shape(leaf), 0)[0])

    _along(axes, args, see)
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            f"params, batch, key and keep have leading sizes {sorted(sizes)} where "
            "in_axes is 0, expected one common size of at least 1"
        )
    return sizes.pop()


def _counts(
    params: Params,
    total: int,
    sparsity: Any,
    keep: Any,
    rounds: int,
    schedule: Schedule,
) -> Any:
    """The counts to keep, integers ``[..., rounds]``, or a pytree like params of them.

    A list of numbers has those of the rounds, unless params are such a list too.
    """
    if (sparsity is None) == (keep is None):
        raise ValueError(
            f"sparsity is {sparsity} and keep is {in_a_line(keep)}, expected exactly "
            "one of them"
        )
    if sparsity is not None:
        keep = keep_counts(total, sparsity, rounds=rounds, schedule=schedule)
    listed = None if same_structure(keep, params) else _is_listed
    return jax.tree.map(
        lambda counts: jnp.atleast_1d(jnp.asarray(counts)), keep, is_leaf=listed
    )


def _is_listed(counts: Any) -> bool:
    """Whether it is a list of numbers, traced or not: those of the rounds."""
    listed = isinstance(counts, (list, tuple)) and len(counts) > 0
    return listed and all(
        isinstance(count, (int, float, np.generic, np.ndarray, jax.Array))
        and not jnp.ndim(count)
        for count in counts
    )


def _warn_of_one_shot(score_fn: ScoreFn, rounds: int) -> None:
    if rounds == 1 and isinstance(score_fn, Score) and score_fn.one_shot_warning:
        warnings.warn(score_fn.one_shot_warning, stacklevel=3)


def _check_keep(keep: Any, total: int) -> None:
    """Raises unless every leaf holds integers in [0, total], one a round."""
    for path, leaf in named_leaves(keep):
        name = f"keep at {path!r}" if path else "keep"
        if leaf.ndim != 1 or not jnp.issubdtype(leaf.dtype, jnp.integer):
            raise ValueError(
                f"{name} is {leaf.dtype}{list(leaf.shape)}, expected integers [rounds]"
            )
        if leaf.min() < 0 or leaf.max() > total:
            raise ValueError(
                f"{name} is {leaf.tolist()}, expected 0 <= keep <= {total}"
            )


def _check_left(mask: Mask, keep: Any, prunable: Prunable) -> None:
    """Raises where an earlier mask has fewer weights left than are to be kept."""
    if isinstance(keep, jax.Array) and is_concrete((mask, keep)):
        left = int(jnp.sum(ravel_mask(mask, prunable=prunable)))
        if keep[-1] > left:
            raise ValueError(
                f"keep is {int(keep[-1])}, expected at most {left}, the weights that "
                "mask has left"
            )


class _Plan(NamedTuple):
    """What the rounds are compiled for, beside shapes."""

    score_fn: ScoreFn
    select: SelectFn
    prunable_leaves: tuple[bool, ...]
    nested: bool
    fresh_keys: bool
    init_fn: InitFn | None

    @property
    def needs_x64(self) -> bool:
        """Whether the score is computed in float64."""
        return isinstance(self.score_fn, Score) and self.score_fn.needs_x64


def _plan(
    score_fn: ScoreFn,
    select: SelectFn,
    prunable: Prunable,
    nested: bool,
    fresh_keys: bool,
    init_fn: InitFn | None,
    key: jax.Array | None,
) -> _Plan:
    if key is None and (fresh_keys or init_fn is not None):
        raise ValueError("key is None, expected one: every round has a key of its own")
    leaves = tuple(jax.tree.leaves(prunable))
    return _Plan(score_fn, select, leaves, nested, fresh_keys, init_fn)


@functools.partial(jax.jit, static_argnums=0)
def _rounds(
    plan: _Plan,
    params: Params,
    batch: Batch,
    key: jax.Array | None,
    keep: Any,
    mask: Mask,
) -> tuple[Mask, list[jax.Array]]:
    """The mask after every round, and how many NaN each leaf's scores had."""
    flags = plan.prunable_leaves
    prunable = jax.tree.unflatten(jax.tree.structure(params), flags)
    first, count = mask, jax.tree.leaves(keep)[0].shape[0]

    def one_round(mask: Mask, now: tuple[Any, Any]) -> tuple[Mask, list[jax.Array]]:
        place, keep = now
        round_key: Any = key
        if plan.fresh_keys or plan.init_fn is not None:
            round_key = jax.random.fold_in(round_key, place)
        weights = params if plan.init_fn is None else plan.init_fn(round_key)
        if plan.nested:
            weights = apply_mask(weights, mask)
        scores = plan.score_fn(weights, batch, round_key, mask=mask, prunable=prunable)
        among = mask if plan.nested else first
        nans = [
            jnp.sum(jnp.isnan(score) & kept) if flag else jnp.zeros((), int)
            for score, kept, flag in zip(
                jax.tree.leaves(scores), jax.tree.leaves(among), flags, strict=True
            )
        ]
        return plan.select(scores, keep, prunable=prunable, mask=among), nans

    mask, nans = jax.lax.scan(one_round, mask, (jnp.arange(count), keep))
    return mask, [jnp.max(count) for count in nans]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _many_rounds(
    plan: _Plan,
    in_axes: Any,
    params: Params,
    batch: Batch,
    key: jax.Array | None,
    keep: Any,
) -> tuple[Mask, list[jax.Array]]:
    """``_rounds`` of many networks, from dense masks."""

    def rounds(params: Params, batch: Batch, key: Any, keep: Any) -> Any:
        return _rounds(plan, params, batch, key, keep, dense_mask(params))

    return jax.vmap(rounds, in_axes=in_axes)(params, batch, key, keep)
