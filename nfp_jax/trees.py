"""Pytrees: leaves with their paths, comparison of structures and shapes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.types import Params

# The key of parameters under which running statistics of batches lie, Flax's name.
STATISTICS = "batch_stats"


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


def has_x64() -> bool:
    """Returns whether JAX's 64-bit mode is on."""
    return jax.dtypes.canonicalize_dtype(np.float64) == np.float64


def same_structure(a: Any, b: Any) -> bool:
    """Returns whether two pytrees have the same structure, whatever their leaves."""
    structures: list[Any] = [jax.tree.structure(a), jax.tree.structure(b)]
    return structures[0] == structures[1]


def is_concrete(tree: Any) -> bool:
    """Returns whether no leaf is traced, so that its values can be checked."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def check_arrays(params: Params, name: str = "params") -> None:
    """Raises for a leaf that is neither an array nor a number; names its path.

    An Equinox module has such leaves: its activation functions.

    >>> check_arrays({"kernel": jnp.ones((2, 3))})
    """
    for path, leaf in named_leaves(params):
        if not (hasattr(leaf, "shape") or isinstance(leaf, (bool, int, float))):
            raise ValueError(
                f"{name} at {path!r} is {getattr(leaf, '__name__', leaf)!r}, expected "
                "an array; of an Equinox module give eqx.filter(model, "
                "eqx.is_inexact_array), or the first of eqx.partition"
            )


def check_like(params: Params, other: Any, name: str, like: str = "params") -> None:
    """Raises, naming the path, unless both have the same structure and shapes."""
    check_arrays(params, like)
    check_arrays(other, name)
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


def in_a_line(value: Any) -> str:
    """Returns a value for an error message; of several traced arrays, their number.

    >>> in_a_line([3, 4])
    '[3, 4]'
    """
    text = repr(value)
    leaves = jax.tree.leaves(value)
    if "\n" not in text and (len(leaves) <= 1 or is_concrete(value)):
        return text
    return f"a {type(value).__name__} of {len(leaves)} arrays"
