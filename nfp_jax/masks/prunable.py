"""What may be pruned: a static pytree of Python bools, one a leaf.

By default these are the leaves of two or more axes that no name says to be a bias, a
scale, a token or a position. Leaves that may not be pruned are kept whole.
"""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.trees import check_arrays, named_leaves, same_structure
from nfp_jax.types import Params, Prunable

# Of two or more axes in some frameworks, and yet no kernels: the biases of attention
# are [heads, dim] in Flax, and scales [1, 1, 1, channels] in Haiku.
_NO_KERNELS = {"bias", "scale", "offset", "gamma", "beta"}
_NO_KERNELS |= {"cls", "cls_token", "class_token", "class_embedding"}
_NO_KERNELS |= {"mask_token", "dist_token", "distillation_token"}
_POSITIONS = re.compile(r"pos(ition(al|s)?)?(_?(emb|enc)\w*)?")


def prunable_kernels(params: Params) -> Prunable:
    """Returns which leaves may be pruned: kernels, by axes and names.

    Kernels of dense and convolutional layers have two axes or more; most biases and
    normalization scales have one. Never pruned are leaves that are called ``bias``,
    ``scale``, ``offset``, ``gamma``, ``beta`` or by the name of a token (``cls``,
    ``cls_token``, ``class_token``, ``class_embedding``, ``mask_token``, …), and those
    of positions: some part of their path is called ``pos``, ``position``,
    ``pos_embedding``, ``position_embeddings`` or alike; and what is under
    ``batch_stats``. The names in a path may be
    keys, attributes, or parts of one key with dots. Biases of attention are
    ``[heads, dim]`` in Flax.

    Args:
      params: any pytree of arrays, without extra batch axes.

    Returns:
      A pytree like ``params`` of Python bools.

    Raises:
      ValueError: no leaf is left, or one is no array (names its path).

    >>> prunable_kernels({"kernel": jnp.ones((2, 3)), "bias": jnp.ones((2, 3))})
    {'bias': False, 'kernel': True}

    Reference: Tanaka et al. 2020, https://arxiv.org/abs/2006.05467, whose code prunes
    the leaves of two axes.
    """
    check_arrays(params)
    flags = [jnp.ndim(leaf) >= 2 and _is_kernel(p) for p, leaf in named_leaves(params)]
    if not any(flags):
        shapes = {path: jnp.shape(leaf) for path, leaf in named_leaves(params)}
        raise ValueError(
            "nothing to prune: expected a leaf of two or more axes that is no bias, "
            f"scale, token or position, got {shapes}; pass prunable="
        )
    return jax.tree.unflatten(jax.tree.structure(params), flags)


def _is_kernel(path: str) -> bool:
    """Whether no name in a path says that the leaf is something else."""
    names = [name.lower() for name in re.split(r"[/.]", path)]
    if "batch_stats" in names:  # Flax's, of batch normalization
        return False
    return names[-1] not in _NO_KERNELS and not any(map(_POSITIONS.fullmatch, names))


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
    check_arrays(params)
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
