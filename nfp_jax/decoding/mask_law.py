"""A law of masks from the physics of their score: how surprising is a mask?

``H(m) <= E[-log q(m)]`` for any q, so a law that predicts masks well is an upper end of
what they can know. Here bits are predicted one after the other, each from those before
it, by the Gaussian of the labels' signs and the thresholds that ``propagation`` has,
too; a bit that was seen updates it (assumed density filtering). Bits go in blocks: a
block is predicted from its projections alone, and then updates the Gaussian at once.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax import cores
from nfp_jax.decoding.bits import Bits, Signed, bits_of
from nfp_jax.decoding.contract import Last, MaskLaw, Stack
from nfp_jax.decoding.propagation import Model, model_of, reading

# Bits in a block.
BLOCK = 32

# A floor under what is said of each bit, so that no mask is impossible.
FLOOR = 1e-3

# A score's noise floor, in units of its spread between labelings.
NOISE = 0.02


def mask_law(signed: Signed) -> MaskLaw:
    """Returns the law of masks of a score that is a sum over examples, given inputs.

    Args:
      signed: the pruner; two classes.

    Raises:
      NotAdditive: on asking, if the score is no sum over examples.
      CannotDecode: on asking, if there are more than two classes.
    """
    bits_at = Last(
        lambda stack: bits_of(signed, jax.tree.map(jnp.asarray, stack.x), stack.prior)
    )

    def log_prob(stack: Stack, start: int, stop: int) -> np.ndarray:
        if stack.resampled:
            raise ValueError("inputs are resampled, and this law is that of given ones")
        return log_law(bits_at(stack), stack.masks[start:stop])

    return MaskLaw("propagation", log_prob)


def log_law(bits: Bits, masks: np.ndarray) -> np.ndarray:
    """Returns ``log q(m)`` of masks that were made from these inputs, nats.

    q sums to 1 over all masks of the weights, of any number kept.

    Args:
      bits: the uncertain weights, and the law of the others.
      masks: ``bool[K, P]``.

    Reference: assumed density filtering: Minka 2001, "A family of algorithms for
    approximate Bayesian inference".
    """
    certain = np.where(masks, bits.log_one, bits.log_zero)
    certain[:, bits.at] = 0.0
    with jax.enable_x64(True):
        model = model_of(bits, NOISE)
    found = log_filtered(model, masks[:, bits.at], absolute=bits.absolute)
    return np.asarray(certain.sum(axis=1) + found)


def log_filtered(model: Model, bits: np.ndarray, *, absolute: bool) -> np.ndarray:
    """Returns the log probability of uncertain bits, each given those before it, nats.

    It sums to 1 over all bits, whatever the model is.

    Args:
      model: the readings; float64, but for the slopes.
      bits: ``bool[K, E]``.
      absolute: whether ``|u|`` is compared with the threshold, or u.
    """
    order = np.random.default_rng(0).permutation(bits.shape[1])
    length = -(-len(order) // BLOCK) * BLOCK
    order = np.concatenate([order, np.full(length - len(order), -1)])
    with jax.enable_x64(True):
        blocks = jnp.asarray(order.reshape(-1, BLOCK))
        model = jax.tree.map(jnp.asarray, model)

    def one(bit: np.ndarray) -> float:
        with jax.enable_x64(True):  # of this thread
            return float(_filtered(model, jnp.asarray(bit), blocks, absolute=absolute))

    return np.array(cores.each(one, bits))


@functools.partial(jax.jit, static_argnames="absolute")
def _filtered(
    model: Model, bit: jax.Array, order: jax.Array, *, absolute: bool
) -> jax.Array:
    """The log probability of the uncertain bits, a block at a time.

    Args:
      model: the readings.
      bit: ``bool[E]``.
      order: which bits each block has, int ``[blocks, BLOCK]``; -1: none.
      absolute: whether ``|u|`` is compared with the threshold, or u.
    """
    prior_mean = jnp.tanh(model.prior_odds / 2)
    groups = len(model.level_slope)
    mean = jnp.concatenate([prior_mean, jnp.zeros(groups)])
    variance = jnp.concatenate([1 - prior_mean**2, jnp.ones(groups)])
    covariance = jnp.diag(variance).astype(jnp.float32)

    def block(carry: Any, which: jax.Array) -> tuple[Any, jax.Array]:
        mean, covariance = carry
        real, at = which >= 0, jnp.maximum(which, 0)
        slope = model.slope[:, at]  # [n, B]
        side = jnp.ones(BLOCK)
        if absolute:
            u = model.offset[at] + mean[: len(slope)] @ slope
            side = jnp.where(u >= 0, 1.0, -1.0)
        x = jnp.concatenate(
            [slope * side.astype(jnp.float32)[None], -model.level_slope[:, at]]
        )
        levels = jnp.eye(len(mean), groups, -len(slope), dtype=jnp.float32)
        both = jnp.concatenate([x, levels], axis=1)  # [N, B + T]
        pulled = covariance @ both  # what a bit moves, [N, B + T]
        inner = (both.T @ pulled).astype(mean.dtype)
        constant = jnp.concatenate(
            [side * model.offset[at] - model.level[at], jnp.zeros(groups)]
        )
        start = (mean.astype(jnp.float32) @ both).astype(mean.dtype) + constant

        def one(j: Any, state: Any) -> Any:
            m, c, weights, along, first, second, total = state
            level = model.level[at[j]] + m[BLOCK:] @ model.level_slope[:, at[j]]
            if absolute:
                level = jnp.maximum(level, 0.2 * model.level[at[j]])
            spread = jnp.maximum(c[j, j], 1e-14) + model.noise[at[j]] ** 2
            read = functools.partial(reading, m[j] + level, spread, level)
            log_z, d1, d2 = read(bit[at[j]], absolute)
            # Of both bits, so that what is said of them sums to 1.
            other, _, _ = read(~bit[at[j]], absolute)
            told = jnp.isfinite(log_z) & jnp.isfinite(other)
            good = real[j] & told & jnp.isfinite(d1) & jnp.isfinite(d2)
            d1 = jnp.where(good, d1, 0.0)
            d2 = jnp.where(good, jnp.minimum(d2, 0.0), 0.0)
            said = jnp.where(told, log_z, -jnp.log(2.0)) + jnp.log1p(-2 * FLOOR)
            total += jnp.where(real[j], jnp.logaddexp(said, jnp.log(FLOOR)), 0.0)
            # What the bit moves, as weights of the columns of ``pulled``.
            own = jnp.zeros(len(m)).at[j].set(1.0) + weights @ (second * along[:, j])
            moves = c[:, j]
            return (
                m + moves * d1,
                c + d2 * jnp.outer(moves, moves),
                weights.at[:, j].set(own),
                along.at[j].set(moves),
                first.at[j].set(d1),
                second.at[j].set(d2),
                total,
            )

        nothing = jnp.zeros(BLOCK)
        state = (
            start,
            inner,
            jnp.zeros((len(start), BLOCK)),
            jnp.zeros((BLOCK, len(start))),
            nothing,
            nothing,
            0.0,
        )
        found = jax.lax.fori_loop(0, BLOCK, one, state)
        _, _, weights, _, first, second, total = found
        mean = mean + pulled.astype(mean.dtype) @ (weights @ first)
        moved = pulled @ weights.astype(jnp.float32)
        covariance += (moved * second.astype(jnp.float32)[None]) @ moved.T
        return (mean, covariance), total

    with jax.default_matmul_precision("highest"):
        _, totals = jax.lax.scan(block, (mean, covariance), order)
    return jnp.sum(totals)
