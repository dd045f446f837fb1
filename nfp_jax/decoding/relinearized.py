"""Labels read off scores of degree two in them, linearized around what was found.

Around the means μ of the labels' signs s the score is ``S(μ) + diagonal + C (s - μ)``,
C its slopes (``slopes``), and a rest that is small where μ is near the truth. So a mask
is one-bit readings of the labels, as in ``bits``, which are made anew before each sweep
of ``propagation``. The score is nearly even in the signs: a start comes from its
curvature, and the sign of all labels stays open.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg, optimize

from nfp_jax.decoding import propagation
from nfp_jax.decoding.bits import Signed, drawn_masks, groups_of, levels_of
from nfp_jax.decoding.contract import CannotDecode
from nfp_jax.decoding.propagation import MOST_ODDS
from nfp_jax.decoding.slopes import DEVIATION, Autodiff, NoSlopes, Slopes, check

# Bits of a mask that are read, times the number of labels: those whose scores are
# nearest to their threshold, in standard deviations. First of the first layer alone,
# whose scores vary most beside the threshold; then of all layers.
BITS = 4, 16

# How far the first eigenvector is trusted: an overlap with the labels of n = 1000.
TRUST = 0.33

# The spread of what a reading leaves out, as a share of the score's: at least this.
LEAST_NOISE = 0.15

# And at least this times the share of weights that the masks do not share, when few or
# many bits are read. The means of signs are kept as uncertain: bits err together, which
# propagation does not know, and around means that are too certain it runs away.
DOUBT = 0.6, 1.5

# Sweeps from each start.
SWEEPS = 14

# Third differences of a score of degree two vanish, but for rounding.
CUBIC = 1e-3

# Single labels that are flipped at once, and how often, to make masks agree.
FLIPS, ROUNDS = 32, 12

# Above this overlap flips of single labels may mend the rest.
POLISHED = 0.8


class NotQuadratic(CannotDecode):
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
      doubt: one of ``DOUBT``.
    """

    mask: jax.Array
    at: np.ndarray
    picked: Any
    group: np.ndarray
    level: np.ndarray
    level_sd: np.ndarray
    doubt: float


class State(NamedTuple):
    """What has been found of the labels of a mask.

    Attributes:
      sites: the approximation.
      odds: log odds that each label is 1, ``[n]``.
      mu: means of the signs, no more certain than the overlap lets them be, ``[n]``.
      labels: the likeliest, or what polishing made of them, int ``[n]``.
      overlap: how far their mask is that which is read, 1: it is.
      diverged: whether sweeps diverged, so that the sites are those of the law.
    """

    sites: propagation.Sites
    odds: np.ndarray
    mu: np.ndarray
    labels: np.ndarray
    overlap: float
    diverged: bool


class Programs:
    """What is compiled of a pruner once for all inputs and masks.

    Attributes:
      signed: the pruner.
      score: ``score(q, x) -> [P]``, q the probabilities that labels are 1, ``[n]``.
      gradient: ``gradient(q, x, weights) -> [n]``, of ``weights @ score`` in q.
      overlap: ``overlap(y, x, mask)``, of the weights that the mask or that of y keeps,
        the share that both keep; 1: they are the same.
      overlaps: the same of many labelings, ``[k, n]``.
    """

    def __init__(self, signed: Signed) -> None:
        self.signed = signed

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


class Reader:
    """Reads masks of one set of inputs.

    Attributes:
      one: the probability that each label is 1, ``[n]``.
      prior_odds: its log odds.
    """

    def __init__(
        self, programs: Programs, closed: Slopes | None, x: Any, prior: np.ndarray
    ) -> None:
        prior = np.asarray(prior, np.float64)
        n, classes = prior.shape
        if classes != 2:
            raise CannotDecode(f"labels have {classes} classes, expected 2")
        self.programs, self.x = programs, jax.tree.map(jnp.asarray, x)
        self.one = prior[:, 1]
        y, u, kept = drawn_masks(programs.signed, self.x, prior)
        self.check_quadratic(y, u)
        self.slopes = self.slopes_of(closed, n, u.shape[1])
        self.factors = self.slopes.factors(self.x)
        mean = self.mean(self.one)
        spread = np.sqrt(np.mean((u - mean) ** 2, axis=0))
        self.unit = float(np.sqrt(np.mean(spread**2))) or 1.0
        self.prior_mean, self.spread = mean / self.unit, spread / self.unit
        self.group = groups_of(programs.signed, self.x, n)
        shapes = jax.eval_shape(
            programs.signed.layers, jax.ShapeDtypeStruct((n, 2), jnp.float32), self.x
        )
        self.cuts = np.cumsum([leaf.size for leaf in shapes])[:-1]
        levels = [
            levels_of(one[None], bits[None], self.group)[0]
            for one, bits in zip(u, kept, strict=True)
        ]
        self.fit_levels(kept, np.array(levels) / self.unit)
        layers = 1, len(self.cuts) + 1
        pairs = zip(BITS, layers, strict=True)
        self.sizes = [self.sizes_of(kept, bits, layer) for bits, layer in pairs]
        with np.errstate(divide="ignore"):
            odds = np.log(self.one) - np.log1p(-self.one)
        self.prior_odds = np.clip(odds, -MOST_ODDS, MOST_ODDS)

    def check_quadratic(self, y: np.ndarray, u: np.ndarray) -> None:
        """Raises where third differences between labelings do not vanish."""
        scale, off = float(np.sqrt(np.mean(np.var(u, axis=0)))) or 1.0, 0.0
        for first, second in ((0, 1), (2, 3)):
            ends = y[first].astype(np.float32), y[second].astype(np.float32)
            third = [
                self.programs.score(ends[0] + share * (ends[1] - ends[0]), self.x)
                for share in (np.float32(1 / 3), np.float32(2 / 3))
            ]
            inner = np.asarray(third[0], np.float64) - np.asarray(third[1], np.float64)
            off = max(off, float(np.max(np.abs(u[second] - u[first] + 3 * inner))))
        if not off / scale <= CUBIC:
            raise NotQuadratic(
                f"the score's third differences are {off / scale:.2g} of what it "
                f"varies between labelings, expected at most {CUBIC}"
            )

    def slopes_of(self, closed: Slopes | None, n: int, total: int) -> Slopes:
        """The closed forms where they hold, else autodiff where that is affordable."""
        signed = self.programs.signed
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
        soft = jnp.asarray(q, jnp.float32)
        score = self.programs.score(soft, self.x)
        return np.asarray(
            score + self.slopes.diagonal(self.factors, soft * (1 - soft)), np.float64
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

    def sizes_of(self, kept: np.ndarray, bits: int, layers: int) -> list[int]:
        """How many weights of each of the first layers are read: as in drawn masks.

        The same of all masks, so that they share programs.
        """
        total = np.zeros(len(self.cuts) + 1)
        for mask in kept:
            z = self.distance(self.counts(mask) @ self.level_fit)
            z[np.append(self.cuts, len(z))[layers - 1] :] = np.inf
            at = np.argsort(z, kind="stable")[: bits * len(self.one)]
            layer = np.searchsorted(self.cuts, at[np.isfinite(z[at])], side="right")
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

    def view(self, mask: np.ndarray, which: int) -> View:
        """What of a mask is read: the bits nearest to their thresholds."""
        level = self.counts(mask) @ self.level_fit
        at = self.nearest(level, self.sizes[which])
        picked = self.slopes.picked(self.factors, at)
        return View(
            jnp.asarray(mask),
            at,
            picked,
            self.group[at],
            level,
            self.level_sd,
            DOUBT[which],
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
        slope = np.asarray(self.programs.gradient(q, self.x, weights), np.float64)
        return top * np.sqrt(len(top)), float(top @ (sd * slope))

    def readings(
        self, view: View, mu: np.ndarray, left: np.ndarray, rest: float
    ) -> propagation.Model:
        """What the bits of a mask read, around the means ``mu`` of the signs, ``[n]``.

        Args:
          view: the mask.
          mu: of labels that have been told, their signs.
          left: the others, filled up with n.
          rest: the spread of what is left out, as a share of the score's.
        """
        n = len(mu)
        real, rows = left < n, np.minimum(left, n - 1)
        q = (1 + mu) / 2
        slope = self.slopes.slopes(
            self.factors, view.picked, jnp.asarray(q, jnp.float32), jnp.asarray(rows)
        )
        slope = slope * np.float32(0.5 / self.unit)  # a sign is 2 q - 1
        moved = np.where(real, mu[rows], 0.0).astype(np.float32) @ slope
        offset = self.mean(q)[view.at] / self.unit - np.asarray(moved, np.float64)
        chosen = view.group == np.arange(len(view.level))[:, None]
        with jax.enable_x64(True):
            whole = jnp.zeros((n, slope.shape[1]), jnp.float32)
            return propagation.Model(
                jnp.asarray(offset),
                whole.at[jnp.asarray(left)].set(slope, mode="drop"),
                jnp.asarray(rest * self.spread[view.at]),
                jnp.asarray(view.level[view.group]),
                jnp.asarray(chosen * view.level_sd[:, None], jnp.float32),
                jnp.asarray(self.prior_odds),
            )

    def advance(
        self,
        view: View,
        state: State | None,
        mu: np.ndarray,
        known: np.ndarray,
        left: np.ndarray,
    ) -> State:
        """Makes the readings anew around ``mu`` and sweeps over them."""
        doubt = 0.0 if state is None else view.doubt * (1 - state.overlap)
        rest = max(1 - float(np.mean(mu**2)), doubt, LEAST_NOISE)
        model = self.readings(view, mu, left, rest)
        with jax.enable_x64(True):
            found, diverged = propagation.sweeps(
                model,
                propagation.begin(model) if state is None else state.sites,
                view.mask[jnp.asarray(view.at)],
                jnp.asarray(known),
                jnp.asarray(left),
                absolute=False,
                sweeps=2 if state is None else 1,  # the first makes the bits' sites
            )
            odds = np.asarray(found.odds)
        labels = (np.where(known == 0, odds, known) > 0).astype(np.int32)
        overlap = float(self.programs.overlap(jnp.asarray(labels), self.x, view.mask))
        mu, free = np.array(known, float), known == 0
        mu[free] = _means(odds[free], 1 - view.doubt * (1 - overlap))
        return State(found, odds, mu, labels, overlap, bool(diverged))

    def follow(self, view: View, mu: np.ndarray) -> State:
        """The best of some sweeps from a start, given by means of the signs."""
        n = len(mu)
        known, left, state = np.zeros(n), np.arange(n), None
        best: State | None = None
        for _ in range(SWEEPS):
            state = self.advance(view, state, mu, known, left)
            if best is None or state.overlap > best.overlap:
                best = state
            if state.overlap == 1 or state.diverged:
                break
            mu = state.mu
        assert best is not None
        return best

    def read(self, mask: np.ndarray) -> tuple[View, list[State]]:
        """What can be found of the labels of a mask, best first, and how it was read.

        Only the first layer's bits are read where they suffice; else all layers'.
        """
        view = self.view(mask, 0)
        direction, way = self.start(view)
        near = np.clip(TRUST * direction, -0.9, 0.9) * (1 if way >= 0 else -1)
        middle, reach = 2 * self.one - 1, 2 * np.sqrt(self.one * (1 - self.one))
        starts = [middle + sign * reach * near for sign in (1, -1)]
        found: list[State] = []
        for at in range(len(self.sizes)):
            if at:
                view = self.view(mask, at)
                starts = [state.mu for state in found]
                found = []
            for mu in starts:
                state = self.polish(view, self.follow(view, mu))
                found.append(state)
                if state.overlap > POLISHED:  # the other sign is the wrong one
                    break
            found.sort(key=lambda state: -state.overlap)
            if found[0].overlap == 1:
                break
        return view, found

    def polish(self, view: View, state: State) -> State:
        """Flips all labels, then the least certain one by one, while that helps."""
        mirrored = self.mirrored(view, state)
        state = mirrored if mirrored.overlap > state.overlap else state
        y, overlap = state.labels, state.overlap
        order = np.argsort(np.abs(state.odds), kind="stable")[:FLIPS]
        for _ in range(ROUNDS):
            if overlap == 1 or overlap < POLISHED:
                break
            tried = np.tile(y, (len(order), 1))
            tried[np.arange(len(order)), order] ^= 1
            found = np.asarray(
                self.programs.overlaps(jnp.asarray(tried), self.x, view.mask)
            )
            if not found.max() > overlap:
                break
            y, overlap = tried[found.argmax()], float(found.max())
        return state._replace(labels=y, overlap=overlap)

    def mirrored(self, view: View, state: State) -> State:
        """The same with the other sign of all labels, which an even score allows."""
        labels = 1 - state.labels
        overlap = self.programs.overlap(jnp.asarray(labels), self.x, view.mask)
        sites = state.sites._replace(label_shift=-state.sites.label_shift)
        return State(
            sites, -state.odds, -state.mu, labels, float(overlap), state.diverged
        )


def _means(odds: np.ndarray, most: float) -> np.ndarray:
    """Means of signs, of odds scaled such that their mean square is at most that."""

    def excess(log_scale: float) -> float:
        return float(np.mean(np.tanh(np.exp(log_scale) * odds / 2) ** 2)) - most

    scale = 1.0
    if excess(0.0) > 0:
        scale = np.exp(optimize.brentq(excess, -40.0, 0.0)) if most > 1e-6 else 0.0
    return np.asarray(np.tanh(scale * odds / 2))
