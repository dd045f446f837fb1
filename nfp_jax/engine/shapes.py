"""What a program is compiled for: structure, shapes and types."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def shapes_of(arguments: Any) -> Any:
    """Returns what a program is compiled for: structure, shapes and types."""
    leaves, treedef = jax.tree.flatten(arguments)
    return treedef, tuple(map(_shape, leaves))


def _shape(leaf: Any) -> Any:
    is_jax = isinstance(leaf, jax.Array)  # whose type is its own, and found faster
    return jnp.shape(leaf), leaf.dtype if is_jax else jnp.result_type(leaf)


def abstract(shapes: Any) -> Any:
    """Returns the arguments of these shapes, for lowering."""
    treedef, leaves = shapes
    return jax.tree.unflatten(treedef, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves])


def repeated(one: Any, count: int) -> Any:
    """Returns the shapes of so many of what has an axis of 1 in front."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype), one
    )


def stacked_on_host(leaves: Sequence[Any]) -> Any:
    """Returns them stacked by numpy, of keys by JAX."""
    if jnp.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):
        return jnp.stack(leaves)
    return np.stack([np.asarray(leaf) for leaf in leaves])
