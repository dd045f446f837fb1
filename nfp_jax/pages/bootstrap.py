"""Rank correlation with a column of intervals: its least and greatest, bootstrapped.

A table of numbers in, plain numbers out: nothing here knows of claims. Kendall's tau
counts pairs of lines, so that its range over all values within the intervals has plain
bounds: a pair whose intervals overlap may count for or against. No value within an
interval is preferred.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from nfp_jax.pages.joined import GROUP

REPEATS = 20_000  # of a bootstrap
AT_ONCE = 500  # of them, which bounds the memory


class Range(NamedTuple):
    """Bounds of a correlation over the box of intervals, and of its bootstrap.

    Attributes:
      least: no values within the intervals have a smaller correlation.
      greatest: nor a larger one.
      lower: 2.5 % point of the least over resamples.
      upper: 97.5 % point of the greatest.
      p_more: share of resamples whose least is not above 0, at least 1/(repeats + 1)
        and 1/k! with k pruners: so likely is any order of theirs by chance.
      p_less: share of them whose greatest is not below 0, likewise.
    """

    least: float
    greatest: float
    lower: float
    upper: float
    p_more: float
    p_less: float


NOTHING = Range(math.nan, math.nan, math.nan, math.nan, 1.0, 1.0)


def correlation(
    cells: pd.DataFrame,
    by: str,
    *,
    within: bool = False,
    less: str | None = None,
    seed: int = 0,
) -> Range:
    """Returns Kendall's rank correlation of ``value`` with a column of intervals.

    ``sum over pairs of s(x_i - x_j) s(y_i - y_j)``, divided by the number of pairs,
    with s the sign, y the median over seeds and x anywhere in its interval; y too is an
    interval, without an upper end, where a capacity is only known to be at least that.
    Pairs of overlapping intervals count for or against, whichever is less or more.

    Args:
      cells: lines of ``joined.beside_information``.
      by: the column whose ends are ``<by>_lower`` and ``<by>_upper``.
      within: whether only lines of one `joined.GROUP` make pairs.
      less: a column of numbers whose correlation, over the same pairs, is subtracted
        pair by pair.
      seed: of the bootstrap.

    Returns:
      ``Range``, over ``REPEATS`` resamples of the pruners, with all of their lines, and
      of the seeds of each line. Pairs of two copies of one pruner are no pairs. NaN and
      p-values 1 where there is no pair.

    Reference: Kendall 1938, https://doi.org/10.1093/biomet/30.1-2.81.
    """
    if len(cells) < 2:
        return NOTHING
    i, j = _pairs(cells, within)
    if not len(i):
        return NOTHING
    low, high = (cells[f"{by}_{end}"].to_numpy(float) for end in ("lower", "upper"))
    x = _signs(low, high, i, j)
    base = np.zeros(len(i), int)
    if less is not None:
        fixed = cells[less].to_numpy(float)
        base = np.sign(fixed[i] - fixed[j]).astype(int)

    pruner = cells.groupby("pruner").ngroup().to_numpy()
    one = pruner[i] == pruner[j]

    def ends(
        low: np.ndarray, high: np.ndarray, copies: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest, from ends of y and copies ``[resamples, cells]``."""
        y = _signs(low, high, i, j)
        # Two lines of one pruner are a pair in each of its copies.
        pairs = np.where(one, copies[:, i], copies[:, i] * copies[:, j])
        products = [(a - base) * b for a in x for b in y]
        total = pairs.sum(axis=1)
        least, most = (f.reduce(products) for f in (np.minimum, np.maximum))
        return (pairs * least).sum(axis=1) / total, (pairs * most).sum(axis=1) / total

    values = [
        np.stack([np.asarray(each, float) for each in both])
        for both in zip(cells["values"], cells["values_upper"], strict=True)
    ]
    medians = np.stack([np.median(both, axis=1) for both in values], axis=1)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        (lowest,), (highest,) = ends(medians[0], medians[1], np.ones((1, len(cells))))
        rng = np.random.default_rng(seed)
        count = int(pruner.max()) + 1
        drawn: list[tuple[np.ndarray, np.ndarray]] = []
        for _ in range(0, REPEATS, AT_ONCE):
            chosen = rng.multinomial(count, np.full(count, 1 / count), AT_ONCE)
            y = np.stack([_medians(both, rng) for both in values], axis=2)
            drawn.append(ends(y[0], y[1], chosen[:, pruner].astype(float)))
    lows, highs = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    return _range(float(lowest), float(highest), lows, highs, count)


def _pairs(cells: pd.DataFrame, within: bool) -> tuple[np.ndarray, np.ndarray]:
    """Which two lines make a pair, ``[pairs]`` each."""
    i, j = np.triu_indices(len(cells), 1)
    if not within:
        return i, j
    group = cells.groupby(GROUP).ngroup().to_numpy()
    alike = group[i] == group[j]
    return i[alike], j[alike]


def _range(
    lowest: float, highest: float, lows: np.ndarray, highs: np.ndarray, pruners: int
) -> Range:
    """The bounds, and what the resamples say of them; those without a pair go."""
    lows, highs = lows[np.isfinite(lows)], highs[np.isfinite(highs)]
    if not len(lows):
        return Range(lowest, highest, math.nan, math.nan, 1.0, 1.0)
    # The bootstrap of few pruners alone would be sure too often.
    chance = 1 / math.factorial(pruners)
    return Range(
        lowest,
        highest,
        float(np.quantile(lows, 0.025)),
        float(np.quantile(highs, 0.975)),
        max(float((1 + (lows <= 0).sum()) / (1 + len(lows))), chance),
        max(float((1 + (highs >= 0).sum()) / (1 + len(highs))), chance),
    )


def _signs(
    low: np.ndarray, high: np.ndarray, i: np.ndarray, j: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The least and greatest sign of each difference of two values in intervals."""
    least = np.sign(low[..., i] - high[..., j])
    most = np.sign(high[..., i] - low[..., j])
    # Of two values without an upper end nothing is known.
    return np.nan_to_num(least, nan=-1.0), np.nan_to_num(most, nan=1.0)


def _medians(both: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Medians of both ends over resampled seeds, ``[2, AT_ONCE]``."""
    which = rng.integers(both.shape[1], size=(AT_ONCE, both.shape[1]))
    return np.median(both[:, which], axis=-1)
