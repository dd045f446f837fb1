"""Lower ends by decoding: labels read off masks that the decoder has not seen."""

import itertools
import math

import numpy as np
from scipy import special

from nfp_jax import decoding
from nfp_jax.decoding import Decoder
from nfp_jax.information.stacks import log_label_law

# A decoder is asked only if it could add this share of the upper end.
WORTH = 0.01

# Fewer masks are not decoded.
FEWEST = 8

# Each decoder's q is mixed with this share of the labels' law, so that no mask costs
# the bound more than the log of the share.
_MIXED = 0.01
LEAST_GAIN = math.log(_MIXED)


def mixed_with_uniform(gains: np.ndarray) -> np.ndarray:
    """Returns ``log((0.99 q + 0.01 p) / p)`` from the gains ``log(q / p)``."""
    return np.logaddexp(math.log1p(-_MIXED) + gains, LEAST_GAIN)


def decoded(decoder: Decoder, stack: decoding.Stack) -> np.ndarray:
    """Returns what each mask tells the decoder of its labels, ``log(q(y | m) / p(y))``.

    Given the data sets before it, each has a mean of at most ``I(m; y)``. (Under
    ``"data"`` that is ``I(m; y | X)``, a part of ``I(m; D)``; ``gains`` of a decoder
    are of all of it.) So
    ``betting_lower_bound`` of these numbers bounds the information from below. The
    decoder is fitted anew before each block of masks, to all masks before the block. q
    is mixed with the law p of the labels, so that no number is below log 0.01.

    Args:
      decoder: see ``decoding``.
      stack: masks, labels and their law.

    Returns:
      ``[decoded]``, nats; empty for fewer than 8 masks.

    Reference: Barber and Agakov 2003, NeurIPS.
    """
    count = len(stack.masks)
    if count < FEWEST:
        return np.empty(0)
    start = decoder.start(count)
    blocks = min(decoder.blocks, count - start)
    bounds = np.linspace(start, count, blocks + 1).astype(int)
    if decoder.gains is not None:
        told = [decoder.gains(stack, i, j) for i, j in itertools.pairwise(bounds)]
        return mixed_with_uniform(np.concatenate(told))
    assert decoder.log_prob is not None  # it has one or the other
    log_q = np.concatenate(
        [decoder.log_prob(stack, i, j) for i, j in itertools.pairwise(bounds)]
    )
    return mixed_with_uniform(log_q - log_label_law(stack.prior, stack.labels[start:]))


def fano_lower_bound(error: float, n: int, classes: int = 2) -> float:
    """Returns the information that a mask has, if labels can be recovered from it.

    ``n (log C - h(error) - error log(C - 1))`` nats for uniform labels, 0 at chance.
    Under ``"labels"``; under ``"data"`` it bounds ``I(m; y | X)``.

    Args:
      error: share of the recovered labels that is wrong, or an upper bound on it.
      n: number of labels.
      classes: ``C``.

    Raises:
      ValueError: ``error`` outside [0, 1].

    >>> round(fano_lower_bound(0.0, 10), 3)
    6.931

    Reference: Cover and Thomas 2006, theorem 2.10.1.
    """
    if not 0 <= error <= 1:
        raise ValueError(f"error is {error}, expected 0 <= error <= 1")
    if error >= 1 - 1 / classes:
        return 0.0
    entropy = special.entr(error) + special.entr(1 - error)
    return float(n * (math.log(classes) - entropy - error * math.log(classes - 1)))
