"""Whether one fits its labels in fewer epochs than another, where some never do.

What is tested is the share ``T / T_other`` of the other's epochs, pair by pair: 0 where
the other has settled without fitting, and anything between 0 and ``T`` divided by its
budget where that was used up first. So a verdict holds whatever more epochs would
bring, and no budget enters a number as if it were a time.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from nfp_jax.estimates import Estimate, mean_test
from nfp_jax.pages.claim import cut_short
from nfp_jax.pages.words import SEEDS

# Shares that vary by less from seed to seed are taken to vary by that.
LEAST_DEVIATION = 0.05
MOST_UNKNOWN = 12  # pairs of which the share is only known to lie in an interval
# How times are compared.
HOW = (
    f"t test of the share of its epochs, deviation at least {LEAST_DEVIATION:g}; one "
    "that never fits them takes infinitely many, one that used up its budget before "
    "any number beyond it, and the budget in the number itself"
)


class Times(NamedTuple):
    """Epochs until the labels are fitted, of one and another, paired by seed.

    Each is known to lie in an interval: both ends are the time where it is known, and
    infinite where the network settled without fitting; of a network that used up its
    budget the ends are the epochs trained and infinity.

    Attributes:
      least: ``[pairs]``, the least that it may be.
      most: ``[pairs]``, the most.
      other_least: the same of the other.
      other_most: the same of the other.
    """

    least: np.ndarray
    most: np.ndarray
    other_least: np.ndarray
    other_most: np.ndarray


def with_times(rows: pd.DataFrame, column: str = "epochs_to_99") -> pd.DataFrame:
    """Returns the rows with ``time_least`` and ``time_most``, in epochs.

    Both are NaN where the column is missing.
    """
    if column not in rows:
        return rows.assign(time_least=np.nan, time_most=np.nan)
    fitted = rows[column].astype("Float64").to_numpy(float, na_value=np.nan)
    unfitted = np.isnan(fitted)
    late = cut_short(rows)
    trained = rows["epochs"].to_numpy(float)
    least = np.where(unfitted, np.where(late, trained, np.inf), fitted)
    return rows.assign(time_least=least, time_most=np.where(unfitted, np.inf, fitted))


def paired_times(rows: pd.DataFrame, others: pd.DataFrame) -> Times:
    """Returns the times of two groups of rows, paired by seed."""
    names = ["time_least", "time_most"]
    both = rows[[*SEEDS, *names]].merge(
        others[[*SEEDS, *names]], on=SEEDS, suffixes=("", "_other")
    )
    columns = [*names, *(f"{name}_other" for name in names)]
    return Times(*(both[name].to_numpy(float) for name in columns))


def times_sooner(times: Times, confidence: float = 0.95) -> Estimate:
    """Returns how many times sooner one fits than the other: the other's epochs ÷ its.

    Args:
      times: of the two.
      confidence: of the interval.

    Returns:
      The inverse of the mean share, its interval, and t tests of the mean share against
      1, of standard deviations of at least ``LEAST_DEVIATION``; of shares that are
      known to lie in an interval, the worst over it. The upper end is infinite where
      the share may be 0. "Sooner" has p-value 1 where one of its networks is not known
      to fit, "later" where one of the other's isn't.

    >>> known = np.array([20.0, 22.0, 18.0])
    >>> never = np.full(3, np.inf)
    >>> found = times_sooner(Times(known, known, 2 * known, 2 * known))
    >>> round(found.estimate, 3), found.p_more < 0.01
    (2.0, True)
    >>> times_sooner(Times(known, known, never, never)).estimate
    inf
    """
    sooner = _worst(times, confidence)
    later = _worst(Times(*times[2:], *times[:2]), confidence)
    p_more = sooner.p_less if sooner else 1.0
    p_less = later.p_less if later else 1.0
    if sooner:
        share, lower, upper = sooner[:3]
        ends = _inverse(share), _inverse(upper), _inverse(lower)
    elif later:
        ends = later.estimate, max(later.lower, 0.0), later.upper
    else:
        ends = math.nan, 0.0, math.inf
    return Estimate(*ends, p_more, p_less)


def unknown(rows: pd.DataFrame) -> int:
    """How many networks used up their budget before they fitted 99 %."""
    return int((rows["time_least"] < rows["time_most"]).sum())


def unknown_in_words(rows: pd.DataFrame) -> str:
    """How many these are, for what a claim says; empty where there is none."""
    count = unknown(rows)
    return f"; {count} used up their budget before, and count so" if count else ""


def _worst(times: Times, confidence: float) -> Estimate | None:
    """The test of the mean share ``T / T_other`` below 1 that says least.

    None where a ``T`` is not known, or too many shares are only known to an interval.
    """
    time = times.least
    if not np.isfinite(times.most).all():
        return None
    low, high = time / times.other_most, time / times.other_least
    unknown = np.flatnonzero(low < high)
    if len(unknown) > MOST_UNKNOWN:
        return None
    tests = []
    for corner in itertools.product((False, True), repeat=len(unknown)):
        shares = high.copy()
        lowered = unknown[np.array(corner, bool)]
        shares[lowered] = low[lowered]
        tests.append(
            mean_test(
                shares,
                1.0,
                least_deviation=LEAST_DEVIATION,
                confidence=confidence,
            )
        )
    return Estimate(
        float(high.mean()),
        min(one.lower for one in tests),
        max(one.upper for one in tests),
        max(one.p_more for one in tests),
        max(one.p_less for one in tests),
    )


def _inverse(share: float) -> float:
    return math.inf if share <= 0 else 1 / share
