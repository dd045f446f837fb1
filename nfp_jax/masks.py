"""Mask pytrees: make, apply, select by score, measure, compare.

A mask has the structure and shapes of ``params`` and bool leaves, ``True`` where a
weight is kept; leaves that may not be pruned (biases, scales) are all ``True``. What
is prunable is a static pytree of Python bools, one a leaf; by default the leaves of
two or more axes. Ranks are taken in the order of ``jax.tree.leaves``, row-major
within a leaf, and never in floating point: a score becomes an unsigned integer of the
same order, so that ties, ``-0.0`` and NaN are settled once, for every backend.
Depends on jax and numpy only.
"""

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Params = Any
Mask = Any
Scores = Any
Prunable = Any
ApplyFn = Callable[[Params, jax.Array], jax.Array]
Schedule = Callable[[float, float], float]


# What is prunable, and how much of it is kept


def prunable_kernels(params: Params) -> Prunable:
    """Returns which leaves may be pruned: those of two or more axes.

    Kernels of dense and convolutional layers have two axes or more; biases and
    normalization scales have one and are never pruned.

    Args:
      params: any pytree of arrays, without extra batch axes.

    Returns:
      A pytree like ``params`` of Python bools.

    Raises:
      ValueError: no leaf has two axes.

    >>> prunable_kernels({"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)})
    {'bias': False, 'kernel': True}

    Reference: Tanaka et al. 2020, https://arxiv.org/abs/2006.05467, whose code prunes
    the same leaves.
    """
    prunable = jax.tree.map(lambda leaf: jnp.ndim(leaf) >= 2, params)
    if not any(jax.tree.leaves(prunable)):
        shapes = {path: jnp.shape(leaf) for path, leaf in named_leaves(params)}
        raise ValueError(
            f"nothing to prune: expected a leaf of two or more axes, got {shapes}; "
            "pass prunable="
        )
    return prunable


def keep_count(total: int, sparsity: float | Fraction) -> int:
    """Returns how many weights a sparsity keeps: ``total - floor(sparsity · total)``.

    The sparsity is the decimal number as written, not its binary neighbor: 0.29 of
    50,400 removes 14,616.

    Args:
      total: number of prunable weights.
      sparsity: share removed, in [0, 1).

    Returns:
      A Python int in [1, total].

    Raises:
      ValueError: ``sparsity`` outside [0, 1), or ``total`` below 1.

    >>> keep_count(50_400, 0.29)
    35784
    """
    if total < 1:
        raise ValueError(f"total is {total}, expected at least 1")
    return total - math.floor(_decimal(sparsity) * total)


def keep_counts(
    total: int, sparsity: float | Fraction, *, rounds: int, schedule: Schedule
) -> np.ndarray:
    """Returns how many weights each round of an iterative pruner keeps.

    Round ``t < rounds`` keeps ``P - floor((1 - schedule(density, t/rounds))·P)`` in
    double precision; the last one the count of ``keep_count``.

    Args:
      total: number of prunable weights ``P``.
      sparsity: share removed in the end, in [0, 1).
      rounds: number of rounds, at least 1.
      schedule: ``exponential``, ``linear``, or any ``(density, fraction) -> density``.

    Returns:
      int32 ``[rounds]``, non-increasing, on the host.

    Raises:
      ValueError: rounds below 1, a sparsity out of range, or a schedule that rises.

    >>> keep_counts(1000, 0.9, rounds=4, schedule=lambda density, t: density**t)
    array([563, 317, 178, 100], dtype=int32)

    Reference: Tanaka et al. 2020, https://arxiv.org/abs/2006.05467, algorithm 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}, expected at least 1")
    last = keep_count(total, sparsity)
    density = float(1 - _decimal(sparsity))
    fractions = [t / rounds for t in range(1, rounds)]
    early = [
        total - math.floor((1.0 - schedule(density, t)) * total) for t in fractions
    ]
    # Rounding may put an early round one weight below the decimal count.
    early = [last if count == last - 1 else count for count in early]
    counts = np.array([*early, last], np.int32)
    if np.any(np.diff(counts) > 0) or counts[0] > total:
        raise ValueError(f"the schedule keeps {counts.tolist()}, expected no increase")
    return counts


def erk_densities(
    params: Params, sparsity: float | Fraction, *, prunable: Prunable = None
) -> Any:
    """Returns the Erdős-Rényi-kernel density of each layer.

    A layer's density is proportional to ``sum(shape) / prod(shape)``, and 1 where that
    exceeds 1, the factor being such that the whole keeps ``keep_count``.

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
    prunable = _resolve(prunable, params)
    shapes = [jnp.shape(leaf) for leaf in _prunable_leaves(params, prunable)]
    keep = keep_count(sum(math.prod(shape) for shape in shapes), sparsity)
    densities = iter(_erk(shapes, keep).tolist())
    return jax.tree.map(lambda p: next(densities) if p else 1.0, prunable)


# Masks as values


def dense_mask(params: Params) -> Mask:
    """Returns the mask that keeps everything: ``True``, shaped like ``params``.

    >>> dense_mask({"w": jnp.zeros((1, 2))})["w"].tolist()
    [[True, True]]
    """
    return jax.tree.map(lambda leaf: jnp.ones(jnp.shape(leaf), bool), params)


def apply_mask(params: Params, mask: Mask) -> Params:
    """Returns ``params`` with removed weights set to 0: ``where(mask, p, 0)``.

    Args:
      params: pytree of arrays.
      mask: bool pytree of the same structure and shapes.

    Returns:
      A pytree like ``params``, same dtypes. A removed NaN becomes 0 as well.

    Raises:
      ValueError: structures, shapes or dtypes that do not fit, naming the path.

    >>> mask = {"w": jnp.array([[True, False]])}
    >>> apply_mask({"w": jnp.array([[2.0, 3.0]])}, mask)["w"].tolist()
    [[2.0, 0.0]]
    """
    check_mask(params, mask)
    return jax.tree.map(_masked, params, mask)


def masked_apply(apply_fn: ApplyFn) -> Callable[[Params, Mask, jax.Array], jax.Array]:
    """Returns ``f(params, mask, x) = apply_fn(params with mask applied, x)``.

    The mask is an argument like any other: ``vmap`` runs over it, and with float
    leaves (``p * m``) ``jax.grad`` differentiates in it, at ``m = 1`` for SNIP.

    Args:
      apply_fn: ``apply_fn(params, x)``, pure.

    Returns:
      ``f(params, mask, x)``; ``mask`` is a bool or a floating pytree like ``params``.

    >>> f = masked_apply(lambda params, x: x @ params)
    >>> w, x = jnp.array([[2.0], [3.0]]), jnp.ones((1, 2))
    >>> jax.grad(lambda m: f(w, m, x).sum())(jnp.ones_like(w)).ravel().tolist()
    [2.0, 3.0]

    Reference: Lee et al. 2019, https://arxiv.org/abs/1810.02340, equation 4.
    """

    def masked(params: Params, mask: Mask, x: jax.Array) -> jax.Array:
        check_like(params, mask, "mask")
        return apply_fn(jax.tree.map(_masked, params, mask), x)

    return masked


def check_mask(params: Params, mask: Mask) -> None:
    """Raises unless ``mask`` is a bool pytree of the structure and shapes of params.

    Raises:
      ValueError: names the path and both values, as in ``mask at 'Dense_0/kernel' has
        shape (3, 3), expected (8, 32)``.
    """
    check_like(params, mask, "mask")
    for path, leaf in named_leaves(mask):
        if jnp.result_type(leaf) != jnp.bool_:
            raise ValueError(
                f"mask at {path!r} has dtype {jnp.result_type(leaf)}, expected bool"
            )


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """Returns the leaves of a pytree with their paths, as in ``params/Dense_0/bias``.

    >>> named_leaves({"a": [1, 2]})
    [('a/0', 1), ('a/1', 2)]
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in flat
    ]


# Selection: scores in, mask out


def top_k(
    scores: Scores, keep: Any, *, prunable: Prunable = None, mask: Mask = None
) -> Mask:
    """Returns the mask of the ``keep`` highest scores, ranked over all layers together.

    Exactly ``keep`` weights are kept: of equal scores the one with the lower flat index
    (``-0.0`` equals ``0.0``).

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
        out of range. Under a transform neither can be raised: NaN ranks lowest, and a
        ``keep`` above what the earlier mask left keeps all of that.

    >>> scores = {"w": jnp.array([[3.0, 1.0], [2.0, 2.0]]), "b": jnp.zeros(2)}
    >>> top_k(scores, 2)["w"].tolist()
    [[True, False], [True, False]]
    """
    ranks, prunable = _ranks(scores, prunable, mask)
    _check_keep(keep, ranks)
    return _unflatten(_highest(jnp.concatenate(ranks), keep), scores, prunable)


def top_k_per_layer(
    scores: Scores, keep: Any, *, prunable: Prunable = None, mask: Mask = None
) -> Mask:
    """Returns the mask that keeps the same share of every layer, by score within it.

    Layer ``l`` keeps the ``floor(keep·P_l/P)`` highest of its ``P_l`` scores. The few
    that this leaves over, fewer than there are layers, go to the highest scores of the
    rest (so does what an earlier mask no longer leaves in a layer).

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
    ranks, prunable = _ranks(scores, prunable, mask)
    _check_keep(keep, ranks)
    sizes = np.array([rank.size for rank in ranks])
    quotas = _floor_shares(keep, sizes)
    return _unflatten(_highest_by_share(ranks, quotas, keep), scores, prunable)


def top_k_erk(
    scores: Scores, keep: Any, *, prunable: Prunable = None, mask: Mask = None
) -> Mask:
    """Returns the mask whose layers have Erdős-Rényi-kernel densities.

    Layer ``l`` keeps the ``floor(density_l·P_l)`` highest of its scores, the density
    being that of ``erk_densities``; what rounding leaves over goes to the highest
    scores of the rest.

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
    ranks, prunable = _ranks(scores, prunable, mask)
    _check_keep(keep, ranks)
    shapes = [leaf.shape for leaf in _prunable_leaves(scores, prunable)]
    quotas = _erk_quotas(shapes, keep)
    return _unflatten(_highest_by_share(ranks, quotas, keep), scores, prunable)


def top_k_by_quota(
    scores: Scores, keeps: Any, *, prunable: Prunable = None, mask: Mask = None
) -> Mask:
    """Returns the mask that keeps in each layer the number given for it.

    Args:
      scores: pytree of floating arrays, higher is kept.
      keeps: a pytree like ``scores`` with one integer a leaf (those of leaves that may
        not be pruned are ignored), or a sequence of one integer a prunable leaf, in
        the order of ``jax.tree.leaves``. Integers may be traced.
      prunable: static pytree of bools; ``None``: ``prunable_kernels(scores)``.
      mask: an earlier mask; what it removed stays removed.

    Returns:
      A bool pytree like ``scores``.

    Raises:
      ValueError: quotas that do not match the layers, a quota above what its layer
        has left (names the layer), or a NaN score. Under a transform a quota too high
        keeps all that is left.

    >>> scores = {"a": jnp.array([[1.0, 2.0]]), "b": jnp.array([[3.0, 4.0]])}
    >>> top_k_by_quota(scores, {"a": 2, "b": 0})["b"].tolist()
    [[False, False]]
    """
    ranks, prunable = _ranks(scores, prunable, mask)
    quotas = _quota_leaves(keeps, scores, prunable)
    for path, quota, rank in zip(
        _prunable_paths(scores, prunable), quotas, ranks, strict=True
    ):
        _check_keep(quota, [rank], f" of layer {path!r}")
    kept = [_highest(rank, quota) for rank, quota in zip(ranks, quotas, strict=True)]
    return _unflatten(jnp.concatenate(kept), scores, prunable)


# Measures


def sparsity_of(mask: Mask, *, prunable: Prunable = None) -> jax.Array:
    """Returns the share of prunable weights removed, a float scalar in [0, 1].

    >>> float(sparsity_of({"w": jnp.array([[True, False]]), "b": jnp.array([True])}))
    0.5
    """
    flat = ravel_mask(mask, prunable=prunable)
    return jnp.sum(~flat) / flat.size


def sparsity_by_layer(mask: Mask, *, prunable: Prunable = None) -> dict[str, jax.Array]:
    """Returns the share removed of each prunable leaf, by path; 1 is layer collapse.

    >>> by_layer = sparsity_by_layer({"w": jnp.array([[True, False]])})
    >>> {path: float(share) for path, share in by_layer.items()}
    {'w': 0.5}
    """
    prunable = _resolve(prunable, mask)
    paths = _prunable_paths(mask, prunable)
    leaves = _prunable_leaves(mask, prunable)
    return {
        path: jnp.sum(~leaf) / leaf.size
        for path, leaf in zip(paths, leaves, strict=True)
    }


def empty_layers(mask: Mask, *, prunable: Prunable = None) -> list[str]:
    """Returns the paths of the layers with no weight left (layer collapse).

    Needs concrete values; ``sparsity_by_layer`` is the same under a transform.

    >>> empty_layers({"a": jnp.array([[False]]), "b": jnp.array([[True]])})
    ['a']

    Reference: Tanaka et al. 2020, https://arxiv.org/abs/2006.05467, section 3.
    """
    prunable = _resolve(prunable, mask)
    paths = _prunable_paths(mask, prunable)
    leaves = _prunable_leaves(mask, prunable)
    return [p for p, leaf in zip(paths, leaves, strict=True) if not jnp.any(leaf)]


def collapsed(apply_fn: ApplyFn, mask: Mask, input_shape: Sequence[int]) -> jax.Array:
    """Returns whether no path from input to output is left, a bool scalar.

    All weights kept are set to positive random values, removed ones to 0, and the
    output is differentiated by a positive input: in a network of ReLUs, pooling and
    linear layers each path then adds a positive term. With normalization or attention
    a derivative of exactly 0 at random values says the same with probability 1. So that
    depth is not mistaken for collapse, this is done at several sizes of the weights:
    one derivative that is neither 0 nor infinite proves a path.

    Args:
      apply_fn: ``apply_fn(params, x)`` with ``x`` ``[batch, *input_shape]``.
      mask: bool pytree like the parameters.
      input_shape: one example's shape, without the batch.

    Returns:
      A bool scalar; works under ``jit`` and ``vmap`` over masks.

    >>> chain = lambda params, x: x @ params["a"] @ params["b"]
    >>> mask = {"a": jnp.array([[True, False]]), "b": jnp.array([[False], [True]])}
    >>> bool(collapsed(chain, mask, (1,)))
    True

    Reference: Tanaka et al. 2020, https://arxiv.org/abs/2006.05467, section 3 (layer
    collapse); paths that miss each other are the case it leaves out.
    """
    leaves, treedef = jax.tree.flatten(mask)
    sizes = [leaf.size for leaf in leaves]
    weights_key, x_key, out_key = jax.random.split(jax.random.key(0), 3)
    # One draw for all: a draw for each of many layers compiles for long.
    drawn = jax.random.uniform(weights_key, (sum(sizes),), minval=0.5, maxval=1.5)
    parts = jnp.split(drawn, np.cumsum(sizes)[:-1])

    def weights(leaf: jax.Array, part: jax.Array) -> jax.Array:
        values = jnp.where(leaf, part.reshape(leaf.shape), 0.0)
        if leaf.ndim < 2:
            return values
        # A mean over what each output unit keeps: no overflow in deep networks.
        fan_in = jnp.sum(leaf, axis=tuple(range(leaf.ndim - 1)), keepdims=True)
        return values / jnp.maximum(fan_in, 1)

    kept = list(map(weights, leaves, parts))
    x = jax.random.uniform(x_key, (1, *input_shape), minval=0.5, maxval=1.5)

    def has_path(gain: jax.Array) -> jax.Array:
        params = jax.tree.unflatten(
            treedef, [w * gain if w.ndim >= 2 else w for w in kept]
        )
        out, pullback = jax.vjp(lambda x: apply_fn(params, x), x)
        cotangent = jax.random.uniform(out_key, out.shape, out.dtype, 0.5, 1.5)
        derivative = pullback(cotangent)[0]
        return jnp.any((derivative != 0) & jnp.isfinite(derivative))

    # 1 suits a plain network; layers stacked in one leaf of [layers, in, out] are
    # divided by too large a fan-in, and sparse ones lose a share a layer: up to 2^8.
    gains = jnp.array([0.25, 1.0, 4.0, 16.0, 64.0, 256.0])
    return ~jnp.any(jax.lax.map(has_path, gains))


def overlap(a: Mask, b: Mask, *, prunable: Prunable = None) -> jax.Array:
    """Returns the Jaccard index of the weights kept: ``|a ∧ b| / |a ∨ b|``, in [0, 1].

    1 for equal masks (two empty ones included), 0 for disjoint ones.

    >>> a, b = jnp.array([[True, True]]), jnp.array([[True, False]])
    >>> float(overlap(a, b))
    0.5
    """
    check_mask(a, b)
    prunable = _resolve(prunable, a)
    flat_a, flat_b = ravel_mask(a, prunable=prunable), ravel_mask(b, prunable=prunable)
    either = jnp.sum(flat_a | flat_b)
    return jnp.where(either > 0, jnp.sum(flat_a & flat_b) / jnp.maximum(either, 1), 1.0)


def ravel_mask(mask: Mask, *, prunable: Prunable = None) -> jax.Array:
    """Returns the prunable entries of a mask as one vector, bool ``[P]``.

    In the order of ``jax.tree.leaves``, row-major within a leaf.

    >>> ravel_mask({"w": jnp.array([[True, False]]), "b": jnp.array([True])}).tolist()
    [True, False]
    """
    prunable = _resolve(prunable, mask)
    return jnp.concatenate([leaf.ravel() for leaf in _prunable_leaves(mask, prunable)])


def unravel_mask(row: jax.Array, params: Params, *, prunable: Prunable = None) -> Mask:
    """Returns the mask that a row of ``ravel_mask`` stands for: its inverse.

    Args:
      row: bool ``[weights]``, the prunable ones.
      params: gives structure and shapes; arrays or ``ShapeDtypeStruct``.
      prunable: static pytree of bools; ``None``: ``prunable_kernels(params)``.

    Returns:
      A pytree like ``params``, all True on leaves that are not prunable.

    Raises:
      ValueError: a row of another length than there are prunable weights.

    >>> params = {"bias": jnp.zeros(1), "kernel": jnp.zeros((1, 2))}
    >>> mask = unravel_mask(jnp.array([True, False]), params)
    >>> mask["bias"].tolist(), mask["kernel"].tolist()
    ([True], [[True, False]])
    """
    prunable = _resolve(prunable, params)
    leaves, treedef = jax.tree.flatten(params)
    flags = jax.tree.leaves(prunable)
    sizes = [math.prod(x.shape) if f else 0 for x, f in zip(leaves, flags, strict=True)]
    if jnp.shape(row) != (sum(sizes),):
        raise ValueError(f"row has shape {jnp.shape(row)}, expected ({sum(sizes)},)")
    parts = jnp.split(row, np.cumsum(sizes)[:-1])
    whole = [
        part.reshape(leaf.shape) if flag else jnp.ones(leaf.shape, bool)
        for part, leaf, flag in zip(parts, leaves, flags, strict=True)
    ]
    return jax.tree.unflatten(treedef, whole)


def shuffle_within_layers(
    mask: Mask, key: jax.Array, *, prunable: Prunable = None
) -> Mask:
    """Returns the mask with the entries of each layer permuted at random.

    Every layer keeps its count and loses the places: the ablation that asks whether
    a pruner finds weights or only layer-wise sparsities.

    Args:
      mask: bool pytree.
      key: a JAX key; layer ``i`` is permuted by ``fold_in(key, i)``.
      prunable: static pytree of bools; ``None``: ``prunable_kernels(mask)``.

    Returns:
      A bool pytree like ``mask``.

    >>> mask = {"w": jnp.array([[True, True], [False, False]])}
    >>> int(shuffle_within_layers(mask, jax.random.key(0))["w"].sum())
    2

    Reference: Frankle et al. 2021, https://arxiv.org/abs/2009.08576, section 5.
    """
    prunable = _resolve(prunable, mask)
    leaves = [
        jax.random.permutation(jax.random.fold_in(key, i), leaf.ravel())
        for i, leaf in enumerate(_prunable_leaves(mask, prunable))
    ]
    return _unflatten(jnp.concatenate(leaves), mask, prunable)


# Structure


def has_x64() -> bool:
    """Returns whether JAX's 64-bit mode is on here."""
    return jax.dtypes.canonicalize_dtype(np.float64) == np.float64


def same_structure(a: Any, b: Any) -> bool:
    """Returns whether two pytrees have one structure, whatever their leaves."""
    structures: list[Any] = [jax.tree.structure(a), jax.tree.structure(b)]
    return structures[0] == structures[1]


def is_concrete(tree: Any) -> bool:
    """Returns whether no leaf is traced, so that its values can be checked."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def prunable_size(params: Params, prunable: Prunable = None) -> int:
    """Returns the number of prunable weights, ``P``.

    >>> prunable_size({"w": jnp.ones((2, 3)), "b": jnp.ones(3)})
    6
    """
    leaves = _prunable_leaves(params, _resolve(prunable, params))
    return sum(math.prod(jnp.shape(leaf)) for leaf in leaves)


def _decimal(sparsity: float | Fraction) -> Fraction:
    """The sparsity as the decimal number written, checked."""
    is_number = isinstance(sparsity, (int, float, Fraction, Decimal, np.number))
    if not is_number or isinstance(sparsity, bool):
        raise ValueError(f"sparsity is {sparsity!r}, expected a number in [0, 1)")
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is {sparsity}, expected 0 <= sparsity < 1")
    return Fraction(str(sparsity))


def _masked(leaf: jax.Array, mask: jax.Array) -> jax.Array:
    if jnp.result_type(mask) == jnp.bool_:
        return jnp.where(mask, leaf, jnp.zeros((), jnp.result_type(leaf)))
    return leaf * mask


def check_like(params: Params, other: Any, name: str, like: str = "params") -> None:
    """Raises, naming the path, unless both have one structure and the same shapes."""
    expected, given = dict(named_leaves(params)), dict(named_leaves(other))
    for path in expected:
        if path not in given:
            raise ValueError(f"{name} has no leaf {path!r}, which {like} has")
    for path in given:
        if path not in expected:
            raise ValueError(f"{name} has a leaf {path!r}, which {like} has not")
    if not same_structure(params, other):
        raise ValueError(
            f"{name} has the structure {jax.tree.structure(other)}, "
            f"expected {jax.tree.structure(params)}"
        )
    for path, leaf in expected.items():
        if jnp.shape(given[path]) != jnp.shape(leaf):
            raise ValueError(
                f"{name} at {path!r} has shape {jnp.shape(given[path])}, "
                f"expected {jnp.shape(leaf)}"
            )


def _resolve(prunable: Prunable, params: Params) -> Prunable:
    """The given ``prunable``, checked, or the default one."""
    if prunable is None:
        return prunable_kernels(params)
    expected, given = named_leaves(params), named_leaves(prunable)
    if not same_structure(params, prunable):
        raise ValueError(
            f"prunable has the leaves {[path for path, _ in given]}, expected one bool "
            f"for each of {[path for path, _ in expected]}"
        )
    for path, leaf in given:
        if not isinstance(leaf, (bool, np.bool_)):
            raise ValueError(
                f"prunable at {path!r} is {leaf!r}, expected a Python bool"
            )
    if not any(leaf for _, leaf in given):
        raise ValueError("prunable is False everywhere, expected a True")
    return prunable


def _prunable_leaves(tree: Any, prunable: Prunable) -> list[Any]:
    flags = jax.tree.leaves(prunable)
    return [x for x, p in zip(jax.tree.leaves(tree), flags, strict=True) if p]


def _prunable_paths(tree: Any, prunable: Prunable) -> list[str]:
    flags = jax.tree.leaves(prunable)
    return [path for (path, _), p in zip(named_leaves(tree), flags, strict=True) if p]


def _unflatten(kept: jax.Array, scores: Scores, prunable: Prunable) -> Mask:
    """A bool vector ``[P]`` as a mask pytree; ``True`` on leaves not prunable."""
    leaves, treedef = jax.tree.flatten(scores)
    masks, start = [], 0
    for leaf, flag in zip(leaves, jax.tree.leaves(prunable), strict=True):
        if flag:
            masks.append(kept[start : start + leaf.size].reshape(leaf.shape))
            start += leaf.size
        else:
            masks.append(jnp.ones(jnp.shape(leaf), bool))
    return jax.tree.unflatten(treedef, masks)


# Ranking


def _ranks(
    scores: Scores, prunable: Prunable, mask: Mask
) -> tuple[list[jax.Array], Prunable]:
    """Each prunable leaf as unsigned integers of the scores' order, flat.

    0 marks what an earlier mask removed, 1 a NaN; every number is above.
    """
    prunable = _resolve(prunable, scores)
    paths = _prunable_paths(scores, prunable)
    leaves = _prunable_leaves(scores, prunable)
    if mask is None:
        eligible = [jnp.ones(jnp.shape(leaf), bool) for leaf in leaves]
    else:
        check_mask(scores, mask)
        eligible = _prunable_leaves(mask, prunable)
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

    The threshold is found bit by bit, by counting: no sort, and ``keep`` may be traced.
    """
    bits = 8 * ranks.dtype.itemsize
    one = np.array(1, ranks.dtype)

    def refine(i: jax.Array, threshold: jax.Array) -> jax.Array:
        higher = threshold | (one << (bits - 1 - i).astype(ranks.dtype))
        return jnp.where(jnp.sum(ranks >= higher) >= keep, higher, threshold)

    threshold = jax.lax.fori_loop(0, bits, refine, jnp.zeros((), ranks.dtype))
    above, equal = ranks > threshold, ranks == threshold
    kept = above | _first(equal, keep - jnp.sum(above))
    return kept & (ranks > 0)


def _first(marks: jax.Array, count: Any) -> jax.Array:
    """The first ``count`` marks of a vector: a running sum within one row alone."""
    width = 256
    size = marks.shape[0]
    rows = jnp.pad(marks, (0, -size % width)).reshape(-1, width)
    up_to = jnp.cumsum(jnp.sum(rows, axis=1))
    cut = jnp.sum(up_to <= count)  # the rows before it are kept whole
    before = jnp.where(cut > 0, up_to[cut - 1], 0)
    row = rows[cut] & (jnp.cumsum(rows[cut]) <= count - before)
    whole = rows & (jnp.arange(rows.shape[0])[:, None] < cut)
    return whole.at[cut].set(row, mode="drop").ravel()[:size]


def _highest_by_share(
    ranks: list[jax.Array], quotas: jax.Array, keep: Any
) -> jax.Array:
    """The ``quotas[l]`` highest of each layer, then the highest of the rest."""
    flat = jnp.concatenate(ranks)
    first = [_highest(rank, quotas[i]) for i, rank in enumerate(ranks)]
    top = np.array(jnp.iinfo(flat.dtype).max, flat.dtype)
    return _highest(jnp.where(jnp.concatenate(first), top, flat), keep)


def _floor_shares(keep: Any, sizes: np.ndarray) -> jax.Array:
    """``floor(keep · size / total)`` of each size, exactly, in 32 bits."""
    total = int(sizes.sum())
    if total >= 2**30:
        raise ValueError(f"{total} prunable weights, expected fewer than 2^30")
    return _floor_ratios(keep, jnp.asarray(sizes, jnp.uint32), total)


@jax.jit
def _floor_ratios(keep: Any, parts: jax.Array, total: Any) -> jax.Array:
    """``floor(keep · parts / total)`` for parts up to a total below 2^30.

    Long division over the bits of ``keep``: the product itself would overflow.
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
    for _ in shapes:  # each pass fills at least one more layer, or changes nothing
        left = keep - sizes[full].sum()
        densities[~full] = left * sums[~full] / sums[~full].sum() / sizes[~full]
        full |= densities >= 1.0
    return np.where(full, 1.0, densities)


def _erk_quotas(shapes: list[tuple[int, ...]], keep: Any) -> jax.Array:
    """``floor(density · size)`` ``[layers]`` of the ERK densities, exactly."""
    total = sum(math.prod(shape) for shape in shapes)
    if total >= 2**30:
        raise ValueError(f"{total} prunable weights, expected fewer than 2^30")
    sizes = np.array([math.prod(shape) for shape in shapes], np.int32)
    return _fill_quotas(sizes, np.array([sum(shape) for shape in shapes]), keep)


@jax.jit
def _fill_quotas(sizes: jax.Array, sums: jax.Array, keep: Any) -> jax.Array:
    """Shares ``keep`` in proportion to ``sums``, no layer above its size."""

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
    paths = _prunable_paths(scores, prunable)
    scalars = all(np.ndim(leaf) == 0 for leaf in jax.tree.leaves(keeps))
    if scalars and same_structure(keeps, scores):
        return _prunable_leaves(keeps, prunable)
    if isinstance(keeps, (list, tuple, np.ndarray, jax.Array)):
        if np.ndim(keeps) == 1 and len(keeps) == len(paths):
            return [keeps[i] for i in range(len(paths))]
    raise ValueError(
        f"keeps is {keeps!r}, expected a pytree like scores or one integer for each "
        f"of {paths}"
    )


def _check_keep(keep: Any, ranks: list[jax.Array], where: str = "") -> None:
    """Raises for a ``keep`` that is no integer, or is concrete and out of range."""
    is_array = isinstance(keep, (int, float, np.generic, np.ndarray, jax.Array))
    if (
        not is_array
        or jnp.ndim(keep)
        or not jnp.issubdtype(jnp.result_type(keep), jnp.integer)
    ):
        raise ValueError(f"keep{where} is {keep!r}, expected one integer")
    if is_concrete((keep, ranks)):
        available = sum(int(jnp.sum(rank > 0)) for rank in ranks)
        if not 0 <= keep <= available:
            raise ValueError(
                f"keep{where} is {int(keep)}, expected 0 <= keep <= {available}, "
                "the weights there are to keep"
            )
