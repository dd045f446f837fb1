"""GEM-miner: the probability of each weight to be kept, trained; the lowest go."""

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
    dense_mask,
    prunable_kernels,
    top_k,
)
from nfp_jax.masks.prunable import prunable_leaves
from nfp_jax.pruners.contract import MaskFn, Network, Pruner, Score, ScoreFn
from nfp_jax.pruners.trained_scores import (
    by_trained_scores,
    check_settings,
    kept_while_trained,
    mask_slopes,
    minibatches,
    uniform_like,
)
from nfp_jax.types import Batch, LossFn


def gem_miner(
    loss_fn: LossFn,
    *,
    sparsity: float | Fraction | None = None,
    keep: Any = None,
    steps: int = 2400,
    every: int = 128,
    batch_size: int = 64,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    penalty: float = 1e-4,
) -> ScoreFn:
    """Scores each weight by the flag that training left it, and then by ``p``.

    The weights stand still. Each has a probability ``p``, uniform in [0, 1] at first,
    and a flag. The network is masked by ``m = 1[p > ½] · flag``. SGD moves ``p`` along
    ``flag ⊙ w ⊙ ∂L/∂(w⊙m) + 2·penalty·p``, the slope of the rounding passed straight
    through, and ``p`` is clamped to [0, 1]. After every ``every`` steps the flagged
    weights of the lowest ``p`` of all layers lose their flags, for good: a share
    ``1 - density^{1/R}`` of those that have one, rounded up, in ``R = ⌊(steps -
    1)/every⌋`` removals. The rate falls to 0 by a cosine.

    The flags that are left are the mask: exactly the count that was asked for. The
    last removal settles it, so earlier ones may round in single precision. Prune with
    the same sparsity::

        score = gem_miner(loss_fn, sparsity=0.9)
        mask = prune(score, params, batch, key, sparsity=0.9)

    Args:
      loss_fn: ``loss_fn(params, batch)``, the mean loss over a batch, a scalar.
      sparsity: share of prunable weights without a flag in the end, in [0, 1).
      keep: instead of ``sparsity``: how many flags are left; an integer, which may be
        traced.
      steps: of SGD, each on one minibatch. The authors take 150 epochs.
      every: steps from one removal to the next; the authors' 8 epochs.
      batch_size: examples of a minibatch; all of them where they are fewer.
      learning_rate: the first one.
      momentum: of SGD.
      penalty: of the sum of ``p²``, added to the loss.

    Returns:
      ``score(params, batch, key)``: a pytree like ``params``: ``p`` where no flag is
      left, ``2 + p`` where one is. ``batch`` is a pytree whose leaves share a leading
      axis of examples. ``key`` draws ``p`` and the order of the examples.

    Raises:
      ValueError: both or neither of ``sparsity`` and ``keep``, or a setting out of
        range (names it); in ``score`` no key, or a batch without examples (names the
        path).

    >>> loss = lambda w, x: jnp.mean((x @ w - x[:, :1]) ** 2)  # the first weight is it
    >>> score = gem_miner(loss, sparsity=0.75, steps=60, every=10, batch_size=4)
    >>> x = jax.random.normal(jax.random.key(0), (8, 4))
    >>> scores = score(jnp.ones((4, 1)), x, jax.random.key(1))
    >>> (scores >= 2).ravel().tolist()
    [True, False, False, False]

    Reference: Sreenivasan et al. 2022, https://arxiv.org/abs/2202.12002, algorithm 1;
    the settings are those of https://github.com/ksreenivasan/pruning_is_enough. There
    the weights are signed constants.
    """
    check_settings(
        sparsity,
        keep,
        every=(every, "at least 1", every >= 1),
        steps=(steps, f"more than every, {every}", steps > every),
        batch_size=(batch_size, "at least 1", batch_size >= 1),
        learning_rate=(learning_rate, "a positive number", learning_rate > 0),
        momentum=(momentum, "0 <= momentum < 1", 0 <= momentum < 1),
        penalty=(penalty, "at least 0", penalty >= 0),
    )
    optimizer = optax.sgd(optax.cosine_decay_schedule(learning_rate, steps), momentum)
    removals = (steps - 1) // every

    def score(
        params: Params,
        batch: Batch,
        key: jax.Array | None,
        mask: Mask,
        prunable: Prunable,
    ) -> Scores:
        prunable = prunable_kernels(params) if prunable is None else prunable
        left = kept_while_trained(params, prunable, sparsity, keep)
        start, rows, take = minibatches(key, batch, steps=steps, batch_size=batch_size)
        first = uniform_like(params, start, prunable, lambda _: (0.0, 1.0), rest=1.0)
        flags = dense_mask(params) if mask is None else mask
        counts = flag_counts(_flagged(flags, prunable), left, removals)

        def slope(p: Any, flag: Any, through: Any, prunable: bool) -> Any:
            zeros = jnp.zeros_like(p)
            return jnp.where(flag, through, 0) + 2 * penalty * p if prunable else zeros

        def step(carry: Any, now: Any) -> tuple[Any, None]:
            p, flags, state = carry
            i, rows = now
            kept = jax.tree.map(lambda p, flag: (p > 0.5) & flag, p, flags)
            through = mask_slopes(loss_fn, params, kept, take(rows))
            slopes = jax.tree.map(slope, p, flags, through, prunable)
            updates, state = optimizer.update(slopes, state, p)
            moved = optax.apply_updates(p, updates)
            p = jax.tree.map(lambda leaf: jnp.clip(leaf, 0, 1), moved)
            done = (i + 1) // every
            flags = jax.lax.cond(
                ((i + 1) % every == 0) & (done <= removals),
                lambda flags: top_k(p, counts[done - 1], prunable=prunable, mask=flags),
                lambda flags: flags,
                flags,
            )
            return (p, flags, state), None

        with jax.default_matmul_precision("highest"):
            begin = first, flags, optimizer.init(first)
            steps_of = jnp.arange(steps), rows
            (p, flags, _), _ = jax.lax.scan(step, begin, steps_of)
        return jax.tree.map(lambda p, flag: p + 2 * flag.astype(p.dtype), p, flags)

    return Score(score)


def flag_counts(start: Any, keep: Any, removals: int) -> jax.Array:
    """Returns how many flags each removal leaves, int32 ``[removals]``; last ``keep``.

    >>> flag_counts(100, 25, 2).tolist()
    [50, 25]

    Args:
      start: how many there are at first.
      keep: how many there are in the end.
      removals: how many times some are removed.
    """
    share = jnp.float32(keep) / jnp.float32(start)
    rate = 1 - share ** jnp.float32(1 / removals)
    counts, count = [], jnp.int32(start)
    for _ in range(removals - 1):
        removed = jnp.ceil(rate * count.astype(jnp.float32)).astype(jnp.int32)
        count = jnp.maximum(count - removed, keep)
        counts.append(count)
    return jnp.stack([*counts, jnp.int32(keep)])


def _flagged(flags: Mask, prunable: Prunable) -> jax.Array:
    leaves = prunable_leaves(flags, prunable)
    return sum((jnp.sum(leaf) for leaf in leaves), start=jnp.int32(0))


def _build(
    net: Network,
    *,
    steps: int = 2400,
    every: int = 128,
    batch_size: int = 64,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    penalty: float = 1e-4,
) -> MaskFn:
    make = functools.partial(
        gem_miner,
        net.loss_fn,
        steps=steps,
        every=every,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        penalty=penalty,
    )
    make(keep=1)  # refuses settings here
    return by_trained_scores(lambda keep: make(keep=keep), top_k)


# Its probabilities are trained on the labels for as long as a network would be.
CARD = Pruner(
    "gem_miner",
    label="GEM-miner",
    sees="training",
    build=_build,
    gradients=lambda *, steps, **_: steps,  # each over a batch of batch_size
)
