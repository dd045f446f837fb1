"""Estimates from few numbers, each with its interval, and tests of them.

Plain numbers in, plain numbers out, by numpy and scipy: nothing here knows of rows,
figures or JAX. Where there are too few numbers for an interval, its ends are NaN and
the estimate stays; what is not finite is left out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import special


class Estimate(NamedTuple):
    """A number, its interval, and one-sided p-values of being more and less.

    Attributes:
      estimate: the number.
      lower: of its interval; ``upper``: the other end.
      p_more: p-value of the hypothesis that the true value is at most what it is
        compared with; small where it is more.
      p_less: likewise of at least; small where it is less.
    """

    estimate: float
    lower: float
    upper: float
    p_more: float
    p_less: float


def mean_test(
    values: Any,
    than: float = 0.0,
    *,
    least_deviation: float = 0.0,
    confidence: float = 0.95,
) -> Estimate:
    """Mean of one sample, its Student-t interval, and t tests against ``than``.

    Args:
      values: ``[k]``; what is not finite is left out.
      than: what the mean is compared with.
      least_deviation: the standard deviation is taken to be at least that: of whole
        numbers that happen to agree, their rounding ``1 / sqrt(12)``.
      confidence: of the interval.

    Returns:
      ``Estimate``; of fewer than two values ends are NaN and p-values 1.

    >>> [round(x, 3) for x in mean_test([1.0, 2.0, 3.0])]
    [2.0, -0.484, 4.484, 0.037, 0.963]
    """
    x = np.asarray(values, dtype=float)
    x = x[np.isfinite(x)]
    if len(x) < 2:
        return Estimate(float(x[0]) if len(x) else np.nan, np.nan, np.nan, 1.0, 1.0)
    mean, freedom = float(x.mean()), len(x) - 1
    error = max(float(x.std(ddof=1)), least_deviation) / np.sqrt(len(x))
    half_width = float(special.stdtrit(freedom, (1 + confidence) / 2) * error)
    return Estimate(
        mean,
        mean - half_width,
        mean + half_width,
        *_t_tails(mean - than, error, freedom),
    )


def equivalence_test(
    values: Any,
    margin: float,
    *,
    least_deviation: float = 0.0,
    confidence: float = 0.95,
) -> Estimate:
    """Mean of one sample, and whether it lies within ``margin`` of 0.

    Two one-sided t tests, of "at most -margin" and of "at least margin". Here
    ``p_less`` is the larger of their p-values, small where the mean is certainly within
    the margin; ``p_more`` is small where it is certainly outside, on either side
    (doubled, for there are two).

    Raises:
      ValueError: ``margin`` below 0.

    >>> within = equivalence_test([0.1, -0.1, 0.0, 0.05], 1.0)
    >>> within.p_less < 0.001, within.p_more
    (True, 1.0)

    Reference: Schuirmann 1987, https://doi.org/10.1007/BF01068419.
    """
    if not margin >= 0:
        raise ValueError(f"margin is {margin}, expected margin >= 0")
    options: Any = {"least_deviation": least_deviation, "confidence": confidence}
    low = mean_test(values, -margin, **options)
    high = mean_test(values, margin, **options)
    outside = min(2 * min(low.p_less, high.p_more), 1.0)
    return Estimate(*high[:3], outside, max(low.p_more, high.p_less))


def _t_tails(difference: float, error: float, freedom: float) -> tuple[float, float]:
    """The p-values of at most 0 and of at least 0."""
    if error == 0:
        return float(difference <= 0), float(difference >= 0)
    t = difference / error
    return float(special.stdtr(freedom, -t)), float(special.stdtr(freedom, t))


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
    finite = np.isfinite(x)
    k = finite.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(finite, x, 0).sum(axis=0) / k
        squares = np.where(finite, (x - mean) ** 2, 0).sum(axis=0)
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
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
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


def welch_test(
    a: Any, b: Any, *, least_deviation: float = 0.0, confidence: float = 0.95
) -> Estimate:
    """Mean of a less mean of b, its Welch interval, and tests against 0.

    Half-width ``t * e`` with ``e² = s_a² / k_a + s_b² / k_b``, t the quantile for
    ``e⁴ / sum((s² / k)² / (k - 1))`` degrees of freedom. The two may vary differently,
    and are not paired. Where neither varies the ends are the difference itself; a
    single value on either side has no interval. ``least_deviation`` as in `mean_test`.

    >>> [round(x, 3) for x in welch_test([1, 2, 3], [0, 1, 2])]
    [1.0, -1.267, 3.267, 0.144, 0.856]
    """
    sides = [np.asarray(side, dtype=float) for side in (a, b)]
    sides = [side[np.isfinite(side)] for side in sides]
    if not all(map(len, sides)):
        return Estimate(np.nan, np.nan, np.nan, 1.0, 1.0)
    gap = float(sides[0].mean() - sides[1].mean())
    if min(map(len, sides)) == 1:
        return Estimate(gap, np.nan, np.nan, 1.0, 1.0)
    least = least_deviation**2
    squares = [max(side.var(ddof=1), least) / len(side) for side in sides]
    error = float(np.sqrt(sum(squares)))
    if error == 0:
        return Estimate(gap, gap, gap, *_t_tails(gap, 0.0, 1.0))
    shares = [e**2 / (len(x) - 1) for e, x in zip(squares, sides, strict=True)]
    freedom = float(error**4 / sum(shares))
    half_width = float(special.stdtrit(freedom, (1 + confidence) / 2) * error)
    return Estimate(
        gap, gap - half_width, gap + half_width, *_t_tails(gap, error, freedom)
    )


class Fit(NamedTuple):
    """A least-squares fit: coefficients and the ends of their intervals, ``[k]``."""

    coefficients: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def clustered_fit(
    x: Any, y: Any, clusters: Any, confidence: float = 0.95
) -> Fit | None:
    """Least squares of y on columns of x and a constant, errors clustered.

    With one set of G clusters the covariance of the coefficients is ``G/(G-1) B (Σ_g
    X_g' e_g e_g' X_g) B``, with ``B = (X'X)^-1`` and residuals e; with two sets it is
    that of the first and of the second less that of their intersections, or the larger
    of the two where that is less. Intervals are Student-t with one degree of freedom
    fewer than the smaller number of clusters. Values that share a cluster of either set
    may depend on each other in any way.

    Args:
      x: ``[rows, k]``, without the constant.
      y: ``[rows]``.
      clusters: ``[rows]`` or ``[rows, 2]``, labels of the clusters.
      confidence: of the intervals.

    Returns:
      The fit without its constant; None with fewer than two clusters in a set, or where
      the columns don't vary independently.

    >>> fit = clustered_fit([[0.0], [1.0], [2.0], [3.0]], [1, 3, 5, 7], [0, 0, 1, 1])
    >>> fit.coefficients.round(6).tolist()
    [2.0]

    Reference: Liang and Zeger 1986, https://doi.org/10.1093/biomet/73.1.13; Cameron,
    Gelbach and Miller 2011, https://doi.org/10.1198/jbes.2010.07136.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    labels = np.asarray(clusters).reshape(len(y), -1)
    sets = np.stack([np.unique(x, return_inverse=True)[1] for x in labels.T], axis=1)
    sizes = [len(np.unique(labels)) for labels in sets.T]
    design = np.column_stack([x, np.ones(len(y))])
    if min(sizes) < 2 or np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    bread = np.linalg.inv(design.T @ design)
    coefficients = bread @ design.T @ y
    residuals = y - design @ coefficients

    def variance(labels: np.ndarray) -> np.ndarray:
        """Of the coefficients, with these clusters."""
        _, member = np.unique(labels, axis=0, return_inverse=True)
        count = int(member.max()) + 1
        scores = np.zeros((count, design.shape[1]))
        np.add.at(scores, member.ravel(), design * residuals[:, None])
        return count / (count - 1) * ((scores @ bread) ** 2).sum(axis=0)

    each = [variance(labels[:, None]) for labels in sets.T]
    total = each[0]
    if len(each) > 1:
        total = np.maximum(each[0] + each[1] - variance(sets), np.maximum(*each))
    errors = np.sqrt(total)[:-1]
    half_width = special.stdtrit(min(sizes) - 1, (1 + confidence) / 2) * errors
    kept = coefficients[:-1]
    return Fit(kept, kept - half_width, kept + half_width)
