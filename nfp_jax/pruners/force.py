"""FORCE: SNIP's score of all weights in rounds, from which removed weights return."""

from nfp_jax.masks import floor_counts
from nfp_jax.pruners.by_score import ByScore, by_score
from nfp_jax.pruners.contract import (
    Network,
    Pruner,
    ScoreFn,
)
from nfp_jax.pruners.snip import sensitivity
from nfp_jax.types import LossFn


def force(loss_fn: LossFn, *, chunk_size: int | None = None) -> ScoreFn:
    """Scores each weight by ``|w ⊙ g|`` with ``g`` the gradient of the masked network.

    ``g = ∇L(w ⊙ m)``. The weights ``w`` are all of them: one that the mask removed has
    a score too, by which it may return. So it is for rounds that are not nested:
    ``prune(force(loss_fn), …, rounds=10, nested=False)``. Of one round it is SNIP.

    Args:
      loss_fn: ``loss_fn(params, batch)``, the mean loss over a batch, a scalar.
      chunk_size: as in ``snip``.

    Returns:
      ``score(params, batch, mask=mask)``: a pytree like ``params``, non-negative;
      ``params`` are not masked, ``key`` is ignored.

    Raises:
      ValueError: as ``snip``.

    >>> import jax.numpy as jnp
    >>> loss = lambda w, x: jnp.sum(w * x) ** 2 / 2     # g = (w·x) x
    >>> mask = jnp.array([[True, False]])
    >>> w, x = jnp.array([[3.0, -1.0]]), jnp.array([[1.0, 1.0]])
    >>> force(loss)(w, x, mask=mask).tolist()
    [[9.0, 3.0]]

    Reference: de Jorge et al. 2021, https://arxiv.org/abs/2006.09081.
    """
    return sensitivity(loss_fn, chunk_size, of_removed=True)


def _build(
    net: Network,
    *,
    rounds: int = 10,
    schedule: str = "exponential",
    chunk_size: int = 1024,
) -> ByScore:
    score_fn = force(net.loss_fn, chunk_size=chunk_size)
    return by_score(
        score_fn,
        rounds=rounds,
        schedule=schedule,
        nested=False,
        counts_fn=floor_counts,
    )


CARD = Pruner(
    "force",
    label="FORCE",
    sees="labels",
    build=_build,
    padded=True,
    gradients=lambda *, rounds, **_: rounds,
)
