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

from nfp_jax.estimates import equivalence_test, mean_test
from nfp_jax.pages.claim import (
    MARGIN,
    RESOLUTION,
    SHOWN,
    UNDECIDED,
    Claim,
    groups,
    late,
    numbers,
)
from nfp_jax.pages.joined import Part, main_rows, scope
from nfp_jax.pages.paired import against_all, mean_of, simes
from nfp_jax.pages.pruners import labels_of, that_see, trained
from nfp_jax.pages.words import SEEDS


def claims(part: Part) -> Iterator[Claim]:
    """What the rows of such a run say of whose masks gain."""
    rows = main_rows(part)
    for (n, sparsity), group in groups(rows, ["n", "sparsity"]):
        where = scope(part, n=n, sparsity=sparsity, rows=group)
        key = f"{part.name}/{{}}/n={n}/{sparsity:g}"
        for pruner in trained(group):
            yield from _of_trained(group, pruner, n, where, key)
        blind, seeing = that_see(group, "nothing"), that_see(group, "labels")
        if blind:
            claim = "Control: data-free masks gain nothing on their own labels"
            name = key.format("nothing/data-free")
            yield _nothing(claim, group, blind, n, where, name)
        if seeing:
            claim = "Masks at initialization that see the labels gain nothing on them"
            name = key.format("nothing/seeing")
            yield _nothing(claim, group, seeing, n, where, name)
            for pruner in trained(group):
                name = key.format(f"less-than-{pruner}")
                yield _less_than(group, pruner, seeing, n, where, name)


def _of_trained(
    group: pd.DataFrame, pruner: str, n: int, where: str, key: str
) -> Iterator[Claim]:
    """What masks of one pruner that sees training gain, and whether it is nothing."""
    label, rows = labels_of(group)[pruner], group[group["pruner"] == pruner]
    claim = f"{label} gains points on the labels that its mask was found on"
    yield _gain(claim, rows, n, where, key.format(f"gain/{pruner}"), "swap_gap")
    claim = f"The gain of {label} outlives fresh initial weights"
    name = key.format(f"outlives/{pruner}")
    yield _gain(claim, rows, n, where, name, "swap_gap_reinit")
    claim = f"{label} gains nothing on the labels that its mask was found on"
    name = key.format(f"nothing/{pruner}")
    yield _nothing(claim, group, [pruner], n, where, name)


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
    labels = labels_of(group)
    largest = max(names, key=lambda name: np.nan_to_num(abs(tested[name].estimate)))
    return Claim(
        claim,
        where,
        f"the largest gap of {len(names)} pruners, that of {labels[largest]}, in "
        f"points; all must lie within {margin:g} (two one-sided tests each); interval "
        f"at {100 * level:.4g} %{why}",
        *numbers(tested[largest]),
        p_holds=max(one.p_less for one in tested.values()),
        p_not=simes([one.p_more for one in tested.values()], len(names)),
        out_of_budget=late(rows, "swap_gap_out_of_budget"),
        verdict=SHOWN if why else UNDECIDED,
        key=key,
    )


def _less_than(
    group: pd.DataFrame, pruner: str, seeing: list[str], n: int, where: str, key: str
) -> Claim:
    """Whether one pruner gains more than each of several others, paired by draw."""
    labels, rows = labels_of(group), group[group["pruner"].isin([pruner, *seeing])]
    wide = rows.pivot(index=SEEDS, columns="pruner", values="swap_gaps").dropna()
    gaps = {str(name): np.hstack([np.zeros(0), *wide[name]]) for name in wide}
    known = {
        name: gaps[pruner] - gaps[name]
        if len(gaps[name]) == len(gaps[pruner])
        else np.array([])  # not compared, so that nothing is decided
        for name in seeing
    }
    found = against_all(known, mean_of(RESOLUTION * n))
    measured, lower, upper = found.numbers
    return Claim(
        "Masks at initialization that see the labels gain less on them than "
        f"{labels[pruner]}'s",
        where,
        f"{labels[pruner]}'s gap less the closest, that of {labels[found.closest]}, in "
        f"points; least over {len(known)}, paired, {len(gaps[pruner])} draws",
        measured,
        lower,
        upper,
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
