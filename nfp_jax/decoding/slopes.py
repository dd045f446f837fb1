"""Scores ``w ⊙ H g`` around soft labels: slopes, curvature and the diagonal's part.

With two classes and a loss that is linear in the labels, the score S of GraSP is a
polynomial of degree two in the probabilities ``q_i`` that label i is 1.
``relu_slopes.relu_chain`` has its derivatives in closed form for a network of dense
ReLU layers without biases: matrix products over examples. ``Autodiff`` has them for any
network, one derivative an example, which only few examples can afford. ``check``
compares with the score.
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.decoding.bits import Signed
from nfp_jax.decoding.contract import CannotDecode

# Derivatives may be off by this share of their size: rounding in float32.
DEVIATION = 1e-3

# Autodiff takes n derivatives, each of n examples and P weights, for every sweep.
# 2e9: a few seconds a sweep on one core.
MOST_WORK = 2e9


class NoSlopes(CannotDecode):
    """The slopes of a score are not known in closed form, and n is too large."""


class Slopes(Protocol):
    """Derivatives of a score in the probabilities that labels are 1, at given inputs.

    What they return of inputs and of weights is any pytree of arrays.

    Attributes:
      known: prunable weights of which slopes are known, ``bool[P]``.
    """

    known: np.ndarray

    def factors(self, x: Any) -> Any:
        """Returns what all masks of these inputs share."""
        ...

    def picked(self, factors: Any, at: np.ndarray) -> Any:
        """Returns what ``slopes`` needs for the weights ``at``, int ``[E]``, sorted."""
        ...

    def slopes(self, factors: Any, picked: Any, q: jax.Array, rows: Any) -> jax.Array:
        """Returns ``dS/dq`` for the labels ``rows`` at ``q [n]``: ``[rows, E]``."""
        ...

    def diagonal(self, factors: Any, variance: jax.Array) -> jax.Array:
        """Returns ``½ Σ_i variance_i d²S/dq_i²``, of all prunable weights, ``[P]``."""
        ...

    def curvature(self, factors: Any, weights: jax.Array) -> jax.Array:
        """Returns the Hessian of ``Σ_w weights_w S_w`` in q, ``[n, n]``."""
        ...


class Autodiff:
    """Derivatives of any score by autodiff, one an example: ``Slopes``.

    Attributes:
      known: weights of which slopes are known, ``bool[P]``: all.
    """

    def __init__(self, signed: Signed, n: int, total: int) -> None:
        if n**2 * total > MOST_WORK:
            raise NoSlopes(
                f"no closed form holds for the score, and autodiff takes n² P = "
                f"{n**2 * total:.2g} products a sweep, expected at most {MOST_WORK:.2g}"
            )
        self.known = np.ones(total, bool)

        def score(q: jax.Array, x: Any) -> jax.Array:
            return signed.flat(jnp.stack([1 - q, q], axis=1), x)

        @jax.jit
        def slopes(x: Any, at: jax.Array, q: jax.Array, rows: jax.Array) -> jax.Array:
            def one(row: jax.Array) -> jax.Array:
                unit = (jnp.arange(len(q)) == row).astype(q.dtype)
                return jax.jvp(lambda q: score(q, x), (q,), (unit,))[1][at]

            return jax.lax.map(one, rows, batch_size=8)

        @jax.jit
        def diagonal(x: Any, variance: jax.Array) -> jax.Array:
            def one(pair: Any) -> jax.Array:
                alone = jax.tree.map(lambda leaf: leaf[None], pair[0])
                low, half, high = (
                    score(jnp.full(1, q), alone) for q in (0.0, 0.5, 1.0)
                )
                return 2 * pair[1] * (high + low - 2 * half)

            parts = jax.lax.map(one, (x, variance))
            return jnp.sum(parts, axis=0) / len(variance) ** 2

        @jax.jit
        def curvature(x: Any, weights: jax.Array) -> jax.Array:
            q = jnp.full(len(jax.tree.leaves(x)[0]), 0.5)
            slope = jax.grad(lambda q: score(q, x) @ weights)
            rows = jnp.eye(len(q), dtype=q.dtype)
            return jax.lax.map(lambda row: jax.jvp(slope, (q,), (row,))[1], rows)

        self.slopes_fn, self.diagonal, self.curvature = slopes, diagonal, curvature

    def factors(self, x: Any) -> Any:
        """Returns the inputs."""
        return x

    def picked(self, factors: Any, at: np.ndarray) -> Any:
        """Returns the weights."""
        del factors
        return jnp.asarray(at)

    def slopes(self, factors: Any, picked: Any, q: jax.Array, rows: Any) -> jax.Array:
        """Returns ``dS/dq``, as every ``Slopes``; one derivative a row."""
        found: jax.Array = self.slopes_fn(factors, picked, q, rows)
        return found


def check(slopes: Slopes, signed: Signed, x: Any, n: int) -> float:
    """Returns by how much slopes differ from the score's, relative to their size.

    Slopes along a few random directions at random soft labels against ``jax.jvp``, and
    the diagonal's part of a single example against its second difference.
    """
    rng = np.random.default_rng(0)
    q, total = jnp.asarray(rng.random(n), jnp.float32), len(slopes.known)
    at = np.flatnonzero(slopes.known)
    at = np.sort(rng.choice(at, min(len(at), 2000), replace=False))
    factors = slopes.factors(x)
    rows = jnp.arange(n)
    found = slopes.slopes(factors, slopes.picked(factors, at), q, rows)

    @jax.jit
    def score(q: jax.Array, x: Any) -> jax.Array:
        return signed.flat(jnp.stack([1 - q, q], axis=1), x)

    if jax.eval_shape(score, q, x).size != total:
        return np.inf
    worst = 0.0
    for _ in range(3):
        way = jnp.asarray(rng.standard_normal(n), jnp.float32)
        true = np.asarray(jax.jvp(lambda q: score(q, x), (q,), (way,))[1])[at]
        worst = max(worst, _off(np.asarray(way @ found), true))
    one = jax.tree.map(lambda leaf: leaf[:1], x)
    low, half, high = (score(jnp.full(1, p), one) for p in (0.0, 0.5, 1.0))
    own = slopes.diagonal(slopes.factors(one), jnp.ones(1))
    return max(worst, _off(np.asarray(own), np.asarray(2 * (high + low - 2 * half))))


def _off(found: np.ndarray, true: np.ndarray) -> float:
    """The root mean square of the difference, relative to that of the truth."""
    size = float(np.sqrt(np.mean(true**2)))
    off = float(np.sqrt(np.mean((found - true) ** 2)))
    return off / size if size > 0 else (0.0 if off == 0 else np.inf)
