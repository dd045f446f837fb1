"""Bars from a lower to an upper end, moved sideways so that none hides another.

A cell's line has ``<measure>_lower`` and ``<measure>_upper``. Where the upper end is
infinite, an arrow goes up from the lower one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nfp_jax.pages.common import (
    Plan,
    empty_grid,
    finish,
    series_of,
    sparsity_axis,
    ticks,
)
from nfp_jax.pages.looks import OPEN, OPEN_CENTERED, Look
from nfp_jax.pages.points import GRAY, Marks, marked, notes_of
from nfp_jax.pages.pruners import dense, pruned
from nfp_jax.pages.sheet import cell_lines, show

EXACT: dict[str, Any] = {"color": "black", "marker": "_", "ls": "", "mew": 1.6}
SIDEWAYS = (
    "The scale is logarithmic in the share kept; bars are moved sideways, so as not to "
    "hide each other."
)
BOTH_LOGARITHMIC = (
    "Both scales are logarithmic, that of sparsity in the share kept; bars are moved "
    "sideways, so as not to hide each other."
)


class Along(NamedTuple):
    """Where a cell lies sideways, and how the axis tells it."""

    column: str
    label: str
    place: Callable[[Any], Any]
    mark: Callable[[Axes, Any, float], None]  # of the values, and a label's room


def _mark_n(axes: Axes, values: Any, room: float) -> None:
    ticks(axes, np.log10(values), [f"{n:,}" for n in values], room)


BY_SPARSITY = Along(
    "sparsity", "weights removed (%)", lambda s: -np.log10(1 - s), sparsity_axis
)
BY_N = Along("n", "n, points of the training set", np.log10, _mark_n)


def by_kept(cells: pd.DataFrame) -> Along:
    """`BY_SPARSITY`, whose ticks tell the weights kept too, below the share removed."""
    means: Any = pruned(cells).groupby("sparsity")["kept"].mean()

    def mark(axes: Axes, sparsities: Any, room: float) -> None:
        labels = []
        for sparsity in sparsities:
            kept = float(means[sparsity])
            below = f"{kept:,.0f}" if np.isfinite(kept) else ""
            labels.append(f"{100 * sparsity:.5g}\n{below}")
        # 1.5: "25,200" is so much longer than "99.5"
        ticks(axes, BY_SPARSITY.place(sparsities), labels, 1.5 * room)

    return BY_SPARSITY._replace(label="weights removed (%)\nweights kept", mark=mark)


class Behind(NamedTuple):
    """A level behind a group of bars: a column, its name and its style."""

    column: str
    label: str
    style: dict[str, Any]


class Bars(NamedTuple):
    """What the bars of a figure are of, and what is drawn with them."""

    measure: str
    label: str
    scale: Callable[[Axes], None] = lambda axes: None
    behind: Behind | None = None
    exact: str = ""  # a column of exact values
    marks: Marks = ()


def draw_bars(
    cells: pd.DataFrame,
    plan: Plan,
    panels: list[tuple[str, pd.DataFrame]],
    along: Along,
    bars: Bars,
    *,
    alike: bool = True,
) -> Figure:
    """The figure of the cells' bars; the dense network has lines across, at its ends.

    ``panels`` are titles and cells; ``alike``: they share the scale of y.
    """
    figure, grid = empty_grid(len(panels), sharey=alike)
    values = np.array(sorted(set(pruned(cells)[along.column])))
    places = along.place(values)
    gap = 0.8 * np.diff(places).min() if len(places) > 1 else 1.0
    size = 3 if len(panels) > 2 else 4  # of markers, in points
    for axes, (title, panel) in zip(grid, panels, strict=True):
        if bars.behind:
            levels = panel.groupby(along.column)[bars.behind.column].mean()
            _level(axes, levels, along, gap, bars.behind.style)
        across = dense(panel)
        for end in ("lower", "upper"):
            y = across[f"{bars.measure}_{end}"]
            show(axes, np.nan, y, bars_of(across, bars), "black")
        for _, cell in across.iterrows():
            for end in ("lower", "upper"):
                axes.axhline(cell[f"{bars.measure}_{end}"], color="black", ls="--")
        lines = list(series_of(pruned(panel), plan))
        for i, (look, _, line) in enumerate(lines):
            x = along.place(line[along.column].to_numpy())
            x += gap * ((i + 0.5) / len(lines) - 0.5)
            draw_ends(axes, x, line, bars, look, size)
        axes.set_title(title)
        bars.scale(axes)
        axes.yaxis.set_major_formatter("{x:,g}")
        along.mark(axes, values, 0.16 if len(panels) > 1 else 0.09)
    return finish(
        figure, cells, plan, along.label, bars.label, entries_of_bars(cells, bars)
    )


def bars_of(cells: pd.DataFrame, bars: Bars) -> pd.DataFrame:
    """The lines of cells for `show`: both ends, the exact value where it is known."""
    ends = (cells[f"{bars.measure}_{end}"].to_numpy() for end in ("lower", "upper"))
    low, high = ends
    value = cells[bars.exact].to_numpy(dtype=float) if bars.exact else np.nan
    notes = notes_of(cells, bars.marks)
    return cell_lines(
        cells, measure=bars.measure, value=value, low=low, high=high, notes=notes
    )


def draw_ends(
    axes: Axes, x: Any, cells: pd.DataFrame, bars: Bars, look: Look, size: int
) -> None:
    """Draws the cells' bars at x, with their ends, marks and exact values.

    ``size`` is that of the ends, in points.
    """
    ends = (f"{bars.measure}_{end}" for end in ("lower", "upper"))
    low, high = (cells[end].to_numpy(dtype=float) for end in ends)
    above = np.isposinf(high)
    high = np.where(above, np.nan, high)
    axes.vlines(x, low, high, color=look.color, lw=size / 2.5)
    for y in (low, high):
        axes.plot(x, y, ms=size, **look.style(""))
        for mark, where in marked(cells, bars.marks):
            axes.plot(x[where], y[where], ms=size, **(look.style("") | mark.style))
    if above.any():
        axes.plot(x[above], low[above], color=look.color, **OPEN)
    show(axes, x, low, bars_of(cells, bars), look.color, bar=True)
    if bars.exact:
        axes.plot(x, cells[bars.exact], zorder=3, ms=2 * size, **EXACT)


def _level(
    axes: Axes, levels: pd.Series[Any], along: Along, gap: float, style: dict[str, Any]
) -> None:
    """A line where the levels are all alike, else one behind each group of bars."""
    levels = levels.dropna()
    places = along.place(levels.index.to_numpy())
    if levels.empty:
        return
    if np.isclose(levels.min(), levels.max()):
        axes.axhline(levels.iloc[0], **style)
    else:
        axes.hlines(levels, places - gap / 2, places + gap / 2, **style)


def entries_of_bars(
    cells: pd.DataFrame, bars: Bars
) -> list[tuple[str, dict[str, Any]]]:
    """What the legend says beside the pruners."""
    entries = []
    if bars.behind and np.isfinite(cells[bars.behind.column]).any():
        entries.append((bars.behind.label, bars.behind.style))
    if bars.exact and np.isfinite(cells[bars.exact]).any():
        entries.append(("exact", EXACT))
    for mark, where in marked(cells, bars.marks):
        if where.any():
            entries.append((mark.what, GRAY | mark.style))
    if np.isposinf(pruned(cells)[f"{bars.measure}_upper"]).any():
        entries.append(("no upper end", {"color": "#555555", **OPEN_CENTERED}))
    return entries
