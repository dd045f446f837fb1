"""Lower ends by entropy: from masks that repeat, and from samples."""

import math
from typing import Any

import numpy as np
from scipy import special

from nfp_jax.information.exact import entropy
from nfp_jax.information.stacks import checked_masks, mask_identities


def sample_entropy_lower_bound(masks: Any, alpha: float) -> float:
    """Returns a lower bound on the entropy of the masks, from the sample's own entropy.

    ``log K - (1/K) Σ_m c_m log c_m``, ``c_m`` of K masks being m, is below ``H(m)`` in
    the mean, since entropy is concave, and another mask in one place moves it by at
    most ``(log K + 1) / K``; so by McDiarmid's inequality ``H(m)`` is at least this
    less ``(log K + 1) sqrt(log(1/alpha) / 2 K)``. At most ``log K``. Under either
    conditioning, for deterministic masks.

    Args:
      masks: ``bool[datasets, weights]``.
      alpha: probability of error allowed.

    Returns:
      Nats, at least 0.

    >>> masks = np.arange(1024)[:, None] % 4 == np.arange(4)
    >>> 1.0 < sample_entropy_lower_bound(masks, 0.025) < math.log(4)
    True

    Reference: Antos and Kontoyiannis 2001, Random Struct. Algorithms 19 (3-4).
    """
    ids = mask_identities(checked_masks(masks))
    step = (math.log(len(ids)) + 1) / len(ids)
    slack = step * math.sqrt(len(ids) * math.log(1 / alpha) / 2)
    return max(0.0, entropy(ids) - slack)


def collision_lower_bound(masks: Any, alpha: float) -> float:
    """Returns a lower bound on the entropy of the masks, from how rarely two agree.

    ``H(m) >= -log Σ p²``, Rényi's entropy of order 2. Of blocks of ``s`` masks, those
    that hold a mask twice are counted: with ``c = Σ p²`` a block does with probability
    at least ``(E T)² / E T²``, T its agreeing pairs, where ``Σ p³ <= c^1.5``. So c is
    bounded by a binomial bound. ``s`` is chosen on the first quarter. It says at most
    about ``2 log K``. Under either conditioning, for deterministic masks.

    Args:
      masks: ``bool[datasets, weights]``.
      alpha: probability of error allowed.

    Returns:
      Nats, at least 0; 0 for fewer than 10 masks.

    >>> collision_lower_bound(np.ones((100, 8), bool), 0.025)
    0.0

    Reference: Rényi 1961; the second moment of agreeing pairs: Paley and Zygmund 1932.
    """
    ids = mask_identities(checked_masks(masks))
    pilot, rest = ids[: len(ids) // 4], ids[len(ids) // 4 :]
    if len(rest) < 8:
        return 0.0
    _, counts = np.unique(pilot, return_counts=True)
    pairs = len(pilot) * (len(pilot) - 1) / 2
    guess = max(1.0, np.sum(counts * (counts - 1) / 2)) / pairs
    sizes = [2**i for i in range(1, 12) if 4 * 2**i <= len(rest)]
    size = min(
        sizes,
        key=lambda s: _most_collisions(_repeat_share(s, guess), len(rest), s, alpha),
    )
    blocks = len(rest) // size
    split = rest[: blocks * size].reshape(blocks, size)
    repeats = sum(len(np.unique(block)) < size for block in split)
    return max(
        0.0, -math.log(_most_collisions(repeats / blocks, len(rest), size, alpha))
    )


def clopper_pearson_upper_bound(count: int, total: int, alpha: float) -> float:
    """Returns a number that is below a probability with probability at most ``alpha``.

    Clopper and Pearson's: the largest ``p`` with ``P(Binomial(total, p) <= count) >
    alpha``.

    Args:
      count: how often it happened, of ``total`` independent times.
      total: at least 0; without any the bound is 1.
      alpha: probability of error allowed, in (0, 1).

    >>> round(clopper_pearson_upper_bound(0, 100, 0.05), 4)
    0.0295

    Reference: Clopper and Pearson 1934, Biometrika 26 (4).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}, expected 0 < alpha < 1")
    if not 0 <= count <= total:
        raise ValueError(f"count is {count}, expected 0 <= count <= total = {total}")
    if count == total:
        return 1.0
    return float(special.betaincinv(count + 1, total - count, 1 - alpha))


def _most_collisions(repeats: float, total: int, size: int, alpha: float) -> float:
    """The largest ``Σ p²`` that goes with so many blocks in which a mask repeats."""
    blocks = total // size
    share = clopper_pearson_upper_bound(round(repeats * blocks), blocks, alpha)
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _repeat_share(size, middle) > share:
            high = middle
        else:
            low = middle
    return high


def _repeat_share(size: int, c: float) -> float:
    """The least share of blocks of a size that hold a mask twice, if ``Σ p² = c``."""
    pairs = size * (size - 1) / 2
    threes = size * (size - 1) * (size - 2)  # ordered pairs of pairs that share a mask
    fours = size * (size - 1) * (size - 2) * (size - 3) / 4
    return pairs**2 * c / (pairs + threes * math.sqrt(c) + fours * c)
