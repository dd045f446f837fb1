"""What every score is: how much each weight matters, before any is removed.

A function builds a ``ScoreFn``::

    score(params, batch=None, key=None, *, mask=None, prunable=None) -> scores

with scores shaped like ``params``; the higher is kept. ``mask`` is what earlier rounds
left: the score is that of the masked network. A ``ScoreFn`` is pure, for any params
pytree of any framework, and goes through ``jit``, ``vmap`` and ``grad``. Matrix
products run at the highest precision.
"""

import functools
from typing import Protocol

import jax
import jax.numpy as jnp

from nfp_jax.masks import Mask, Params, Prunable, Scores, apply_mask
from nfp_jax.types import Batch


class ScoreFn(Protocol):
    """What every score is: parameters in, a pytree of the same shape out."""

    def __call__(
        self,
        params: Params,
        batch: Batch = None,
        key: jax.Array | None = None,
        *,
        mask: Mask = None,
        prunable: Prunable = None,
    ) -> Scores:
        """Returns scores like ``params``; the higher is kept."""
        ...


def invert(score_fn: ScoreFn) -> ScoreFn:
    """Returns the score in reversed order, ``-score``: keeps what would be removed.

    Right for signed scores (GraSP) and for zeros, where a reciprocal is not.

    >>> from nfp_jax.pruners.magnitude import magnitude
    >>> invert(magnitude())(jnp.array([[-2.0, 0.0]])).tolist()
    [[-2.0, -0.0]]

    Reference: Frankle et al. 2021, https://arxiv.org/abs/2009.08576, section 5.
    """

    @functools.wraps(score_fn)  # with what prune reads from it
    def score(
        params: Params,
        batch: Batch = None,
        key: jax.Array | None = None,
        *,
        mask: Mask = None,
        prunable: Prunable = None,
    ) -> Scores:
        return jax.tree.map(
            jnp.negative, score_fn(params, batch, key, mask=mask, prunable=prunable)
        )

    return score


def mask_params(params: Params, mask: Mask) -> Params:
    """Returns the weights of the masked network; ``None``: nothing is removed."""
    return params if mask is None else apply_mask(params, mask)
