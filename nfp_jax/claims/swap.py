"""Data swaps: whose masks gain points on the labels that they were found on.

Depends on `nfp_jax.joined`, `estimates` and `figures`. What would surprise: that a gain
is 0 no interval can show; the claim of it holds where the interval has 0 and ends below
all that IMP gains.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from nfp_jax.claims.claim import (
    DATA_FREE,
    HOLDS,
    NOT,
    TRAINED,
    UNDECIDED,
    Claim,
    groups,
    numbers,
    verdict,
)
from nfp_jax.estimates import mean_ends
from nfp_jax.figures import label_of
from nfp_jax.joined import Part, main_rows


def claims(part: Part) -> Iterator[Claim]:
    """What the rows of such a run say of whose masks gain."""
    rows = main_rows(part)
    for (n, sparsity), group in groups(rows, ["n", "sparsity"]):
        of = {str(pruner): own for pruner, own in groups(group, "pruner")}
        where = f"{part.name}: {part.where}, n = {n:,}, {100 * sparsity:g} % removed"
        for trained in (name for name in TRAINED if name in of):
            gap = _gap(of[trained], "swap_gap")
            yield Claim(
                f"{_sentence(trained)} gains points on the labels that its mask was "
                "found on",
                where,
                "points more than on fresh labels; paired, "
                f"{of[trained]['pairs'].sum()} draws{_at_level(group)}",
                *gap,
                verdict(*gap[1:]),
            )
            fresh = _gap(of[trained], "swap_gap_reinit")
            yield Claim(
                f"The gain of {label_of(trained)} outlives fresh initial weights",
                where,
                "points more than on fresh labels, both from fresh weights"
                + _at_level(group),
                *fresh,
                verdict(*fresh[1:]),
            )
        least = _gap(of["imp"], "swap_gap")[1] if "imp" in of else math.nan
        of_claim = {
            "Data-free masks gain nothing on their own labels": [
                name for name in of if name in DATA_FREE
            ],
            "Masks at initialization that see the labels gain nothing on them": [
                name for name in of if name not in (*DATA_FREE, *TRAINED)
            ],
        }
        for claim, names in of_claim.items():
            if names:
                yield _nothing_gained(claim, of, names, where, least)


def _gap(rows: pd.DataFrame, prefix: str) -> tuple[float, float, float]:
    """The gap of a row and its interval's ends; of several seeds', their mean's."""
    points, low, high = (
        rows[f"{prefix}_{end}"].astype(float) for end in ("points", "lower", "upper")
    )
    if len(rows) == 1:
        return numbers(points.iloc[0], low.iloc[0], high.iloc[0])
    return mean_ends(points, float(rows["confidence"].iloc[0]))


def _nothing_gained(
    claim: str,
    of: Mapping[str, pd.DataFrame],
    names: list[str],
    where: str,
    least: float,
) -> Claim:
    """The largest gap of several pruners, its interval widened for having chosen.

    That it is 0 no interval can show; it holds where the interval has 0 and ends below
    the ``least`` that IMP gains.
    """
    gaps = {name: np.hstack([*of[name]["swap_gaps"]]).astype(float) for name in names}
    means = {name: mean_ends(gaps[name])[0] for name in names}
    largest = max(names, key=lambda name: np.nan_to_num(means[name], nan=-np.inf))
    level = 1 - (1 - float(of[largest]["confidence"].iloc[0])) / len(names)
    mean, low, high = mean_ends(gaps[largest], level)
    judged = NOT if low > 0 else UNDECIDED
    return Claim(
        claim,
        where,
        f"the largest gap of {len(names)} pruners, that of {label_of(largest)}, in "
        f"points; Bonferroni{_at_level(of[largest])}; holds where the interval has 0 "
        "and ends below IMP's gap",
        *(mean, low, high),
        HOLDS if low <= 0 and high < least else judged,
    )


def _at_level(rows: pd.DataFrame) -> str:
    """Of what confidence an interval is, where it is not the usual 95 %."""
    level = float(rows["confidence"].iloc[0])
    return "" if level == 0.95 else f", at {100 * level:g} %"


def _sentence(pruner: str) -> str:
    """The pruner's name where a sentence begins."""
    label = label_of(pruner)
    return label[:1].upper() + label[1:]
