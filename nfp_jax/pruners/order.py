"""The order in which a network uses its weights, read off its trace."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from nfp_jax.masks import ApplyFn, Params

# The leaves that a value is made of; None: it depends on the inputs.
Source = frozenset[int] | None


def order_of_use(
    apply_fn: ApplyFn, params: Params, input_shape: Sequence[int]
) -> tuple[int, ...]:
    """Returns the leaves of params in the order in which they first meet the input.

    Nothing is computed: the function is traced. Leaves that are used together count in
    the order of the tree, and leaves that are never used come last.

    Args:
      apply_fn: ``apply_fn(params, x) -> outputs``.
      params: arrays, or their shapes.
      input_shape: one example's shape, without the batch.

    >>> chain = lambda params, x: jnp.tanh(x @ params["first"]) @ params["after"]
    >>> params = {"after": jnp.ones((3, 1)), "first": jnp.ones((2, 3))}
    >>> order_of_use(chain, params, (2,))
    (1, 0)
    """
    count = len(jax.tree.leaves(params))
    # Two examples: batch normalization refuses one.
    x = jax.ShapeDtypeStruct((2, *input_shape), jnp.float32)
    closed = jax.make_jaxpr(apply_fn)(params, x)
    found: dict[int, None] = {}
    _follow(closed.jaxpr, [*(frozenset([i]) for i in range(count)), None], found)
    return tuple(dict.fromkeys([*found, *range(count)]))


def _follow(jaxpr: Any, sources: list[Source], found: dict[int, None]) -> list[Source]:
    """Adds the leaves that meet inputs in a program; what its outputs are made of."""
    known: dict[Any, Source] = dict(zip(jaxpr.invars, sources, strict=True))

    def source(atom: Any) -> Source:
        return frozenset() if hasattr(atom, "val") else known.get(atom, frozenset())

    for eqn in jaxpr.eqns:
        taken = [source(atom) for atom in eqn.invars]
        inner = _program_of(eqn)
        if inner is not None:
            made = _follow(inner, taken, found)
        elif None in taken:
            for leaves in taken:
                found.update(dict.fromkeys(sorted(leaves or ())))
            made = [None] * len(eqn.outvars)
        else:
            made = [frozenset().union(*filter(None, taken))] * len(eqn.outvars)
        known.update(zip(eqn.outvars, made, strict=True))
    return [source(atom) for atom in jaxpr.outvars]


def _program_of(eqn: Any) -> Any:
    """The program that an equation calls with its inputs and outputs; None: none."""
    for value in eqn.params.values():
        inner = getattr(value, "jaxpr", value)
        if hasattr(inner, "eqns") and (
            len(inner.invars) == len(eqn.invars)
            and len(inner.outvars) == len(eqn.outvars)
        ):
            return inner
    return None
