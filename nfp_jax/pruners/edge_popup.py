"""Edge-popup: scores trained by SGD, of which the mask keeps the largest."""

import functools
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nfp_jax.masks import (
    Mask,
    Params,
    Prunable,
    Scores,
    prunable_kernels,
    top_k_per_layer,
)
from nfp_jax.pruners.contract import MaskFn, Network, Pruner, Score, ScoreFn
from nfp_jax.pruners.selects import SelectFn
from nfp_jax.pruners.trained_scores import (
    by_trained_scores,
    check_settings,
    fan_in,
    kept_while_trained,
    mask_slopes,
    minibatches,
    uniform_like,
)
from nfp_jax.types import Batch, LossFn


def edge_popup(
    loss_fn: LossFn,
    *,
    sparsity: float | Fraction | None = None,
    keep: Any = None,
    select: SelectFn = top_k_per_layer,
    steps: int = 2000,
    batch_size: int = 64,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
) -> ScoreFn:
    """Scores each weight by ``|s|``, with ``s`` trained while the weights stand still.

    A step takes the mask ``m`` of the largest ``|s|`` and moves ``s`` by SGD along
    ``∂L/∂s = sign(s) ⊙ w ⊙ ∂L/∂(w⊙m)``: the mask's slope is passed straight through.
    ``s`` starts uniform within ``±1/√fan_in``. The rate falls to 0 by a cosine.

    The scores depend on the sparsity. Prune with the same one, and the same selection::

        score = edge_popup(loss_fn, sparsity=0.9)
        mask = prune(score, params, batch, key, sparsity=0.9, select=top_k_per_layer)

    Args:
      loss_fn: ``loss_fn(params, batch)``, the mean loss over a batch, a scalar.
      sparsity: share of prunable weights that masks remove while scores are trained, in
        [0, 1).
      keep: instead of ``sparsity``: how many weights they keep, as ``select`` takes it;
        it may be traced.
      select: what makes the masks; the paper keeps the same share of every layer.
      steps: of SGD, each on one minibatch.
      batch_size: examples of a minibatch; all of them where they are fewer.
      learning_rate: the first one.
      momentum: of SGD.
      weight_decay: of the scores, times the score, added to its slope.

    Returns:
      ``score(params, batch, key)``: a pytree like ``params``, non-negative; 0 on leaves
      that may not be pruned. ``batch`` is a pytree whose leaves share a leading axis of
      examples. ``key`` draws the first scores and the order of the examples.

    Raises:
      ValueError: both or neither of ``sparsity`` and ``keep``, or a setting out of
        range (names it); in ``score`` no key, or a batch without examples (names the
        path).

    >>> loss = lambda w, x: jnp.mean((x @ w - x[:, :1]) ** 2)  # the first weight is it
    >>> score = edge_popup(loss, sparsity=0.75, steps=50, batch_size=4)
    >>> x = jax.random.normal(jax.random.key(0), (8, 4))
    >>> scores = score(jnp.ones((4, 1)), x, jax.random.key(1))
    >>> top_k_per_layer(scores, 1).ravel().tolist()
    [True, False, False, False]

    Reference: Ramanujan et al. 2020, https://arxiv.org/abs/1911.13299, section 3; the
    settings are those of https://github.com/allenai/hidden-networks.
    """
    check_settings(
        sparsity,
        keep,
        steps=(steps, "at least 1", steps >= 1),
        batch_size=(batch_size, "at least 1", batch_size >= 1),
        learning_rate=(learning_rate, "a positive number", learning_rate > 0),
        momentum=(momentum, "0 <= momentum < 1", 0 <= momentum < 1),
        weight_decay=(weight_decay, "at least 0", weight_decay >= 0),
    )
    optimizer = optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.sgd(optax.cosine_decay_schedule(learning_rate, steps), momentum),
    )

    def score(
        params: Params,
        batch: Batch,
        key: jax.Array | None,
        mask: Mask,
        prunable: Prunable,
    ) -> Scores:
        prunable = prunable_kernels(params) if prunable is None else prunable
        count = kept_while_trained(params, prunable, sparsity, keep)
        start, rows, take = minibatches(key, batch, steps=steps, batch_size=batch_size)
        first = uniform_like(params, start, prunable, _bounds, rest=0.0)

        def kept(scores: Scores) -> Mask:
            size = jax.tree.map(jnp.abs, scores)
            return select(size, count, prunable=prunable, mask=mask)

        def step(carry: Any, rows: jax.Array) -> tuple[Any, None]:
            scores, state = carry
            slopes = score_slopes(loss_fn, params, scores, kept(scores), take(rows))
            updates, state = optimizer.update(slopes, state, scores)
            return (optax.apply_updates(scores, updates), state), None

        with jax.default_matmul_precision("highest"):
            (last, _), _ = jax.lax.scan(step, (first, optimizer.init(first)), rows)
        return jax.tree.map(jnp.abs, last)

    return Score(score)


def score_slopes(
    loss_fn: LossFn, params: Params, scores: Scores, mask: Mask, batch: Batch
) -> Scores:
    """Returns ``∂L/∂s = sign(s) ⊙ w ⊙ ∂L/∂(w⊙m)``, of the mask that the scores give.

    It is 0 where the score is 0, so leaves that may not be pruned stay there.

    >>> loss = lambda w, x: jnp.sum(w * x) ** 2 / 2
    >>> w, s = jnp.array([[3.0, -1.0]]), jnp.array([[-2.0, 0.5]])
    >>> mask, x = jnp.array([[True, False]]), jnp.ones((1, 2))
    >>> score_slopes(loss, w, s, mask, x).tolist()
    [[-9.0, -3.0]]
    """
    slopes = mask_slopes(loss_fn, params, mask, batch)
    return jax.tree.map(lambda s, slope: jnp.sign(s) * slope, scores, slopes)


def _bounds(kernel: Any) -> tuple[float, float]:
    bound = fan_in(kernel) ** -0.5
    return -bound, bound


def _build(
    net: Network,
    *,
    steps: int = 2000,
    batch_size: int = 64,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
) -> MaskFn:
    make = functools.partial(
        edge_popup,
        net.loss_fn,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
    )
    make(keep=1)  # refuses settings here
    return by_trained_scores(lambda keep: make(keep=keep), top_k_per_layer)


# Its scores are trained on the labels for as long as a network would be.
CARD = Pruner(
    "edge_popup",
    label="edge-popup",
    sees="training",
    build=_build,
    gradients=lambda *, steps, **_: steps,  # each over a batch of batch_size
)
