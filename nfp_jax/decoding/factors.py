"""An upper end under ``"data"``: a law of masks by the common factors of their scores.

``H(m) <= E[-log p(m)]`` for any law p. Here p draws the common factors h ~ N(0, I) of
a ``FactorLaw``, and given these each bit by itself: ``P(m_j | h)`` is the probability
that a Gaussian score lies above the threshold at which as many bits are expected as
masks keep. The integral over h is estimated from draws: half of them from Laplace's
Gaussian near the factors that the mask speaks for (``factor_map``), and half from
N(0, I), which costs log 2 at most and covers what one Gaussian does not. With q that
mixture ::

    p(m) = E_q[w],  w = p(m | h) N(h) / q(h)

The mean of the weights w of a few draws is on average p(m), so by Jensen's inequality
minus its logarithm is on average at least ``-log p(m)``, and that at least H(m). The
uniform law is mixed into the mean, which keeps both true and every code finite. (Bits
back, ``KL(q, N) + E_q[-log p(m | h)]``, is on average valid, too, but is no longer so
once it is mixed: the mixture of a code that is an average may be too short.)
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import linalg

from nfp_jax.decoding.bits import LEAST, Signed
from nfp_jax.decoding.contract import Stack
from nfp_jax.decoding.factor_law import (
    Draw,
    FactorLaw,
    factor_law,
    log_uniform,
    made_up,
    with_factors,
)
from nfp_jax.decoding.factor_map import (
    FAR,
    Problem,
    inverse_of,
    levels_at,
    maximum,
    on_device,
    precision_of,
    scores_at,
)
from nfp_jax.decoding.propagation import reading

# Draws of the factors for each mask, an even number.
DRAWS = 16

# How many of the factors are used is chosen on so many masks of data drawn for this:
# all, a quarter or a sixteenth.
MADE_UP, SHARES = 4, (1, 4, 16)

# The share of the uniform law over masks.
MIXED = 0.01


class Coder(NamedTuple):
    """A law of masks made ready for data sets of one size.

    Attributes:
      law: of the scores.
      log_weights: ``log_weights(bit, key)``, log w of each draw, ``[DRAWS]``.
    """

    law: FactorLaw
    log_weights: Any


class Factors:
    """Codes masks by common factors; statistics come from data that it draws itself."""

    def __init__(self, signed: Signed, draw: Draw, key: jax.Array) -> None:
        self.signed, self.draw = signed, draw
        self.keys = jax.random.split(
            key, 4
        )  # the law, draws, made-up data, their draws
        self.coders: dict[tuple[int, int], Coder] = {}

    def log_prob(self, stack: Stack, start: int, stop: int) -> np.ndarray:
        """Returns minus the length of each mask's code, nats, ``[stop - start]``.

        ``log(0.99 mean w + 0.01 uniform)``. Minus its expectation is at least ``H(m)``,
        which is ``I(m; D | W)`` for a deterministic pruner: it is an unbiased estimate
        of the probability under a law of masks, and the logarithm is concave. Draws are
        weighed in single precision, which is off by less than 0.01 nats.

        Args:
          stack: masks; their data are not looked at.
          start: first mask.
          stop: behind the last one.

        Raises:
          NotAdditive: the score is no mean over examples.
        """
        coder, masks = self.coder(stack), np.asarray(stack.masks[start:stop])
        which = np.arange(start, stop)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(self.keys[1], which)
        return log_code(coder, masks, keys)

    def longest(self, stack: Stack) -> float:
        """Returns the most nats that the code of such a mask can have.

        Infinite if one keeps another number of weights than all masks drawn for it.
        """
        uniform = log_uniform(self.coder(stack).law, np.asarray(stack.masks))
        return float(-uniform.min() - np.log(MIXED))

    def data_free(self, stack: Stack) -> bool:
        """Returns whether no bit of such masks depends on the data."""
        return not len(self.coder(stack).law.index)

    def coder(self, stack: Stack) -> Coder:
        """Returns the law of masks of data sets of this size."""
        size = stack.labels.shape[1], stack.prior.shape[1]
        if size not in self.coders:
            self.coders[size] = self.made(*size)
        return self.coders[size]

    def made(self, n: int, classes: int) -> Coder:
        """Makes the law of masks, with as many factors as code made-up masks best."""
        law = factor_law(self.signed, self.draw, self.keys[0], n=n, classes=classes)
        make = jax.jit(lambda key: made_up(self.signed, self.draw, key, n)[2])
        masks = np.stack([make(key) for key in jax.random.split(self.keys[2], MADE_UP)])
        keys = jax.random.split(self.keys[3], MADE_UP)

        def worth(coder: Coder) -> float:
            return float(log_code(coder, masks, keys).mean())

        count = law.factors.shape[1]
        laws = [with_factors(law, count // share) for share in SHARES]
        each = jax.jit(log_weights_of(n, absolute=self.signed.absolute))
        coders = [Coder(law, functools.partial(each, on_device(law))) for law in laws]
        return max(coders, key=worth) if len(law.index) else coders[0]


def log_code(coder: Coder, masks: np.ndarray, keys: jax.Array) -> np.ndarray:
    """Returns ``log(0.99 mean w + 0.01 uniform)`` of masks, nats, ``[masks]``."""
    law = coder.law
    certain = np.where(masks, law.log_one, law.log_zero)
    certain[:, law.index] = 0.0
    told = certain.sum(axis=1)
    if len(law.index):
        bits = masks[:, law.index]
        pairs = zip(bits, keys, strict=True)
        found = [np.asarray(coder.log_weights(*pair), np.float64) for pair in pairs]
        weights = np.reshape(found, (len(masks), DRAWS))
        told += np.logaddexp.reduce(weights, axis=1) - np.log(DRAWS)
    uniform = log_uniform(law, masks)
    return np.logaddexp(np.log1p(-MIXED) + told, np.log(MIXED) + uniform)


def factors(signed: Signed, draw: Draw, key: jax.Array) -> Factors:
    """Returns the law of masks by common factors, for a pruner in one round.

    Args:
      signed: the pruner; its score must be a mean over examples, as SNIP's is.
      draw: ``draw(key, count) -> (x, y)``: independent examples of the data's law;
        traced. Another law makes the code longer, and never too short.
      key: for everything that is drawn; independent of the data sets.

    Reference: Burda et al. 2016, https://arxiv.org/abs/1509.00519, for the mean of
    weights; Frey and Hinton 1997, "Efficient stochastic source coding", for bits back.
    """
    return Factors(signed, draw, key)


def log_weights_of(n: int, *, absolute: bool) -> Callable[..., jax.Array]:
    """Returns ``log_weights(law, bit, key) -> [DRAWS]``, log w at draws from q.

    ``p(m | h)`` sums to 1 over all values of the uncertain bits: the threshold depends
    on h alone, and each bit's probability is at least 1e-6.
    """

    def log_weights(law: FactorLaw, bit: jax.Array, key: jax.Array) -> jax.Array:
        scale = jnp.sqrt(n) / n
        problem = Problem(law, bit, law.mean, scale, law.kept, absolute)
        found, _ = maximum(problem, 4, 3)
        precision = precision_of(problem, found)
        lower = linalg.cholesky(precision, lower=True)
        inverse = inverse_of(precision)
        center = found.h + inverse @ (scale * (found.first @ law.factors) - found.h)
        center = jnp.where(jnp.all(jnp.isfinite(center)), center, found.h)

        def weight(draw: tuple[jax.Array, jax.Array]) -> jax.Array:
            noise, near = draw
            moved = linalg.solve_triangular(lower, noise, lower=True, trans=1)
            h = jnp.where(near, center + moved, noise)
            away = lower.T @ (h - center)
            log_near = jnp.sum(jnp.log(jnp.diag(lower))) - away @ away / 2
            log_prior = -h @ h / 2
            log_q = jnp.logaddexp(log_near, log_prior) - jnp.log(2.0)
            return log_conditional(problem, h) + log_prior - log_q

        noise = jax.random.normal(key, (DRAWS, len(center)))
        weights = jax.lax.map(weight, (noise, jnp.arange(DRAWS) % 2 == 0))
        return jnp.where(jnp.isfinite(weights), weights, -jnp.inf)

    return log_weights


def log_conditional(problem: Problem, h: jax.Array) -> jax.Array:
    """Returns ``log p(bits | h)``, nats: of independent bits, each at least 1e-6."""
    u = scores_at(problem, h)
    level = levels_at(problem, u, problem.law.level, FAR) @ problem.law.groups
    one = jnp.ones_like(problem.bit)
    log_one = reading(u, problem.spread**2, level, one, problem.absolute)[0]
    above = LEAST + (1 - 2 * LEAST) * jnp.clip(jnp.exp(log_one), 0.0, 1.0)
    above = jnp.where(jnp.isfinite(above), above, 0.5)
    return jnp.sum(jnp.where(problem.bit, jnp.log(above), jnp.log1p(-above)))
