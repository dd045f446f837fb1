"""What every figure shares: panels, legends, scales and the SVG.

Depends on `nfp_jax.results` alone. Of rows it knows their coordinates and nothing that
only one kind of rows has. Sparsities lie on a logarithmic scale of the share *kept*,
since 0.9 to 0.98 is a factor of 5 in weights.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from nfp_jax.pages.looks import LINES, RC, Look
from nfp_jax.pages.pruners import DENSE, looks_of, pruned, pruners_of
from nfp_jax.pages.sheet import Sheet
from nfp_jax.pages.words import in_words, shown, varying


class Drawing(NamedTuple):
    """A figure, its title and caption; without a figure, the caption says why."""

    title: str
    figure: Figure | None
    caption: str


def svg(figure: Figure, name: str) -> str:
    """The figure as an ``<svg>`` element: from the same figure, the same bytes.

    Its ids begin with ``name``, so that several fit into one page. Where things lie is
    settled by the first call, so that other formats need not do it again.
    """
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.style.context(["default", RC, {"svg.hashsalt": name}]):
        figure.savefig(file, format="svg", metadata=nothing)
    figure.set_layout_engine("none")
    text = file.getvalue()
    text = text[text.index("<svg") :]  # a page has no place for the XML declaration
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # nothing refers to these
    # Hundredths of a point are enough; scales and opacities are below 1.
    text = re.sub(r"(?<![\d.])([1-9]\d*\.\d\d)\d+", r"\1", text)
    text = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    return compact(text)


# Bitstream Vera and Verdana are as wide as DejaVu, by which texts were placed.
FONT = "DejaVu Sans, Bitstream Vera Sans, Verdana, sans-serif"


def compact(text: str) -> str:
    r"""The same figure in about half the bytes: no bare groups, comments or indents.

    >>> figure = '<svg a="1">\n <g>\n  <g x="1">\n   <path d="M 1 2 \nL 3 4 \nz"/>'
    >>> small = compact(figure + '\n  </g>\n </g>\n</svg>')
    >>> small.removeprefix(f'<svg font-family="{FONT}"')
    ' a="1"><g x="1"><path d="M1 2L3 4z"/></g></svg>'
    """
    text = re.sub(r"<!--.*?-->|^\s+|(?<=>)\s+(?=<)", "", text, flags=re.S | re.M)
    text = text.replace("<svg", f'<svg font-family="{FONT}"', 1)
    text = re.sub(
        r"font: ([^;\"]*?)([\d.]+px) [^;\"]*", r"font-weight: \1; font-size: \2", text
    )
    text = text.replace("font-weight: ; ", "")
    text = re.sub(r'(?<= d=")[^"]*', lambda found: _path(found[0]), text)
    parts: list[str] = []
    open_: list[bool] = []  # whether each group that is open was kept
    for part in re.split(r"(<g\b[^>]*>|</g>)", text):
        if part.endswith("/>") and part.startswith("<g"):  # there is nothing in it
            part = ""
        elif part == "</g>":
            part = part if open_.pop() else ""
        elif part.startswith("<g"):
            open_.append(part != "<g>")
            part = part if open_[-1] else ""
        parts.append(part)
    return "".join(parts)


def _path(text: str) -> str:
    """The same path, with no more spaces than it needs.

    One of many straight lines goes on from point to point in tenths of a point, whose
    roundings don't add up.
    """
    text = " ".join(text.split())
    if text.count("L") < 16 or re.search("[^MLz0-9. -]", text):
        return re.sub(r"\s*([A-Za-z])\s*", r"\1", text)
    written, last, before = [], (0, 0), ""
    for step in re.findall(r"[MLz][^MLz]*", text):
        if step[0] == "z":
            written.append("z")
            continue
        x, y = (round(10 * float(z)) for z in step[1:].split())
        moved = (x, y) if step[0] == "M" else (x - last[0], y - last[1])
        name = {"MM": "M", "ML": "l", "LM": "M"}.get(before + step[0], " ")
        name = name if before else "M"
        written.append(f"{name}{moved[0] / 10:g} {moved[1] / 10:g}")
        last, before = (x, y), step[0]
    text = re.sub(r"(?<![\d.])(-?)0\.", r"\1.", "".join(written))
    return text.replace(" -", "-")


# ---- What lines, colors and panels stand for


class Plan(NamedTuple):
    """The same in all figures of a page."""

    looks: dict[str, Look]
    panels: list[str]  # axes with a panel for each value
    lines: str | None  # the axis that the line style tells
    over: str
    styles: Mapping[str, str] = LINES  # by value; all others are solid


def plan_of(rows: pd.DataFrame) -> Plan:
    """What a page's figures have in common, from all of its rows."""
    axes = varying(rows)
    lines = next((x for x in ("resume", "ablation", "select") if x in axes), None)
    return Plan(looks_of(rows), [x for x in axes if x != lines], lines, shown(rows))


def panels_of(
    rows: pd.DataFrame, plan: Plan, *, by_sparsity: bool = False
) -> list[tuple[str, pd.DataFrame]]:
    """Titles and rows of the panels; a dense network is in all of its n and noise.

    By sparsity: one for each of up to six sparsities or, where panels stand for other
    axes, each at its highest sparsity.
    """
    panels: list[tuple[str, pd.DataFrame]] = [("", rows)]
    for axis in plan.panels:
        panels = _split(panels, axis, lambda values: values)
    if not by_sparsity:
        return panels
    most = 1 if plan.panels else 6
    return _split(panels, "sparsity", lambda values: spread(values, most))


def _split(
    panels: list[tuple[str, pd.DataFrame]],
    axis: str,
    choose: Callable[[list[Any]], list[Any]],
) -> list[tuple[str, pd.DataFrame]]:
    parts = []
    for title, rows in panels:
        dense = rows["pruner"] == DENSE
        for value in choose(sorted(set(rows.loc[~dense, axis]))):
            shared = axis not in ("n", "noise") and dense
            words = in_words(axis, value).replace(" ", "\N{NO-BREAK SPACE}")
            name = ", ".join(filter(None, (title, words)))
            parts.append((name, rows[(rows[axis] == value) | shared]))
    return parts


def spread(values: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the values, evenly spread, the last among them."""
    if len(values) <= most:
        return list(values)
    places = np.linspace(len(values) - 1, 0, most).round().astype(int)
    return [values[i] for i in sorted(places)]


def series_of(
    rows: pd.DataFrame, plan: Plan
) -> Iterator[tuple[Look, Any, pd.DataFrame]]:
    """A panel's lines in the legend's order: look, line style and rows."""
    by_pruner = dict(iter(rows.groupby("pruner")))
    for pruner in pruners_of(rows):
        mine = by_pruner[pruner]
        if pruner == DENSE or plan.lines is None:
            yield plan.looks[pruner], "--" if pruner == DENSE else "-", mine
        else:
            for value, group in mine.groupby(plan.lines):
                yield plan.looks[pruner], plan.styles.get(str(value), "-"), group


def empty_grid(
    panels: int, *, sharey: bool, columns: int | None = None
) -> tuple[Figure, list[Axes]]:
    """An empty figure of so many panels, with room for a legend on the right."""
    columns = columns or {1: 1, 2: 2, 4: 2}.get(panels, 3)
    lines = -(-panels // columns)
    width, height = (4.4, 3.3) if panels == 1 else (2.5 * columns, 2.2 * lines + 0.2)
    figure = Sheet(figsize=(width + 1.9, height), layout="constrained")
    grid = figure.subplots(lines, columns, sharey=sharey, squeeze=False).ravel()
    for axes in grid[panels:]:
        axes.remove()
    return figure, list(grid[:panels])


def finish(
    figure: Figure,
    rows: pd.DataFrame,
    plan: Plan,
    xlabel: str,
    ylabel: str,
    entries: Sequence[tuple[str, dict[str, Any]]] = (),
    *,
    dots: bool = False,
) -> Figure:
    """Labels the outer axes; says beside the panels what colors and lines mean.

    ``entries`` are the legend's last ones, each a label and its line's options. With
    ``dots``, pruners have markers that no line joins.
    """
    label_outer(figure, xlabel, ylabel)
    legend = []
    for pruner in pruners_of(rows):
        look = plan.looks[pruner]
        style = look.style("--" if pruner == DENSE else "-")
        legend.append((look.label, look.dot() if dots else style))
    for value in sorted(set(pruned(rows)[plan.lines])) if plan.lines else []:
        style = {"color": "#555555", "ls": plan.styles.get(str(value), "-")}
        legend.append((in_words(str(plan.lines), value), style))
    return explain(figure, [*legend, *entries])


def label_outer(figure: Figure, xlabel: str, ylabel: str) -> None:
    """Labels the outer axes, and breaks titles that are long."""
    for axes in figure.axes:
        spec: Any = axes.get_subplotspec()  # never None: `empty_grid` made it
        if spec.is_first_col():
            axes.set_ylabel(ylabel)
        if spec.num1 + spec.get_gridspec().ncols >= len(figure.axes):
            axes.set_xlabel(xlabel)
        axes.set_title(textwrap.fill(axes.get_title(), 30))


def explain(figure: Figure, entries: Sequence[tuple[str, dict[str, Any]]]) -> Figure:
    """Writes the legend beside the panels: labels, and options of their lines."""
    legend = [(label, style) for label, style in entries if label]
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, max(height, 0.205 * len(legend) + 0.1))
    figure.legend(
        [Line2D([], [], **style) for _, style in legend],
        [label for label, _ in legend],
        loc="outside right upper",
        handlelength=2.4,
    )
    return figure


# ---- Scales


def sparsity_axis(axes: Axes, sparsities: Any, room: float) -> None:
    """A tick at each sparsity; a label, from the highest on, where there is room."""
    labels = [f"{100 * sparsity:.5g}" for sparsity in sparsities]
    ticks(axes, -np.log10(1 - sparsities), labels, room)


def ticks(axes: Axes, places: Any, labels: Sequence[str], room: float) -> None:
    """A tick at each place; a label, from the last on, where there is room.

    ``room`` is what a label takes, as a share of the way from first to last place.
    """
    texts: list[str] = []
    last = np.inf
    for place, label in zip(places[::-1], labels[::-1], strict=True):
        fits = last - place >= room * np.ptp(places)
        last = place if fits else last
        texts.append(label if fits else "")
    axes.set_xticks(places, texts[::-1])


def log_x(axes: Axes, values: Any, *, room: float) -> None:
    """A logarithmic scale of x from end to end of the values; ``room``: `decades`."""
    values = _finite(values, above=0)
    low, high = values.min(), values.max()
    wider = max(1.1, (high / low) ** 0.05)
    axes.set_xlim(low / wider, high * wider)  # first: curves may be NaN throughout
    axes.set_xscale("log")
    decades(axes.xaxis, values, room=room)


def decades(axis: Axis, values: Any, *, room: float = 3) -> None:
    """Ticks of a logarithmic axis, at 1, 2 and 5; beyond so many decades at 1 alone."""
    values = _finite(values, above=0)
    wide = values.size and np.log10(values.max() / values.min()) > room
    axis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_formatter(NullFormatter())


def ticks_within(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two numbers; 1 alone beyond 3 decades.

    >>> ticks_within(8, 120)
    [10.0, 20.0, 50.0, 100.0]
    """
    first, last = np.floor(np.log10([low, high])).astype(int)
    steps = (1, 2, 5) if high <= 1000 * low else (1,)
    places = [
        step * 10.0 ** int(power) for power in range(first, last + 1) for step in steps
    ]
    return [place for place in places if low <= place <= high]


def zero_and_decades(axes: Axes, values: Any, *, room: float = 0.3) -> np.ndarray:
    """A logarithmic scale of y for the values, linear near 0, so that 0 is seen.

    Returns the powers of ten that have a tick; below the first it is linear. ``room``
    is the height of the linear part, in decades.
    """
    values = _finite(values, above=0)
    low, high = np.log10([values.min(), values.max()]) if values.size else (0, 0)
    last = max(np.floor(high), np.floor(low) + 1)
    places = 10.0 ** np.arange(np.floor(low), last + 1)
    axes.set_yscale("symlog", linthresh=places[0], linscale=room)
    axes.set_yticks([0, *places])
    axes.yaxis.set_major_formatter("{x:,g}")
    return np.asarray(places)


def logarithmic(axes: Axes, values: Any) -> None:
    """A logarithmic scale of y from end to end of the values.

    Where one of them is 0, the scale has a place for it, and is linear near it.
    """
    positive = _finite(values, above=0)
    if (_finite(values) <= 0).any() or not positive.size:
        low = zero_and_decades(axes, values)[0]
        high = positive.max(initial=low)
        bottom = -0.5 * low
    else:
        axes.set_yscale("log")
        decades(axes.yaxis, values)
        low, high = positive.min(), positive.max()
        bottom = low / max(1.1, (high / low) ** 0.06)
    axes.set_ylim(bottom, high * max(1.1, (high / low) ** 0.06))


def _finite(values: Any, above: float = -np.inf) -> np.ndarray:
    values = np.asarray(values, dtype=float).ravel()
    return values[np.isfinite(values) & (values > above)]


def chosen(rows: pd.DataFrame, plan: Plan, panels: list[Any]) -> str:
    """Which sparsities a figure with a panel for each has left out."""
    drawn, all_ = len(panels), pruned(rows)["sparsity"].nunique()
    if plan.panels:
        return "Each panel shows its highest sparsity. " if all_ > 1 else ""
    return f"{drawn} of the {all_} sparsities have a panel. " if drawn < all_ else ""
