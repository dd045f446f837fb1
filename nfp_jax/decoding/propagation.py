"""Labels read off one-bit readings, by expectation propagation.

The unknowns are the labels' signs and the thresholds. Their law given a mask is taken
as a Gaussian: the product of a site for each uncertain bit, a truncated normal, and of
one for each label, ``±1``. A sweep makes all sites anew from the Gaussian without them.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import linalg
from jax.scipy.special import log_ndtr

from nfp_jax.decoding.bits import Bits

DAMPING = 0.7
LOG_SQRT_2PI = 0.9189385332046727

# Of a label's log odds, for its site: beyond that it counts as certain.
MOST_ODDS = 12.0


class Sites(NamedTuple):
    """The approximation so far: natural parameters of Gaussian factors.

    Attributes:
      precision: of the site of each bit, ``[E]``.
      shift: of it, ``[E]``.
      label_precision: of the site of each label, ``[n]``.
      label_shift: of it, ``[n]``.
      side: +1 or -1 by bit, on which side of 0 its score is taken to lie, ``[E]``.
      odds: log odds that each label is 1, ``[n]``: of the bits and the prior.
    """

    precision: jax.Array
    shift: jax.Array
    label_precision: jax.Array
    label_shift: jax.Array
    side: jax.Array
    odds: jax.Array


class Model(NamedTuple):
    """``Bits`` as arrays on the device, all masks share them.

    Attributes:
      offset: ``[E]``.
      slope: ``[n, E]``.
      noise: the floor under what a bit may say of its score, ``[E]``.
      level: of the threshold of each bit, ``[E]``.
      level_slope: standard deviations of thresholds, by threshold and bit, ``[T, E]``.
      prior_odds: of each label, ``[n]``.
    """

    offset: jax.Array
    slope: jax.Array
    noise: jax.Array
    level: jax.Array
    level_slope: jax.Array
    prior_odds: jax.Array


def model_of(bits: Bits, noise: float) -> Model:
    """Returns the arrays of readings, with a noise floor in units of their spread.

    Scores and thresholds are in units of the spread's root mean square, so that floors
    under variances mean the same for every network.
    """
    unit = float(np.sqrt(np.mean(bits.spread**2))) if len(bits.spread) else 1.0
    chosen = bits.group == np.arange(len(bits.level))[:, None]
    with np.errstate(divide="ignore"):
        odds = np.log(bits.prior) - np.log1p(-bits.prior)
    return Model(
        jnp.asarray(bits.offset / unit),
        jnp.asarray(bits.slope / np.float32(unit), jnp.float32),
        jnp.asarray(noise * bits.spread / unit),
        jnp.asarray(bits.level[bits.group] / unit),
        jnp.asarray(chosen * bits.level_sd[:, None] / unit, jnp.float32),
        jnp.asarray(np.clip(odds, -MOST_ODDS, MOST_ODDS)),
    )


def begin(model: Model) -> Sites:
    """Returns the sites before a mask is looked at: those of the labels' law."""
    mean = jnp.tanh(model.prior_odds / 2)
    precision = 1 / jnp.maximum(1 - mean**2, 1e-5)
    nothing = jnp.zeros_like(model.offset)
    side = jnp.where(model.offset >= 0, 1.0, -1.0)
    return Sites(nothing, nothing, precision, mean * precision, side, model.prior_odds)


def sweep(
    model: Model,
    sites: Sites,
    bit: jax.Array,
    known: jax.Array,
    left: jax.Array,
    *,
    absolute: bool,
) -> Sites:
    """Returns the sites after one parallel sweep over all bits and labels.

    Args:
      model: the readings.
      sites: before it.
      bit: what is read, ``bool[E]``.
      known: the signs of labels that have been told, ``[n]``; 0 of the others.
      left: the others, int ``[m]``; filled up with n.
      absolute: whether ``|u|`` is compared with the threshold, or u.
    """
    n, m = len(known), len(left)
    real = left < n
    at = jnp.minimum(left, n - 1)
    side = sites.side if absolute else jnp.ones_like(sites.side)
    told = model.offset + known.astype(jnp.float32) @ model.slope
    constant = side * told - model.level
    x = jnp.where(real[:, None], model.slope[at], 0)
    x = x * side.astype(jnp.float32)[None]
    x = jnp.concatenate([x, -model.level_slope])  # [m + T, E]
    own = jnp.where(real, sites.label_precision[at], 1.0)
    prior = jnp.concatenate([own, jnp.ones(len(model.level_slope))])
    own_shift = jnp.where(real, sites.label_shift[at], 0.0)
    shift = jnp.concatenate([own_shift, jnp.zeros(len(model.level_slope))])
    weighted = x * jnp.sqrt(sites.precision).astype(jnp.float32)[None]
    matrix = (weighted @ weighted.T).astype(prior.dtype) + jnp.diag(prior)
    lower = linalg.cholesky(matrix, lower=True)
    pull = (sites.shift - sites.precision * constant).astype(jnp.float32)
    mean = linalg.cho_solve((lower, True), shift + (x @ pull).astype(prior.dtype))
    inverse = linalg.solve_triangular(lower, jnp.eye(len(lower)), lower=True)
    variance = jnp.sum(inverse**2, axis=0)
    # Labels.
    mu, var, own_p, own_s = mean[:m], variance[:m], own, own_shift
    cavity = jnp.maximum(1 / var - own_p, 1e-9)
    odds = 2 * (mu / var - own_s)
    whole = jnp.clip(odds + model.prior_odds[at], -MOST_ODDS, MOST_ODDS)
    sign = jnp.tanh(whole / 2)
    precision = 1 / jnp.maximum(1 - sign**2, 1e-5) - cavity
    precision = jnp.clip(precision, 0.05, 1e5)
    moved = sign * (precision + cavity) - odds / 2
    label_precision = own_p + DAMPING * (precision - own_p)
    label_shift = own_s + DAMPING * (moved - own_s)
    # Bits: c = side u - level.
    narrow = linalg.solve_triangular(lower.astype(jnp.float32), x, lower=True)
    c_var = jnp.maximum(jnp.sum(narrow**2, axis=0).astype(prior.dtype), 1e-14)
    c_mean = (mean.astype(jnp.float32) @ x).astype(prior.dtype) + constant
    level = model.level + mean[m:] @ model.level_slope.astype(prior.dtype)
    level = jnp.maximum(level, 0.2 * model.level) if absolute else level
    sites_now = _bit_sites(sites, c_mean, c_var, model.noise, level, bit, absolute)
    bit_precision, bit_shift, flip = sites_now
    return Sites(
        bit_precision,
        bit_shift,
        sites.label_precision.at[left].set(label_precision, mode="drop"),
        sites.label_shift.at[left].set(label_shift, mode="drop"),
        jnp.where(flip, -side, side),
        sites.odds.at[left].set(odds + model.prior_odds[at], mode="drop"),
    )


def _bit_sites(
    sites: Sites,
    c_mean: jax.Array,
    c_var: jax.Array,
    noise: jax.Array,
    level: jax.Array,
    bit: jax.Array,
    absolute: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The sites of the bits anew, damped; and which bits lie on the other side of 0."""
    precision = 1 / c_var - sites.precision
    good = precision > 1e-3 / c_var
    var = 1 / jnp.where(good, precision, 1.0)
    mean = var * (c_mean / c_var - sites.shift)
    _, first, second = reading(mean + level, var + noise**2, level, bit, absolute)
    scale = 1 + var * second
    good &= (scale > 1e-6) & jnp.isfinite(first) & jnp.isfinite(second)
    scale = jnp.where(good, scale, 1.0)
    new_precision = jnp.where(good, -second / scale, sites.precision)
    new_shift = jnp.where(good, (first - mean * second) / scale, sites.shift)
    usable = new_precision >= 0  # a site of negative precision: none
    new_precision = jnp.where(usable, new_precision, 0.0)
    new_shift = jnp.where(usable, new_shift, 0.0)
    flip = (mean + level < 0) if absolute else jnp.zeros_like(bit)

    def damped(old: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.where(flip, 0.0, old + DAMPING * (new - old))

    return (
        damped(sites.precision, new_precision),
        damped(sites.shift, new_shift),
        flip,
    )


def reading(
    mean: Any, variance: Any, level: Any, bit: Any, absolute: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the log probability of what bits read, and its first two derivatives.

    ``Z = P(|u| >= level)`` where the bit is set, else ``P(|u| < level)``, for ``u ~
    N(mean, variance)``; without ``absolute`` of u itself. The derivatives are in the
    mean.
    """
    s = jnp.sqrt(variance)
    above, below = (level - mean) / s, (-level - mean) / s
    if not absolute:
        sign = jnp.where(bit, 1.0, -1.0)
        log_z = log_ndtr(-sign * above)
        ratio = jnp.exp(-0.5 * above**2 - LOG_SQRT_2PI - log_z)
        first = sign * ratio / s
        return log_z, first, -first * (first - above / s)
    outside = jnp.logaddexp(log_ndtr(-above), log_ndtr(below))
    # log (Phi(above) - Phi(below)), from the side where it is accurate.
    high = jnp.where(mean < 0, log_ndtr(-below), log_ndtr(above))
    low = jnp.where(mean < 0, log_ndtr(-above), log_ndtr(below))
    inside = high + jnp.log1p(-jnp.exp(jnp.minimum(low - high, -1e-9)))
    log_z = jnp.where(bit, outside, inside)
    sign = jnp.where(bit, 1.0, -1.0)
    a = jnp.exp(jnp.minimum(-0.5 * above**2 - LOG_SQRT_2PI - log_z, 50))
    b = jnp.exp(jnp.minimum(-0.5 * below**2 - LOG_SQRT_2PI - log_z, 50))
    first = sign * (a - b) / s
    second = sign * (above * a - below * b) / variance - first**2
    return log_z, first, second


@functools.partial(jax.jit, static_argnames=("absolute", "sweeps"))
def sweeps(
    model: Model,
    sites: Sites,
    bit: jax.Array,
    known: jax.Array,
    left: jax.Array,
    *,
    absolute: bool,
    sweeps: int,
) -> tuple[Sites, jax.Array]:
    """Returns the sites after some sweeps, and whether they diverged.

    Arguments are those of ``sweep``. Of sweeps that diverge nothing is left: the sites
    are then those before a mask is looked at.
    """

    def step(_: Any, sites: Sites) -> Sites:
        return sweep(model, sites, bit, known, left, absolute=absolute)

    with jax.default_matmul_precision("highest"):
        found = jax.lax.fori_loop(0, sweeps, step, sites)
    at = jnp.minimum(left, len(known) - 1)
    finite = jnp.all(jnp.isfinite(found.odds[at]) | (left >= len(known)))
    finite &= jnp.all(jnp.isfinite(found.label_precision))
    finite &= jnp.all(jnp.isfinite(found.precision) & jnp.isfinite(found.shift))
    fresh = begin(model)
    kept = jax.tree.map(lambda x, y: jnp.where(finite, x, y), found, fresh)
    return kept, ~finite
