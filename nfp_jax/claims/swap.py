"""Data swaps: whose masks gain points on the labels that they were found on.

That a gain is nothing is an equivalence test, with the margin that the run was made
with (``swap.margin``, a share of n). For masks that see no data the gap is 0 in
expectation, by exchangeability: they are the control.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from nfp_jax.claims.claim import (
    DATA_FREE,
    MARGIN,
    RESOLUTION,
    SHOWN,
    TRAINED,
    UNDECIDED,
    Claim,
    groups,
    late,
    numbers,
)
from nfp_jax.claims.paired import against_all, mean_of, simes
from nfp_jax.estimates import equivalence_test, mean_test
from nfp_jax.figures import label_of
from nfp_jax.joined import SEEDS, Part, main_rows, scope


def claims(part: Part) -> Iterator[Claim]:
    """What the rows of such a run say of whose masks gain."""
    rows = main_rows(part)
    for (n, sparsity), group in groups(rows, ["n", "sparsity"]):
        names = sorted(set(group["pruner"]))
        where = scope(part, n=n, sparsity=sparsity, rows=group)
        key = f"{part.name}/{{}}/n={n}/{sparsity:g}"
        for trained in (name for name in TRAINED if name in names):
            own = group[group["pruner"] == trained]
            yield _gain(
                f"{label_of(trained)} gains points on the labels that its mask was "
                "found on",
                *(own, n, where, key.format(f"gain/{trained}"), "swap_gap"),
            )
            yield _gain(
                f"The gain of {label_of(trained)} outlives fresh initial weights",
                *(own, n, where, key.format(f"outlives/{trained}"), "swap_gap_reinit"),
            )
            yield _nothing(
                f"{label_of(trained)} gains nothing on the labels that its mask was "
                "found on",
                *(group, [trained], n, where, key.format(f"nothing/{trained}")),
            )
        blind = [name for name in names if name in DATA_FREE]
        seeing = [name for name in names if name not in (*DATA_FREE, *TRAINED)]
        if blind:
            yield _nothing(
                "Control: data-free masks gain nothing on their own labels",
                *(group, blind, n, where, key.format("nothing/data-free")),
            )
        if seeing:
            yield _nothing(
                "Masks at initialization that see the labels gain nothing on them",
                *(group, seeing, n, where, key.format("nothing/seeing")),
            )
        if seeing and "imp" in names:
            yield _less_than_imp(group, seeing, n, where, key.format("less-than-imp"))


def _gain(
    claim: str, rows: pd.DataFrame, n: int, where: str, key: str, prefix: str
) -> Claim:
    gaps = _gaps(rows, f"{prefix}s" if prefix == "swap_gap" else "swap_gaps_reinit")
    tested = mean_test(gaps, least_deviation=RESOLUTION * n)
    start = "" if prefix == "swap_gap" else ", both from fresh initial weights"
    return Claim(
        claim,
        where,
        f"points at settled, less those on fresh labels{start}; paired, {len(gaps)} "
        "draws",
        *numbers(tested),
        p_holds=tested.p_more,
        p_not=tested.p_less,
        out_of_budget=late(rows, f"{prefix}_out_of_budget"),
        key=key,
    )


def _nothing(
    claim: str, group: pd.DataFrame, names: list[str], n: int, where: str, key: str
) -> Claim:
    """Whether the gaps of all of several pruners lie within the margin."""
    rows = group[group["pruner"].isin(names)]
    margin = float(rows["margin"].iloc[0]) if "margin" in rows else MARGIN
    margin = (MARGIN if np.isnan(margin) else margin) * n
    level = 1 - 0.05 / len(names)
    tested = {
        name: equivalence_test(
            _gaps(rows[rows["pruner"] == name]),
            margin,
            least_deviation=RESOLUTION * n,
            confidence=level,
        )
        for name in names
    }
    points = rows[["memorized_points", "memorized_points_swapped"]].astype(float)
    why = ""
    if (points >= n).all(axis=None):
        why = "; not judged, for all fit all points and there is nothing to gain"
    largest = max(names, key=lambda name: np.nan_to_num(abs(tested[name].estimate)))
    return Claim(
        claim,
        where,
        f"the largest gap of {len(names)} pruners, that of {label_of(largest)}, in "
        f"points; all must lie within {margin:g} (two one-sided tests each); interval "
        f"at {100 * level:.4g} %{why}",
        *numbers(tested[largest]),
        p_holds=max(one.p_less for one in tested.values()),
        p_not=simes([one.p_more for one in tested.values()], len(names)),
        out_of_budget=late(rows, "swap_gap_out_of_budget"),
        verdict=SHOWN if why else UNDECIDED,
        key=key,
    )


def _less_than_imp(
    group: pd.DataFrame, seeing: list[str], n: int, where: str, key: str
) -> Claim:
    """Whether IMP gains more than each of several pruners, paired by draw."""
    rows = group[group["pruner"].isin(["imp", *seeing])]
    wide = rows.pivot(index=SEEDS, columns="pruner", values="swap_gaps").dropna()
    gaps = {str(name): np.hstack([np.zeros(0), *wide[name]]) for name in wide}
    known = {
        name: gaps["imp"] - gaps[name]
        if len(gaps[name]) == len(gaps["imp"])
        else np.array([])  # not compared, so that nothing is decided
        for name in seeing
    }
    found = against_all(known, mean_of(RESOLUTION * n))
    return Claim(
        "Masks at initialization that see the labels gain less on them than IMP's",
        where,
        f"IMP's gap less the closest, that of {label_of(found.closest)}, in points; "
        f"least over {len(known)}, paired, {len(gaps['imp'])} draws",
        *found.numbers,
        p_holds=found.p_holds,
        p_not=found.p_not,
        out_of_budget=late(rows, "swap_gap_out_of_budget"),
        key=key,
    )


def _gaps(rows: pd.DataFrame, column: str = "swap_gaps") -> np.ndarray:
    """The gap of every draw, of several rows one after the other."""
    lists: list[Any] = (
        [x for x in rows[column] if x is not None] if column in rows else []
    )
    return np.hstack([np.zeros(0), *lists]).astype(float)
