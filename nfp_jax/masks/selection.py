"""Masks by score: the highest over all layers, per layer, by quota, by ERK densities.

The flat index counts in the order of ``jax.tree.leaves``, and in C order within a leaf.
Scores are never compared in floating point. Each becomes an unsigned integer, its rank,
of the same order. So ties, ``-0.0`` and NaN are settled once, for every backend.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.masks.counts import keep_count
from nfp_jax.masks.fan_in import layer_shapes
from nfp_jax.masks.prunable import prunable_leaves, prunable_paths, resolve_prunable
from nfp_jax.masks.values import check_mask, unflatten_mask
from nfp_jax.trees import in_a_line, is_concrete, same_structure
from nfp_jax.types import Mask, Params, Prunable, Scores


def erk_densities(
    params: Params, sparsity: float | Fraction, *, prunable: Prunable = None
) -> Any:
    """Returns the Erdős-Rényi-kernel density of each layer.

    A layer's density is ``factor · sum(shape) / prod(shape)``, or 1 where that exceeds
    1. Kernels of attention count as matrices (`layer_shapes`). The factor is
    the one with which all layers together keep ``keep_count``.

    Args:
      params: pytree of arrays.
      sparsity: share of all prunable weights removed, in [0, 1).
      prunable: static pytree of bools; ``None``: ``prunable_kernels(params)``.

    Returns:
      A pytree like ``params`` of Python floats; 1.0 on leaves that may not be pruned.

    >>> erk_densities({"a": jnp.ones((10, 10)), "b": jnp.ones((2, 5))}, 0.5)
    {'a': 0.45, 'b': 1.0}

    Reference: Evci et al. 2020, https://arxiv.org/abs/1911.11134, section 3.
    """
    prunable = resolve_prunable(prunable, params)
    shapes = layer_shapes(params, prunable)
    keep = keep_count(sum(math.prod(shape) for shape in shapes), sparsity)
    densities = iter(_erk(shapes, keep).tolist())
    return jax.tree.map(lambda p: next(densities) if p else 1.0, prunable)


def top_k(
    scores: Scores, keep: Any, *, prunable: Prunable = None, mask: Mask = None
) -> Mask:
    """Returns the mask of the ``keep`` highest scores, ranked over all layers together.

    Exactly ``keep`` weights are kept. Of equal scores the one with the lower flat index
    is kept; ``-0.0`` equals ``0.0``.

    Args:
      scores: pytree of floating arrays, higher is kept.
      keep: number of weights to keep, a Python or traced integer, so that a new
        sparsity does not compile again.
      prunable: static pytree of bools; ``None``: ``prunable_kernels(scores)``.
      mask: an earlier mask; what it removed stays removed.

    Returns:
      A bool pytree like ``scores``; ``True`` on leaves that may not be pruned.

    Raises:
      ValueError: a NaN among the scores that are ranked (names the layer), or ``keep``
        out of range. Under a transform neither can be raised: then NaN ranks lowest,
        and a ``keep`` above what the earlier mask left keeps all that it left.

    >>> scores = {"w": jnp.array([[3.0, 1.0], [2.0, 2.0]]), "b": jnp.zeros(2)}
    >>> top_k(scores, 2)["w"].tolist()
    [[True, False], [True, False]]
    """
    ranks, prunable = _ranks(scores, prunable, mask)
    _check_keep(keep, ranks)
    return unflatten_mask(_highest(jnp.concatenate(ranks), keep), scores, prunable)


def top_k_per_layer(
    scores: Scores, keep: Any, *, prunable: Prunable = None, mask: Mask = None
) -> Mask:
    """Returns the mask that keeps the same share of every layer, by score within it.

    Layer ``l`` keeps the ``floor(keep·P_l/P)`` highest of its ``P_l`` scores. Rounding
    leaves fewer weights over than there are layers: the highest remaining scores of all
    layers are kept for them. The same is done where an earlier mask left too few
    weights in a layer.

    Args:
      scores: pytree of floating arrays, higher is kept; fewer than 2^30 prunable.
      keep: number of weights to keep in all, a Python or traced integer.
      prunable: static pytree of bools; ``None``: ``prunable_kernels(scores)``.
      mask: an earlier mask; what it removed stays removed.

    Returns:
      A bool pytree like ``scores`` with exactly ``keep`` prunable weights kept.

    Raises:
      ValueError: as ``top_k``.

    >>> scores = {"a": jnp.array([[1.0, 2.0]]), "b": jnp.array([[3.0, 4.0]])}
    >>> mask = top_k_per_layer(scores, 2)
    >>> mask["a"].tolist(), mask["b"].tolist()
    ([[False, True]], [[False, True]])

    Reference: Zhu and Gupta 2017, https://arxiv.org/abs/1710.01878 (uniform sparsity).
    """
    return _top_k_with_quotas(_uniform_quotas, scores, keep, prunable, mask)


def top_k_erk(
    scores: Scores, keep: Any, *, prunable: Prunable = None, mask: Mask = None
) -> Mask:
    """Returns the mask whose layers have Erdős-Rényi-kernel densities.

    Layer ``l`` keeps the ``floor(density_l·P_l)`` highest of its scores, with the
    density of ``erk_densities``. For what rounding leaves over, the highest remaining
    scores of all layers are kept.

    Args:
      scores: pytree of floating arrays, higher is kept; fewer than 2^30 prunable.
      keep: number of weights to keep in all, a Python or traced integer.
      prunable: static pytree of bools; ``None``: ``prunable_kernels(scores)``.
      mask: an earlier mask; what it removed stays removed.

    Returns:
      A bool pytree like ``scores`` with exactly ``keep`` prunable weights kept.

    Raises:
      ValueError: as ``top_k``.

    >>> scores = {"a": jnp.ones((10, 10)), "b": jnp.ones((2, 5))}
    >>> mask = top_k_erk(scores, 55)
    >>> int(mask["a"].sum()), int(mask["b"].sum())
    (45, 10)

    Reference: Evci et al. 2020, https://arxiv.org/abs/1911.11134, section 3.
    """
    return _top_k_with_quotas(_erk_quotas, scores, keep, prunable, mask)


def top_k_by_quota(
    scores: Scores, keeps: Any, *, prunable: Prunable = None, mask: Mask = None
) -> Mask:
    """Returns the mask that keeps in each layer the number given for it.

    Args:
      scores: pytree of floating arrays, higher is kept.
      keeps: a pytree like ``scores`` with one integer a leaf, ignored on leaves that
        may not be pruned; or a sequence of one integer a prunable leaf, in the order of
        ``jax.tree.leaves``. Integers may be traced.
      prunable: static pytree of bools; ``None``: ``prunable_kernels(scores)``.
      mask: an earlier mask; what it removed stays removed.

    Returns:
      A bool pytree like ``scores``.

    Raises:
      ValueError: quotas that do not match the layers, a quota above what its layer
        has left (names the layer), or a NaN score. Under a transform a quota that is
        too high keeps all that is left.

    >>> scores = {"a": jnp.array([[1.0, 2.0]]), "b": jnp.array([[3.0, 4.0]])}
    >>> top_k_by_quota(scores, {"a": 2, "b": 0})["b"].tolist()
    [[False, False]]
    """
    ranks, prunable = _ranks(scores, prunable, mask)
    quotas = _quota_leaves(keeps, scores, prunable)
    for path, quota, rank in zip(
        prunable_paths(scores, prunable), quotas, ranks, strict=True
    ):
        _check_keep(quota, [rank], f" of layer {path!r}")
    kept = [_highest(rank, quota) for rank, quota in zip(ranks, quotas, strict=True)]
    return unflatten_mask(jnp.concatenate(kept), scores, prunable)


def _ranks(
    scores: Scores, prunable: Prunable, mask: Mask
) -> tuple[list[jax.Array], Prunable]:
    """The ranks of each prunable leaf, flat: unsigned integers in the scores' order.

    0 marks what an earlier mask removed, and 1 a NaN; ranks of numbers are higher.
    """
    prunable = resolve_prunable(prunable, scores)
    paths = prunable_paths(scores, prunable)
    leaves = prunable_leaves(scores, prunable)
    if mask is None:
        eligible = [jnp.ones(jnp.shape(leaf), bool) for leaf in leaves]
    else:
        check_mask(scores, mask)
        eligible = prunable_leaves(mask, prunable)
    for path, leaf, allowed in zip(paths, leaves, eligible, strict=True):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(
                f"scores at {path!r} have dtype {jnp.result_type(leaf)}, "
                "expected a floating one"
            )
        if is_concrete((leaf, allowed)):
            count = int(jnp.sum(jnp.isnan(leaf) & allowed))
            refuse_nan(path, count, leaf.size)
    dtype = jnp.promote_types(jnp.result_type(*leaves), jnp.float32)
    return [
        jnp.where(allowed, _ordered_bits(leaf.astype(dtype)), 0).ravel()
        for leaf, allowed in zip(leaves, eligible, strict=True)
    ], prunable


def refuse_nan(path: str, count: int, size: int) -> None:
    """Raises for a layer with NaN among its scores, naming it."""
    if count:
        raise ValueError(
            f"scores at {path!r} are NaN in {count} of {size} entries: look for NaN in "
            "params or batch, or an overflow (deep networks under synflow: pass "
            "dtype=jnp.float64)"
        )


def _ordered_bits(x: jax.Array) -> jax.Array:
    """Floats as unsigned integers in the same order, at least 2; NaN as 1."""
    unsigned = jnp.uint32 if x.dtype.itemsize == 4 else jnp.uint64
    sign = np.array(1, unsigned) << (8 * x.dtype.itemsize - 1)
    bits = jax.lax.bitcast_convert_type(x, unsigned)
    bits = jnp.where(bits == sign, 0, bits).astype(unsigned)  # -0.0 is 0.0
    ordered = jnp.where(bits & sign != 0, ~bits, bits | sign)
    return jnp.where(jnp.isnan(x), 1, ordered).astype(unsigned)


@jax.jit  # called eagerly, it would compile its loop each time
def _highest(ranks: jax.Array, keep: Any) -> jax.Array:
    """Marks the ``keep`` highest ranks, the lower index first among equals.

    The threshold is found bit by bit, by counting. So nothing is sorted, and ``keep``
    may be traced.
    """
    bits = 8 * ranks.dtype.itemsize
    lowest_bit = np.array(1, ranks.dtype)

    def refine(i: jax.Array, threshold: jax.Array) -> jax.Array:
        higher = threshold | (lowest_bit << (bits - 1 - i).astype(ranks.dtype))
        return jnp.where(jnp.sum(ranks >= higher) >= keep, higher, threshold)

    threshold = jax.lax.fori_loop(0, bits, refine, jnp.zeros((), ranks.dtype))
    above, equal = ranks > threshold, ranks == threshold
    kept = above | _first(equal, keep - jnp.sum(above))
    return kept & (ranks > 0)


def _first(marks: jax.Array, count: Any) -> jax.Array:
    """The first ``count`` marks of a vector.

    The vector is cut into blocks, of which one alone needs a running sum.
    """
    width = 256
    size = marks.shape[0]
    blocks = jnp.pad(marks, (0, -size % width)).reshape(-1, width)
    up_to = jnp.cumsum(jnp.sum(blocks, axis=1))
    cut = jnp.sum(up_to <= count)  # the blocks before it are kept whole
    before = jnp.where(cut > 0, up_to[cut - 1], 0)
    part = blocks[cut] & (jnp.cumsum(blocks[cut]) <= count - before)
    whole = blocks & (jnp.arange(blocks.shape[0])[:, None] < cut)
    return whole.at[cut].set(part, mode="drop").ravel()[:size]


def _top_k_with_quotas(
    quotas_fn: Callable[[list[tuple[int, ...]], Any], jax.Array],
    scores: Scores,
    keep: Any,
    prunable: Prunable,
    mask: Mask,
) -> Mask:
    """The mask of each layer's highest scores, then of the highest that remain.

    ``quotas_fn(shapes, keep)`` returns how many of each layer, together at most
    ``keep``.
    """
    ranks, prunable = _ranks(scores, prunable, mask)
    _check_keep(keep, ranks)
    quotas = quotas_fn(layer_shapes(scores, prunable), keep)
    flat = jnp.concatenate(ranks)
    within = [_highest(rank, quotas[i]) for i, rank in enumerate(ranks)]
    top = np.array(jnp.iinfo(flat.dtype).max, flat.dtype)
    kept = _highest(jnp.where(jnp.concatenate(within), top, flat), keep)
    return unflatten_mask(kept, scores, prunable)


def _uniform_quotas(shapes: list[tuple[int, ...]], keep: Any) -> jax.Array:
    """``floor(keep · size / total)`` of each layer, exactly."""
    sizes = _sizes(shapes)
    return _floor_ratios(keep, jnp.asarray(sizes, jnp.uint32), int(sizes.sum()))


def _sizes(shapes: list[tuple[int, ...]]) -> np.ndarray:
    """The layers' sizes, int32: few enough for exact quotas in 32 bits."""
    sizes = [math.prod(shape) for shape in shapes]
    if sum(sizes) >= 2**30:
        raise ValueError(f"{sum(sizes)} prunable weights, expected fewer than 2^30")
    return np.array(sizes, np.int32)


@jax.jit
def _floor_ratios(keep: Any, parts: jax.Array, total: Any) -> jax.Array:
    """``floor(keep · parts / total)``, for parts up to a total below 2^30.

    By long division over the bits of ``keep``, since the product would overflow.
    """
    keep, total = jnp.asarray(keep, jnp.uint32), jnp.asarray(total, jnp.uint32)

    def divide(i: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[Any, Any]:
        quotient, rest = state
        bit = (keep >> (29 - i).astype(jnp.uint32)) & 1
        rest = 2 * rest + bit * parts
        return 2 * quotient + rest // total, rest % total

    zeros = jnp.zeros_like(parts)
    return jax.lax.fori_loop(0, 30, divide, (zeros, zeros))[0].astype(jnp.int32)


def _erk(shapes: list[tuple[int, ...]], keep: int) -> np.ndarray:
    """ERK densities ``[layers]`` for ``keep`` weights."""
    sizes = np.array([math.prod(shape) for shape in shapes])
    sums = np.array([sum(shape) for shape in shapes])
    full = np.zeros(len(shapes), bool)
    densities = np.ones(len(shapes))
    for _ in shapes:  # a pass fills at least one more layer, or changes nothing
        left = keep - sizes[full].sum()
        densities[~full] = left * sums[~full] / sums[~full].sum() / sizes[~full]
        full |= densities >= 1.0
    return np.where(full, 1.0, densities)


def _erk_quotas(shapes: list[tuple[int, ...]], keep: Any) -> jax.Array:
    """``floor(density · size)`` of each layer by its ERK density, exactly."""
    sums = np.array([sum(shape) for shape in shapes])
    return _fill_quotas(_sizes(shapes), sums, keep)


@jax.jit
def _fill_quotas(sizes: jax.Array, sums: jax.Array, keep: Any) -> jax.Array:
    """Shares of ``keep`` in proportion to ``sums``, none above its layer's size."""

    def fill(_: Any, quotas: jax.Array) -> jax.Array:
        full = quotas >= sizes
        parts = jnp.where(full, 0, sums).astype(jnp.uint32)
        left = keep - jnp.sum(jnp.where(full, sizes, 0))
        rest = jnp.maximum(jnp.sum(parts), 1)
        return jnp.where(full, sizes, _floor_ratios(left, parts, rest))

    # A pass fills at least one more layer, or changes nothing.
    return jax.lax.fori_loop(0, len(sizes), fill, jnp.zeros_like(sizes))


def _quota_leaves(keeps: Any, scores: Scores, prunable: Prunable) -> list[Any]:
    """One quota a prunable leaf, from a pytree like ``scores`` or a flat sequence."""
    paths = prunable_paths(scores, prunable)
    scalars = all(np.ndim(leaf) == 0 for leaf in jax.tree.leaves(keeps))
    if scalars and same_structure(keeps, scores):
        return prunable_leaves(keeps, prunable)
    is_list = isinstance(keeps, (list, tuple))  # of traced integers, too
    if is_list or (isinstance(keeps, (np.ndarray, jax.Array)) and keeps.ndim == 1):
        if (scalars or not is_list) and len(keeps) == len(paths):
            return [keeps[i] for i in range(len(paths))]
    raise ValueError(
        f"keeps is {in_a_line(keeps)}, expected a pytree like scores or one integer "
        f"for each of {paths}"
    )


def _check_keep(keep: Any, ranks: list[jax.Array], where: str = "") -> None:
    """Raises unless ``keep`` is an integer and, where it is concrete, in range."""
    is_number = isinstance(keep, (int, float, np.generic, np.ndarray, jax.Array))
    if (
        not is_number
        or jnp.ndim(keep)
        or not jnp.issubdtype(jnp.result_type(keep), jnp.integer)
    ):
        raise ValueError(f"keep{where} is {in_a_line(keep)}, expected one integer")
    if is_concrete((keep, ranks)):
        available = sum(int(jnp.sum(rank > 0)) for rank in ranks)
        if not 0 <= keep <= available:
            raise ValueError(
                f"keep{where} is {int(keep)}, expected 0 <= keep <= {available}, "
                "the weights there are to keep"
            )
