"""RigL: small weights go, and those of the steepest slope come, while it trains."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nfp_jax.masks import Mask, Params, Prunable, Scores
from nfp_jax.pruners.contract import MaskUpdate, Network, Pruner
from nfp_jax.pruners.regrowth import move_mask, update_by


def rigl(
    optimizer: optax.GradientTransformation,
    mask: Mask,
    *,
    until: int,
    every: int = 100,
    fraction: float = 0.3,
    prunable: Prunable = None,
) -> optax.GradientTransformationExtraArgs:
    """Returns an optimizer that trains a masked network and moves its mask by RigL.

    After every ``every`` updates the next one moves the mask and trains no weight. In
    each layer the kept weights of the smallest ``|w|`` go, ``int(f·k)`` of its ``k``,
    and as many come where ``|∂L/∂w|`` at the masked weights is largest; ``f =
    fraction/2 · (1 + cos(π·t/until))`` at update ``t``. New weights and their moments
    start at 0. The count of each layer never changes. The paper starts from random
    masks of ERK densities and takes ``until`` as 75 % of all updates::

        mask = nfp.prune(
            nfp.random(), params, None, key, sparsity=0.9, select=nfp.top_k_erk
        )
        params = nfp.apply_mask(params, mask)
        optimizer = rigl(optax.adam(1e-3), mask, until=7_500)
        opt_state = optimizer.init(params)
        for batch in batches:
            gradient = jax.grad(loss_fn)(params, batch)  # in all weights
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            params = optax.apply_updates(params, updates)
        mask = opt_state.mask  # in a chain: optax.tree.get(opt_state, "mask")

    Around it go what changes the gradient in all weights (clipping) and
    ``optax.MultiSteps``; in it what is to be masked (momentum, decay, schedules).

    Args:
      optimizer: any optax optimizer.
      mask: the first one, a bool pytree like the parameters.
      until: the last update at which the mask may move.
      every: updates from one move to the next.
      fraction: share of each layer's kept weights that move at first, in [0, 1].
      prunable: static pytree of bools; ``None``: ``prunable_kernels(params)``.

    Returns:
      A transformation whose ``update`` needs ``params``, and the gradient in all
      weights. It goes through ``jit`` and ``vmap``.

    Raises:
      ValueError: a setting out of range (names it); parameters that the mask does not
        fit (names the path); an update without ``params``.

    >>> mask = jnp.array([[True, True, False]])
    >>> optimizer = rigl(optax.sgd(0.5), mask, until=10, every=1, fraction=0.6)
    >>> w, gradient = jnp.array([[2.0, 1.0, 0.0]]), jnp.array([[1.0, 1.0, 4.0]])
    >>> state = optimizer.init(w)
    >>> for _ in range(2):  # a training step, and a move
    ...     updates, state = optimizer.update(gradient, state, w)
    ...     w = optax.apply_updates(w, updates)
    >>> w.tolist(), state.mask.tolist()
    ([[1.5, 0.0, 0.0]], [[True, False, True]])

    Reference: Evci et al. 2020, https://arxiv.org/abs/1911.11134, algorithm 1.
    """
    return move_mask(
        optimizer,
        mask,
        steepest,
        until=until,
        every=every,
        fraction=fraction,
        prunable=prunable,
    )


def steepest(gradient_fn: Callable[[], Params], params: Params, key: Any) -> Scores:
    """Scores what may come by the size of its slope, ``|∂L/∂w|``."""
    del params, key
    return jax.tree.map(jnp.abs, gradient_fn())


def _build(
    net: Network, *, every: int = 6, until: int = 120, fraction: float = 0.3
) -> MaskUpdate:
    # In epochs, at whose ends masks move. 6: about 100 steps of 64 at n = 1000.
    return update_by(
        steepest, until=until, every=every, fraction=fraction, prunable=net.prunable
    )


CARD = Pruner(
    "rigl",
    label="RigL",
    sees="training",
    when="during",
    build=_build,
    # Beside the training, over one batch each; fewer where that ends earlier.
    gradients=lambda *, every, until, **_: until // every,
)
