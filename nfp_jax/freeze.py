"""Keeps pruned weights at 0 through training, in any optax chain.

Depends on masks, jax and optax.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nfp_jax.masks import Mask, Params, check_mask


class FreezePrunedState(NamedTuple):
    """The mask that ``freeze_pruned`` holds weights to."""

    mask: Mask


def freeze_pruned(mask: Mask) -> optax.GradientTransformation:
    """Returns the optax transformation that keeps pruned weights at exactly 0.

    The update of a pruned weight is ``-w``, whatever the optimizer proposes. Put it
    last in the chain::

        optimizer = optax.chain(optax.adam(1e-3), nfp_jax.freeze_pruned(mask))
        params = nfp_jax.apply_mask(params, mask)

    The mask is part of the optimizer's state, so it goes through ``jit``, ``vmap`` and
    checkpoints. ``replace_mask`` changes it during training.

    In one group of ``optax.multi_transform``, or within ``optax.masked``, it holds the
    weights of that group, whatever the mask says of others; the mask is that of all
    parameters there too.

    Args:
      mask: bool pytree of the structure and shapes of the parameters.

    Returns:
      An ``optax.GradientTransformation`` whose ``update`` needs ``params``.

    Raises:
      ValueError: parameters that the mask does not fit (names the path), or an update
        without ``params``.

    >>> freeze = freeze_pruned({"w": jnp.array([True, False])})
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> updates, _ = freeze.update({"w": jnp.array([0.5, 0.5])}, freeze.init(params),
    ...                            params)
    >>> optax.apply_updates(params, updates)["w"].tolist()
    [1.5, 0.0]
    """

    def init(params: Params) -> FreezePrunedState:
        return FreezePrunedState(_within(mask, params))

    def update(
        updates: Params, state: Any, params: Params | None = None
    ) -> tuple[Params, Any]:
        if params is None:
            raise ValueError(
                "freeze_pruned needs params: update(updates, state, params)"
            )
        frozen = jax.tree.map(
            lambda keep, u, p: jnp.where(keep, u, -p), state.mask, updates, params
        )
        return frozen, state

    return optax.GradientTransformation(init, update)


def _within(mask: Mask, params: Params) -> Mask:
    """The mask where there are parameters, checked; a hole where optax left one.

    A transformation of some parameters is given all of them, with an
    ``optax.MaskedNode`` for each leaf, or subtree, that is not among its own.
    """

    def is_hole(node: Any) -> bool:
        return isinstance(node, optax.MaskedNode)

    if any(is_hole(node) for node in jax.tree.leaves(params, is_leaf=is_hole)):
        try:
            mask = jax.tree.map(
                lambda node, part: node if is_hole(node) else part,
                params,
                mask,
                is_leaf=is_hole,
            )
        except ValueError as error:
            what, where = [*map(str.strip, str(error).splitlines()), ""][:2]
            raise ValueError(
                f"mask does not have the structure of params: {what} {where}"
            ) from error
    check_mask(params, mask)
    return mask


def replace_mask(state: Any, mask: Mask) -> Any:
    """Returns an optimizer state with another mask in its ``freeze_pruned``.

    Weights that the new mask removes become 0 at the next update. Weights that it
    brings back start from 0.

    Args:
      state: the state of ``freeze_pruned`` or of any chain around it.
      mask: bool pytree like the mask it replaces.

    Raises:
      ValueError: no ``freeze_pruned`` in the state, or a mask that does not fit (names
        the path).

    >>> state = freeze_pruned(jnp.array([True, False])).init(jnp.ones(2))
    >>> replace_mask(state, jnp.array([False, True])).mask.tolist()
    [False, True]
    """

    def is_frozen(node: Any) -> bool:
        return isinstance(node, FreezePrunedState)

    if not any(is_frozen(node) for node in jax.tree.leaves(state, is_leaf=is_frozen)):
        raise ValueError("state has no freeze_pruned in it, expected one to replace")

    def replace(node: Any) -> Any:
        if not is_frozen(node):
            return node
        return FreezePrunedState(_within(mask, node.mask))

    return jax.tree.map(replace, state, is_leaf=is_frozen)
