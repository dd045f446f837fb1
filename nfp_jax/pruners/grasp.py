"""GraSP: what the removal of a weight does to the flow of the gradient."""

import warnings

import jax
import jax.numpy as jnp

from nfp_jax.losses import (
    ClassificationLoss,
    check_chunk_size,
    classification_loss,
    mean_loss,
    mean_over_chunks,
)
from nfp_jax.masks import Mask, Params, Prunable, Scores, prunable_kernels
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


def grasp(loss_fn: LossFn, *, chunk_size: int | None = None) -> ScoreFn:
    """Scores each weight by the gradient flow it carries, ``w ⊙ (H g)``.

    ``g`` is the gradient of the mean loss over the whole batch, taken over the prunable
    weights that are left and 0 elsewhere; ``H`` the Hessian of the same loss. Signed:
    the highest are kept, since removing them would reduce the gradient flow most.

    Args:
      loss_fn: ``loss_fn(params, batch)``, the mean loss, a scalar. The paper takes it
        on logits divided by 200: ``classification_loss(apply_fn, temperature=200)``;
        a temperature of 1 is warned of.
      chunk_size: as in ``snip``.

    Returns:
      ``score(params, batch)``: a pytree like ``params``; ``key`` is ignored.

    Raises:
      ValueError: leaves of ``batch`` of different leading sizes (names the path), or
        a ``chunk_size`` below 1.

    >>> loss = lambda w, x: jnp.sum(w * x) ** 2 / 2     # H = x xᵀ, g = (w·x) x
    >>> grasp(loss)(jnp.array([[3.0, -1.0]]), jnp.array([[1.0, 2.0]])).tolist()
    [[15.0, -10.0]]

    Reference: Wang et al. 2020, https://arxiv.org/abs/2002.07376, equation 8, whose
    score is the negative of this one.
    """
    check_chunk_size(chunk_size)
    if isinstance(loss_fn, ClassificationLoss) and loss_fn.temperature == 1.0:
        warnings.warn(
            "grasp on a loss at temperature 1; the paper softens the logits: "
            "classification_loss(apply_fn, temperature=200)",
            stacklevel=2,
        )

    def score(
        params: Params,
        batch: Batch,
        key: jax.Array | None,
        mask: Mask,
        prunable: Prunable,
    ) -> Scores:
        del key
        prunable = prunable_kernels(params) if prunable is None else prunable
        weights = mask_params(params, mask)

        def gradient(weights: Params, part: Batch) -> Params:
            return jax.grad(mean_loss, 1)(loss_fn, weights, part)

        with jax.default_matmul_precision("highest"):
            g = mean_over_chunks(
                lambda part: gradient(weights, part), batch, chunk_size
            )
            g = jax.tree.map(
                lambda p, leaf: leaf if p else jnp.zeros_like(leaf), prunable, g
            )
            g = mask_params(g, mask)
            hg = mean_over_chunks(
                lambda part: jax.jvp(
                    lambda weights: gradient(weights, part), (weights,), (g,)
                )[1],
                batch,
                chunk_size,
            )
        return jax.tree.map(jnp.multiply, weights, hg)

    return Score(
        score, polynomial=Polynomial(score, degree=2, absolute=False), loss_fn=loss_fn
    )


def _build(
    net: Network,
    *,
    rounds: int = 1,
    schedule: str = "exponential",
    chunk_size: int = 1024,
    temperature: float = 200.0,
) -> ByScore:
    loss_fn = classification_loss(net.apply_fn, temperature=temperature)
    score_fn = grasp(loss_fn, chunk_size=chunk_size)
    return by_score(score_fn, rounds=rounds, schedule=schedule)


CARD = Pruner(
    "grasp",
    label="GraSP",
    sees="labels",
    build=_build,
    padded=True,
    gradients=lambda *, rounds, **_: 3 * rounds,  # g, and H g
)
