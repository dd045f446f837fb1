"""The correlation of values with a column of intervals, and its own by a bootstrap.

A table of numbers in, plain numbers out: nothing here knows of claims. What would
surprise: drawing within the intervals is noise on top of what the values have, so that
the ends lean towards 0.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import stats

from nfp_jax.joined import GROUP

REPEATS = 2000  # of a bootstrap


def correlation(
    cells: pd.DataFrame,
    by: str,
    *,
    ranked: bool,
    within: bool = False,
    less: str | None = None,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Returns the correlation of ``value`` with a column of intervals, bootstrapped.

    Args:
      cells: lines of ``joined.beside_information``.
      by: the column whose ends are ``<by>_lower`` and ``<by>_upper``.
      ranked: Spearman's; else Pearson's of logarithms.
      within: whether only cells of one `joined.GROUP` are compared: the correlation of
        ranks less their mean in the group, or of logarithms likewise.
      less: a column whose correlation is subtracted.
      seed: of the bootstrap.

    Returns:
      The correlation at the middle of the intervals and at the median over seeds; and
      the 2.5 and 97.5 % points over ``REPEATS`` resamples of the cells (in their group,
      if ``within``), of the seeds in each, with ``by`` drawn uniformly within its ends:
      noise on top of what the values have, so that the ends lean towards 0. NaN where
      nothing varies.
    """
    if cells.empty:
        return math.nan, math.nan, math.nan
    groups = np.zeros(len(cells), int)
    if within:
        groups = cells.groupby(GROUP).ngroup().to_numpy()
    low, high = (cells[f"{by}_{end}"].to_numpy(float) for end in ("lower", "upper"))
    fixed = None if less is None else cells[less].to_numpy(float)
    values = [np.asarray(some, float) for some in cells["values"]]

    def of(x: np.ndarray, y: np.ndarray, which: np.ndarray) -> float:
        found = _correlation(x, y, groups[which], ranked)
        if fixed is not None:
            found -= _correlation(fixed[which], y, groups[which], ranked)
        return found

    everyone = np.arange(len(cells))
    middle = of((low + high) / 2, cells["value"].to_numpy(float), everyone)
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    # Medians over resampled seeds, made at once: [cells, REPEATS].
    medians = np.stack(
        [np.median(rng.choice(x, (REPEATS, len(x))), axis=1) for x in values]
    )
    found = []
    for _ in range(REPEATS):
        which = np.concatenate([rng.choice(some, len(some)) for some in members])
        x = rng.uniform(low[which], high[which])
        y = medians[which, rng.integers(REPEATS, size=len(which))]
        found.append(of(x, y, which))
    here = np.asarray(found)[np.isfinite(found)]
    if not len(here) or not math.isfinite(middle):
        return math.nan, math.nan, math.nan
    lower, upper = np.quantile(here, [0.025, 0.975])
    return middle, float(lower), float(upper)


def _correlation(
    x: np.ndarray, y: np.ndarray, groups: np.ndarray, ranked: bool
) -> float:
    """Of ranks or logarithms, each less its group's mean."""
    parts = []
    for group in np.unique(groups):
        pair = [some[groups == group] for some in (x, y)]
        if ranked:
            pair = [stats.rankdata(some) for some in pair]
        else:
            pair = [np.log(np.maximum(some, 1e-12)) for some in pair]
        parts.append([some - some.mean() for some in pair])
    a, b = (np.concatenate(some) for some in zip(*parts, strict=True))
    scale = math.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else math.nan
