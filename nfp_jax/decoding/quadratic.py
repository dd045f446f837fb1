"""The decoder that knows a score of degree two in the labels, as GraSP's is.

Around the means μ of the labels' signs s the score is ``S(μ) + diagonal + C (s - μ)``,
C its slopes, and a rest that is small where μ is near the truth. So a mask is read as
in ``additive``, but the readings are made anew before every sweep, around what the
sweeps before have found. The score is nearly even in the signs: a start comes from its
curvature, the sign of all labels stays open, and both are followed to their end.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg, special

from nfp_jax.decoding import propagation
from nfp_jax.decoding.bits import Signed, _drawn, _groups, _levels
from nfp_jax.decoding.contract import Decoder, Last, Stack
from nfp_jax.decoding.propagation import MOST_ODDS
from nfp_jax.decoding.slopes import DEVIATION, Autodiff, NoSlopes, Slopes, check

# Bits of a mask that are read, times the number of labels: those whose scores are
# nearest to their threshold, in standard deviations.
BITS = 4

# How far the first eigenvector is trusted: an overlap with the labels of n = 1000.
TRUST = 0.33

# The rest's spread: at least this share of the score's.
LEAST_NOISE = 0.15

# Sweeps before labels are told, and after each block of them.
FIRST, EACH = 16, 2

# Labels are told in so many blocks.
BLOCKS = 25

# What is said of labels that give the mask exactly, and of each block, is mixed with
# this share of the labels' law.
MIXED = 0.01

# Third differences of a score of degree two vanish, but for rounding.
CUBIC = 1e-3

# Of the weights that either of two masks keeps, the share that both keep: above that,
# only a few labels are wrong, and their number is coded, not found.
NEAR = 0.95

# How likely each label found is wrong, where a few are: all are tried, by n.
RATES = (1, 2, 4, 8, 16, 32)

# Single labels that are flipped at once, and how often, to make masks agree.
FLIPS, ROUNDS = 32, 12


class NotQuadratic(ValueError):
    """A score is of higher degree than two in the probabilities of labels."""


class View(NamedTuple):
    """What of a mask is read.

    Attributes:
      mask: ``bool[P]``.
      at: the weights that are read, int ``[E]``.
      picked: what slopes need of them.
      group: which threshold each is compared with, int ``[E]``.
      level: the mean of each threshold given how many weights each layer keeps,
        ``[T]``, in the reader's unit, as all that follows from scores.
      level_sd: its standard deviation, ``[T]``.
    """

    mask: jax.Array
    at: np.ndarray
    picked: Any
    group: np.ndarray
    level: np.ndarray
    level_sd: np.ndarray


class State(NamedTuple):
    """What has been found of the labels of a mask.

    Attributes:
      sites: the approximation.
      labels: the likeliest, or what polishing made of them, int ``[n]``.
      overlap: how far their mask is that which is read, 1: it is.
      diverged: how often sweeps had to begin anew.
    """

    sites: propagation.Sites
    labels: np.ndarray
    overlap: float
    diverged: int


class Quadratic:
    """The log probability of labels, by relinearized propagation: a ``LogProb``.

    Attributes:
      fallbacks: blocks of labels in which propagation diverged, so that they were given
        the labels' law.
    """

    def __init__(self, signed: Signed, slopes: Slopes | None) -> None:
        if signed.absolute:
            raise ValueError("the score is absolute, expected one that is ranked signed")
        self.signed, self.closed, self.fallbacks = signed, slopes, 0
        self.readers = Last(lambda stack: {})

        def overlap(y: jax.Array, x: Any, mask: jax.Array) -> jax.Array:
            other = signed.mask(y, x)
            return jnp.sum(other & mask) / jnp.maximum(jnp.sum(other | mask), 1)

        self.overlap: Callable[..., Any] = jax.jit(overlap)
        self.overlaps: Callable[..., Any] = jax.jit(
            lambda y, x, mask: jax.lax.map(lambda one: overlap(one, x, mask), y)
        )

        def score(q: jax.Array, x: Any) -> jax.Array:
            return signed.flat(jnp.stack([1 - q, q], axis=1), x)

        def height(q: jax.Array, x: Any, weights: jax.Array) -> jax.Array:
            return score(q, x) @ weights

        self.score: Callable[..., Any] = jax.jit(score)
        self.gradient: Callable[..., Any] = jax.jit(jax.grad(height))

    def __call__(self, stack: Stack, start: int, stop: int) -> np.ndarray:
        """Returns ``log q(y_k | m_k)``, as every ``LogProb``."""
        found = []
        for k in range(start, stop):
            reader = self.reader(stack, k)
            found.append(reader.log_prob(stack.masks[k], stack.labels[k]))
            self.fallbacks += reader.fallbacks
            reader.fallbacks = 0
        return np.array(found)

    def reader(self, stack: Stack, k: int) -> "Reader":
        """What masks of these inputs are read with: one reader where all share them."""
        name = k if stack.resampled else 0
        readers = self.readers(stack)
        if name not in readers:
            readers.clear()
            readers[name] = Reader(self, stack.inputs(k), stack.prior)
        reader: Reader = readers[name]
        return reader


class Reader:
    """Reads masks of one set of inputs."""

    def __init__(self, owner: Quadratic, x: Any, prior: np.ndarray) -> None:
        prior = np.asarray(prior, np.float64)
        n, classes = prior.shape
        if classes != 2:
            raise ValueError(f"labels have {classes} classes, expected 2")
        self.owner, self.x = owner, jax.tree.map(jnp.asarray, x)
        self.one, self.fallbacks = prior[:, 1], 0
        y, u, kept = _drawn(owner.signed, self.x, prior)
        self.check_quadratic(y, u)
        self.slopes = self.slopes_of(n, u.shape[1])
        self.factors = self.slopes.factors(self.x)
        mean = self.mean(self.one)
        spread = np.sqrt(np.mean((u - mean) ** 2, axis=0))
        self.unit = float(np.sqrt(np.mean(spread**2))) or 1.0
        self.prior_mean, self.spread = mean / self.unit, spread / self.unit
        self.group = _groups(owner.signed, self.x, n)
        shapes = jax.eval_shape(
            owner.signed.layers, jax.ShapeDtypeStruct((n, 2), jnp.float32), self.x
        )
        self.cuts = np.cumsum([leaf.size for leaf in shapes])[:-1]
        levels = [
            _levels(one[None], bits[None], self.group)[0]
            for one, bits in zip(u, kept, strict=True)
        ]
        self.fit_levels(kept, np.array(levels) / self.unit)
        self.sizes = self.sizes_of(kept)
        with np.errstate(divide="ignore"):
            odds = np.log(self.one) - np.log1p(-self.one)
        self.prior_odds = np.clip(odds, -MOST_ODDS, MOST_ODDS)

    def check_quadratic(self, y: np.ndarray, u: np.ndarray) -> None:
        """Raises where third differences between labelings do not vanish."""
        scale, off = float(np.sqrt(np.mean(np.var(u, axis=0)))) or 1.0, 0.0
        for first, second in ((0, 1), (2, 3)):
            ends = y[first].astype(np.float32), y[second].astype(np.float32)
            third = [
                self.owner.score(ends[0] + share * (ends[1] - ends[0]), self.x)
                for share in (np.float32(1 / 3), np.float32(2 / 3))
            ]
            inner = np.asarray(third[0], np.float64) - np.asarray(third[1], np.float64)
            off = max(off, float(np.max(np.abs(u[second] - u[first] + 3 * inner))))
        if not off / scale <= CUBIC:
            raise NotQuadratic(
                f"the score's third differences are {off / scale:.2g} of what it varies "
                f"between labelings, expected at most {CUBIC}"
            )

    def slopes_of(self, n: int, total: int) -> Slopes:
        """The closed forms where they hold, else autodiff where that is affordable."""
        signed, closed = self.owner.signed, self.owner.closed
        off = math.inf if closed is None else check(closed, signed, self.x, n)
        if closed is not None and off <= DEVIATION:
            return closed
        try:
            return Autodiff(signed, n, total)
        except NoSlopes as error:
            why = "there are none" if closed is None else f"they are off by {off:.2g}"
            raise NoSlopes(f"{error}; of closed forms {why}") from None

    def mean(self, q: np.ndarray) -> np.ndarray:
        """The mean score of labels that are 1 with probabilities q, ``[P]``."""
        q = jnp.asarray(q, jnp.float32)
        score = self.owner.score(q, self.x)
        return np.asarray(
            score + self.slopes.diagonal(self.factors, q * (1 - q)), np.float64
        )

    def fit_levels(self, kept: np.ndarray, levels: np.ndarray) -> None:
        """Fits thresholds to how many weights each layer of a drawn mask keeps."""
        features = np.stack([self.counts(mask) for mask in kept])
        self.level_fit, *_ = np.linalg.lstsq(features, levels, rcond=1e-6)
        pull = features @ np.linalg.pinv(features, rcond=1e-6)
        left_out = (levels - pull @ levels) / (1 - np.diag(pull))[:, None]
        self.level_sd = np.sqrt(np.mean(left_out**2, axis=0))

    def counts(self, mask: np.ndarray) -> np.ndarray:
        """1, and the logarithm of how many weights each layer keeps."""
        kept = [np.count_nonzero(part) for part in np.split(mask, self.cuts)]
        return np.append(1.0, np.log1p(kept))

    def sizes_of(self, kept: np.ndarray) -> list[int]:
        """How many weights of each layer are read: the nearest in drawn masks.

        The same of all masks, so that they share programs.
        """
        total = np.zeros(len(self.cuts) + 1)
        for mask in kept:
            z = self.distance(self.counts(mask) @ self.level_fit)
            order = np.argsort(z, kind="stable")[: BITS * len(self.one)]
            at = order[np.isfinite(z[order])]
            layer = np.searchsorted(self.cuts, at, side="right")
            total += np.bincount(layer, minlength=len(total))
        return [int(size) for size in total // len(kept)]

    def distance(self, level: np.ndarray) -> np.ndarray:
        """How far scores are from thresholds, in standard deviations, ``[P]``."""
        sd = np.sqrt(self.spread**2 + self.level_sd[self.group] ** 2)
        z = np.abs(self.prior_mean - level[self.group]) / np.maximum(sd, 1e-30)
        readable = self.slopes.known & (self.spread > 0)
        return np.where(readable, z, np.inf)

    def nearest(self, level: np.ndarray, sizes: list[int]) -> np.ndarray:
        """So many weights of each layer, those nearest to thresholds, sorted."""
        parts = np.split(self.distance(level), self.cuts)
        found, start = [], 0
        for part, size in zip(parts, sizes, strict=True):
            found.append(start + np.argsort(part, kind="stable")[:size])
            start += len(part)
        return np.sort(np.concatenate(found))

    def view(self, mask: np.ndarray) -> View:
        """What of a mask is read: the bits nearest to their thresholds."""
        level = self.counts(mask) @ self.level_fit
        at = self.nearest(level, self.sizes)
        picked = self.slopes.picked(self.factors, at)
        return View(
            jnp.asarray(mask), at, picked, self.group[at], level, self.level_sd
        )

    def start(self, view: View) -> tuple[np.ndarray, float]:
        """A direction of the labels' signs, ``[n]``, and which way it seems to point.

        The top eigenvector of the curvature of the bits' log likelihood, of root mean
        square 1, and its product with the slope.
        """
        live = self.spread > 0
        level = view.level[self.group]
        variance = self.spread**2 + self.level_sd[self.group] ** 2
        _, pull, _ = propagation.reading(
            self.prior_mean, np.where(live, variance, 1.0), level, view.mask, False
        )
        weights = jnp.asarray(np.where(live, pull, 0.0), jnp.float32) / self.unit
        bend = np.asarray(self.slopes.curvature(self.factors, weights), np.float64)
        np.fill_diagonal(bend, 0.0)  # the square of a sign is 1
        sd = 2 * np.sqrt(self.one * (1 - self.one))
        bend *= sd[:, None] * sd[None]
        top = linalg.eigh(bend, subset_by_index=[len(bend) - 1] * 2)[1][:, 0]
        q = jnp.asarray(self.one, jnp.float32)
        slope = np.asarray(self.owner.gradient(q, self.x, weights), np.float64)
        return top * np.sqrt(len(top)), float(top @ (sd * slope))

    def sweeps(
        self,
        view: View,
        sites: propagation.Sites,
        mu: np.ndarray,
        known: np.ndarray,
        left: np.ndarray,
        count: int,
    ) -> tuple[propagation.Sites, bool]:
        """Sites after sweeps over readings made around ``mu``, and whether they diverged.

        Args:
          view: the mask.
          sites: before it.
          mu: means of the labels' signs, ``[n]``.
          known: the signs of labels that have been told, 0 of the others, ``[n]``.
          left: the others, filled up with n.
          count: how many sweeps.
        """
        n = len(mu)
        real, rows = left < n, np.minimum(left, n - 1)
        q = (1 + mu) / 2
        mean = self.mean(q)[view.at] / self.unit
        slope = self.slopes.slopes(
            self.factors, view.picked, jnp.asarray(q, jnp.float32), jnp.asarray(rows)
        )
        slope = slope * np.float32(0.5 / self.unit)
        offset = mean - np.asarray(np.where(real, mu[rows], 0.0) @ slope)
        rest = max(1 - float(np.mean(mu**2)), LEAST_NOISE)
        chosen = view.group == np.arange(len(view.level))[:, None]
        with jax.enable_x64(True):
            model = propagation.Model(
                jnp.asarray(offset),
                jnp.zeros((n, slope.shape[1]), jnp.float32)
                .at[jnp.asarray(left)]
                .set(slope, mode="drop"),
                jnp.asarray(rest * self.spread[view.at]),
                jnp.asarray(view.level[view.group]),
                jnp.asarray(chosen * view.level_sd[:, None], jnp.float32),
                jnp.asarray(self.prior_odds),
            )
            found, diverged = propagation.sweeps(
                model,
                sites,
                view.mask[jnp.asarray(view.at)],
                jnp.asarray(known),
                jnp.asarray(left),
                absolute=False,
                sweeps=count,
            )
        return found, bool(diverged)
