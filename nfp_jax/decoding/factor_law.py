"""The law of a score that is a sum over examples: a Gaussian with common factors.

``u = (1/n) Σ_i g(z_i)`` of n independent examples has the mean of g and its covariance
over n. The covariance is taken as ``F Fᵀ + diag(ψ)``: a few hundred common factors, and
what each weight has of its own. All of it comes from data that is drawn for this, and
none from the data of masks that are looked at later.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special, stats

from nfp_jax.decoding.bits import (
    DEVIATION,
    LEAST,
    NotAdditive,
    Signed,
    levels_of,
    log_laws,
)
from nfp_jax.decoding.readouts import example_scores, layer_sizes

# ``draw(key, count) -> (x, y)``: independent examples of the data's law.
Draw = Callable[[jax.Array, int], tuple[Any, jax.Array]]

# Sets whose scores the factors are taken from, and examples in each. Sums of few
# examples have the covariance of sums of many, up to the scale.
SETS, EXAMPLES = 4096, 128

# Sets of the right size, for the thresholds.
WHOLE = 64

# Common factors at most.
FACTORS = 400

# Bits so many standard deviations from their threshold are certain; and bits at most.
FAR, MOST = 4.0, 32_768

# Sets scored by one call.
AT_ONCE = 64


class FactorLaw(NamedTuple):
    """The law of the scores of a data set, of the bits that are uncertain beforehand.

    Attributes:
      index: which of the prunable weights, int ``[E]``; empty if the score does not
        depend on the data.
      mean: of g, ``[E]``.
      factors: F, ``[E, r]``.
      rest: ψ, ``[E]``.
      groups: 1 where a bit has this threshold, else 0, ``[T, E]``.
      level: the mean of each threshold, ``[T]``.
      kept: how many of the bits are set on average, ``[T]``.
      log_zero: log probability that each of all weights is removed, ``[P]``.
      log_one: that it is kept.
      sizes: how many weights compete for each threshold, int ``[T]``.
      counts: how many of them every drawn mask keeps, ``[T]``; -1: not always as many.
    """

    index: Any
    mean: Any
    factors: Any
    rest: Any
    groups: Any
    level: Any
    kept: Any
    log_zero: Any
    log_one: Any
    sizes: Any
    counts: Any


def factor_law(
    signed: Signed, draw: Draw, key: jax.Array, *, n: int, classes: int
) -> FactorLaw:
    """Returns the law of the scores of n examples, from data that it draws.

    The factors are the principal components of scores of other sets, each bit weighed
    by its Fisher information: how much the bit says of its score. The noise of a sample
    of sets is subtracted from their variances. The sets take ``4 SETS MOST`` bytes.

    Args:
      signed: the pruner.
      draw: draws examples.
      key: draws the sets; independent of the data whose masks are looked at.
      n: examples in a data set.
      classes: number of classes.

    Raises:
      NotAdditive: the score is no mean over examples; says by how much it is off.
    """
    whole_key, set_key, check_key = (jax.random.fold_in(key, i) for i in range(3))
    u, kept = _whole(signed, draw, whole_key, n, classes)
    _check_additive(signed, draw, check_key, classes, u)
    x, y = jax.eval_shape(lambda key: draw(key, n), key)
    sizes = layer_sizes(signed, jax.ShapeDtypeStruct((len(y), classes), float), x)
    totals = np.array(sizes if signed.by_layer else [sum(sizes)])
    group = np.repeat(np.arange(len(totals)), totals)
    size = np.abs(u) if signed.absolute else u
    level, level_sd = levels_of(size, kept, group)
    index = _uncertain(u, level[group], level_sd[group], signed.absolute)
    sets = min(SETS, max(512, 4 * len(index)))
    mean, variance, scores = _scores(
        signed, draw, set_key, index, min(n, EXAMPLES), sets, classes
    )
    sd = np.sqrt(variance / n)
    laws = log_laws(mean, np.hypot(sd, level_sd[group]), level[group], signed.absolute)
    factors = _factors(
        scores, mean[index], variance[index], level[group][index], n, signed.absolute
    )
    groups = (group[index] == np.arange(len(level))[:, None]).astype(np.float32)
    return FactorLaw(
        index,
        mean[index].astype(np.float32),
        factors,
        (variance[index] - np.sum(factors**2, axis=1)).astype(np.float32),
        groups,
        level.astype(np.float32),
        (groups @ kept[:, index].mean(axis=0)).astype(np.float32),
        *laws,
        totals,
        _counts(kept, totals),
    )


def _whole(
    signed: Signed, draw: Draw, key: jax.Array, n: int, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """The scores and masks of a few data sets, ``[WHOLE, P]`` each."""

    @jax.jit
    def each(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            x, y = draw(key, n)
            return signed.flat(jax.nn.one_hot(y, classes), x), signed.mask(y, x)

        return jax.lax.map(one, keys)

    u, kept = each(jax.random.split(key, WHOLE))
    return np.asarray(u, np.float64), np.asarray(kept)


def _check_additive(
    signed: Signed, draw: Draw, key: jax.Array, classes: int, u: np.ndarray
) -> None:
    """Raises where u of a set is not the mean of its examples' g."""
    x, y = draw(key, 16)
    q = jax.nn.one_hot(y, classes)
    alone = jax.jit(lambda q, x: jnp.mean(example_scores(signed, q, x), axis=0))
    whole = jax.jit(signed.flat)(q, x)
    scale = float(np.sqrt(np.mean(np.var(u - u[0], axis=0)))) or 1.0
    off = float(np.max(np.abs(np.asarray(whole) - np.asarray(alone(q, x)))))
    if not off <= DEVIATION * scale:
        raise NotAdditive(
            f"the score is off the mean over its examples by {off / scale:.2g} of what "
            f"it varies between data sets, expected at most {DEVIATION}"
        )


def _uncertain(
    u: np.ndarray, level: np.ndarray, level_sd: np.ndarray, absolute: bool
) -> np.ndarray:
    """Which weights are uncertain beforehand, those nearest to their threshold."""
    moved = u - u[0]  # exactly 0 where nothing depends on the data
    spread, mean = moved.std(axis=0), u[0] + moved.mean(axis=0)
    reach = np.abs(mean) if absolute else mean
    distance = np.abs(reach - level) / np.maximum(np.hypot(spread, level_sd), 1e-30)
    index = np.flatnonzero((spread > 0) & (distance < FAR))
    if len(index) > MOST:
        index = np.sort(index[np.argsort(distance[index], kind="stable")[:MOST]])
    return index


def _scores(
    signed: Signed,
    draw: Draw,
    key: jax.Array,
    index: np.ndarray,
    examples: int,
    sets: int,
    classes: int,
) -> tuple[np.ndarray, np.ndarray, jax.Array]:
    """Mean and variance of g, ``[P]``; and the centered scores of the sets, in units of
    g's deviations, ``[sets, E]``.
    """

    def first(key: jax.Array) -> jax.Array:
        x, y = draw(key, examples)
        return signed.flat(jax.nn.one_hot(y, classes), x)

    @jax.jit
    def each(keys: jax.Array, center: jax.Array) -> tuple[jax.Array, ...]:
        # Counted from numbers near the mean, so that little is lost to rounding.
        moved = jax.lax.map(lambda key: first(key) - center, keys)
        return jnp.sum(moved, axis=0), jnp.sum(moved**2, axis=0), moved[:, index]

    if not len(index):
        sets = AT_ONCE
    sets -= sets % AT_ONCE
    keys = jax.random.split(key, sets).reshape(-1, AT_ONCE)
    center = jax.jit(first)(key)
    total, square = np.zeros((2, len(center)))
    parts = []
    for part in keys:
        once, second, moved = each(part, center)
        total += np.asarray(once, np.float64)
        square += np.asarray(second, np.float64)
        parts.append(moved)
    mean = total / sets
    variance = np.maximum(square / sets - mean**2, 0) * examples
    scores = jnp.concatenate(parts) - mean[None, index].astype(np.float32)
    return np.asarray(center) + mean, variance, scores * np.float32(np.sqrt(examples))


def _factors(
    scores: jax.Array,
    mean: np.ndarray,
    variance: np.ndarray,
    level: np.ndarray,
    n: int,
    absolute: bool,
) -> np.ndarray:
    """F, ``[E, r]``: principal components, weighed by what each bit says."""
    sets, bits = scores.shape
    if not bits:
        return np.zeros((0, 1), np.float32)
    sd = np.maximum(np.sqrt(variance / n), 1e-30)
    below, above = (-mean - level) / sd, (mean - level) / sd
    p, slope = special.ndtr(above), stats.norm.pdf(above)
    if absolute:
        p, slope = p + special.ndtr(below), slope - stats.norm.pdf(below)
    sure = (p < LEAST) | (p > 1 - LEAST)
    fisher = np.where(sure, 0, slope**2 / np.maximum(p * (1 - p), 1e-9))
    weight = np.sqrt(fisher / np.maximum(variance, 1e-30)).astype(np.float32)
    count = max(1, min(FACTORS, bits, sets // 10))
    values, vectors = _principal(scores, jnp.asarray(weight), count)
    noise = (fisher.sum() - values.sum()) / (sets - count)
    shrunk = np.sqrt(np.clip(1 - noise / np.maximum(values, 1e-30), 0, 1))
    factors = np.asarray(scores.T @ (vectors * shrunk[None].astype(np.float32)))
    factors = factors / np.sqrt(np.float32(sets))
    share = np.sum(factors**2, axis=1)
    least = np.minimum(1, 0.95 * variance / np.maximum(share, 1e-30))
    found: np.ndarray = factors * np.sqrt(least)[:, None].astype(np.float32)
    return found


def _principal(
    scores: jax.Array, weight: jax.Array, count: int
) -> tuple[np.ndarray, jax.Array]:
    """The largest eigenvalues and vectors of the sets' weighed products, ``[sets,
    count]``, by subspace iteration.
    """
    sets, bits = scores.shape
    few = jax.jit(lambda part, w: (part * w) @ (part * w).T)
    gram = jnp.zeros((sets, sets))
    for start in range(0, bits, 2048):
        part = slice(start, start + 2048)
        gram += few(scores[:, part], weight[None, part])
    gram /= sets

    more = min(count + 48, sets)
    basis = jax.random.normal(jax.random.key(0), (sets, more))
    step = jax.jit(lambda gram, basis: jnp.linalg.qr(gram @ basis)[0])
    for _ in range(6):
        basis = step(gram, basis)
    values, turned = np.linalg.eigh(np.asarray(basis.T @ gram @ basis, np.float64))
    order = np.argsort(-values)[:count]
    return values[order], basis @ turned[:, order].astype(np.float32)


def _counts(kept: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """How many weights all drawn masks keep, by threshold; -1 where they differ."""
    found = counts_of(kept, sizes)
    return np.where((found == found[0]).all(axis=0), found[0], -1)


def counts_of(masks: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Returns how many weights masks keep, by threshold, int ``[masks, T]``."""
    starts = np.cumsum(sizes) - sizes
    return np.asarray(np.add.reduceat(masks, starts, axis=1, dtype=int))


def log_uniform(law: FactorLaw, masks: np.ndarray) -> np.ndarray:
    """Returns the log of the uniform law of masks that keep as many as those drawn.

    Uniform over all masks, if those drawn differ in how many they keep; ``-inf`` for
    a mask that keeps another number.
    """
    fixed = law.counts >= 0
    n, k = law.sizes[fixed], law.counts[fixed]
    binomials = -special.betaln(n - k + 1, k + 1) - np.log(n + 1)
    total = binomials.sum() + law.sizes[~fixed].sum() * np.log(2)
    same = (counts_of(masks, law.sizes) == law.counts) | ~fixed
    return np.where(same.all(axis=1), -total, -np.inf)


def with_factors(law: FactorLaw, count: int) -> FactorLaw:
    """Returns the law with the first factors alone, at least 1; the variances stay."""
    left = law.factors[:, max(1, count) :]
    rest = law.rest + np.sum(left**2, axis=1)
    return law._replace(factors=law.factors[:, : max(1, count)], rest=rest)


def made_up(
    signed: Signed, draw: Draw, key: jax.Array, n: int
) -> tuple[Any, jax.Array, jax.Array]:
    """Returns a drawn data set and its mask."""
    x, y = draw(key, n)
    return x, y, signed.mask(y, x)
