"""Estimates from few numbers, each with its interval: means, a median, a slope.

Plain numbers in, plain numbers out, by numpy and scipy: nothing here knows of rows,
figures or JAX. What would surprise: where there are too few numbers for an interval,
its ends are NaN and the estimate stays; what is not finite is left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special


def mean_interval(values: Any, confidence: float = 0.95) -> tuple[Any, Any]:
    """Mean over the first axis and half-width of its Student-t interval.

    Half-width ``t * s / sqrt(k)`` with k values, s their standard deviation (k - 1 in
    the denominator) and t the quantile for k - 1 degrees of freedom. What is not finite
    is left out; one value has no interval (NaN), none has no mean either.

    >>> mean, half_width = mean_interval([1.0, 2.0, 3.0])
    >>> f"{mean:.3f} ± {half_width:.3f}"
    '2.000 ± 2.484'
    """
    x = np.asarray(values, dtype=float)
    here = np.isfinite(x)
    k = here.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(here, x, 0).sum(axis=0) / k
        squares = np.where(here, (x - mean) ** 2, 0).sum(axis=0)
        error = np.sqrt(squares / (k - 1) / k)
        half_width = special.stdtrit(k - 1, (1 + confidence) / 2) * error
    return mean, half_width


def mean_ends(values: Any, confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean of one sample, and the lower and upper end of its `mean_interval`.

    >>> [round(end, 3) for end in mean_ends([1.0, 2.0, 3.0])]
    [2.0, -0.484, 4.484]
    """
    mean, half_width = map(float, mean_interval(values, confidence))
    return mean, mean - half_width, mean + half_width


def median_interval(
    values: Any, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Median, and the lower and upper end of its order-statistic interval.

    From the ``(i + 1)``-th smallest of k values to the ``(i + 1)``-th largest holds the
    median with probability ``1 - 2 P(B <= i)``, B binomial of k and 1/2, whatever the
    distribution (and more, where values tie). Taken is the largest i for which that is
    ``confidence``; where not even i = 0 is enough (fewer than 6 values for 0.95), the
    ends are the smallest and the largest value, of confidence ``1 - 2^(1 - k)``.

    >>> median_interval([3.0, 1.0, 2.0])
    (2.0, 1.0, 3.0)
    """
    x = np.sort(np.asarray(values, dtype=float))
    x = x[np.isfinite(x)]
    if len(x) < 2:
        return (float(x[0]) if len(x) else np.nan), np.nan, np.nan
    left_out = np.arange(len(x) // 2)  # at each end
    enough = 1 - 2 * special.bdtr(left_out, len(x), 0.5) >= confidence
    i = int(left_out[enough].max(initial=0))
    return float(np.median(x)), float(x[i]), float(x[-1 - i])


def slope_interval(
    x: Any, y: Any, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Slope of the least-squares line, and its Student-t interval's ends.

    ``b ± t s / sqrt(sum (x - mean x)²)`` with ``s² = sum of squared residuals / (k -
    2)`` and t the quantile for k - 2 degrees of freedom. Two points have a slope
    without an interval; where x does not vary there is none.

    >>> [round(end, 3) for end in slope_interval([0, 1, 2], [0, 1, 3])]
    [1.5, -2.168, 5.168]
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    here = np.isfinite(x) & np.isfinite(y)
    x, y = x[here], y[here]
    if len(x) < 2 or np.ptp(x) == 0:
        return np.nan, np.nan, np.nan
    x, y = x - x.mean(), y - y.mean()
    slope = float(x @ y / (x @ x))
    freedom = len(x) - 2
    if freedom == 0:
        return slope, np.nan, np.nan
    error = np.sqrt(((y - slope * x) ** 2).sum() / freedom / (x @ x))
    half_width = float(special.stdtrit(freedom, (1 + confidence) / 2) * error)
    return slope, slope - half_width, slope + half_width


def welch_interval(
    a: Any, b: Any, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Mean of a less mean of b, and its Welch interval's ends.

    Half-width ``t * e`` with ``e² = s_a² / k_a + s_b² / k_b``, t the quantile for
    ``e⁴ / sum((s² / k)² / (k - 1))`` degrees of freedom. The two may vary differently,
    and are not paired. Where neither varies the ends are the difference itself; a
    single value on either side has no interval.

    >>> [round(end, 3) for end in welch_interval([1, 2, 3], [0, 1, 2])]
    [1.0, -1.267, 3.267]
    """
    sides = [np.asarray(side, dtype=float) for side in (a, b)]
    sides = [side[np.isfinite(side)] for side in sides]
    if not all(map(len, sides)):
        return np.nan, np.nan, np.nan
    gap = float(sides[0].mean() - sides[1].mean())
    if min(map(len, sides)) == 1:
        return gap, np.nan, np.nan
    squares = [side.var(ddof=1) / len(side) for side in sides]
    error = sum(squares)
    if error == 0:
        return gap, gap, gap
    shares = [e**2 / (len(x) - 1) for e, x in zip(squares, sides, strict=True)]
    quantile = special.stdtrit(error**2 / sum(shares), (1 + confidence) / 2)
    half_width = float(quantile * np.sqrt(error))
    return gap, gap - half_width, gap + half_width
