"""The masks of many networks or data sets: ``prune`` under ``vmap``.

Depends on masks and the scores.
"""

import functools
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.masks import (
    Mask,
    Params,
    Prunable,
    Schedule,
    dense_mask,
    has_x64,
    prunable_kernels,
    prunable_size,
    top_k,
)
from nfp_jax.pruners.checks import check_score, check_weights
from nfp_jax.pruners.contract import InitFn, ScoreFn, warn_of_one_shot
from nfp_jax.pruners.rounds import (
    Plan,
    check_keep,
    counts_of,
    exponential,
    plan_of,
    refuse_nans,
    run_rounds,
)
from nfp_jax.pruners.selects import SelectFn
from nfp_jax.types import Batch


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
    check_score(score_fn)
    prunable = prunable_kernels(one) if prunable is None else prunable
    check_weights(one, prunable)
    total = prunable_size(one, prunable)
    keep = counts_of(one, total, sparsity, keep, rounds, schedule)
    each = jax.tree.leaves(keep)[0].ndim == 2
    check_keep(jax.tree.map(jnp.ravel, keep) if each else keep, total)
    args = (params, batch, key, keep)
    axes = (*axes, 0 if each else None)
    count = _networks(args, axes)
    warn_of_one_shot(score_fn, jax.tree.leaves(keep)[0].shape[-1])
    plan = plan_of(score_fn, select, prunable, nested, fresh_keys, init_fn, key)
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
    _refuse_networks(one, np.concatenate(jax.device_get(nans)))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *masks)


class NanScores(ValueError):
    """Scores that are NaN; ``networks`` has the places of the networks."""

    def __init__(self, message: str, networks: list[int]) -> None:
        super().__init__(message)
        self.networks = networks


def _refuse_networks(params: Params, counts: np.ndarray) -> None:
    """Raises for networks with NaN scores: their numbers ``[networks, leaves]``."""
    networks = np.flatnonzero(counts.any(axis=1)).tolist()
    if networks:
        try:
            refuse_nans(params, counts[networks[0]])
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


@functools.partial(jax.jit, static_argnums=(0, 1))
def _many_rounds(
    plan: Plan,
    in_axes: Any,
    params: Params,
    batch: Batch,
    key: jax.Array | None,
    keep: Any,
) -> tuple[Mask, jax.Array]:
    """``run_rounds`` of many networks, from dense masks."""

    def rounds(params: Params, batch: Batch, key: Any, keep: Any) -> Any:
        return run_rounds(plan, params, batch, key, keep, dense_mask(params))

    return jax.vmap(rounds, in_axes=in_axes)(params, batch, key, keep)
