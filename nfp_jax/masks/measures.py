"""What a mask is like: sparsity, empty layers, collapse, overlap with another."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.masks.prunable import prunable_leaves, prunable_paths, resolve_prunable
from nfp_jax.masks.values import check_mask, ravel_mask
from nfp_jax.types import ApplyFn, Mask, Prunable


def sparsity_of(mask: Mask, *, prunable: Prunable = None) -> jax.Array:
    """Returns the share of prunable weights removed, a float scalar in [0, 1].

    >>> float(sparsity_of({"w": jnp.array([[True, False]]), "b": jnp.array([True])}))
    0.5
    """
    flat = ravel_mask(mask, prunable=prunable)
    return jnp.sum(~flat) / flat.size


def sparsity_by_layer(mask: Mask, *, prunable: Prunable = None) -> dict[str, jax.Array]:
    """Returns each prunable leaf's share removed, by path; 1 means layer collapse.

    >>> by_layer = sparsity_by_layer({"w": jnp.array([[True, False]])})
    >>> {path: float(share) for path, share in by_layer.items()}
    {'w': 0.5}
    """
    prunable = resolve_prunable(prunable, mask)
    paths = prunable_paths(mask, prunable)
    leaves = prunable_leaves(mask, prunable)
    return {
        path: jnp.sum(~leaf) / leaf.size
        for path, leaf in zip(paths, leaves, strict=True)
    }


def empty_layers(mask: Mask, *, prunable: Prunable = None) -> list[str]:
    """Returns the paths of the layers with no weight left (layer collapse).

    Needs concrete values. Under a transform, look for 1 in ``sparsity_by_layer``.

    >>> empty_layers({"a": jnp.array([[False]]), "b": jnp.array([[True]])})
    ['a']

    Reference: Tanaka et al. 2020, https://arxiv.org/abs/2006.05467, section 3.
    """
    prunable = resolve_prunable(prunable, mask)
    paths = prunable_paths(mask, prunable)
    leaves = prunable_leaves(mask, prunable)
    return [p for p, leaf in zip(paths, leaves, strict=True) if not jnp.any(leaf)]


def collapsed(apply_fn: ApplyFn, mask: Mask, input_shape: Sequence[int]) -> jax.Array:
    """Returns whether no path from input to output is left, a bool scalar.

    All weights kept are set to positive random values, all removed ones to 0. Then the
    output is differentiated by a positive input. In a network of ReLUs, pooling and
    linear layers each path adds a positive term to the derivative. With normalization
    or attention terms may be negative, but at random values the probability is 0 that
    they cancel to exactly 0. In a deep network the derivative may vanish or overflow
    without a collapse. So this is done at several sizes of the weights: one derivative
    that is neither 0 nor infinite proves a path.

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
    collapse). It leaves out the case where no layer is empty and yet no path is whole.
    """
    leaves, treedef = jax.tree.flatten(mask)
    sizes = [leaf.size for leaf in leaves]
    weights_key, x_key, out_key = jax.random.split(jax.random.key(0), 3)
    # One draw for all layers: a draw a layer would take long to compile.
    drawn = jax.random.uniform(weights_key, (sum(sizes),), minval=0.5, maxval=1.5)
    parts = jnp.split(drawn, np.cumsum(sizes)[:-1])

    def weights(leaf: jax.Array, part: jax.Array) -> jax.Array:
        values = jnp.where(leaf, part.reshape(leaf.shape), 0.0)
        if leaf.ndim < 2:
            return values
        # Divided by the inputs that each unit keeps, so that deep networks don't
        # overflow.
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

    # 1 suits a plain network. Layers stacked in one leaf [layers, in, out] are divided
    # by too large a fan-in, and sparse layers each lose a share: up to 2^8 helps them.
    gains = jnp.array([0.25, 1.0, 4.0, 16.0, 64.0, 256.0])
    return ~jnp.any(jax.lax.map(has_path, gains))


def overlap(a: Mask, b: Mask, *, prunable: Prunable = None) -> jax.Array:
    """Returns the Jaccard index of the weights kept: ``|a ∧ b| / |a ∨ b|``, in [0, 1].

    1 for equal masks (two empty ones too), 0 for disjoint masks.

    >>> a, b = jnp.array([[True, True]]), jnp.array([[True, False]])
    >>> float(overlap(a, b))
    0.5
    """
    check_mask(a, b)
    prunable = resolve_prunable(prunable, a)
    flat_a, flat_b = ravel_mask(a, prunable=prunable), ravel_mask(b, prunable=prunable)
    either = jnp.sum(flat_a | flat_b)
    return jnp.where(either > 0, jnp.sum(flat_a & flat_b) / jnp.maximum(either, 1), 1.0)
