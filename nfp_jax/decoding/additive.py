"""The decoder that knows a score which is a sum over examples, as SNIP's is."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from nfp_jax.decoding import propagation
from nfp_jax.decoding.bits import Bits, Signed, bits_of
from nfp_jax.decoding.contract import Decoder
from nfp_jax.decoding.label_reader import ReadsLabels, log_law, mixed, room

# Noise floors that are tried, in units of a score's spread between labelings.
NOISES = (0.02, 0.05, 0.1)

# Masks of labels drawn for it, on which the decoder chooses its noise floor.
MADE_UP = 2

# Sweeps before labels are told, and after each block of them.
FIRST, EACH = 8, 1

# Labels are told in so many blocks.
BLOCKS = 50

# Labels are taken for those of the mask if so many of them are expected to be wrong, at
# most, and if they give it exactly.
WRONG = 0.5


class Told(NamedTuple):
    """What was read off a mask before its labels are looked at, and how.

    Attributes:
      labels: that are all but certain and give the mask exactly, ``[n]``; ``None``:
        none were found.
      sites: the approximation at that point.
      diverged: how many times it had to begin anew.
    """

    labels: np.ndarray | None
    sites: propagation.Sites
    diverged: int


class Additive(ReadsLabels):
    """The log probability of labels, by expectation propagation: a ``LogProb``."""

    def __init__(self, signed: Signed) -> None:
        super().__init__()
        self.signed = signed
        self.exactly: Callable[..., Any] = jax.jit(
            lambda y, x, mask: jnp.all(signed.mask(y, x) == mask)
        )

    def made(self, x: Any, prior: np.ndarray) -> "Reader":
        """Returns the reader of masks of these inputs."""
        return Reader(self, x, prior)

    def log_prob(self, reader: "Reader", mask: np.ndarray, y: np.ndarray) -> float:
        """Returns ``log q(y | mask)``: labels are looked at block by block."""
        told = reader.read(mask)
        law = reader.law(y)
        if told.labels is not None:
            right = 0.0 if np.array_equal(told.labels, y) else -np.inf
            return mixed(right, law.sum())
        total, fallbacks = reader.chain(told.sites, mask, y, law)
        self.fell_back(fallbacks + told.diverged)
        return total


class Reader:
    """Reads masks of one set of inputs."""

    def __init__(self, owner: Additive, x: Any, prior: np.ndarray) -> None:
        self.owner, self.x = owner, jax.tree.map(jnp.asarray, x)
        self.bits: Bits = bits_of(owner.signed, self.x, prior)
        with jax.enable_x64(True):
            models = [propagation.model_of(self.bits, noise) for noise in NOISES]
        self.model = models[0]
        self.model = max(models, key=self.worth)

    def worth(self, model: propagation.Model) -> float:
        """What a noise floor tells of masks that are made up for this."""
        self.model = model
        rng = np.random.default_rng(1)
        total = 0.0
        for _ in range(MADE_UP):
            y = (rng.random(len(self.bits.prior)) < self.bits.prior).astype(int)
            mask = np.asarray(self.owner.signed.mask(jnp.asarray(y), self.x))
            told = self.read(mask)
            if told.labels is not None:
                return math.inf
            total += self.chain(told.sites, mask, y, self.law(y))[0]
        return total

    def law(self, y: np.ndarray) -> np.ndarray:
        """The log probability of each label by the labels' law, ``[n]``."""
        return log_law(self.bits.prior, y)

    def sweeps(
        self,
        sites: Any,
        mask: np.ndarray,
        known: np.ndarray,
        left: np.ndarray,
        count: int,
    ) -> tuple[Any, bool]:
        """Sites after sweeps over the bits of a mask, and whether they diverged."""
        bit = jnp.asarray(mask[self.bits.at])
        with jax.enable_x64(True):
            found, diverged = propagation.sweeps(
                self.model,
                sites,
                bit,
                jnp.asarray(known),
                jnp.asarray(left),
                absolute=self.bits.absolute,
                sweeps=count,
            )
        return found, bool(diverged)

    def read(self, mask: np.ndarray) -> Told:
        """Reads a mask whose labels are not known."""
        n = len(self.bits.prior)
        known, left, diverged = np.zeros(n), np.arange(n), 0
        with jax.enable_x64(True):
            sites = propagation.begin(self.model)
        for _ in range(FIRST):
            sites, bad = self.sweeps(sites, mask, known, left, 1)
            diverged += bad
            odds = np.asarray(sites.odds)
            y = (odds > 0).astype(np.int32)
            # Other labels may give the same mask: odds say whether there are any.
            sure = special.expit(-np.abs(odds)).sum() < WRONG
            if sure and self.owner.exactly(jnp.asarray(y), self.x, jnp.asarray(mask)):
                return Told(y, sites, diverged)
        return Told(None, sites, diverged)

    def chain(
        self, sites: Any, mask: np.ndarray, y: np.ndarray, law: np.ndarray
    ) -> tuple[float, int]:
        """``log q(y | mask)``, each block of labels scored before it is told."""
        n = len(y)
        signs, total, fallbacks = 2.0 * y - 1, 0.0, 0
        blocks = np.array_split(np.arange(n), min(BLOCKS, n))
        known, bad = np.zeros(n), False
        for block in blocks:
            if block[0]:
                rest = np.arange(block[0], n)
                size = room(n - block[0], n)
                left = np.concatenate([rest, np.full(size - len(rest), n)])
                sites, bad = self.sweeps(sites, mask, known, left, EACH)
            by_law = float(law[block].sum())
            odds = np.asarray(sites.odds)[block] * signs[block]
            told = float(special.log_expit(odds).sum())
            total += by_law if bad else mixed(told, by_law)
            fallbacks += bad
            known[block] = signs[block]
        return float(total), fallbacks


def additive(signed: Signed, *, most: int = 128) -> Decoder:
    """Returns the decoder for scores that are sums over examples, in one round.

    Each weight of a mask says on which side of a threshold a score lies that is linear
    in the labels' signs (``bits``). Expectation propagation over the signs and the
    thresholds (``propagation``) gives each label's odds. Where these are all but
    certain, and the labels give the mask by the pruner itself, q is certain of them but
    for 1 %.
    Elsewhere labels are told in blocks: a block is scored by its odds given the blocks
    before it, mixed with the labels' law, and then told. That is a normalized q however
    good the approximation is; a block where it diverges has the labels' law.

    No mask is needed to fit to: all are decoded. The noise floor is chosen on masks of
    labels that the decoder draws.

    Args:
      signed: the pruner, its score before the absolute value; two classes.
      most: how many masks are decoded at most, the last ones.

    Raises:
      NotAdditive: on decoding, if the score is no sum over examples.
      CannotDecode: on decoding, if there are more than two classes.

    Reference: Minka 2001, https://arxiv.org/abs/1301.2294; the decoder as a bound:
    Barber and Agakov 2003, NeurIPS.
    """
    log_prob = Additive(signed)
    return Decoder("expectation propagation", log_prob, most, blocks=1, fitted=False)
