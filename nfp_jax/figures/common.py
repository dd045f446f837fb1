"""What every figure shares: pruners' looks, panels, legends, means and the SVG.

Depends on `nfp_jax.results` alone. Of rows it knows their coordinates and nothing that
only one question's rows have. What would surprise: sparsities lie on a logarithmic
scale of the share *kept*, since 0.9 to 0.98 is a factor of 5 in weights.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import special

from nfp_jax.results import COORDINATES

CELL = COORDINATES[:7]  # all but the seeds


class Look(NamedTuple):
    """How a pruner looks, in every figure."""

    label: str
    color: str
    marker: str

    def style(self, line: str) -> dict[str, Any]:
        """The look as matplotlib's options, with a line style."""
        return {"color": self.color, "marker": self.marker, "ls": line}


# In the order of legends and tables. Okabe and Ito's colors, which color-blind readers
# can tell apart; a user's own pruners come after, in Paul Tol's muted ones.
LOOKS = {
    "dense": Look("dense", "black", ""),
    "random": Look("random", "#8a8a8a", "o"),
    "magnitude_init": Look("magnitude at init", "#e69f00", "s"),
    "snip": Look("SNIP", "#56b4e9", "^"),
    "grasp": Look("GraSP", "#009e73", "v"),
    "synflow": Look("SynFlow", "#cc79a7", "D"),
    "magnitude_trained": Look("magnitude after training", "#0072b2", "P"),
    "imp": Look("IMP", "#d55e00", "X"),
}
OWN_COLORS = ("#882255", "#999933", "#332288", "#44aa99", "#661100", "#aa4499")
OWN_MARKERS = "ph<>*d"
LINES = {"finetune": ":", "per_layer": ":", "erk": "-.", "shuffle": ":"}
LINES |= {"reinitialize": "-.", "invert": "--"}  # all others solid


BARS: dict[str, Any] = {"elinewidth": 0.9, "capsize": 1.8}
RC = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 5.5,
    "svg.fonttype": "path",  # looks the same where the font is missing
    "text.parse_math": False,  # a "$" in a name is a "$"
}


def mean_interval(values: Any, confidence: float = 0.95) -> tuple[Any, Any]:
    """Mean over the first axis and half-width of its Student-t interval.

    Half-width ``t * s / sqrt(k)`` with k values, s their standard deviation (k - 1 in
    the denominator) and t the quantile for k - 1 degrees of freedom. What is not finite
    is left out; one value has no interval (NaN), none has no mean either.

    >>> mean, half_width = mean_interval([1.0, 2.0, 3.0])
    >>> f"{mean:.3f} ± {half_width:.3f}"
    '2.000 ± 2.484'
    """
    x = np.asarray(values, dtype=float)
    here = np.isfinite(x)
    k = here.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(here, x, 0).sum(axis=0) / k
        squares = np.where(here, (x - mean) ** 2, 0).sum(axis=0)
        error = np.sqrt(squares / (k - 1) / k)
        half_width = special.stdtrit(k - 1, (1 + confidence) / 2) * error
    return mean, half_width


class Drawing(NamedTuple):
    """A figure, its title and caption; without a figure, the caption says why."""

    title: str
    figure: Figure | None
    caption: str


def svg(figure: Figure, name: str) -> str:
    """The figure as an ``<svg>`` element: from the same figure, the same bytes.

    Its ids begin with ``name``, so that several fit into one page.
    """
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.style.context(["default", RC, {"svg.hashsalt": name}]):
        figure.savefig(file, format="svg", metadata=nothing)
    text = file.getvalue()
    text = text[text.index("<svg") :]  # a page has no place for the XML declaration
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # nothing refers to these
    return re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", text)


# ---- Rows, grouped and put in words


def pruners_of(rows: pd.DataFrame) -> list[str]:
    """The rows' pruners, in the order of `LOOKS`; a user's own come last."""
    names = set(rows["pruner"])
    return [x for x in LOOKS if x in names] + sorted(names - LOOKS.keys())


def in_order(cells: pd.DataFrame) -> pd.DataFrame:
    """The lines of a table by cell (`CELL`), the pruners in the order of `LOOKS`."""
    rank = {pruner: i for i, pruner in enumerate(pruners_of(cells))}
    cells = cells.sort_values(
        list(CELL), key=lambda c: c.map(rank) if c.name == "pruner" else c
    )
    return cells.reset_index(drop=True)


def pruned(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of pruned networks: all but the dense ones."""
    return rows[rows["pruner"] != "dense"]


def varying(rows: pd.DataFrame) -> list[str]:
    """Of n, noise, select, resume and ablation, those with more than one value."""
    values = {axis: set(pruned(rows)[axis]) for axis in CELL[2:]}
    values["resume"] -= {""}  # pruning at initialization has nothing to resume
    return [axis for axis in values if len(values[axis]) > 1]


def in_words(axis: str, value: Any) -> str:
    """An axis' value in words, for a panel or a legend."""
    if axis == "sparsity":
        return f"{100 * value:.5g} % removed"
    if axis in ("n", "noise"):
        return f"{axis} = {value:,}" if axis == "n" else f"noise = {value:g}"
    return value or ("no ablation" if axis == "ablation" else "")


def networks_of(rows: pd.DataFrame) -> tuple[str, int]:
    """How many networks stand for a cell, in words, and the most that do."""
    sizes = rows.groupby(list(CELL)).size()
    few, many = int(sizes.min()), int(sizes.max())
    return f"{many}" if few == many else f"{few} to {many}", many


def shown(rows: pd.DataFrame) -> str:
    """What a number stands for: how many networks, and what the interval is."""
    count, many = networks_of(rows)
    if many == 1:
        return "one network each (a single seed), so there is no interval"
    values = rows.groupby(list(CELL))[list(COORDINATES[7:])].nunique()
    crossed = values.max().max() < many
    seeds = "seeds crossed, taken as independent" if crossed else "seeds"
    return f"mean and 95 % Student-t interval over {count} networks ({seeds})"


# ---- What lines, colors and panels stand for


class Plan(NamedTuple):
    """The same in all figures of a page."""

    looks: dict[str, Look]
    panels: list[str]  # axes with a panel for each value
    lines: str | None  # the axis that the line style tells
    over: str


def plan_of(rows: pd.DataFrame) -> Plan:
    """What a page's figures have in common, from all of its rows."""
    own = sorted(set(rows["pruner"]) - set(LOOKS))
    looks = dict(LOOKS)
    for i, name in enumerate(own):
        k = i % len(OWN_COLORS)
        looks[name] = Look(name, OWN_COLORS[k], OWN_MARKERS[k])
    axes = varying(rows)
    lines = next((x for x in ("resume", "ablation", "select") if x in axes), None)
    return Plan(looks, [x for x in axes if x != lines], lines, shown(rows))


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
        for value in choose(sorted(set(pruned(rows)[axis]))):
            shared = axis not in ("n", "noise") and rows["pruner"] == "dense"
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
    for pruner in pruners_of(rows):
        mine = rows[rows["pruner"] == pruner]
        if pruner == "dense" or plan.lines is None:
            yield plan.looks[pruner], "--" if pruner == "dense" else "-", mine
        else:
            for value, group in mine.groupby(plan.lines):
                yield plan.looks[pruner], LINES.get(str(value), "-"), group


def empty_grid(panels: int, *, sharey: bool) -> tuple[Figure, list[Axes]]:
    """An empty figure of so many panels, with room for a legend on the right."""
    columns = {1: 1, 2: 2, 4: 2}.get(panels, 3)
    lines = -(-panels // columns)
    width, height = (4.4, 3.3) if panels == 1 else (2.5 * columns, 2.2 * lines + 0.2)
    figure = Figure(figsize=(width + 1.9, height), layout="constrained")
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
) -> Figure:
    """Labels the outer axes; says beside the panels what colors and lines mean.

    ``entries`` are the legend's last ones, each a label and its line's options.
    """
    for axes in figure.axes:
        spec: Any = axes.get_subplotspec()  # never None: `empty_grid` made it
        if spec.is_first_col():
            axes.set_ylabel(ylabel)
        if spec.num1 + spec.get_gridspec().ncols >= len(figure.axes):
            axes.set_xlabel(xlabel)
        axes.set_title(textwrap.fill(axes.get_title(), 30))
    legend = []
    for pruner in pruners_of(rows):
        look = plan.looks[pruner]
        legend.append((look.label, look.style("--" if pruner == "dense" else "-")))
    for value in sorted(set(pruned(rows)[plan.lines])) if plan.lines else []:
        style = {"color": "#555555", "ls": LINES.get(value, "-")}
        legend.append((in_words(str(plan.lines), value), style))
    legend = [(label, style) for label, style in [*legend, *entries] if label]
    figure.legend(
        [Line2D([], [], **style) for _, style in legend],
        [label for label, _ in legend],
        loc="outside right upper",
        handlelength=2.4,
    )
    return figure


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


def chosen(rows: pd.DataFrame, plan: Plan, panels: list[Any]) -> str:
    """Which sparsities a figure with a panel for each has left out."""
    some, all_ = len(panels), pruned(rows)["sparsity"].nunique()
    if plan.panels:
        return "Each panel shows its highest sparsity. " if all_ > 1 else ""
    return f"{some} of the {all_} sparsities have a panel. " if some < all_ else ""
