"""One pruner against several rivals, paired by seed, with no rival chosen.

"More than every rival" is tested against each of them: it holds where it holds against
all (an intersection-union test, whose p-value is the largest), and does not hold where
some rival is certainly as good (the p-values combined by Simes).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from nfp_jax.estimates import Estimate, mean_test
from nfp_jax.pages.words import SEEDS


class AgainstAll(NamedTuple):
    """One against all of several rivals.

    Attributes:
      closest: the rival with the smallest difference, to be told; no test rests on it.
      estimate: the smallest difference.
      lower: the least of the lower ends.
      upper: the least of the upper ends, each at the level divided by the rivals.
      p_holds: p-value of "not more than every rival".
      p_not: p-value of "more than every rival", by Simes.
    """

    closest: str
    estimate: float
    lower: float
    upper: float
    p_holds: float
    p_not: float

    @property
    def numbers(self) -> tuple[float, float, float]:
        """The estimate and its ends."""
        return self.estimate, self.lower, self.upper


TestFn = Callable[[Any, float], Estimate]


def against_all(
    differences: Mapping[str, Any], test: TestFn, unsure: Collection[str] = ()
) -> AgainstAll:
    """Returns how one compares with every rival.

    Args:
      differences: by rival: what ``test`` takes.
      test: ``test(differences of a rival, confidence)``.
      unsure: rivals that no verdict may rest on, for they might do better: then "more
        than every rival" can't hold, and does not hold where a sure one is as good.

    >>> found = against_all({"a": [3.0, 4.0, 5.0], "b": [1.0, 2.0, 3.0]}, mean_of(0.0))
    >>> found.closest, found.estimate, round(found.p_holds, 3)
    ('b', 2.0, 0.037)

    Reference: Berger 1982, https://doi.org/10.1080/00401706.1982.10487790.
    """
    count = len(differences)
    usual = {name: test(values, 0.95) for name, values in differences.items()}
    wide = [test(values, 1 - 0.05 / count) for values in differences.values()]
    better = [_or_one(usual[name].p_less) for name in usual.keys() - set(unsure)]
    closest = min(usual, key=lambda name: _or_inf(usual[name].estimate))
    return AgainstAll(
        closest,
        usual[closest].estimate,
        _least(one.lower for one in usual.values()),
        _least(one.upper for one in wide),
        1.0 if unsure else max(_or_one(one.p_more) for one in usual.values()),
        simes(better, count),
    )


def simes(p: Sequence[float], count: int) -> float:
    """Returns the p-value of "none of the alternatives" from that of each.

    ``min over k of count p_(k) / k``, where those that are not given count as 1. Valid
    for p-values that depend positively, as of differences that share one side.

    >>> simes([0.01, 0.01], 3), simes([0.01, 0.9], 3)
    (0.015, 0.03)

    Reference: Simes 1986, https://doi.org/10.1093/biomet/73.3.751; Sarkar 1998,
    https://doi.org/10.1214/aos/1028144846.
    """
    steps = [count * x / k for k, x in enumerate(sorted(p), 1)]
    return min([1.0, *steps])


def mean_of(least_deviation: float, than: float = 0.0) -> TestFn:
    """Returns the t test of a mean against ``than``, as ``against_all`` takes it."""

    def test(values: Any, confidence: float) -> Estimate:
        return mean_test(
            values, than, least_deviation=least_deviation, confidence=confidence
        )

    return test


def by_seed(rows: pd.DataFrame, column: str, *, complete: bool = True) -> pd.DataFrame:
    """Returns a column by seed (down) and pruner (across).

    Seeds that lack a pruner go where it is to be ``complete``, and have NaN otherwise.
    """
    rows = rows[rows[column].notna()]
    if rows.empty:
        return pd.DataFrame()
    rows = rows.assign(value=rows[column].astype(float))
    wide = rows.pivot_table(index=SEEDS, columns="pruner", values="value")
    return wide.dropna() if complete else wide


def differences_of(
    rows: pd.DataFrame, pruner: str, column: str
) -> dict[str, np.ndarray]:
    """Returns a column of one pruner less that of each other one, seed by seed."""
    wide = by_seed(rows, column)
    if pruner not in wide or len(wide.columns) < 2:
        return {}
    first = wide[pruner]
    return {
        str(name): (first - wide[name]).to_numpy() for name in wide if name != pruner
    }


def _least(values: Any) -> float:
    """The least; NaN where one is."""
    return float(np.min(list(values)))


def _or_one(p: float) -> float:
    return 1.0 if np.isnan(p) else p


def _or_inf(x: float) -> float:
    return np.inf if np.isnan(x) else x
