"""SET, sparse evolutionary training: small weights go, and others come at random."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from nfp_jax.masks import Mask, Params, Prunable, Scores
from nfp_jax.pruners.contract import MaskUpdate, Network, Pruner
from nfp_jax.pruners.random import random
from nfp_jax.pruners.regrowth import move_mask, update_by


def sparse_evolution(
    optimizer: optax.GradientTransformation,
    mask: Mask,
    key: jax.Array,
    *,
    until: int,
    every: int = 100,
    fraction: float = 0.3,
    prunable: Prunable = None,
) -> optax.GradientTransformationExtraArgs:
    """Returns an optimizer that trains a masked network and moves its mask by SET.

    It is ``rigl`` but for what comes: weights drawn at random among those removed, with
    a key of each move's own. So no gradient of removed weights is needed.

    Args:
      optimizer: as in ``rigl``.
      mask: as in ``rigl``.
      key: of the draws.
      until: as in ``rigl``.
      every: as in ``rigl``.
      fraction: as in ``rigl``.
      prunable: as in ``rigl``.

    Returns:
      A transformation whose ``update`` needs ``params``.

    Raises:
      ValueError: as ``rigl``.

    >>> import jax.numpy as jnp
    >>> mask = jnp.array([[True, True, False]])
    >>> optimizer = sparse_evolution(
    ...     optax.sgd(0.5), mask, jax.random.key(0), until=10, every=1, fraction=0.6
    ... )
    >>> w = jnp.array([[2.0, 1.0, 0.0]])
    >>> state = optimizer.init(w)
    >>> for _ in range(4):
    ...     updates, state = optimizer.update(jnp.zeros_like(w), state, w)
    ...     w = optax.apply_updates(w, updates)
    >>> float(w[0, 0]), int(state.mask.sum())
    (2.0, 2)

    Reference: Mocanu et al. 2018, https://arxiv.org/abs/1707.04383, algorithm 1, which
    removes the weights nearest to 0 of either sign; by ``|w|`` and with a cosine as in
    Evci et al. 2020, https://arxiv.org/abs/1911.11134.
    """
    return move_mask(
        optimizer,
        mask,
        at_random,
        key=key,
        until=until,
        every=every,
        fraction=fraction,
        prunable=prunable,
    )


def at_random(gradient_fn: Callable[[], Params], params: Params, key: Any) -> Scores:
    """Scores what may come by uniform noise."""
    del gradient_fn
    return random()(params, key=key)


def _build(
    net: Network, *, every: int = 6, until: int = 120, fraction: float = 0.3
) -> MaskUpdate:
    # In epochs, as the settings of RigL.
    return update_by(
        at_random, until=until, every=every, fraction=fraction, prunable=net.prunable
    )


CARD = Pruner(
    "set",
    label="SET",
    sees="training",
    when="during",
    build=_build,
    gradients=lambda **_: 0,  # beside the training
)
