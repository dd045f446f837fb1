"""Mask pytrees: make, check, apply, ravel and shuffle them.

A mask has the structure and shapes of ``params`` and bool leaves, ``True`` where a
weight is kept. Leaves that may not be pruned are all ``True``.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.masks.prunable import prunable_leaves, resolve_prunable
from nfp_jax.trees import check_arrays, check_like, named_leaves
from nfp_jax.types import ApplyFn, Mask, Params, Prunable, Scores


def dense_mask(params: Params) -> Mask:
    """Returns the mask that keeps everything: ``True``, shaped like ``params``.

    Raises:
      ValueError: a leaf that is no array (names its path).

    >>> dense_mask({"w": jnp.zeros((1, 2))})["w"].tolist()
    [[True, True]]
    """
    check_arrays(params)
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

    The mask is an argument like any other, so ``vmap`` runs over it. A mask with float
    leaves multiplies (``p * m``), so ``jax.grad`` differentiates with respect to it;
    SNIP does so at ``m = 1``.

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
      ValueError: the mask does not fit. Names the path and both values, as in ``mask at
        'Dense_0/kernel' has shape (3, 3), expected (8, 32)``.
    """
    check_like(params, mask, "mask")
    for path, leaf in named_leaves(mask):
        if jnp.result_type(leaf) != jnp.bool_:
            raise ValueError(
                f"mask at {path!r} has dtype {jnp.result_type(leaf)}, expected bool"
            )


def ravel_mask(mask: Mask, *, prunable: Prunable = None) -> jax.Array:
    """Returns the prunable entries of a mask as one vector, bool ``[P]``.

    The order is that of ``jax.tree.leaves``, and C order within a leaf.

    >>> ravel_mask({"w": jnp.array([[True, False]]), "b": jnp.array([True])}).tolist()
    [True, False]
    """
    prunable = resolve_prunable(prunable, mask)
    return jnp.concatenate([leaf.ravel() for leaf in prunable_leaves(mask, prunable)])


def unravel_mask(row: jax.Array, params: Params, *, prunable: Prunable = None) -> Mask:
    """Returns the mask that a vector of ``ravel_mask`` was made from: its inverse.

    Args:
      row: the vector, bool ``[P]``, one entry a prunable weight.
      params: gives structure and shapes; its leaves are arrays or ``ShapeDtypeStruct``.
      prunable: static pytree of bools; ``None``: ``prunable_kernels(params)``.

    Returns:
      A pytree like ``params``, all True on leaves that are not prunable.

    Raises:
      ValueError: the vector has another length than there are prunable weights.

    >>> params = {"bias": jnp.zeros(1), "kernel": jnp.zeros((1, 2))}
    >>> mask = unravel_mask(jnp.array([True, False]), params)
    >>> mask["bias"].tolist(), mask["kernel"].tolist()
    ([True], [[True, False]])
    """
    prunable = resolve_prunable(prunable, params)
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

    Every layer keeps its count of weights, at other places. This ablation asks whether
    a pruner finds the right weights or only the right sparsity of each layer.

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
    prunable = resolve_prunable(prunable, mask)
    leaves = [
        jax.random.permutation(jax.random.fold_in(key, i), leaf.ravel())
        for i, leaf in enumerate(prunable_leaves(mask, prunable))
    ]
    return unflatten_mask(jnp.concatenate(leaves), mask, prunable)


def _masked(leaf: jax.Array, mask: jax.Array) -> jax.Array:
    if jnp.result_type(mask) == jnp.bool_:
        return jnp.where(mask, leaf, jnp.zeros((), jnp.result_type(leaf)))
    return leaf * mask


def unflatten_mask(kept: jax.Array, scores: Scores, prunable: Prunable) -> Mask:
    """A bool vector ``[P]`` as a mask, ``True`` on leaves that are not prunable."""
    leaves, treedef = jax.tree.flatten(scores)
    masks, start = [], 0
    for leaf, flag in zip(leaves, jax.tree.leaves(prunable), strict=True):
        if flag:
            masks.append(kept[start : start + leaf.size].reshape(leaf.shape))
            start += leaf.size
        else:
            masks.append(jnp.ones(jnp.shape(leaf), bool))
    return jax.tree.unflatten(treedef, masks)
