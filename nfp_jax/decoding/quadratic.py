"""The decoder that knows a score of degree two in the labels, as GraSP's is."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy import special

from nfp_jax.decoding.bits import Signed
from nfp_jax.decoding.contract import Decoder
from nfp_jax.decoding.label_reader import ReadsLabels, log_law, mixed, room
from nfp_jax.decoding.relinearized import Programs, Reader, State, View
from nfp_jax.decoding.slopes import Slopes

# Sweeps after each block of labels that is told, and how many blocks there are.
EACH, BLOCKS = 2, 25

# How far odds are trusted: which of these told more of the blocks before counts more,
# and any may be right of the next with this probability.
TEMPERS, SWITCHED = (1.0, 0.5, 0.25, 0.12, 0.06), 0.02

# Of the weights that either of two masks keeps, the share that both keep: above that,
# only a few labels are wrong, and their number is coded, not found.
NEAR = 0.95

# How likely each label found is wrong, where a few are: all are tried, by n.
RATES = (1, 2, 4, 8, 16, 32)


class Quadratic(ReadsLabels):
    """The log probability of labels, by relinearized propagation: a ``LogProb``."""

    def __init__(self, signed: Signed, slopes: Slopes | None) -> None:
        if signed.absolute:
            raise ValueError(
                "the score is absolute, expected one that is ranked signed"
            )
        super().__init__()
        self.programs, self.closed = Programs(signed), slopes

    def made(self, x: Any, prior: np.ndarray) -> Reader:
        """Returns the reader of masks of these inputs."""
        return Reader(self.programs, self.closed, x, prior)

    def log_prob(self, reader: Reader, mask: np.ndarray, y: np.ndarray) -> float:
        """Returns ``log q(y | mask)``: labels are looked at block by block."""
        view, found = reader.read(mask)
        self.fell_back(sum(state.diverged for state in found))
        law = log_law(reader.one, y)
        best = found[0]
        if best.overlap == 1:
            return mixed(self.exactly(reader, view, best.labels, y), law.sum())
        if best.overlap >= NEAR:
            return mixed(_near(best.labels, y), law.sum())
        return self.chain(reader, view, found, y, law)

    def exactly(
        self, reader: Reader, view: View, labels: np.ndarray, y: np.ndarray
    ) -> float:
        """``log q(y)`` where labels give the mask; all others do, too, in odd cases."""
        other = 1 - labels
        both = (
            float(self.programs.overlap(jnp.asarray(other), reader.x, view.mask)) == 1
        )
        right = [np.array_equal(labels, y), both and np.array_equal(other, y)]
        return -math.log(1 + both) if any(right) else -math.inf

    def chain(
        self,
        reader: Reader,
        view: View,
        found: list[State],
        y: np.ndarray,
        law: np.ndarray,
    ) -> float:
        """``log q(y | mask)``, each block of labels scored before it is told.

        What was found with either sign of all labels says of the first block; from then
        on that which said more of it goes on.
        """
        n = len(y)
        signs, known = 2.0 * y - 1, np.zeros(n)
        blocks = np.array_split(np.arange(n), min(BLOCKS, n))
        trust = special.log_softmax([200 * state.overlap for state in found])
        block = blocks[0]
        first = [
            _tempered(state.odds[block], reader.prior_odds[block], signs[block])
            for state in found
        ]
        both = trust[:, None] + np.array(first) - math.log(len(TEMPERS))
        total = mixed(float(special.logsumexp(both)), law[block].sum())
        state = found[int(np.argmax(special.logsumexp(both, axis=1)))]
        said = special.logsumexp(both, axis=0)
        known[block] = signs[block]
        for block in blocks[1:]:
            rest = np.arange(block[0], n)
            size = room(len(rest), n)
            left = np.concatenate([rest, np.full(size - len(rest), n)])
            bad = False
            for _ in range(EACH):
                mu = np.where(known == 0, state.mu, known)
                state = reader.advance(view, state, mu, known, left)
                bad |= state.diverged
            self.fell_back(bad)
            if state.overlap == 1:
                exact = 0.0 if np.array_equal(state.labels, y) else -math.inf
                return total + mixed(exact, law[rest].sum())
            share = np.logaddexp(special.log_softmax(said), math.log(SWITCHED))
            said = special.log_softmax(share) + _tempered(
                state.odds[block], reader.prior_odds[block], signs[block]
            )
            total += mixed(float(special.logsumexp(said)), law[block].sum())
            known[block] = signs[block]
        return total


def _tempered(odds: np.ndarray, prior: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """The log probability of signs by how far their odds are trusted, ``[tempers]``."""
    tempered = prior + np.array(TEMPERS)[:, None] * (odds - prior)
    found: np.ndarray = special.log_expit(tempered * signs).sum(axis=1)
    return found


def _near(labels: np.ndarray, y: np.ndarray) -> float:
    """``log q(y)`` where each label found is wrong with one unknown probability."""
    n, wrong = len(y), int(np.sum(labels != y))
    rates = np.minimum(np.array(RATES) / n, 0.5)
    each = wrong * np.log(rates) + (n - wrong) * np.log1p(-rates)
    return float(special.logsumexp(each) - math.log(len(rates)))


def quadratic(
    signed: Signed, *, slopes: Slopes | None = None, most: int = 128
) -> Decoder:
    """Returns the decoder for scores of degree two in the labels, in one round.

    A start comes from the curvature of the bits' likelihood in the labels. Then the
    score is linearized around the labels' means before each sweep of expectation
    propagation (``propagation``), with both signs of the start. Where labels are found
    that give the mask exactly, by the pruner itself, q is certain of them but for 1 %.
    Where a few are wrong, q tells their number and not which. Elsewhere labels are told
    in blocks: a block is scored given the blocks before it, mixed with the labels' law,
    and then told. That is a normalized q however good the approximation is.

    No mask is needed to fit to. The law of thresholds is fitted to masks of labels that
    the decoder draws.

    Args:
      signed: the pruner, with its signed score; two classes.
      slopes: the score's derivatives in closed form, as ``relu_slopes.relu_chain`` has;
        ``None``, or where they do not hold: by autodiff, for few labels.
      most: how many masks are decoded at most, the last ones.

    Raises:
      ValueError: a score that is ranked by its absolute value.
      NotQuadratic: on decoding, if the score is of higher degree.
      NoSlopes: on decoding, if no closed form holds and n is too large for autodiff.
      CannotDecode: on decoding, if there are more than two classes; the two before
        are such errors, too.

    Reference: Minka 2001, https://arxiv.org/abs/1301.2294; spectral starts: Candès et
    al. 2015, https://arxiv.org/abs/1407.1065.
    """
    log_prob = Quadratic(signed, slopes)
    name = "relinearized propagation"
    return Decoder(name, log_prob, most, blocks=1, fitted=False)
