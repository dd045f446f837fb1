"""The probability of naming the true examples of a list in order (Plackett and Luce).

A list has ``size`` true examples and others; each has features, and the weights of
these make a score. The first true example is named with the probability ``exp(score)``
over the sum of the list, the next among those that are left, and so on. The weights are
fitted to lists whose true examples are known, which is a convex problem.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

# Examples in a block at most; a block is at most a tenth of what is unknown.
BLOCK = 10

# What is said of each list is mixed with this share of the uniform law.
MIXED = 0.01

# Keeps weights finite where a feature tells the true ones for sure.
RIDGE = 0.3


class Lists(NamedTuple):
    """Lists of examples, described.

    Attributes:
      features: ``[lists, features, slots + others]``, of the true examples and of the
        others.
      size: how many of the first slots have a true example; the rest are empty,
        int ``[lists]``.
      slots: how many slots there are.
    """

    features: np.ndarray
    size: np.ndarray
    slots: int


def log_gain(scores: jax.Array, size: jax.Array, slots: int) -> jax.Array:
    """Returns ``log(q / uniform)`` of the true examples' order, nats.

    q sums to 1 over all ordered choices of ``size`` from the list of ``size + others``.

    Args:
      scores: ``[slots + others]``.
      size: how many slots have a true example.
      slots: how many slots there are.
    """
    others = len(scores) - slots
    real = jnp.arange(slots) < size
    true = jnp.where(real, scores[:slots], -jnp.inf)
    rest = jax.scipy.special.logsumexp(scores[slots:])
    left = jnp.logaddexp(jax.lax.cumlogsumexp(true, reverse=True), rest)
    uniform = jnp.log(jnp.maximum(others + size - jnp.arange(slots), 1))
    return jnp.sum(jnp.where(real, jnp.where(real, true, 0.0) - left + uniform, 0.0))


@functools.partial(jax.jit, static_argnames="slots")
def _told(scores: jax.Array, size: jax.Array, *, slots: int) -> jax.Array:
    """The gains of lists, ``[lists]``."""
    return jax.vmap(lambda s, b: log_gain(s, b, slots))(scores, size)


@functools.partial(jax.jit, static_argnames="slots")
def _lost(
    weights: jax.Array, features: jax.Array, size: jax.Array, *, slots: int
) -> tuple[jax.Array, jax.Array]:
    """What weights lose on lists, and the gradient."""

    def loss(weights: jax.Array) -> jax.Array:
        scores = jnp.einsum("f,lfm->lm", weights, features)
        gains = _told(scores, size, slots=slots)
        return RIDGE * weights @ weights - jnp.sum(gains)

    return jax.value_and_grad(loss)(weights)


def fitted(lists: Lists) -> np.ndarray:
    """Returns the weights of the features that are best for these lists, float64."""
    scale = np.mean(np.std(lists.features, axis=2), axis=0, dtype=np.float64)
    scale = np.maximum(scale, 1e-30)
    with jax.enable_x64(True):
        features = jnp.asarray(lists.features / scale[:, None])
        size = jnp.asarray(lists.size)

        def host(weights: np.ndarray) -> tuple[float, np.ndarray]:
            lost = _lost(jnp.asarray(weights), features, size, slots=lists.slots)
            return float(lost[0]), np.asarray(lost[1])

        found = optimize.minimize(
            host, np.zeros(len(scale)), jac=True, options={"maxiter": 60}
        )
    weights: np.ndarray = found.x / scale
    return weights


def gains(lists: Lists, weights: np.ndarray) -> np.ndarray:
    """Returns ``log((0.99 q + 0.01 uniform) / uniform)`` of each list, nats, float64.

    Args:
      lists: described lists.
      weights: of the features, ``[lists, features]``.
    """
    scores = np.einsum("lf,lfm->lm", weights, np.asarray(lists.features, np.float64))
    with jax.enable_x64(True):
        size = jnp.asarray(lists.size)
        told = _told(jnp.asarray(scores), size, slots=lists.slots)
    return np.logaddexp(np.log1p(-MIXED) + np.asarray(told), np.log(MIXED))


def block_sizes(n: int) -> np.ndarray:
    """Returns how many examples each block has, int ``[blocks]``.

    >>> block_sizes(31).tolist()[:3], int(block_sizes(31).sum())
    ([3, 2, 2], 31)
    """
    sizes = []
    while n:
        sizes.append(min(BLOCK, max(1, n // 10)))
        n -= sizes[-1]
    return np.array(sizes)
