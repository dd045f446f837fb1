"""What a claim is, and how all claims of a page are judged together.

A file of claims makes drafts: a measured number, its interval, and two p-values, one
of "the claim is false" and one of "the claim is true". ``judge`` corrects them by Holm
over all drafts of the page and gives the verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

HOLDS, NOT, UNDECIDED = "holds", "does not hold", "undecided"
SHOWN = "not judged"  # a number that illustrates, and that no test could decide
LEVEL = 0.05  # of all claims of a page together
# A difference within this share of n is none. Fixed before any row was made.
MARGIN = 0.02
# Points at settled are known to the 0.5 % of n that the stopping rule lets pass: what
# varies by less from seed to seed is taken to vary by that share of n.
RESOLUTION = 0.005


class Claim(NamedTuple):
    """One line of the table.

    Attributes:
      claim: what is claimed.
      where: its scope: the run, data, network, n, sparsity, selection, resume, budget.
      what: what the number is, and what its interval.
      measured: the number.
      lower: the lower end of its interval, ``upper``: the upper one. Unless ``what``
        says otherwise, a 95 % interval of this claim alone.
      p_holds: p-value of the hypothesis that the claim is false, one-sided.
      p_not: p-value of the hypothesis that it is true, one-sided.
      out_of_budget: how many trainings that a verdict would rest on used up their
        budget, or diverged: where any did, the claim is undecided.
      left_out: how many others did, of rivals that the verdict does not rest on.
      p: the smaller p-value, corrected by Holm over the page.
      verdict: ``holds``, ``does not hold``, ``undecided`` or ``not judged``.
      key: a short name, unique on the page, as in ``swap/gain/imp/0.95``.
    """

    claim: str
    where: str
    what: str
    measured: float
    lower: float
    upper: float
    p_holds: float = 1.0
    p_not: float = 1.0
    out_of_budget: int = 0
    left_out: int = 0
    p: float = math.nan
    verdict: str = UNDECIDED
    key: str = ""


def judge(drafts: Sequence[Claim]) -> list[Claim]:
    """Returns the claims with Holm-corrected p-values and verdicts.

    A claim is true or false, so that exactly one of its two hypotheses is true, and
    ``min(p_holds, p_not)`` stands for it. These are corrected by Holm over all drafts
    but those that are ``not judged``; a claim is decided where the corrected value is
    at most ``LEVEL``, in the direction of the smaller p-value, and *undecided* wherever
    a training that it compares used up its budget or diverged.

    >>> one = Claim("a", "", "", 1.0, 0.5, 1.5, p_holds=0.02)
    >>> [x.verdict for x in judge([one, one._replace(p_holds=0.04)])]
    ['holds', 'holds']
    >>> [x.verdict for x in judge([one, one._replace(out_of_budget=1)])]
    ['holds', 'undecided']

    Reference: Holm 1979, A simple sequentially rejective multiple test procedure; of
    directions: Shaffer 1980, https://doi.org/10.1214/aos/1176345205.
    """
    tested = [i for i, draft in enumerate(drafts) if draft.verdict != SHOWN]
    raw = [min(_known(drafts[i])) for i in tested]
    corrected = dict(zip(tested, holm(raw), strict=True))
    judged = []
    for i, draft in enumerate(drafts):
        if i not in corrected:
            judged.append(draft)
            continue
        verdict = UNDECIDED
        if corrected[i] <= LEVEL and not draft.out_of_budget:
            more, less = _known(draft)
            verdict = HOLDS if more < less else NOT
        judged.append(draft._replace(p=corrected[i], verdict=verdict))
    return judged


def holm(p: Sequence[float]) -> list[float]:
    """Returns p-values corrected by Holm's step-down procedure, in their order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, float)
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(x) for x in corrected]


def _known(draft: Claim) -> tuple[float, float]:
    """Both p-values; what is not a number decides nothing."""
    more, less = (1.0 if math.isnan(x) else x for x in (draft.p_holds, draft.p_not))
    return more, less


def numbers(values: Any) -> tuple[float, float, float]:
    """The first three of some values: a number and its ends, as a claim has them."""
    first, second, third = (float(value) for value in tuple(values)[:3])
    return first, second, third


def groups(rows: pd.DataFrame, by: Any) -> Iterator[tuple[Any, pd.DataFrame]]:
    """The groups of rows, their names of any type."""
    yield from rows.groupby(by)


def cut_short(rows: pd.DataFrame) -> np.ndarray:
    """Which rows rest on a training that used up its budget, or diverged; bool."""
    return _late_trainings(rows, "out_of_budget") > 0


def collapsed(rows: pd.DataFrame) -> int:
    """How many networks have no path left from input to output."""
    names = [name for name in ("collapsed", "collapsed_ablated") if name in rows]
    return int(rows[names].astype("boolean").fillna(False).to_numpy(bool).sum())


def late(rows: pd.DataFrame, column: str = "out_of_budget") -> int:
    """How many trainings of these rows used up their budget, or diverged."""
    return int(_late_trainings(rows, column).sum())


def _late_trainings(rows: pd.DataFrame, column: str) -> np.ndarray:
    """The same of each row.

    Rows made under another rule than "settled" say only whether they converged.
    """
    diverged = np.zeros(len(rows), int)
    if "diverged" in rows:
        diverged += rows["diverged"].astype("boolean").fillna(False).to_numpy(bool)
    if column in rows and rows[column].notna().any():
        return rows[column].fillna(0).to_numpy(int) + diverged
    if "converged" not in rows:
        return diverged
    return 1 - rows["converged"].astype("boolean").fillna(True).to_numpy(int)
