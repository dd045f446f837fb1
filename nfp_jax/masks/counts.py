"""How many weights are kept: exact counts, made on the host."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np

from nfp_jax.types import Schedule


def keep_count(total: int, sparsity: float | Fraction) -> int:
    """Returns how many weights a sparsity keeps: ``total - floor(sparsity · total)``.

    The sparsity is the decimal number as written, not its binary neighbor: 0.29 of
    50,400 removes 14,616.

    Args:
      total: number of prunable weights.
      sparsity: share removed, in [0, 1).

    Returns:
      A Python int in [1, total].

    Raises:
      ValueError: ``sparsity`` outside [0, 1), or ``total`` below 1.

    >>> keep_count(50_400, 0.29)
    35784
    """
    if total < 1:
        raise ValueError(f"total is {total}, expected at least 1")
    return total - math.floor(_decimal(sparsity) * total)


def keep_counts(
    total: int, sparsity: float | Fraction, *, rounds: int, schedule: Schedule
) -> np.ndarray:
    """Returns how many weights each round of an iterative pruner keeps.

    Round ``t < rounds`` keeps ``P - floor((1 - schedule(density, t/rounds))·P)`` in
    double precision. The last round keeps the count of ``keep_count``.

    Args:
      total: number of prunable weights ``P``.
      sparsity: share removed in the end, in [0, 1).
      rounds: number of rounds, at least 1.
      schedule: ``exponential``, ``linear``, or any ``(density, fraction) -> density``.

    Returns:
      int32 ``[rounds]``, non-increasing, on the host.

    Raises:
      ValueError: rounds below 1, a sparsity out of range, or a schedule that rises.

    >>> keep_counts(1000, 0.9, rounds=4, schedule=lambda density, t: density**t)
    array([563, 317, 178, 100], dtype=int32)

    Reference: Tanaka et al. 2020, https://arxiv.org/abs/2006.05467, algorithm 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}, expected at least 1")
    last = keep_count(total, sparsity)
    density = float(1 - _decimal(sparsity))
    fractions = [t / rounds for t in range(1, rounds)]
    early = [
        total - math.floor((1.0 - schedule(density, t)) * total) for t in fractions
    ]
    # Rounding may put an early round one weight below the decimal count.
    early = [last if count == last - 1 else count for count in early]
    counts = np.array([*early, last], np.int32)
    if np.any(np.diff(counts) > 0) or counts[0] > total:
        raise ValueError(f"the schedule keeps {counts.tolist()}, expected no increase")
    return counts


def floor_counts(
    total: int, sparsity: float | Fraction, *, rounds: int, schedule: Schedule
) -> np.ndarray:
    """Returns how many weights each round keeps, all rounded down: ``int(P·d_t)``.

    The densities are those of ``keep_counts``; that of the last round is the decimal
    number as written. So the last count is one less than ``keep_count`` where ``P``
    times the density is no integer.

    Args:
      total: number of prunable weights ``P``.
      sparsity: share removed in the end, in [0, 1).
      rounds: number of rounds, at least 1.
      schedule: as in ``keep_counts``.

    Returns:
      int32 ``[rounds]``, on the host.

    Raises:
      ValueError: rounds below 1, or a sparsity out of range.

    >>> floor_counts(1001, 0.9, rounds=2, schedule=lambda density, t: density**t)
    array([316, 100], dtype=int32)

    Reference: de Jorge et al. 2021, https://arxiv.org/abs/2006.09081, whose code cuts
    the counts so.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}, expected at least 1")
    density = 1 - _decimal(sparsity)
    fractions = [t / rounds for t in range(1, rounds)]
    early = [int(total * schedule(float(density), t)) for t in fractions]
    return np.array([*early, math.floor(total * density)], np.int32)


def _decimal(sparsity: float | Fraction) -> Fraction:
    """The sparsity as the decimal number that was written, checked."""
    is_number = isinstance(sparsity, (int, float, Fraction, Decimal, np.number))
    if not is_number or isinstance(sparsity, bool):
        raise ValueError(f"sparsity is {sparsity!r}, expected a number in [0, 1)")
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is {sparsity}, expected 0 <= sparsity < 1")
    return Fraction(str(sparsity))
