"""Data-swap control: what a mask's network fits more of its own data than of others'.

A row has means over independent pairs of data sets, and gaps between them with paired
Student-t intervals. Where several rows (seeds) stand for a cell, its gap is the mean of
their gaps and its interval is over the rows, each of them one value; the rows' own
intervals are then not used. A gap is marked where one of its own networks, or a
training that their masks come from, ran out of budget.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from nfp_jax.estimates import mean_interval
from nfp_jax.pages.common import Drawing, Plan, plan_of
from nfp_jax.pages.kind import Grid, Kind, blocks_of, grids_of, verdict
from nfp_jax.pages.looks import LEVEL
from nfp_jax.pages.points import (
    LOGARITHMIC,
    Mark,
    against_sparsity,
    marks_in_words,
)
from nfp_jax.pages.pruners import pruned
from nfp_jax.pages.sheet import with_seeds
from nfp_jax.pages.words import (
    CELL,
    axes_of,
    counted,
    in_order,
    line_of,
    networks_of,
    number,
    numbers,
    pruned_by,
    seeds_of,
    span,
    truth,
    values_of,
    varying,
)

# What is changed for the other network, by the prefix of the gap's columns.
VARIANTS = {
    "swap_gap": "fresh labels",
    "swap_gap_reinit": "fresh labels, fresh weights",
    "swap_gap_data": "new data set",
    "swap_gap_data_reinit": "new data set, fresh weights",
}
_PREFIX = {words: prefix for prefix, words in VARIANTS.items()}
GAPS = (*(f"{variant}_points" for variant in VARIANTS), "swap_gap_bits")
MEMORIZED = {
    "memorized_points": "own labels",
    "memorized_points_swapped": "swapped labels",
}
TROUBLES = {
    "collapsed": "have masks of which up to {collapsed_share:.3g} % collapsed (no path "
    "from input to output is left)",
    "diverged": "have a training that diverged (the loss is not finite)",
    "out_of_budget": "rest on trainings that ran out of budget, so networks may "
    "memorize more",
}
TABLES = {
    "swap_gap_points": "Gap in points: own labels less fresh labels, same initial "
    "weights",
    "swap_gap_bits": "Gap in bits: own labels less fresh labels, same initial weights",
    "swap_gap_reinit_points": "Gap in points: own labels less fresh labels, both from "
    "fresh initial weights",
    "swap_gap_data_points": "Gap in points: own data set less a new one, same initial "
    "weights",
    "swap_gap_data_reinit_points": "Gap in points: own data set less a new one, both "
    "from fresh initial weights",
}
MARKS = (
    Mark.hollow("collapsed or diverged", "collapsed", "diverged"),
    Mark.half("ran out of budget", "out_of_budget"),
)


def flagged(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with a boolean for each of `TROUBLES`, and the share that collapsed."""
    share = numbers(rows, "collapsed_share")
    return rows.assign(
        collapsed_share=share,
        collapsed=share > 0,
        diverged=truth(rows, "diverged"),
        out_of_budget=numbers(rows, "out_of_budget") > 0,
    )


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a cell (`CELL`): each gap, and what was memorized, with intervals.

    Columns: the cell, ``networks`` (how many rows), the number of them in each of
    `TROUBLES`, for each of `VARIANTS` the number whose gap rests on trainings out of
    budget (``<variant>_out_of_budget``), and for each of `GAPS` and `MEMORIZED` the
    value under its own name, ``<name>_low`` and ``<name>_high``: of one row its own, of
    several their mean and its Student-t interval.
    """
    lines = []
    for cell, group in flagged(rows).groupby(list(CELL), dropna=False):
        line = line_of(cell, group)
        line["networks"] = len(group)
        line |= {trouble: int(group[trouble].sum()) for trouble in TROUBLES}
        for variant in VARIANTS:
            late = numbers(group, f"{variant}_out_of_budget")
            unknown = np.isnan(late) & group["out_of_budget"].to_numpy()
            count = int(((late > 0) | unknown).sum())
            line[f"{variant}_out_of_budget"] = count
        for name in (*GAPS, *MEMORIZED):
            line |= _estimate(name, group)
        lines.append(line)
    return in_order(pd.DataFrame(lines))


def shown(rows: pd.DataFrame) -> str:
    """What a gap stands for: how many pairs and rows, and what its interval is."""
    pairs = [int(k) for k in values_of(rows, "pairs")]
    levels = [f"{100 * level:.5g} %" for level in values_of(rows, "confidence")]
    level = f"{', '.join(levels)} Student-t interval".lstrip()
    count, many = networks_of(rows)
    each = f"the mean over {span(pairs)} independent pairs" if pairs else "a mean"
    if pairs == [1]:
        each = "one pair"
    if many > 1:
        over = f"over {count} rows ({seeds_of(rows)})"
        return f"mean and {level} {over}, each {each}"
    if pairs == [1]:
        return "one pair each, so there is no interval"
    return f"{each} and its paired {level}"


def draw_swap(rows: pd.DataFrame) -> dict[str, Drawing]:
    """The figures of the data swap by name."""
    rows = pruned(rows)
    if rows.empty:
        why = "No pruned network is on file."
        return {"swap_gap": Drawing(_TITLE, None, why)}
    plan, cells = plan_of(rows)._replace(over=shown(rows)), summary(rows)
    return {
        "swap_gap": _gap(rows, cells, plan),
        "swap_gap_variants": _variants(rows, cells, plan),
        "swap_memorized": _memorized(rows, cells, plan),
    }


# ---- Numbers

_TITLE = "What a mask's own labels buy, against sparsity"


def _estimate(name: str, group: pd.DataFrame) -> dict[str, float]:
    """A value and the ends of its interval, from the rows of a cell."""
    values = numbers(group, name)
    names = (name, f"{name}_low", f"{name}_high")
    if len(group) == 1:
        stem = name.removesuffix("_points")
        given = (numbers(group, f"{stem}_{end}")[0] for end in ("lower", "upper"))
        return dict(zip(names, (values[0], *given), strict=True))
    level = numbers(group, "confidence")[0]
    mean, half_width = mean_interval(values, level if level == level else 0.95)
    ends = float(mean - half_width), float(mean + half_width)
    return dict(zip(names, (float(mean), *ends), strict=True))


def _long(
    rows: pd.DataFrame,
    cells: pd.DataFrame,
    axis: str,
    names: dict[str, str],
    measure: str,
) -> pd.DataFrame:
    """The cells once for each of the columns, which an axis of its own tells apart."""
    parts = []
    for name, words in names.items():
        ends = {
            f"{measure}{end}": cells[f"{name}{end}"] for end in ("", "_low", "_high")
        }
        part = with_seeds(cells, rows, numbers(rows, name))
        parts.append(part.assign(**{axis: words}, **ends))
    return pd.concat(parts, ignore_index=True)


# ---- The figures

_GAP = (
    "Points that a mask's network memorizes of the data set that its mask was found "
    "on, less those it memorizes of another of which its mask knows nothing"
)


def _gap(rows: pd.DataFrame, cells: pd.DataFrame, plan: Plan) -> Drawing:
    measure = "swap_gap_points"
    cells = cells.assign(out_of_budget=cells["swap_gap_out_of_budget"])
    cells = with_seeds(cells, rows, numbers(rows, measure))
    figure = against_sparsity(
        cells, plan, measure, "gap in points", MARKS, finally_=_zero
    )
    caption = (
        f"{_GAP}: fresh labels for the same inputs, from the same initial weights. "
        "Above the gray line, at 0, the mask's own labels have bought something. "
        f"Shown: {plan.over}. {LOGARITHMIC}{marks_in_words(cells, MARKS)}"
    )
    return Drawing(_TITLE, figure, caption)


def _variants(rows: pd.DataFrame, cells: pd.DataFrame, plan: Plan) -> Drawing:
    names = {f"{variant}_points": words for variant, words in VARIANTS.items()}
    cells = _long(rows, cells, "variant", names, "gap")
    cells["out_of_budget"] = [
        cell[f"{_PREFIX[cell['variant']]}_out_of_budget"]
        for _, cell in cells.iterrows()
    ]
    columns = None if len(plan.panels) == 0 else 4
    plan = plan._replace(panels=[*plan.panels, "variant"])
    figure = against_sparsity(
        cells, plan, "gap", "gap in points", MARKS, columns=columns, finally_=_zero
    )
    caption = (
        f"{_GAP}, with a panel for each way to change it: fresh labels for the same "
        "inputs, or a new data set; both networks from the initial weights that the "
        "mask was found at, or both from fresh ones. Gray line: no gap. "
        f"Shown: {plan.over}. {LOGARITHMIC}{marks_in_words(cells, MARKS)}"
    )
    return Drawing("The gap when more than the labels is swapped", figure, caption)


def _memorized(rows: pd.DataFrame, cells: pd.DataFrame, plan: Plan) -> Drawing:
    axes = varying(cells)  # the line style is taken
    cells = _long(rows, cells, "labels", MEMORIZED, "memorized")
    cells["out_of_budget"] = cells["swap_gap_out_of_budget"]
    plan = plan._replace(panels=axes, lines="labels")
    one = cells["n"].nunique() == 1
    label = "memorized points" + (f" (of {cells['n'].iloc[0]:,})" if one else "")
    figure = against_sparsity(cells, plan, "memorized", label, MARKS, alike=one)
    over = "over the rows" if (cells["networks"] > 1).any() else "over the pairs"
    caption = (
        "Points memorized under the mask, of the labels that it was found on (solid) "
        "and of fresh labels for the same inputs (dotted), from the same initial "
        f"weights; means {over}. Of a single row, means have no interval: their "
        f"difference has, above. {LOGARITHMIC}{marks_in_words(cells, MARKS)}"
    )
    return Drawing("Memorized of own and of swapped labels", figure, caption)


def _zero(axes: Axes, cells: pd.DataFrame) -> None:
    axes.axhline(0, zorder=1, **LEVEL)


# ---- The tables and the page


def _grids(rows: pd.DataFrame, measure: str) -> Iterator[Grid]:
    """For each n and noise the table of a gap."""
    cells = pruned(summary(rows)).dropna(subset=[measure])
    cells["text"] = [_entry(cell, measure) for _, cell in cells.iterrows()]
    return grids_of(rows, cells)


def _entry(cell: pd.Series[Any], measure: str) -> str:
    """The gap with its interval, as in ``120 (90.0 to 150)``."""
    low, high = (cell[f"{measure}_{end}"] for end in ("low", "high"))
    text = number(cell[measure])
    return f"{text} ({number(low)} to {number(high)})" if low == low else text


def _in_parentheses(rows: pd.DataFrame) -> str:
    known = summary(rows)["swap_gap_points_low"].notna().any()
    return "; in parentheses the interval's ends" if known else ""


def _headline(rows: pd.DataFrame) -> str:
    what = f"{counted(len(rows), 'data swaps')}: masks found on a data set, whose "
    what += "networks are retrained on it and on others. "
    what += f"Gaps: {shown(rows)}. Pruned by {pruned_by(pruned(rows))}. "
    flags = flagged(rows)[list(TROUBLES)]
    return f"{what}{axes_of(rows)}. {verdict(flags, 'data swaps', _FINE)}"


_FINE = "no mask collapsed, no training diverged or ran out of budget"
KIND: Kind = Kind(
    unit="data swaps",
    troubles=TROUBLES,
    fine=_FINE,
    flagged=flagged,
    summary=summary,
    draw=draw_swap,
    tables=TABLES,
    grids=_grids,
    heading=lambda rows: (
        "Points memorized of a mask's own labels less those of fresh labels, by "
        f"sparsity; {shown(rows)}"
    ),
    headline=_headline,
    entries=lambda rows: f"{shown(rows)}{_in_parentheses(rows)}",
    subject="data swaps ",
    shares=("collapsed_share",),
    card=lambda rows, name: blocks_of(
        KIND, rows, "swap_gap_points", "swap_gap_reinit_points"
    ),
)
