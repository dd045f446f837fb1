"""Structures, shapes and dtypes: what a program is compiled for."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def shapes_of(arguments: Any) -> Any:
    """Returns what a program is compiled for, hashable: structure, shapes, dtypes."""
    leaves, treedef = jax.tree.flatten(arguments)
    return treedef, tuple(map(_shape, leaves))


def _shape(leaf: Any) -> Any:
    is_jax = isinstance(leaf, jax.Array)  # its dtype is the result type, found faster
    return jnp.shape(leaf), leaf.dtype if is_jax else jnp.result_type(leaf)


def abstract(shapes: Any) -> Any:
    """Returns abstract arguments of these shapes, for lowering."""
    treedef, leaves = shapes
    return jax.tree.unflatten(treedef, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves])


def stacked_on_host(leaves: Sequence[Any]) -> Any:
    """Returns the leaves stacked, by numpy, or by JAX if they are keys."""
    if jnp.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):
        return jnp.stack(leaves)
    return np.stack([np.asarray(leaf) for leaf in leaves])
