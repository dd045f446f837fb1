"""What may be pruned: a static pytree of Python bools, one a leaf.

By default these are the leaves of two or more axes. Leaves that may not be pruned
(biases, scales) are kept whole.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.trees import named_leaves, same_structure
from nfp_jax.types import Params, Prunable


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


def prunable_size(params: Params, prunable: Prunable = None) -> int:
    """Returns the number of prunable weights, ``P``.

    >>> prunable_size({"w": jnp.ones((2, 3)), "b": jnp.ones(3)})
    6
    """
    leaves = prunable_leaves(params, resolve_prunable(prunable, params))
    return sum(math.prod(jnp.shape(leaf)) for leaf in leaves)


def resolve_prunable(prunable: Prunable, params: Params) -> Prunable:
    """Returns the given ``prunable``, checked, or the default one."""
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


def prunable_leaves(tree: Any, prunable: Prunable) -> list[Any]:
    """Returns the leaves that may be pruned, in order."""
    flags = jax.tree.leaves(prunable)
    return [x for x, p in zip(jax.tree.leaves(tree), flags, strict=True) if p]


def prunable_paths(tree: Any, prunable: Prunable) -> list[str]:
    """Returns the paths of the leaves that may be pruned, in order."""
    flags = jax.tree.leaves(prunable)
    return [path for (path, _), p in zip(named_leaves(tree), flags, strict=True) if p]
