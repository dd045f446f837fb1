"""Lower ends by entropy: the sample's own, and how rarely a mask repeats."""

import math
from typing import Any

import numpy as np
from scipy import special

from nfp_jax.information.exact import entropy
from nfp_jax.information.stacks import checked_masks, mask_identities


def sample_entropy_lower_bound(masks: Any, alpha: float) -> float:
    """Returns a lower bound on the entropy of the masks, from the sample's own entropy.

    The sample's entropy is ``log K - (1/K) Σ_m c_m log c_m``, where ``c_m`` of the K
    masks are m. Its mean is below ``H(m)``, since entropy is concave. Replacing one
    mask moves it by at most ``(log K + 1) / K``. So by McDiarmid's inequality ``H(m)``
    is at least this entropy less ``(log K + 1) sqrt(log(1/alpha) / 2 K)``. The bound is
    at most ``log K``. It holds under either conditioning, for deterministic masks.

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

    ``H(m) >= -log c`` with ``c = Σ p²``, Rényi's entropy of order 2. The masks are cut
    into blocks of ``s``, and the blocks that hold a mask twice are counted. A block
    does so with probability at least ``(E T)² / E T²``, where T counts its agreeing
    pairs; ``E T²`` is bounded with ``Σ p³ <= c^1.5``. So a binomial bound on this
    probability bounds c. ``s`` is chosen on the first quarter of the masks. The bound
    is at most about ``2 log K``. It holds under either conditioning, for deterministic
    masks.

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
    most = _most_collisions(repeats / blocks, len(rest), size, alpha)
    return max(0.0, -math.log(most))


def clopper_pearson_upper_bound(count: int, total: int, alpha: float) -> float:
    """Returns an upper bound on a probability, from how often its event happened.

    The largest ``p`` with ``P(Binomial(total, p) <= count) > alpha``.

    Args:
      count: how often the event happened in the trials.
      total: number of independent trials, at least 0; the bound of none is 1.
      alpha: probability of error allowed, in (0, 1).

    Raises:
      ValueError: ``count`` above ``total`` or below 0, or ``alpha`` out of range.

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
    """Upper bound on ``Σ p²``, from the share of blocks in which a mask repeats."""
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
    """The least probability that a block holds a mask twice, if ``Σ p² = c``."""
    pairs = size * (size - 1) / 2
    threes = (
        size * (size - 1) * (size - 2)
    )  # ordered pairs of pairs with a mask in common
    fours = size * (size - 1) * (size - 2) * (size - 3) / 4
    return pairs**2 * c / (pairs + threes * math.sqrt(c) + fours * c)
