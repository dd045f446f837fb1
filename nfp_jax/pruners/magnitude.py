"""Magnitude: the absolute value, at initialization or after training."""

import functools

import jax
import jax.numpy as jnp

from nfp_jax.masks import Mask, Params, Prunable, Scores
from nfp_jax.pruners.contract import Score, ScoreFn, mask_params
from nfp_jax.types import Batch


@functools.cache
def magnitude() -> ScoreFn:
    """Scores each weight by its absolute value, ``|w|``.

    Returns:
      ``score(params)``: a pytree like ``params``, same shapes and dtypes,
      non-negative. ``batch`` and ``key`` are ignored.

    >>> magnitude()({"kernel": jnp.array([-2.0, 1.0])})["kernel"].tolist()
    [2.0, 1.0]

    Reference: Han et al. 2015, https://arxiv.org/abs/1506.02626, section 3.
    """

    def score(
        params: Params,
        batch: Batch,
        key: jax.Array | None,
        mask: Mask,
        prunable: Prunable,
    ) -> Scores:
        del batch, key, prunable
        return jax.tree.map(jnp.abs, mask_params(params, mask))

    return Score(score)
