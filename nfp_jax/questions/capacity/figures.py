"""Memorization capacity: its searches summed up by medians, and their figures.

A row is one search for the largest n that a pruner's networks fit. Where the end of a
search is still fitted, or a training of the failure that ended it ran out of budget,
the capacity is only a lower bound. Such a value takes part in medians as it is; the
median, or the end of its interval, that would move if it were larger is then marked as
"at least".
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from nfp_jax.estimates import median_interval
from nfp_jax.pages.common import (
    Drawing,
    Plan,
    decades,
    empty_grid,
    finish,
    logarithmic,
    panels_of,
    plan_of,
    series_of,
)
from nfp_jax.pages.kind import Grid, Kind, grids_of, verdict
from nfp_jax.pages.looks import GUIDE, GUIDE_TEXT
from nfp_jax.pages.points import (
    BOTH_LOGARITHMIC,
    LOGARITHMIC,
    Mark,
    against_sparsity,
    draw_points,
    entries_of,
    marks_in_words,
    opened,
)
from nfp_jax.pages.pruners import dense, pruned
from nfp_jax.pages.sheet import with_seeds
from nfp_jax.pages.words import (
    CELL,
    axes_of,
    counted,
    in_order,
    line_of,
    medians_shown,
    networks_of,
    number,
    numbers,
    pruned_by,
    truth,
    values_of,
)

MEASURES = ("capacity", "capacity_bits", "capacity_bits_per_weight")
TROUBLES = {
    "collapsed": "end at a collapsed mask (no path from input to output is left, so "
    "the capacity is that of a constant function)",
    "diverged": "have a training that diverged (the loss is not finite)",
    "out_of_budget": "rest on trainings that ran out of budget, so the capacity may be "
    "higher",
    "at_least": "end with all n points fitted, or at a failure that ran out of budget, "
    "so the capacity is only a lower bound",
    "not_rising": "are of a sparsity whose median capacity is below that of the next "
    "higher one (the capacity does not rise with the weights kept)",
}
TABLES = {
    "capacity": "Memorization capacity in points",
    "capacity_bits_per_weight": "Bits a kept weight at the capacity",
}
MARKS = (
    Mark.hollow("collapsed or diverged", "collapsed", "diverged"),
    Mark.half("ran out of budget", "out_of_budget"),
)


def flagged(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with every measure as floats, and a boolean for each of `TROUBLES`."""
    rows = rows.assign(
        **{measure: numbers(rows, measure) for measure in MEASURES},
        collapsed=truth(rows, "collapsed"),
        diverged=truth(rows, "diverged"),
        out_of_budget=numbers(rows, "out_of_budget") > 0,
        at_least=truth(rows, "capacity_at_least"),
    )
    return rows.assign(not_rising=_not_rising(rows))


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a cell (`CELL`): every measure's median and interval over its searches.

    Columns: the cell, ``networks`` (how many searches), the number of them in each of
    `TROUBLES`, the mean of ``kept``, and for each of `MEASURES` its median under its
    own name, ``<measure>_low`` and ``<measure>_high`` (`median_interval`), and
    ``_open`` behind each of these three: whether it is at least that.
    """
    lines = []
    for cell, group in flagged(rows).groupby(list(CELL), dropna=False):
        line = line_of(cell, group)
        line["networks"] = len(group)
        line |= {trouble: int(group[trouble].sum()) for trouble in TROUBLES}
        line["kept"] = np.mean(numbers(group, "kept"))
        for measure in MEASURES:
            line |= _median(measure, group)
        lines.append(line)
    return in_order(pd.DataFrame(lines))


def shown(rows: pd.DataFrame) -> str:
    """What a number stands for: how many searches, and what the interval is."""
    return medians_shown(rows, "searches")


def draw_capacity(rows: pd.DataFrame) -> dict[str, Drawing]:
    """The figures of capacity by name."""
    if pruned(rows).empty:
        why = "No pruned network is on file."
        return {"capacity": Drawing(_AGAINST_SPARSITY, None, why)}
    plan, cells = plan_of(rows)._replace(over=shown(rows)), summary(rows)
    return {
        "capacity": _capacity(rows, cells, plan),
        "capacity_by_kept": _capacity_by_kept(rows, cells, plan),
        "capacity_bits_per_weight": _bits_per_weight(rows, cells, plan),
    }


# ---- Numbers

_AGAINST_SPARSITY = "Memorization capacity against sparsity"


def _median(measure: str, group: pd.DataFrame) -> dict[str, Any]:
    """The median and its interval's ends, and which of them are at least that."""
    values, open_ = group[measure].to_numpy(), group["at_least"].to_numpy()
    names = (measure, f"{measure}_low", f"{measure}_high")
    ends = median_interval(values)
    # Were those as large as can be of which only a lower bound is known.
    moved = median_interval(np.where(open_, 1e300, values))
    line: dict[str, Any] = dict(zip(names, ends, strict=True))
    for name, end, after in zip(names, ends, moved, strict=True):
        line[f"{name}_open"] = bool(after > end)
    return line


def _not_rising(rows: pd.DataFrame) -> np.ndarray:
    """The rows of cells whose median is below that of the next sparser cell.

    A median that is at least its value is below nothing.
    """
    flags = np.zeros(len(rows), bool)
    variants = [axis for axis in CELL if axis != "sparsity"]
    numbered = rows.assign(place=np.arange(len(rows)))
    for _, line in numbered.groupby(variants, dropna=False):
        cells = [
            (cell["place"].to_numpy(), _median("capacity", cell))
            for _, cell in line.groupby("sparsity")
        ]
        for (places, denser), (_, sparser) in itertools.pairwise(cells):
            below = denser["capacity"] < sparser["capacity"]
            flags[places] = below and not denser["capacity_open"]
    return flags


# ---- The figures


def _what(rows: pd.DataFrame) -> str:
    shares = ", ".join(f"{100 * share:.5g} %" for share in values_of(rows, "share"))
    return f"the largest n of whose labels at least {shares or 'the share asked for'}"


def _capacity(rows: pd.DataFrame, cells: pd.DataFrame, plan: Plan) -> Drawing:
    figure = against_sparsity(
        with_seeds(cells, rows, numbers(rows, "capacity")),
        plan,
        "capacity",
        "points",
        MARKS,
        finally_=functools.partial(_log, values=_ends(cells, "capacity")),
    )
    caption = (
        f"Memorization capacity: {_what(rows)} are fitted, the mask found anew at each "
        f"n that is tried. Shown: {plan.over}. {BOTH_LOGARITHMIC}"
        f"{_notes(cells, 'capacity')}{_dashed(cells)}"
    )
    return Drawing(_AGAINST_SPARSITY, figure, caption)


def _bits_per_weight(rows: pd.DataFrame, cells: pd.DataFrame, plan: Plan) -> Drawing:
    title, measure = "Bits a kept weight against sparsity", "capacity_bits_per_weight"
    if not np.isfinite(pruned(cells)[measure]).any():
        return Drawing(title, None, "No bits are on file: the labels are not noise.")
    seeds = with_seeds(cells, rows, numbers(rows, measure))
    figure = against_sparsity(seeds, plan, measure, "bits a kept weight", MARKS)
    for axes in figure.axes:
        axes.set_ylim(bottom=-0.03 * axes.get_ylim()[1])
    caption = (
        "Bits of labels that the network holds at its capacity, divided by the "
        f"weights that its mask keeps. Shown: {plan.over}. {LOGARITHMIC}"
        f"{_notes(cells, measure)}{_dashed(cells)}"
    )
    return Drawing(title, figure, caption)


def _capacity_by_kept(rows: pd.DataFrame, cells: pd.DataFrame, plan: Plan) -> Drawing:
    title = "Memorization capacity against the weights kept"
    if not (cells["kept"] > 0).any():
        return Drawing(title, None, "No mask on file keeps a weight.")
    panels = panels_of(with_seeds(cells, rows, numbers(rows, "capacity")), plan)
    figure, grid = empty_grid(len(panels), sharey=True)
    ends = _ends(cells, "capacity")
    for axes, (name, panel) in zip(grid, panels, strict=True):
        for look, line, group in series_of(panel, plan):
            x, style = group["kept"].to_numpy(), look.style(line)
            style |= {"marker": look.dot()["marker"]}
            draw_points(axes, x, group, "capacity", style, MARKS)
        axes.set_title(name)
        axes.set_xscale("log")
        _log(axes, panel, values=ends)
        decades(axes.xaxis, cells["kept"], room=1.5)
    for axes in grid:  # now that the limits of a shared scale are known
        _guides(axes, cells)
    entries = entries_of(cells, "capacity", MARKS)
    entries = [("points a weight", GUIDE), *entries]
    finish(figure, cells, plan, "weights kept", "points", entries, dots=True)
    caption = (
        f"Memorization capacity, {_what(rows)} are fitted, against the prunable "
        "weights that the mask keeps. Thin lines: so many points a weight as stands at "
        f"them. Shown: {plan.over}. Both scales are logarithmic."
        f"{_notes(cells, 'capacity')}"
    )
    return Drawing(title, figure, caption)


def _guides(axes: Axes, cells: pd.DataFrame) -> None:
    """Lines of points = c × weights, c a power of ten, with c at their right end."""
    kept, points = cells["kept"].to_numpy(), _ends(cells, "capacity")
    kept, points = kept[kept > 0], points[points > 0]
    if not (kept.size and points.size):
        return
    x = np.geomspace(kept.min(), kept.max(), 50)
    low, high = axes.get_ylim()
    low = max(low, points.min() / 2)  # where 0 has a place, not down to it
    for power in range(-6, 7):
        y = 10.0**power * x
        within = (low <= y) & (y <= high / 1.05)
        if within.any():
            place = 1.08 * x[within][-1], y[within][-1]
            axes.plot(x[within], y[within], zorder=0, **GUIDE)
            axes.text(*place, f"{10.0**power:g}", va="center", **GUIDE_TEXT)


def _log(axes: Axes, cells: pd.DataFrame, values: Any) -> None:
    logarithmic(axes, values)


def _ends(cells: pd.DataFrame, measure: str) -> Any:
    return cells[[measure, f"{measure}_low", f"{measure}_high"]].to_numpy()


_AT_LEAST = (
    "a search ended with all its points fitted, or at a failure that ran out of budget"
)


def _notes(cells: pd.DataFrame, measure: str) -> str:
    text = marks_in_words(cells, MARKS)
    if opened(cells, measure).any():
        text += f" Arrow: {_AT_LEAST}, so the value where the arrow begins is only a "
        text += "lower bound."
    return text


def _dashed(cells: pd.DataFrame) -> str:
    across = dense(cells)
    band = ", its interval in gray" if (across["networks"] > 1).any() else ""
    return "" if across.empty else f" Dashed: the dense network{band}."


# ---- The tables and the page


def _grids(rows: pd.DataFrame, measure: str) -> Iterator[Grid]:
    """For each n and noise the table of a measure."""
    cells = summary(rows).dropna(subset=[measure])
    cells["text"] = [_entry(cell, measure) for _, cell in cells.iterrows()]
    return grids_of(rows, cells)


def _entry(cell: pd.Series[Any], measure: str) -> str:
    """The median with its interval, as in ``1,200 [900-≥1,500]``."""
    names = (measure, f"{measure}_low", f"{measure}_high")
    whole = measure == "capacity"
    median, low, high = (
        ("≥" if cell[f"{name}_open"] else "")
        + (_points(cell[name]) if whole else number(cell[name]))
        for name in names
    )
    if np.isnan(cell[names[1]]) or cell[f"{names[1]}_open"]:
        return median  # of one search, or of searches that are all still fitted
    return f"{median} [{low}-{high}]"


def _points(x: float) -> str:
    return f"{x:,.0f}" if x % 1 == 0 or not x < 100 else f"{x:,.1f}"


def _in_brackets(rows: pd.DataFrame) -> str:
    several = networks_of(rows)[1] > 1
    return "; in brackets the interval's ends" if several else ""


def _headline(rows: pd.DataFrame) -> str:
    what = f"{counted(len(rows), 'searches')} for the memorization capacity, "
    what += f"{_what(rows)} are fitted; n is the end of the search. "
    if not pruned(rows).empty:
        what += f"Pruned by {pruned_by(pruned(rows))}. "
    flags = flagged(rows)[list(TROUBLES)]
    return f"{what}{axes_of(rows)}. {verdict(flags, 'searches', _FINE)}"


_FINE = (
    "no search ended at a collapsed mask, diverged, ran out of budget or was still "
    "fitted at its end, and the capacity rises with the weights kept"
)
KIND = Kind(
    unit="searches",
    troubles=TROUBLES,
    fine=_FINE,
    flagged=flagged,
    summary=summary,
    draw=draw_capacity,
    tables=TABLES,
    grids=_grids,
    heading=lambda rows: (
        f"Memorization capacity in points by sparsity; {shown(rows)}; ≥: at least"
    ),
    headline=_headline,
    entries=lambda rows: (
        f"{shown(rows)}{_in_brackets(rows)}; ≥: a lower bound, since {_AT_LEAST}"
    ),
    subject="searches ",
)
