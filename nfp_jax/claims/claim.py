"""What a claim is, how it is judged, and what all files of claims share.

Depends on nothing else of the package. What would surprise: pruners are told apart by
name; one that is in neither `TRAINED` nor `DATA_FREE`, a user's own too, counts as one
at initialization that sees the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

TRAINED = ("imp", "magnitude_trained")
DATA_FREE = ("random", "magnitude_init", "synflow")
HOLDS, NOT, UNDECIDED = "holds", "does not hold", "undecided"


class Claim(NamedTuple):
    """One line of the table.

    Attributes:
      claim: what is claimed.
      where: the run it was measured in, its data, network and sparsity.
      what: what the number is, and what its interval.
      measured: the number.
      lower: the lower end of its interval; ``upper``: the upper one.
      verdict: ``holds``, ``does not hold`` or ``undecided``.
    """

    claim: str
    where: str
    what: str
    measured: float
    lower: float
    upper: float
    verdict: str


def verdict(lower: float, upper: float, than: float = 0.0) -> str:
    """Whether "more than ``than``" holds, from an interval.

    >>> verdict(0.1, 0.3), verdict(-0.2, -0.1), verdict(-0.1, 0.1)
    ('holds', 'does not hold', 'undecided')
    """
    if lower > than:
        return HOLDS
    return NOT if upper <= than else UNDECIDED


def groups(rows: pd.DataFrame, by: Any) -> Iterator[tuple[Any, pd.DataFrame]]:
    """The groups of rows, their names of any type."""
    yield from rows.groupby(by)


def numbers(*values: Any) -> tuple[float, float, float]:
    """Three numbers of any type, as a claim has them."""
    first, second, third = (float(value) for value in values)
    return first, second, third
