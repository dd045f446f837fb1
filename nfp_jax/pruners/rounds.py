"""From a score to a mask, in one round or many, inside one ``jit``.

``prune`` makes one mask; ``many`` has those of many networks or data sets.
Depends on masks and the scores.
"""

import functools
import math
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
from nfp_jax.pruners.checks import check_batch, check_score, check_weights
from nfp_jax.pruners.contract import InitFn, Score, ScoreFn, warn_of_one_shot
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
      ValueError: a NaN score (names the layer; under a transform NaN ranks lowest),
        scores that are all 0 in the first round (names layers of zeros), a sparsity
        out of range, both or neither of ``sparsity`` and ``keep``, an earlier
        mask that does not fit (names the path) or has fewer weights left than are
        to be kept, no key where a round needs its key.

    >>> from nfp_jax.pruners.magnitude import magnitude
    >>> params = {"w": jnp.array([[1.0, -3.0, 2.0, 0.5]])}
    >>> prune(magnitude(), params, sparsity=0.5)["w"].tolist()
    [[False, True, True, False]]

    Reference: Tanaka et al. 2020, https://arxiv.org/abs/2006.05467, algorithm 1.
    """
    check_score(score_fn)
    prunable = prunable_kernels(params) if prunable is None else prunable
    check_weights(params, prunable)
    check_batch(score_fn, params, batch)
    total = prunable_size(params, prunable)
    keep = counts_of(params, total, sparsity, keep, rounds, schedule)
    if is_concrete(keep):
        check_keep(keep, total)
    warn_of_one_shot(score_fn, jax.tree.leaves(keep)[0].shape[0])
    if mask is None:
        mask = dense_mask(params)
    else:
        check_mask(params, mask)
        _check_left(mask, keep, prunable)
    plan = plan_of(score_fn, select, prunable, nested, fresh_keys, init_fn, key)
    inputs = (params, batch, key, keep, mask)
    turn_on = plan.needs_x64 and is_concrete(inputs)
    with jax.enable_x64(turn_on or has_x64()):
        mask, nans = run_rounds(plan, params, batch, key, keep, mask)
    if is_concrete(nans):
        refuse_nans(params, nans)
    return mask


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
    """Returns what ``prune`` does, and what is wrong with the scores of each leaf.

    For use in a program: nothing can be raised there, so NaN ranks lowest, and the
    caller looks at the numbers, int ``[leaves]``, 0 where nothing is wrong:
    ``refuse_nans`` reads them.
    Arguments are those of ``prune``, ``keep`` that of all rounds. A score that needs
    64 bits must be called in JAX's 64-bit mode.
    """
    plan = plan_of(score_fn, select, prunable, nested, fresh_keys, init_fn, key)
    first = dense_mask(params) if mask is None else mask
    found: tuple[Mask, jax.Array] = run_rounds(plan, params, batch, key, keep, first)
    return found


def refuse_nans(params: Params, counts: Any) -> None:
    """Raises for NaN scores, naming their leaf, and for scores that are all 0.

    Args:
      params: arrays, or their shapes.
      counts: how many NaN each leaf has, ``[leaves]``. Where all scores of the first
        round are 0: -2 of a leaf that may be pruned and whose weights are all 0, and
        -1 of the others.

    Raises:
      ValueError: there is one of both.
    """
    counts = np.asarray(counts)  # on the host: here no program is worth compiling
    zeros = [
        path
        for (path, _), count in zip(named_leaves(params), counts, strict=True)
        if count == -2
    ]
    if any(count < 0 for count in counts):
        why = f", and all weights of {', '.join(map(repr, zeros))}" if zeros else ""
        raise ValueError(
            f"every score is 0{why}: no weight is preferred to another. A layer of "
            "zeros, such as the head of some initializations, passes no gradient on"
        )
    for (path, leaf), count in zip(named_leaves(params), counts, strict=True):
        refuse_nan(path, int(count), math.prod(leaf.shape))


def counts_of(
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
    if isinstance(sparsity, jax.core.Tracer):
        raise ValueError(
            "sparsity is traced, expected a Python number: under jit or vmap pass "
            "keep=, an integer array [rounds]"
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


def check_keep(keep: Any, total: int) -> None:
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


class Plan(NamedTuple):
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


def plan_of(
    score_fn: ScoreFn,
    select: SelectFn,
    prunable: Prunable,
    nested: bool,
    fresh_keys: bool,
    init_fn: InitFn | None,
    key: jax.Array | None,
) -> Plan:
    """Returns what rounds are compiled for; ValueError: no key where one is needed."""
    if key is None and (fresh_keys or init_fn is not None):
        raise ValueError("key is None, expected one: every round has a key of its own")
    leaves = tuple(jax.tree.leaves(prunable))
    return Plan(score_fn, select, leaves, nested, fresh_keys, init_fn)


@functools.partial(jax.jit, static_argnums=0)
def run_rounds(
    plan: Plan,
    params: Params,
    batch: Batch,
    key: jax.Array | None,
    keep: Any,
    mask: Mask,
) -> tuple[Mask, jax.Array]:
    """The mask after every round, and what ``refuse_nans`` reads of its scores."""
    flags = plan.prunable_leaves
    prunable = jax.tree.unflatten(jax.tree.structure(params), flags)
    first, count = mask, jax.tree.leaves(keep)[0].shape[0]

    def one_round(mask: Mask, now: tuple[Any, Any]) -> tuple[Mask, Any]:
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
        found = plan.select(scores, keep, prunable=prunable, mask=among)
        return found, (jnp.stack(nans), _all_zero(scores, among, prunable))

    mask, (nans, all_zero) = jax.lax.scan(one_round, mask, (jnp.arange(count), keep))
    empty = [
        _all_zero([leaf], [kept], [flag]) & flag
        for leaf, kept, flag in zip(
            jax.tree.leaves(params), jax.tree.leaves(first), flags, strict=True
        )
    ]
    # Later rounds may come to nothing, of a network that has collapsed.
    wrong = jnp.where(all_zero[0], -1 - jnp.stack(empty), jnp.max(nans, axis=0))
    return mask, wrong


def _all_zero(values: Any, mask: Mask, prunable: Prunable) -> jax.Array:
    """Whether all values are 0 that a mask keeps and that may be pruned."""
    trees = (values, mask, prunable)
    leaves = zip(*(jax.tree.leaves(tree) for tree in trees), strict=True)
    zero = [jnp.all((leaf == 0) | ~kept) for leaf, kept, flag in leaves if flag]
    return jnp.all(jnp.array(zero))
