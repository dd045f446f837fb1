"""How trained weights move with their labels, and labels read off what they say.

Training fits the labels, so weights drift along ``Jᵀ (K + λ)⁻¹ s``: J are the gradients
of the examples' outputs, ``K = J Jᵀ`` their kernel, s the signs of the labels. A bit of
a mask says whether one weight has drifted across its threshold. In dense layers a
gradient is an outer product, so K needs no gradient, and J only those of the bits read.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import linalg

from nfp_jax.decoding.propagation import DAMPING, MOST_ODDS, reading

# Of the kernel's mean eigenvalue: directions far below it are not fitted before a
# training ends.
RIDGE = 1.0

# Times that bits are read anew around what they said, and sweeps over labels each time.
READINGS, SWEEPS = 2, 5

# ``passed(weights, x)``: of weights ``[P]``, for each prunable leaf ``[in, out]`` in
# order, what examples pass through it: its inputs ``[n, in]``, and the derivatives of
# each example's output in the leaf's outputs, ``[n, out]``.
Passed = Callable[[jax.Array, Any], list[tuple[jax.Array, jax.Array]]]


def places(passed: Passed, weights: Any, x: Any, at: np.ndarray) -> np.ndarray:
    """Returns of each weight in ``at`` its leaf, input and output, int ``[3, E]``.

    Inputs and outputs are numbered through all leaves.
    """
    shapes = jax.eval_shape(passed, weights, x)
    rows = np.array([a.shape[1] for a, _ in shapes])
    columns = np.array([d.shape[1] for _, d in shapes])
    ends = np.cumsum(rows * columns)
    leaf = np.searchsorted(ends, at, side="right")
    within = at - (ends - rows * columns)[leaf]
    row = within // columns[leaf] + (np.cumsum(rows) - rows)[leaf]
    column = within % columns[leaf] + (np.cumsum(columns) - columns)[leaf]
    return np.stack([leaf, row, column])


@functools.partial(jax.jit, static_argnames="passed")
def slopes(
    passed: Passed, weights: jax.Array, x: Any, row: jax.Array, column: jax.Array
) -> jax.Array:
    """Returns ``(K + λ)⁻¹ J`` of some weights, float32 ``[n, E]``; K of mean trace 1.

    Args:
      passed: of the network.
      weights: around which it is linearized, ``[P]``.
      x: the inputs.
      row: of each weight its input, as ``places`` has it, int ``[E]``.
      column: its output.
    """
    with jax.default_matmul_precision("highest"):
        layers = passed(weights, x)
        kernel = sum((a @ a.T) * (d @ d.T) for a, d in layers)
        inputs = jnp.concatenate([a for a, _ in layers], axis=1)
        outputs = jnp.concatenate([d for _, d in layers], axis=1)
        gradients = inputs[:, row] * outputs[:, column]
        scale = jnp.maximum(jnp.mean(jnp.diag(kernel)), 1e-30)
        matrix = kernel / scale + RIDGE * jnp.eye(len(inputs))
        found: jax.Array = linalg.cho_solve(linalg.cho_factor(matrix), gradients)
        return found


@jax.jit
def read(
    bit: jax.Array,
    offset: jax.Array,
    slope: jax.Array,
    noise: jax.Array,
    around: jax.Array,
    start: jax.Array,
    prior_odds: jax.Array,
) -> jax.Array:
    """Returns the log odds that labels are 1, of the bits and the prior, ``[n]``.

    Bit j is set where ``offset_j + Σ_i slope_ij (s_i - around_i) + noise_j ε`` is at
    least 0. Its likelihood is taken as a Gaussian in s around what is known of s so
    far, so that all bits are one n x n matrix. Labels are then read off it by
    expectation propagation, each a site of ``±1``.

    Args:
      bit: ``bool[E]``.
      offset: the margins of labels ``around``, ``[E]``.
      slope: how margins move with signs, ``[n, E]``.
      noise: the standard deviation of what is not linear, ``[E]``.
      around: the signs of the labels that have these margins, ``[n]``.
      start: the mean of the signs, as far as it is known, ``[n]``.
      prior_odds: ``[n]``.
    """
    mean, odds = start, prior_odds
    with jax.default_matmul_precision("highest"):
        for _ in range(READINGS):
            middle = offset + (mean - around) @ slope
            variance = (1 - mean**2) @ slope**2 + noise**2
            _, first, second = reading(middle, variance, 0.0, bit, False)
            weight = jnp.maximum(-second, 0.0)
            matrix = (slope * weight[None]) @ slope.T
            odds = _labels(matrix, slope @ first + matrix @ mean, prior_odds)
            mean = jnp.tanh(jnp.clip(odds, -MOST_ODDS, MOST_ODDS) / 2)
    return odds


def _labels(matrix: jax.Array, shift: jax.Array, prior_odds: jax.Array) -> jax.Array:
    """Odds of labels whose log likelihood is ``shiftᵀs - sᵀ matrix s / 2``, signs s."""
    n = len(shift)
    sign = jnp.tanh(prior_odds / 2)
    precision = 1 / jnp.maximum(1 - sign**2, 1e-5)

    def sweep(_: Any, state: Any) -> Any:
        own, own_shift, _ = state
        lower = linalg.cholesky(matrix + jnp.diag(own), lower=True)
        inverse = linalg.solve_triangular(lower, jnp.eye(n), lower=True)
        variance = jnp.sum(inverse**2, axis=0)
        mean = inverse.T @ (inverse @ (shift + own_shift))
        cavity = jnp.maximum(1 / variance - own, 1e-6)
        odds = 2 * (mean / variance - own_shift)
        whole = jnp.clip(odds + prior_odds, -MOST_ODDS, MOST_ODDS)
        sign = jnp.tanh(whole / 2)
        now = jnp.clip(1 / jnp.maximum(1 - sign**2, 1e-5) - cavity, 0.05, 1e5)
        moved = sign * (now + cavity) - odds / 2
        return (
            own + DAMPING * (now - own),
            own_shift + DAMPING * (moved - own_shift),
            odds + prior_odds,
        )

    begin = precision, sign * precision, prior_odds
    found: jax.Array = jax.lax.fori_loop(0, SWEEPS, sweep, begin)[2]
    return found
