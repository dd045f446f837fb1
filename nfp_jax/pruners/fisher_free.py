"""Fisher without data: the curvature of a network's own outputs on Gaussian noise."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from nfp_jax.losses import check_chunk_size, classification_loss
from nfp_jax.masks import ApplyFn, Mask, Params, Prunable, Scores
from nfp_jax.pruners.by_score import ByScore, by_score
from nfp_jax.pruners.contract import Network, Pruner, Score, ScoreFn, mask_params
from nfp_jax.pruners.fisher_taylor import gradient_moments
from nfp_jax.types import Batch


def fisher_free(
    apply_fn: ApplyFn,
    input_shape: Sequence[int],
    *,
    examples: int = 128,
    chunk_size: int | None = None,
) -> ScoreFn:
    """Scores each weight by ``½ w² ⊙ E g²`` on inputs and labels of no data.

    Inputs are Gaussian, and the label of each is drawn from the network's own output,
    so that ``E g²`` is the diagonal of its Fisher information, and ``E g`` is 0: the
    score is that of Fisher-Taylor without its term of first order.

    Args:
      apply_fn: ``apply_fn(params, x) -> logits``; examples do not see each other.
      input_shape: one example's shape, without the batch.
      examples: inputs that are drawn.
      chunk_size: examples whose gradients are held at once; ``None``: all.

    Returns:
      ``score(params, key=key)``: a pytree like ``params``, non-negative. ``key`` is
      needed, ``batch`` ignored: inputs are drawn with ``fold_in(key, 0)``, labels with
      ``fold_in(key, 1)``.

    Raises:
      ValueError: fewer than 1 example; a ``chunk_size`` below 1; when it is called, no
        key.

    >>> chain = lambda params, x: x @ params
    >>> scores = fisher_free(chain, (2,))(jnp.ones((2, 3)), key=jax.random.key(0))
    >>> scores.shape, bool((scores > 0).all())
    ((2, 3), True)

    Reference: Theis et al. 2018, https://arxiv.org/abs/1801.05787; labels
    from the model: Kunstner et al. 2019, https://arxiv.org/abs/1905.12558.
    """
    check_chunk_size(chunk_size)
    if examples < 1:
        raise ValueError(f"examples is {examples}, expected at least 1")
    loss_fn = classification_loss(apply_fn)

    def score(
        params: Params,
        batch: Batch,
        key: jax.Array | None,
        mask: Mask,
        prunable: Prunable,
    ) -> Scores:
        del batch, prunable
        if key is None:
            raise ValueError("fisher_free needs a key, got None")
        weights = mask_params(params, mask)
        dtype = jnp.result_type(*jax.tree.leaves(weights))
        x = jax.random.normal(
            jax.random.fold_in(key, 0), (examples, *input_shape), dtype
        )
        with jax.default_matmul_precision("highest"):
            y = jax.random.categorical(jax.random.fold_in(key, 1), apply_fn(weights, x))
            _, g2 = gradient_moments(loss_fn, weights, (x, y), chunk_size=chunk_size)
        return jax.tree.map(lambda w, h: w * w * h / 2, weights, g2)

    return Score(score)


def _build(
    net: Network,
    *,
    rounds: int = 1,
    schedule: str = "exponential",
    examples: int = 128,
    chunk_size: int = 64,
) -> ByScore:
    score_fn = fisher_free(
        net.apply_fn, net.input_shape, examples=examples, chunk_size=chunk_size
    )
    return by_score(score_fn, rounds=rounds, schedule=schedule)


CARD = Pruner(
    "fisher_free",
    label="Fisher on noise",
    sees="nothing",
    build=_build,
    per_example=True,
    gradients=lambda *, rounds, **_: rounds,
)
