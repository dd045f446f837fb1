"""Lower ends by decoding: labels read off masks that the decoder has not seen."""

import itertools
import math

import numpy as np
from scipy import special

from nfp_jax import decoding
from nfp_jax.decoding import Decoder
from nfp_jax.information.stacks import log_label_law

WORTH = 0.01  # of the upper end: what a decoder must be able to add, to be asked


FEWEST = 8  # masks to decode


# What a decoder loses at most: it is mixed with the labels' own law, one part in 100.
_MIXED = 0.01


LEAST_GAIN = math.log(_MIXED)


def mixed_with_uniform(gains: np.ndarray) -> np.ndarray:
    """``log (0.99 q + 0.01 p) / p`` of ``log q / p``."""
    return np.logaddexp(math.log1p(-_MIXED) + gains, LEAST_GAIN)


def decoded(decoder: Decoder, stack: decoding.Stack) -> np.ndarray:
    """Returns what each mask tells the decoder of its labels, ``log q(y|m) / p(y)``.

    The mean of each, given the data sets before it, is at most ``I(m; y)`` (under
    ``"data"``, ``I(m; y | X)``, a part of ``I(m; D)``), so that ``betting_lower_bound``
    of these numbers bounds the information: ``H(y) + E log q(y | m)``. The decoder is
    fitted anew before each block of masks, to all those before. None is below log 0.01:
    q is mixed with the law of the labels.

    Args:
      decoder: see ``decoding``.
      stack: masks, labels and their law.

    Returns:
      ``[decoded]``, nats; empty for fewer than 8.

    Reference: Barber and Agakov 2003, NeurIPS.
    """
    count = len(stack.masks)
    start = (
        count // 2 if decoder.most is None else max(count // 2, count - decoder.most)
    )
    if count < FEWEST:
        return np.empty(0)
    bounds = np.linspace(start, count, min(decoder.blocks, count - start) + 1).astype(
        int
    )
    log_q = np.concatenate(
        [decoder.log_prob(stack, i, j) for i, j in itertools.pairwise(bounds)]
    )
    return mixed_with_uniform(log_q - log_label_law(stack.prior, stack.labels[start:]))


def fano_lower_bound(error: float, n: int, classes: int = 2) -> float:
    """Returns the information that labels recovered with so many errors witness.

    ``n (log C - h(error) - error log(C - 1))``, for uniform labels and a share
    ``error`` of them wrong (or an upper bound on it); 0 at chance. Nats; ``"labels"``,
    and under ``"data"`` a bound on the part that the labels are.

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
