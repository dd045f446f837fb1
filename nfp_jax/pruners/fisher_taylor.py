"""Fisher-Taylor: a Taylor score whose curvature is the empirical Fisher information."""

from typing import Any

import jax
import jax.numpy as jnp

from nfp_jax.losses import Counted, check_chunk_size, mean_over_chunks
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


def gradient_moments(
    loss_fn: LossFn, params: Params, batch: Batch, *, chunk_size: int | None = None
) -> tuple[Params, Params]:
    """Returns the means over examples of their gradients, ``E g``, and of ``E g²``.

    Args:
      loss_fn: ``loss_fn(params, batch)``, a mean over examples that do not see each
        other: no batch normalization.
      params: the weights.
      batch: examples along the leading axis; or ``losses.Counted``.
      chunk_size: examples whose gradients are held at once; ``None``: all.

    >>> loss = lambda w, x: jnp.mean(w * x)
    >>> g, g2 = gradient_moments(loss, jnp.ones(()), jnp.array([1.0, 3.0]))
    >>> float(g), float(g2)
    (2.0, 5.0)
    """

    def of_part(part: Batch) -> tuple[Params, Params]:
        examples = part.batch if isinstance(part, Counted) else part

        def alone(example: Any) -> Params:
            one = jax.tree.map(lambda leaf: leaf[None], example)
            return jax.grad(loss_fn)(params, one)

        gradients = jax.vmap(alone)(examples)  # [examples, ...]
        size = jax.tree.leaves(examples)[0].shape[0]
        share: Any = jnp.full(size, 1 / size)
        if isinstance(part, Counted):
            share = part.counts / part.n

        def mean(leaf: jax.Array) -> jax.Array:
            return jnp.tensordot(share.astype(leaf.dtype), leaf, 1)

        squares = jax.tree.map(jnp.square, gradients)
        return jax.tree.map(mean, gradients), jax.tree.map(mean, squares)

    found: tuple[Params, Params] = mean_over_chunks(of_part, batch, chunk_size)
    return found


def fisher_taylor(loss_fn: LossFn, *, chunk_size: int | None = None) -> ScoreFn:
    """Scores each weight by ``|w ⊙ E g + ½ w² ⊙ E g²|``, ``g`` of each example alone.

    Args:
      loss_fn: as in ``gradient_moments``.
      chunk_size: likewise.

    Returns:
      ``score(params, batch)``: a pytree like ``params``, non-negative; ``key`` is
      ignored.

    Raises:
      ValueError: as ``snip``.

    >>> loss = lambda w, x: jnp.mean(w * x)    # the gradients are 1 and 3
    >>> score_fn = fisher_taylor(loss)
    >>> float(score_fn(jnp.float32(2.0), jnp.array([1.0, 3.0])))
    14.0

    Reference: Theis et al. 2018, https://arxiv.org/abs/1801.05787, with
    the term of first order, which is not 0 at initialization.
    """
    check_chunk_size(chunk_size)

    def score(
        params: Params,
        batch: Batch,
        key: jax.Array | None,
        mask: Mask,
        prunable: Prunable,
    ) -> Scores:
        del key, prunable
        weights = mask_params(params, mask)
        with jax.default_matmul_precision("highest"):
            g, g2 = gradient_moments(loss_fn, weights, batch, chunk_size=chunk_size)
        return jax.tree.map(taylor, weights, g, g2)

    def signed(
        params: Params,
        batch: Batch,
        key: jax.Array | None,
        mask: Mask,
        prunable: Prunable,
    ) -> Scores:
        # The square of a mean over classes is not linear in their probabilities: each
        # class has a gradient of its own, and counts as often as it is probable.
        del key, prunable
        weights, (x, q) = mask_params(params, mask), batch
        n, classes = q.shape

        def of_class(label: jax.Array, share: jax.Array) -> Scores:
            labeled = Counted((x, jnp.full(n, label)), share, n)
            with jax.default_matmul_precision("highest"):
                moments = gradient_moments(
                    loss_fn, weights, labeled, chunk_size=chunk_size
                )
            return jax.tree.map(_signed_taylor, weights, *moments)

        each = jax.vmap(of_class)(jnp.arange(classes), q.T)
        return jax.tree.map(lambda leaf: leaf.sum(axis=0), each)

    polynomial = Polynomial(signed, degree=1, absolute=True)
    return Score(score, polynomial=polynomial, loss_fn=loss_fn)


def taylor(w: jax.Array, g: jax.Array, h: jax.Array) -> jax.Array:
    """Returns ``|w g + ½ w² h|``.

    >>> float(taylor(jnp.float32(2.0), jnp.float32(3.0), jnp.float32(-1.0)))
    4.0
    """
    return jnp.abs(_signed_taylor(w, g, h))


def _signed_taylor(w: jax.Array, g: jax.Array, h: jax.Array) -> jax.Array:
    return w * g + w * w * h / 2


def _build(
    net: Network,
    *,
    rounds: int = 1,
    schedule: str = "exponential",
    chunk_size: int = 64,
) -> ByScore:
    score_fn = fisher_taylor(net.loss_fn, chunk_size=chunk_size)
    return by_score(score_fn, rounds=rounds, schedule=schedule)


CARD = Pruner(
    "fisher_taylor",
    label="Fisher-Taylor",
    sees="labels",
    build=_build,
    per_example=True,
    padded=True,
    gradients=lambda *, rounds, **_: rounds,
)
