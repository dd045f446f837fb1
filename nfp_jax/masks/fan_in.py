"""What of a kernel is inputs, and initial weights for a mask by the inputs left."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from nfp_jax.masks.prunable import resolve_prunable
from nfp_jax.masks.values import check_mask
from nfp_jax.trees import named_leaves
from nfp_jax.types import Mask, Params, Prunable

# Of attention in Flax: kernels [inputs, heads, dim], and [heads, dim, outputs] of
# "out" beside them. Of all others the last axis is that of units.
_TWO_AXES_OUT = ("query", "key", "value")


def _has_two_axes_out(path: str, leaf: Any) -> bool:
    layer = path.rpartition("/")[0].rpartition("/")[-1]
    return jnp.ndim(leaf) == 3 and layer in _TWO_AXES_OUT


def layer_shapes(params: Params, prunable: Prunable) -> list[tuple[int, ...]]:
    """Returns the shapes of the leaves that may be pruned; of attention, of matrices.

    In Flax kernels of ``query``, ``key`` and ``value`` are ``[inputs, heads, dim]``,
    and those of ``out`` beside them ``[heads, dim, outputs]``. Heads times dim is one
    number of units, as in other frameworks.

    Args:
      params: arrays, or their shapes.
      prunable: static pytree of bools.

    >>> kernel = jax.ShapeDtypeStruct((6, 2, 3), float)
    >>> layer_shapes({"query": {"kernel": kernel}}, {"query": {"kernel": True}})
    [(6, 6)]
    """
    leaves = named_leaves(params)
    attention = {
        path.rpartition("/")[0].rpartition("/")[0]
        for path, leaf in leaves
        if _has_two_axes_out(path, leaf)
    }

    def shape_of(path: str, leaf: Any) -> tuple[int, ...]:
        shape = tuple(jnp.shape(leaf))
        if _has_two_axes_out(path, leaf):
            return shape[0], shape[1] * shape[2]
        parent, _, layer = path.rpartition("/")[0].rpartition("/")
        if len(shape) == 3 and layer == "out" and parent in attention:
            return shape[0] * shape[1], shape[2]
        return shape

    flags = jax.tree.leaves(prunable)
    return [shape_of(*named) for named, flag in zip(leaves, flags, strict=True) if flag]


def sparse_aware(params: Params, mask: Mask, *, prunable: Prunable = None) -> Params:
    """Returns masked weights, each unit's rescaled by the inputs that its mask leaves.

    Weights drawn with a variance of ``scale / fan_in`` get ``scale / max(1, kept)``,
    where ``kept`` of the unit's inputs are left: they are multiplied by ``√(fan_in /
    max(1, kept))`` and masked. So signals keep their size whatever the sparsity. A
    mask known before the weights could be drawn for; this does the same to weights on
    which a mask was found.

    Args:
      params: weights, in the layout of Flax: ``[..., in, out]``, those of attention
        ``[in, heads, dim]`` for ``query``, ``key`` and ``value``.
      mask: bool pytree like them.
      prunable: static pytree of bools; ``None``: ``prunable_kernels(params)``.

    Returns:
      A pytree like ``params``; leaves that may not be pruned are as they were. Under
      ``jit`` and ``vmap`` too.

    Raises:
      ValueError: a mask that does not fit (names the path).

    >>> kernel = jnp.ones((4, 2))
    >>> mask = jnp.array([[True, True], [False, True], [False, True], [False, True]])
    >>> sparse_aware(kernel, mask).tolist()
    [[2.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]

    Reference: Evci et al. 2022, https://arxiv.org/abs/2010.03533.
    """
    check_mask(params, mask)
    flags = jax.tree.leaves(resolve_prunable(prunable, params))

    def rescaled(path: str, leaf: jax.Array, kept: jax.Array) -> jax.Array:
        axes = (0,) if _has_two_axes_out(path, leaf) else tuple(range(leaf.ndim - 1))
        fan_in = math.prod(leaf.shape[axis] for axis in axes)
        left = jnp.sum(kept, axis=axes, keepdims=True)
        factor = jnp.sqrt(fan_in / jnp.maximum(left, 1)).astype(leaf.dtype)
        return jnp.where(kept, leaf * factor, jnp.zeros_like(leaf))

    new = [
        rescaled(path, leaf, kept) if flag else leaf
        for (path, leaf), kept, flag in zip(
            named_leaves(params), jax.tree.leaves(mask), flags, strict=True
        )
    ]
    return jax.tree.unflatten(jax.tree.structure(params), new)
