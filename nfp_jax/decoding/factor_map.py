"""The common factors that a mask speaks for, and what its bits say at these.

Of a ``FactorLaw`` and a mask: the factors h ~ N(0, I) of greatest probability given the
bits, by Newton's method, its matrix made anew now and then, with steps back where it
overshoots. All functions are traced; bits are those that are uncertain beforehand.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy import linalg
from jax.scipy.special import ndtr
from jax.scipy.stats import norm

from nfp_jax.decoding.factor_law import FactorLaw
from nfp_jax.decoding.propagation import reading

# Bits that Newton's matrix is made of, those that say most; the others change little.
MOST_IN_MATRIX = 8192

# Steps for the threshold, from one near it and from the law's.
NEAR, FAR = 3, 12

# No bit counts for more than this, nats.
WORST = -50.0


class Problem(NamedTuple):
    """Bits to read, with the mean and the scale of their scores.

    Attributes:
      law: the law of the scores.
      bit: ``bool[E]``.
      mean: of u without the factors, ``[E]``.
      scale: by how much a factor moves u, in units of F: ``sqrt(k) / n`` for k of n
        examples that are unknown.
      kept: how many bits are expected to be set, by threshold, ``[T]``.
      absolute: whether ``|u|`` is compared with the threshold, or u.
    """

    law: FactorLaw
    bit: jax.Array
    mean: jax.Array
    scale: jax.Array
    kept: jax.Array
    absolute: bool

    @property
    def spread(self) -> jax.Array:
        """The standard deviation of each u given the factors, ``[E]``."""
        return self.scale * jnp.sqrt(jnp.maximum(self.law.rest, 1e-30))


class Read(NamedTuple):
    """What bits say at some factors.

    Attributes:
      h: the factors, ``[r]``.
      level: the thresholds there, ``[T]``.
      first: derivative of the log probability of each bit in its u, ``[E]``.
      second: minus the second derivative, at least 0.
      value: the log probability of the bits and the factors, up to a constant.
    """

    h: jax.Array
    level: jax.Array
    first: jax.Array
    second: jax.Array
    value: jax.Array


def scores_at(problem: Problem, h: jax.Array) -> jax.Array:
    """Returns the mean of u given the factors, ``[E]``."""
    return problem.mean + problem.scale * (problem.law.factors @ h)


def levels_at(
    problem: Problem, u: jax.Array, level: jax.Array, steps: int
) -> jax.Array:
    """Returns thresholds above which as many bits are expected as are to be set.

    By Newton's method from ``level``; a function of u and ``kept``, not of the bits.
    """
    law, spread = problem.law, problem.spread
    reach = jnp.maximum(jnp.abs(law.level), 1e-30)

    def step(_: Any, level: jax.Array) -> jax.Array:
        at = level @ law.groups
        above, density = ndtr((u - at) / spread), norm.pdf((u - at) / spread)
        if problem.absolute:
            above += ndtr((-u - at) / spread)
            density += norm.pdf((u + at) / spread)
        more = law.groups @ above - problem.kept
        slope = jnp.maximum(law.groups @ (density / spread), 1e-3 / reach)
        moved = level + jnp.clip(more / slope, -0.3 * reach, 0.3 * reach)
        return jnp.maximum(moved, 0.1 * reach) if problem.absolute else moved

    return jax.lax.fori_loop(0, steps, step, level)


def read(problem: Problem, h: jax.Array, level: jax.Array, steps: int = NEAR) -> Read:
    """Returns what the bits say at factors; thresholds are sought from ``level``."""
    u = scores_at(problem, h)
    level = levels_at(problem, u, level, steps)
    variance = problem.spread**2
    at = level @ problem.law.groups
    log_z, first, second = reading(u, variance, at, problem.bit, problem.absolute)
    good = jnp.isfinite(log_z) & jnp.isfinite(first) & jnp.isfinite(second)
    log_z = jnp.where(good, jnp.maximum(log_z, WORST), WORST)
    return Read(
        h,
        level,
        jnp.where(good, first, 0.0),
        jnp.where(good, jnp.clip(-second, 0.0, 1 / variance), 0.0),
        jnp.sum(log_z) - h @ h / 2,
    )


def precision_of(problem: Problem, found: Read) -> jax.Array:
    """Returns Newton's matrix, the precision of h given the bits, ``[r, r]``."""
    weight = found.second * problem.scale**2
    said = weight * problem.law.rest
    factors = problem.law.factors
    if len(weight) > MOST_IN_MATRIX:
        _, most = jax.lax.top_k(said, MOST_IN_MATRIX)
        weight, factors = weight[most], factors[most]
    return jnp.eye(factors.shape[1]) + (factors * weight[:, None]).T @ factors


def inverse_of(precision: jax.Array) -> jax.Array:
    """Returns the inverse of a precision."""
    lower = linalg.cholesky(precision, lower=True)
    return linalg.cho_solve((lower, True), jnp.eye(len(lower)))


def climb(problem: Problem, found: Read, inverse: jax.Array, steps: int) -> Read:
    """Returns the best read after so many of Newton's steps, with a given matrix.

    A step that loses more than 2 nats against the best is halved, back to the last.
    """
    law = problem.law

    def step(_: Any, state: tuple[Read, jax.Array, jax.Array]) -> Any:
        last, h, best = state
        now = read(problem, h, last.level)
        good = now.value > best - 2
        last = jax.tree.map(lambda x, y: jnp.where(good, x, y), now, last)
        pull = problem.scale * (last.first @ law.factors) - last.h
        ahead = last.h + inverse @ pull
        best = jnp.maximum(best, jnp.where(good, now.value, best))
        return last, jnp.where(good, ahead, (h + last.h) / 2), best

    ahead = found.h + inverse @ (problem.scale * (found.first @ law.factors) - found.h)
    start = found, ahead, found.value
    return jax.lax.fori_loop(0, steps, step, start)[0]


def maximum(problem: Problem, rounds: int, steps: int) -> tuple[Read, jax.Array]:
    """Returns the best read from the law's mean on, and Newton's last inverse.

    Args:
      problem: what is read.
      rounds: the matrix is made anew so many times.
      steps: steps with each.
    """
    h = jnp.zeros(problem.law.factors.shape[1])
    found = read(problem, h, problem.law.level, FAR)

    def again(_: Any, state: tuple[Read, jax.Array]) -> tuple[Read, jax.Array]:
        found, _ = state
        inverse = inverse_of(precision_of(problem, found))
        return climb(problem, found, inverse, steps), inverse

    start = found, jnp.eye(len(h))
    return jax.lax.fori_loop(0, rounds, again, start)


def on_device(law: FactorLaw) -> FactorLaw:
    """Returns the law with what traced functions take of it, on the device.

    It is an argument of these: as a constant of a program it would be compiled, too.
    """
    traced = "index", "mean", "factors", "rest", "groups", "level", "kept"
    put = {name: jnp.asarray(getattr(law, name)) for name in traced}
    return law._replace(**put, log_zero=None, log_one=None, sizes=None, counts=None)
