"""The decoder that knows a training: masks cut from weights that were trained.

It trains on labels that it draws, and learns from these weights how far from its
threshold each weight lies, and how that moves with the labels (``drift``). Labels are
read off a mask by this linear model. Then it trains on the labels found: the mask that
they give differs from the mask at hand where labels are wrong, and the model is linear
around them with less left over. So they are read again, in rounds.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from nfp_jax import cores
from nfp_jax.decoding import drift
from nfp_jax.decoding.contract import CannotDecode, Decoder, Last, MaskLaw, Stack
from nfp_jax.decoding.drift import Passed
from nfp_jax.decoding.label_reader import log_law, mixed
from nfp_jax.decoding.linear import calibrate, log_likelihood
from nfp_jax.decoding.mask_law import log_filtered
from nfp_jax.decoding.propagation import MOST_ODDS, Model

# Bits whose margin is so many standard deviations from 0 are certain, and the nearest
# are read: at most so many a label, and so many in all.
FAR, A_LABEL, AT_LEAST = 2.5, 8, 4096

# Trainings whose slopes are averaged for the first reading; a round's scale is fitted
# to as many.
AVERAGED = 8

# Weights of a leaf share how far they drift with others of similar slopes.
BINS = 8

# Least spread of a margin, as a share of the spreads' root mean square.
LEAST_SPREAD = 1e-2

# The least probability that a law of masks gives a bit.
LEAST = 1e-5


class Simulated(NamedTuple):
    """Masks that trainings give, and the weights that they were cut from.

    Attributes:
      masks: ``bool[k, P]``, of the prunable weights.
      margins: how far above its threshold each weight ends, float32 ``[k, P]``: at
        least 0 where it is kept and less than 0 where it is removed; NaN where the
        training failed.
      weights: float32 ``[k, P]``, around which the last training is linearized, such as
        the middle between its first and its last weights.
    """

    masks: np.ndarray
    margins: np.ndarray
    weights: np.ndarray


# ``simulate(labels [k, n]) -> Simulated``: the pruner, on the inputs of all masks.
Simulate = Callable[[np.ndarray], Simulated]


class Correction(NamedTuple):
    """What of a linear model holds around labels that were found.

    Attributes:
      scale: of its slopes, ``[E]``.
      noise: the standard deviation of what it leaves, ``[E]``.
    """

    scale: np.ndarray
    noise: np.ndarray


class Known(NamedTuple):
    """Masks whose labels are known, since these were drawn for them.

    Attributes:
      labels: ``int[k, n]``.
      masks: ``bool[k, P]``.
      margins: of the weights that are read, ``[k, E]``.
    """

    labels: np.ndarray
    masks: np.ndarray
    margins: np.ndarray


def trained(
    simulate: Simulate,
    passed: Passed,
    *,
    made: int = 128,
    calibrated: int = 24,
    rounds: int = 2,
    most: int = 128,
) -> tuple[Decoder, MaskLaw]:
    """Returns the decoder of masks from training, and the law that predicts them.

    All is fitted to trainings on labels that the decoder draws: the linear model, what
    each round leaves, and the weights of the rounds' odds in the logits. So no mask is
    needed to fit to, and all are decoded. q is a product over labels, mixed with their
    law; it sums to 1 however good the model is.

    The law predicts bit after bit by the same linear model (``mask_law``).

    Args:
      simulate: the pruner, with all of its training; it must be deterministic.
      passed: what examples pass through the layers; see ``drift.Passed``.
      made: trainings on labels that are drawn, at least 2.
      calibrated: how many of them are also decoded, to calibrate; at most ``made``.
      rounds: of trainings on labels found, for each mask that is decoded.
      most: how many masks are decoded at most, the last ones.

    A training on labels found that fails says nothing of its mask.

    Raises:
      CannotDecode: on decoding, too few of the trainings on labels drawn succeeded.
      ValueError: fewer than 2 trainings, or more calibrated than made; on decoding,
        more than two classes, resampled inputs, or margins that are not those of the
        masks.

    Reference: training along the kernel: Jacot et al. 2018,
    https://arxiv.org/abs/1806.07572; expectation propagation: Minka 2001.
    """
    if not 2 <= calibrated <= made:
        raise ValueError(
            f"calibrated is {calibrated} and made is {made}, expected 2 <= calibrated "
            "<= made"
        )
    found = Trained(simulate, passed, made, calibrated, rounds)
    decoder = Decoder("simulated training", found, most, fitted=False)
    return decoder, MaskLaw("simulated training", found.log_law)


class Trained:
    """The log probability of labels by trainings on labels found: a ``LogProb``.

    Attributes:
      fallbacks: readings that were not finite, which then say nothing.
    """

    def __init__(
        self,
        simulate: Simulate,
        passed: Passed,
        made: int,
        calibrated: int,
        rounds: int,
    ) -> None:
        self.simulate, self.passed = simulate, passed
        self.made, self.calibrated, self.rounds = made, calibrated, rounds
        self.fallbacks = 0
        self.reader = Last(lambda stack: Reader(self, stack))
        self.found = Last(lambda stack: {})  # by mask, its evidence

    def __call__(self, stack: Stack, start: int, stop: int) -> np.ndarray:
        """Returns ``log q(y_k | m_k)``, as every ``LogProb``."""
        reader, found = self.reader(stack), self.found(stack)
        weights = reader.evidence_weights
        missing = [k for k in range(start, stop) if k not in found]
        if missing:
            evidence = reader.evidence(stack.masks[missing])
            found.update(zip(missing, evidence, strict=True))
        logits = reader.log_prior + np.stack(
            [found[k] @ weights for k in range(start, stop)]
        )
        labels = stack.labels[start:stop]
        told = log_likelihood(logits, labels)
        by_law = log_law(stack.prior[:, 1], labels).sum(axis=1)
        return np.array([mixed(*both) for both in zip(told, by_law, strict=True)])

    def log_law(self, stack: Stack, start: int, stop: int) -> np.ndarray:
        """Returns ``log q(m_k)``, as every law of masks."""
        return self.reader(stack).log_law(stack.masks[start:stop])


class Reader:
    """What masks of the same inputs are read with.

    Attributes:
      at: which weights are read, int ``[E]``.
      log_prior: of each label, ``[n, 2]``.
      known: masks that calibrate.
      corrections: what each round leaves, once they have calibrated.
    """

    def __init__(self, owner: Trained, stack: Stack) -> None:
        n, classes = stack.prior.shape
        if classes != 2:
            raise ValueError(f"labels have {classes} classes, expected 2")
        if stack.resampled:
            raise ValueError("inputs are resampled, expected the same of all masks")
        self.owner, self.x = owner, jnp.asarray(stack.x)
        with np.errstate(divide="ignore"):
            self.log_prior = np.log(np.asarray(stack.prior, np.float64))
        odds = self.log_prior[:, 1] - self.log_prior[:, 0]
        self.prior_odds = np.clip(odds, -MOST_ODDS, MOST_ODDS).astype(np.float32)
        self.middle = np.tanh(self.prior_odds / 2)
        rng = np.random.default_rng(1)
        y = (rng.random((owner.made, n)) < stack.prior[:, 1]).astype(np.int32)
        drawn = self.simulated(y)
        ended = succeeded(drawn)
        if np.count_nonzero(ended) < max(2, owner.calibrated):
            raise CannotDecode(
                f"{np.count_nonzero(~ended)} of {owner.made} simulated trainings failed"
            )
        y, drawn = y[ended], Simulated(*(part[ended] for part in drawn))
        self.mean, self.spread = _moments(drawn.margins)
        z = np.abs(self.mean) / self.spread
        nearest = np.argsort(z, kind="stable")[: max(A_LABEL * n, AT_LEAST)]
        self.at = np.sort(nearest[z[nearest] < FAR])
        self.corrections: list[Correction] = []
        if len(self.at):
            self.fit(2.0 * y - 1, drawn)
        few = slice(0, owner.calibrated)
        self.known = Known(y[few], drawn.masks[few], drawn.margins[few][:, self.at])

    @functools.cached_property
    def evidence_weights(self) -> np.ndarray:
        """The weights of the rounds' odds in the logits, ``[rounds + 1]``."""
        evidence = self.evidence(self.known.masks, self.known)
        return calibrate(evidence, self.log_prior, self.known.labels)

    def simulated(self, labels: np.ndarray) -> Simulated:
        """What trainings on labels give, checked."""
        found = self.owner.simulate(labels)
        ended = succeeded(found)
        if not np.array_equal(found.margins[ended] >= 0, found.masks[ended]):
            raise ValueError("margins are not at least 0 exactly where masks keep")
        return found

    def fit(self, signs: np.ndarray, drawn: Simulated) -> None:
        """Fits the linear model to trainings on labels drawn."""
        at = self.at
        self.leaf, self.row, self.column = drift.places(
            self.owner.passed, drawn.weights[0], self.x, at
        )
        self.side = np.sign(drawn.weights.mean(axis=0)[at]).astype(np.float32)
        parts = [self.raw_slopes(w) for w in drawn.weights[:AVERAGED]]
        mean_slope = np.mean(parts, axis=0)
        self.bins = _bins(self.leaf, np.sqrt(np.mean(mean_slope**2, axis=0)))
        moved = (signs - self.middle).astype(np.float32) @ mean_slope
        off = drawn.margins[:, at] - self.mean[at]
        self.unit = _scale(moved, off, self.bins)
        self.slope = mean_slope * self.unit
        left = np.sqrt(np.mean((off - moved * self.unit) ** 2, axis=0))
        # Spreads of a few trainings: each is drawn towards its share of all.
        share = np.sqrt(np.mean(left**2) / np.mean(self.spread[at] ** 2))
        floor = LEAST_SPREAD * np.sqrt(np.mean(left**2))
        self.noise = np.maximum(left, 0.5 * share * self.spread[at]) + floor

    def raw_slopes(self, weights: np.ndarray) -> np.ndarray:
        """How margins move with signs around weights, up to scales, ``[n, E]``."""
        found = drift.slopes(
            self.owner.passed, jnp.asarray(weights), self.x, self.row, self.column
        )
        return np.asarray(found) * self.side

    def evidence(self, masks: np.ndarray, known: Known | None = None) -> np.ndarray:
        """What masks say of each label, ``[k, n, 2, rounds + 1]``.

        Args:
          masks: ``bool[k, P]``.
          known: where masks calibrate, their labels and margins: what each round leaves
            is fitted to them.
        """
        n, count = len(self.prior_odds), self.owner.rounds + 1
        if not len(self.at):
            return np.zeros((len(masks), n, 2, count))
        bits = masks[:, self.at]
        read = functools.partial(self.read, bits)
        still = np.broadcast_to(self.middle, (len(masks), n))
        offset = np.broadcast_to(self.mean[self.at], bits.shape)
        odds = read(offset, None, self.noise, still, still)
        found = [odds]
        for place in range(self.owner.rounds):
            labels = (odds + self.prior_odds > 0).astype(np.int32)
            signs = (2.0 * labels - 1).astype(np.float32)
            again = self.simulated(labels)
            margins = again.margins[:, self.at]
            if known is not None:
                self.corrections.append(self.correction(known, signs, again, margins))
            scale, noise = self.corrections[place]
            slope = again.weights, scale
            mean = np.tanh((odds + self.prior_odds) / 2)
            odds = read(margins, slope, noise, signs, mean)
            found.append(odds)
        both = np.stack(found, axis=-1)
        return np.stack([-both / 2, both / 2], axis=2)

    def read(
        self,
        bits: np.ndarray,
        offset: np.ndarray,
        around: tuple[np.ndarray, np.ndarray] | None,
        noise: np.ndarray,
        signs: np.ndarray,
        mean: np.ndarray,
    ) -> np.ndarray:
        """What bits add to the log odds of labels, ``[k, n]``; see ``drift.read``.

        Args:
          bits: ``bool[k, E]``.
          offset: margins, ``[k, E]``.
          around: the weights of each mask and the scale of slopes around them; None:
            the slopes of the linear model.
          noise: ``[E]``.
          signs: that have these margins, ``[k, n]``.
          mean: of the signs, ``[k, n]``.
        """

        def one(k: int) -> np.ndarray:
            slope = self.slope
            if around is not None:
                slope = self.raw_slopes(around[0][k]) * around[1]
            odds = drift.read(
                bits[k],
                jnp.asarray(offset[k], jnp.float32),
                jnp.asarray(slope, jnp.float32),
                jnp.asarray(noise, jnp.float32),
                jnp.asarray(signs[k], jnp.float32),
                jnp.asarray(mean[k], jnp.float32),
                self.prior_odds,
            )
            return np.asarray(odds, np.float64) - self.prior_odds

        first = [one(0)]  # it compiles
        found = np.stack(first + cores.each(one, range(1, len(bits))))
        finite = np.isfinite(found).all(axis=1)
        self.owner.fallbacks += int(np.count_nonzero(~finite))
        clipped = np.clip(np.where(finite[:, None], found, 0.0), -MOST_ODDS, MOST_ODDS)
        return np.asarray(clipped)

    def correction(
        self,
        known: Known,
        signs: np.ndarray,
        again: Simulated,
        margins: np.ndarray,
    ) -> Correction:
        """What of the linear model holds around labels found, by layers."""
        few = np.flatnonzero(succeeded(again))[:AVERAGED]
        if not len(few):
            raise CannotDecode("all trainings on labels found failed")
        wrong = (2.0 * known.labels - 1 - signs)[few].astype(np.float32)
        off = (known.margins - margins)[few]
        moved = np.stack(
            [
                one @ self.raw_slopes(weights)
                for one, weights in zip(wrong, again.weights[few], strict=True)
            ]
        )
        moved = moved * self.unit
        scale = _scale(moved, off, self.leaf)
        left = (off - scale * moved) ** 2
        size = np.bincount(self.leaf, np.mean(left, axis=0))
        usual = np.bincount(self.leaf, self.noise**2)
        share = np.sqrt(size / np.maximum(usual, 1e-30))[self.leaf]
        return Correction(
            self.unit * scale, self.noise * np.maximum(share, LEAST_SPREAD)
        )

    def log_law(self, masks: np.ndarray) -> np.ndarray:
        """Returns ``log q(m)``: certain bits alone, the others one after the other."""
        one = special.ndtr(self.mean / (1.1 * self.spread))  # tails are heavier
        one = np.clip(one, LEAST, 1 - LEAST)
        certain = np.where(masks, np.log(one), np.log1p(-one))
        if not len(self.at):
            return np.asarray(certain.sum(axis=1))
        certain[:, self.at] = 0.0
        offset = self.mean[self.at] - self.middle @ self.slope
        nothing = np.zeros(len(self.at))
        with jax.enable_x64(True):
            model = Model(
                jnp.asarray(offset, jnp.float64),
                jnp.asarray(self.slope),
                jnp.asarray(self.noise, jnp.float64),
                jnp.asarray(nothing),
                jnp.asarray(nothing[None], jnp.float32),
                jnp.asarray(self.prior_odds, jnp.float64),
            )
        bits = masks[:, self.at]
        return certain.sum(axis=1) + log_filtered(model, bits, absolute=False)


def succeeded(found: Simulated) -> np.ndarray:
    """Returns which trainings did not fail, ``bool[k]``."""
    return np.isfinite(found.margins).all(axis=1)


def _moments(margins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation of each margin, ``[P]``, never 0."""
    mean = margins.mean(axis=0, dtype=np.float64)
    spread = margins.std(axis=0, dtype=np.float64, ddof=1)
    least = LEAST_SPREAD * float(np.sqrt(np.mean(spread**2))) or 1.0
    return mean, np.maximum(spread, least)


def _bins(leaf: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Which weights share a scale: those of a leaf that have similar sizes."""
    found = np.zeros(len(leaf), int)
    for which in np.unique(leaf):
        here = np.flatnonzero(leaf == which)
        rank = np.argsort(np.argsort(size[here], kind="stable"), kind="stable")
        found[here] = which * BINS + rank * BINS // len(here)
    return found


def _scale(moved: np.ndarray, off: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The factor that takes ``moved`` closest to ``off``, one a group, ``[E]``."""
    along = np.bincount(group, np.sum(moved * off, axis=0))
    square = np.bincount(group, np.sum(moved**2, axis=0))
    found = np.where(square > 0, along / np.where(square > 0, square, 1.0), 0.0)
    return np.asarray(found[group], np.float32)
