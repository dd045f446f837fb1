"""Points with their intervals, the marks of what befell them, and their figures.

A cell's line has ``<measure>``, ``<measure>_low`` and ``<measure>_high`` (NaN: no
interval), and perhaps ``<measure>_open`` and ``<measure>_high_open``: True where the
value, or the interval's upper end, is only a lower bound. Of several marks a cell has
the worst alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nfp_jax.pages.common import (
    Plan,
    empty_grid,
    finish,
    panels_of,
    series_of,
    sparsity_axis,
)
from nfp_jax.pages.looks import BARS, OPEN, OPEN_CENTERED
from nfp_jax.pages.pruners import dense, pruned
from nfp_jax.pages.sheet import cell_lines, show

GRAY: dict[str, Any] = {"color": "#555555", "marker": "o", "ls": ""}
LOGARITHMIC = (
    "The scale is logarithmic in the share kept; markers are moved sideways a little, "
    "so as not to hide each other."
)
BOTH_LOGARITHMIC = (
    "Both scales are logarithmic, that of sparsity in the share kept; markers are "
    "moved sideways a little, so as not to hide each other."
)


class Mark(NamedTuple):
    """What befell at least one network of a cell, and how its marker tells it."""

    what: str
    troubles: tuple[str, ...]  # columns that count the networks
    style: dict[str, Any]
    word: str

    @classmethod
    def hollow(cls, what: str, *troubles: str) -> Mark:
        """A hollow marker."""
        return cls(what, troubles, {"mfc": "white"}, "Hollow")

    @classmethod
    def half(cls, what: str, *troubles: str) -> Mark:
        """A half-filled marker."""
        style = {"fillstyle": "left", "mfcalt": "white"}
        return cls(what, troubles, style, "Half-filled")


Marks = Sequence[Mark]  # the worst first


def marked(cells: pd.DataFrame, marks: Marks) -> list[tuple[Mark, np.ndarray]]:
    """The marks, the worst last, each with the cells where no worse one is."""
    found, free = [], np.ones(len(cells), bool)
    for mark in marks:
        counts = [cells[trouble].to_numpy() for trouble in mark.troubles]
        where = np.any([count > 0 for count in counts], axis=0) & free
        found.append((mark, where))
        free &= ~where
    return found[::-1]


def marks_in_words(cells: pd.DataFrame, marks: Marks) -> str:
    """What the marks of these cells mean, for a caption."""
    return "".join(
        f" {mark.word}: at least one of the networks {mark.what}."
        for mark, where in marked(cells, marks)
        if where.any()
    )


def entries_of(
    cells: pd.DataFrame, measure: str, marks: Marks
) -> list[tuple[str, dict[str, Any]]]:
    """What the legend says of the marks of these cells."""
    entries = [
        (mark.what, GRAY | mark.style)
        for mark, where in marked(pruned(cells), marks)
        if where.any()
    ]
    if opened(cells, measure).any():
        entries.append(("at least", {"color": "#555555", **OPEN_CENTERED}))
    return entries


def opened(cells: pd.DataFrame, measure: str) -> np.ndarray:
    """The cells whose value, or upper end, is known to be at least that."""
    where = np.zeros(len(cells), bool)
    for name in (f"{measure}_open", f"{measure}_high_open"):
        where |= cells.get(name, pd.Series(False, cells.index)).to_numpy(dtype=bool)
    return where


def points_of(cells: pd.DataFrame, measure: str, marks: Marks = ()) -> pd.DataFrame:
    """The lines of cells for `show`: value, interval, and what befell networks."""
    ends = {name: cells[f"{measure}_{name}"].to_numpy() for name in ("low", "high")}
    return cell_lines(
        cells,
        measure=measure,
        value=cells[measure].to_numpy(),
        **ends,
        at_least=opened(cells, measure),
        notes=notes_of(cells, marks),
    )


def notes_of(cells: pd.DataFrame, marks: Marks) -> list[str]:
    """Of each cell what befell its networks, as in ``2 ran out of budget``."""
    counts = {
        mark.what: cells[list(mark.troubles)].max(axis=1).to_numpy() for mark in marks
    }
    return [
        ", ".join(f"{each[i]:g} {what}" for what, each in counts.items() if each[i] > 0)
        for i in range(len(cells))
    ]


def draw_points(
    axes: Axes,
    x: Any,
    cells: pd.DataFrame,
    measure: str,
    style: dict[str, Any],
    marks: Marks,
) -> None:
    """Draws a line of points at x, with their intervals and marks."""
    columns = (measure, f"{measure}_low", f"{measure}_high")
    y, low, high = (cells[name].to_numpy(dtype=float) for name in columns)
    axes.errorbar(x, y, np.maximum([y - low, high - y], 0), **BARS, **style)
    show(axes, x, y, points_of(cells, measure, marks), style["color"])
    for mark, where in marked(cells, marks):
        if where.any():
            options = {**style, "ls": ""} | mark.style
            axes.plot(x[where], y[where], zorder=3, **options)
    where = opened(cells, measure)
    if where.any():
        axes.plot(x[where], np.fmax(y, high)[where], color=style["color"], **OPEN)


def against_sparsity(
    cells: pd.DataFrame,
    plan: Plan,
    measure: str,
    ylabel: str,
    marks: Marks = (),
    *,
    alike: bool = True,
    columns: int | None = None,
    finally_: Callable[[Axes, pd.DataFrame], None] = lambda axes, cells: None,
) -> Figure:
    """The figure of a measure against sparsity; the dense network is a line across.

    ``alike``: panels share the scale of y. ``finally_`` gets each panel's axes and
    cells when all is drawn.
    """
    panels = panels_of(cells, plan)
    figure, grid = empty_grid(len(panels), sharey=alike, columns=columns)
    sparsities = np.array(sorted(set(pruned(cells)["sparsity"])))
    places = -np.log10(1 - sparsities)
    gap = min(0.06 * (np.ptp(places) or 1), 0.5 * np.diff(places, append=np.inf).min())
    for axes, (title, panel) in zip(grid, panels, strict=True):
        _across(axes, dense(panel), measure)
        lines = list(series_of(pruned(panel), plan))
        for i, (look, line, group) in enumerate(lines):
            x = -np.log10(1 - group["sparsity"].to_numpy())
            x += gap * ((i + 0.5) / len(lines) - 0.5)
            draw_points(axes, x, group, measure, look.style(line), marks)
        axes.set_title(title)
        axes.yaxis.set_major_formatter("{x:,g}")
        sparsity_axis(axes, sparsities, 0.16 if len(panels) > 1 else 0.09)
    for axes, (_, panel) in zip(grid, panels, strict=True):
        finally_(axes, panel)  # now that the limits of a shared scale are known
    entries = entries_of(cells, measure, marks)
    return finish(figure, cells, plan, "weights removed (%)", ylabel, entries)


def _across(axes: Axes, cells: pd.DataFrame, measure: str) -> None:
    """A line across for each dense cell, its interval as a band."""
    at_least = opened(cells, measure)
    y = cells[measure].to_numpy(dtype=float)
    show(axes, np.nan, y, points_of(cells, measure), "black")
    for (_, cell), open_ in zip(cells.iterrows(), at_least, strict=True):
        y, low, high = (cell[f"{measure}{end}"] for end in ("", "_low", "_high"))
        axes.axhline(y, color="black", ls="--")
        axes.axhspan(low, high, color="black", alpha=0.08, lw=0)
        if open_:
            right = axes.get_yaxis_transform()  # x as a share of the axis
            axes.plot(0.98, np.fmax(y, high), color="black", transform=right, **OPEN)
