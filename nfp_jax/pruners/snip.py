"""SNIP: how much the loss feels the removal of a weight, to first order."""

from typing import Any

import jax
import jax.numpy as jnp

from nfp_jax.losses import check_chunk_size, mean_loss, mean_over_chunks
from nfp_jax.masks import Mask, Params, Prunable, Scores
from nfp_jax.pruners.by_score import ByScore, by_score
from nfp_jax.pruners.contract import (
    Network,
    Polynomial,
    Pruner,
    Score,
    ScoreFn,
    mask_params,
)
from nfp_jax.types import Batch, LossFn


def snip(loss_fn: LossFn, *, chunk_size: int | None = None) -> ScoreFn:
    """Scores each weight by its connection sensitivity, ``|∂L/∂m|`` at ``m = 1``.

    That is ``|g ⊙ w|`` with ``g`` the gradient of the mean loss over the whole batch.
    The paper divides by the sum, which no ranking sees.

    Args:
      loss_fn: ``loss_fn(params, batch)``, the mean loss over a batch, a scalar.
      chunk_size: examples taken at once, which bounds the memory; ``None``: all. The
        result is the same up to rounding. Leaves of ``batch`` then need a common
        leading axis of examples.

    Returns:
      ``score(params, batch)``: a pytree like ``params``, non-negative; ``key`` is
      ignored.

    Raises:
      ValueError: leaves of ``batch`` of different leading sizes (names the path), or
        a ``chunk_size`` below 1.

    >>> loss = lambda w, x: jnp.sum(w * x) ** 2 / 2
    >>> snip(loss)(jnp.array([[3.0, -1.0]]), jnp.array([[1.0, 1.0]])).tolist()
    [[6.0, 2.0]]

    Reference: Lee et al. 2019, https://arxiv.org/abs/1810.02340, equation 6.
    """
    return sensitivity(loss_fn, chunk_size, of_removed=False)


def sensitivity(
    loss_fn: LossFn, chunk_size: int | None, *, of_removed: bool
) -> ScoreFn:
    """Scores each weight by ``|g ⊙ w|``, g the gradient at the masked weights.

    Args:
      loss_fn: as in ``snip``.
      chunk_size: likewise.
      of_removed: whether weights that the mask removed have a score too, as in FORCE;
        else theirs is 0.
    """
    check_chunk_size(chunk_size)

    def signed(
        params: Params,
        batch: Batch,
        key: jax.Array | None,
        mask: Mask,
        prunable: Prunable,
    ) -> Scores:
        del key, prunable
        weights = mask_params(params, mask)
        with jax.default_matmul_precision("highest"):
            gradient = mean_over_chunks(
                lambda part: jax.grad(mean_loss, 1)(loss_fn, weights, part),
                batch,
                chunk_size,
            )
        return jax.tree.map(jnp.multiply, gradient, params if of_removed else weights)

    def score(*arguments: Any) -> Scores:
        return jax.tree.map(jnp.abs, signed(*arguments))

    return Score(
        score, polynomial=Polynomial(signed, degree=1, absolute=True), loss_fn=loss_fn
    )


def _build(
    net: Network,
    *,
    rounds: int = 1,
    schedule: str = "exponential",
    chunk_size: int = 1024,
) -> ByScore:
    score_fn = snip(net.loss_fn, chunk_size=chunk_size)
    return by_score(score_fn, rounds=rounds, schedule=schedule)


CARD = Pruner(
    "snip",
    label="SNIP",
    sees="labels",
    build=_build,
    padded=True,
    gradients=lambda *, rounds, **_: rounds,
)
