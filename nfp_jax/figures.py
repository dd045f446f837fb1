"""The figures of a run, from its rows: what they say, how they look, and their SVG.

Depends on `nfp_jax.results` alone; never on arrays or JAX. Every number is a mean over
the networks of a cell (its seeds), with a Student-t interval; where a single network
stands for a cell, there is no interval, rather than one of width 0. What would
surprise: sparsities lie on a logarithmic scale of the share *kept*, since 0.9 to 0.98
is a factor of 5 in weights, and a mean leaves out what is not finite.
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
from matplotlib.ticker import MaxNLocator
from scipy import special

from nfp_jax.results import COORDINATES

CELL = COORDINATES[:7]  # all but the seeds
METRICS = (
    *("train_accuracy", "test_accuracy", "memorized_points", "memorized_bits"),
    *("noise_correlation", "noise_correlation_normalized", "loss", "epochs", "seconds"),
)
FAILURES = {
    "collapsed": "collapsed (no path from input to output is left)",
    "diverged": "diverged (the loss is not finite)",
    "unconverged": "did not converge within their budget",
}


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
MARKS: dict[str, dict[str, Any]] = {  # at least one network of a cell
    "did not converge": {"fillstyle": "left", "mfcalt": "white"},
    "collapsed or diverged": {"mfc": "white"},
}
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


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a cell (`CELL`): every metric's mean and half-width over its networks.

    Columns: the cell, ``networks`` (how many), the number of them that ``collapsed``,
    ``diverged`` and stayed ``unconverged`` (though they did not diverge), and for each
    of `METRICS` its mean under its own name and ``<metric>_half_width``. Pruners come
    in the order of `LOOKS`.
    """
    lines = []
    for cell, group in flagged(rows).groupby(list(CELL), dropna=False):
        line = dict(zip(CELL, cell, strict=True))
        line["networks"] = len(group)
        line |= {kind: int(group[kind].sum()) for kind in FAILURES}
        for metric in METRICS:
            values = group[metric].to_numpy(dtype=float, na_value=np.nan)
            line[metric], line[f"{metric}_half_width"] = mean_interval(values)
        lines.append(line)
    extra = [name for metric in METRICS for name in (metric, f"{metric}_half_width")]
    table = pd.DataFrame(lines, columns=[*CELL, "networks", *FAILURES, *extra])
    rank = {pruner: i for i, pruner in enumerate(pruners_of(rows))}
    table = table.sort_values(
        list(CELL), key=lambda c: c.map(rank) if c.name == "pruner" else c
    )
    return table.reset_index(drop=True)


class Drawing(NamedTuple):
    """A figure, its title and caption; without a figure, the caption says why."""

    title: str
    figure: Figure | None
    caption: str


def draw(rows: pd.DataFrame) -> dict[str, Drawing]:
    """The figures of the page by name, each with its caption."""
    plan = _plan(rows)
    with matplotlib.style.context(["default", RC]):
        return {
            "memorization": _memorization(rows, plan),
            "noise_correlation": _noise_correlation(rows, plan),
            "noise_correlation_by_epoch": _noise_correlation_by_epoch(rows, plan),
            "kept_by_layer": _kept_by_layer(rows, plan),
        }


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


def flagged(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with every metric, and a plain boolean for each way to fail."""
    names = [*rows.columns, *METRICS, "converged", "diverged", "collapsed"]
    rows = rows.reindex(columns=list(dict.fromkeys(names)))

    def is_(name: str, value: bool) -> pd.Series[bool]:
        return rows[name].astype("boolean").eq(value).fillna(False).astype(bool)

    diverged = is_("diverged", True)
    unconverged = is_("converged", False) & ~diverged
    collapsed = is_("collapsed", True)
    return rows.assign(collapsed=collapsed, diverged=diverged, unconverged=unconverged)


def pruners_of(rows: pd.DataFrame) -> list[str]:
    """The rows' pruners, in the order of `LOOKS`; a user's own come last."""
    names = set(rows["pruner"])
    return [x for x in LOOKS if x in names] + sorted(names - LOOKS.keys())


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


def shown(rows: pd.DataFrame) -> str:
    """What a number stands for: how many networks, and what the interval is."""
    sizes = rows.groupby(list(CELL)).size()
    few, many = sizes.min(), sizes.max()
    if many == 1:
        return "one network each (a single seed), so there is no interval"
    count = f"{many}" if few == many else f"{few} to {many}"
    values = rows.groupby(list(CELL))[list(COORDINATES[7:])].nunique()
    crossed = values.max().max() < many
    seeds = "seeds crossed, taken as independent" if crossed else "seeds"
    return f"mean and 95 % Student-t interval over {count} networks ({seeds})"


# ---- Figures: what lines, colors and panels stand for


class _Plan(NamedTuple):
    """The same in all figures of a page."""

    looks: dict[str, Look]
    panels: list[str]  # axes with a panel for each value
    lines: str | None  # the axis that the line style tells
    over: str


def _plan(rows: pd.DataFrame) -> _Plan:
    own = sorted(set(rows["pruner"]) - set(LOOKS))
    looks = dict(LOOKS)
    for i, name in enumerate(own):
        k = i % len(OWN_COLORS)
        looks[name] = Look(name, OWN_COLORS[k], OWN_MARKERS[k])
    axes = varying(rows)
    lines = next((x for x in ("resume", "ablation", "select") if x in axes), None)
    return _Plan(looks, [x for x in axes if x != lines], lines, shown(rows))


def _panels(
    rows: pd.DataFrame, plan: _Plan, *, by_sparsity: bool = False
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
    return _split(panels, "sparsity", lambda values: _spread(values, most))


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


def _spread(values: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the values, evenly spread, the last among them."""
    if len(values) <= most:
        return list(values)
    places = np.linspace(len(values) - 1, 0, most).round().astype(int)
    return [values[i] for i in sorted(places)]


def _series(
    rows: pd.DataFrame, plan: _Plan
) -> Iterator[tuple[Look, Any, pd.DataFrame]]:
    """A panel's lines in the legend's order: look, line style and rows."""
    for pruner in pruners_of(rows):
        mine = rows[rows["pruner"] == pruner]
        if pruner == "dense" or plan.lines is None:
            yield plan.looks[pruner], "--" if pruner == "dense" else "-", mine
        else:
            for value, group in mine.groupby(plan.lines):
                yield plan.looks[pruner], LINES.get(str(value), "-"), group


def _grid(panels: int, *, sharey: bool) -> tuple[Figure, list[Axes]]:
    """An empty figure of so many panels, with room for a legend on the right."""
    columns = {1: 1, 2: 2, 4: 2}.get(panels, 3)
    lines = -(-panels // columns)
    width, height = (4.4, 3.3) if panels == 1 else (2.5 * columns, 2.2 * lines + 0.2)
    figure = Figure(figsize=(width + 1.9, height), layout="constrained")
    grid = figure.subplots(lines, columns, sharey=sharey, squeeze=False).ravel()
    for axes in grid[panels:]:
        axes.remove()
    return figure, list(grid[:panels])


def _finish(
    figure: Figure,
    rows: pd.DataFrame,
    plan: _Plan,
    xlabel: str,
    ylabel: str,
    marks: Sequence[str] = (),
) -> Figure:
    """Labels the outer axes; says beside the panels what colors and lines mean."""
    for axes in figure.axes:
        spec: Any = axes.get_subplotspec()  # never None: `_grid` made it
        if spec.is_first_col():
            axes.set_ylabel(ylabel)
        if spec.num1 + spec.get_gridspec().ncols >= len(figure.axes):
            axes.set_xlabel(xlabel)
        axes.set_title(textwrap.fill(axes.get_title(), 30))
    entries = []
    for pruner in pruners_of(rows):
        look = plan.looks[pruner]
        entries.append((look.label, look.style("--" if pruner == "dense" else "-")))
    for value in sorted(set(pruned(rows)[plan.lines])) if plan.lines else []:
        style = {"color": "#555555", "ls": LINES.get(value, "-")}
        entries.append((in_words(str(plan.lines), value), style))
    gray = {"color": "#555555", "marker": "o", "ls": ""}
    entries += [(mark, gray | MARKS[mark]) for mark in marks]
    entries = [(label, style) for label, style in entries if label]
    figure.legend(
        [Line2D([], [], **style) for _, style in entries],
        [label for label, _ in entries],
        loc="outside right upper",
        handlelength=2.4,
    )
    return figure


# ---- The figures


def _memorization(rows: pd.DataFrame, plan: _Plan) -> Drawing:
    title = "Memorization against sparsity"
    if pruned(rows).empty:
        return Drawing(title, None, "No pruned network is on file.")
    one = rows["n"].nunique() == 1
    label = (
        f"memorized points (of {rows['n'].iloc[0]:,})" if one else "memorized points"
    )
    figure = _against_sparsity(rows, plan, "memorized_points", label)
    caption = (
        "Points of the training set that the network gets right at the end of "
        "training (n × train accuracy), against the share of prunable weights removed. "
        "The axis ends at n, though an interval may not. "
    )
    return Drawing(title, figure, caption + _sparsity_caption(rows, plan))


def _noise_correlation(rows: pd.DataFrame, plan: _Plan) -> Drawing:
    title = "Correlation with the label noise against sparsity"
    metric = "noise_correlation_normalized"
    rows = rows[rows["noise"] > 0]
    if not np.isfinite(pruned(rows)[metric].astype(float)).any():
        why = "No pruned network has label noise (noise > 0) and a finite correlation."
        return Drawing(title, None, why)
    label = "correlation with the noise"
    figure = _against_sparsity(rows, plan, metric, label)
    caption = (
        "Mean over the training points of ⟨f(x), z⟩, with f the softmax output at the "
        "end of training and z the label noise, divided by the mean of ‖z‖²: 0 where "
        "none of the noise is learned, 1 where all of it is. "
    )
    return Drawing(title, figure, caption + _sparsity_caption(rows, plan))


def _sparsity_caption(rows: pd.DataFrame, plan: _Plan) -> str:
    text = (
        f"Shown: {plan.over}. The scale is logarithmic in the share kept; markers are "
        "moved sideways a little, so as not to hide each other."
    )
    failed = flagged(pruned(rows))[list(FAILURES)].any()
    if failed["unconverged"]:
        text += " Half-filled: at least one of the networks did not converge."
    if failed["collapsed"] or failed["diverged"]:
        text += " Hollow: at least one of the networks collapsed or diverged."
    return text + _notes(rows)


def _notes(rows: pd.DataFrame) -> str:
    diverged, dense = flagged(rows)["diverged"].any(), rows["pruner"] == "dense"
    text = " Means leave out what is not finite." if diverged else ""
    band = ", its interval in gray" if dense.sum() > 1 else ""
    return text + (f" Dashed: the dense network{band}." if dense.any() else "")


def _against_sparsity(
    rows: pd.DataFrame, plan: _Plan, metric: str, ylabel: str
) -> Figure:
    cells = summary(rows)
    panels = _panels(cells, plan)
    points = metric == "memorized_points"
    alike = not points or rows["n"].nunique() == 1
    figure, grid = _grid(len(panels), sharey=alike)
    sparsities = np.array(sorted(set(pruned(rows)["sparsity"])))
    places = -np.log10(1 - sparsities)
    gap = min(0.06 * (np.ptp(places) or 1), 0.5 * np.diff(places, append=np.inf).min())
    for axes, (title, panel) in zip(grid, panels, strict=True):
        for _, dense in panel[panel["pruner"] == "dense"].iterrows():
            y, h = dense[metric], dense[f"{metric}_half_width"]
            axes.axhline(y, color="black", ls="--")
            axes.axhspan(y - h, y + h, color="black", alpha=0.08, lw=0)
        lines = list(_series(pruned(panel), plan))
        for i, (look, style, line) in enumerate(lines):
            x = -np.log10(1 - line["sparsity"].to_numpy())
            x += gap * ((i + 0.5) / len(lines) - 0.5)
            mean = line[metric].to_numpy()
            half_width = line[f"{metric}_half_width"].to_numpy()
            axes.errorbar(x, mean, half_width, **BARS, **look.style(style))
            for mark, here in _marked(line).items():
                options = look.style("") | MARKS[mark]
                axes.plot(x[here], mean[here], zorder=3, **options)
        if points:
            low, high = axes.get_ylim()
            n = panel["n"].max()
            axes.set_ylim(max(low, -0.04 * n), min(high, 1.04 * n))
        axes.set_title(title)
        axes.yaxis.set_major_formatter("{x:,g}")
        _sparsity_axis(axes, sparsities, 0.16 if len(panels) > 1 else 0.09)
    marks = [mark for mark, here in _marked(pruned(cells)).items() if here.any()]
    return _finish(figure, rows, plan, "weights removed (%)", ylabel, marks)


def _marked(cells: pd.DataFrame) -> dict[str, Any]:
    """For each of `MARKS`, which cells have it: the worst that befell a network."""
    hollow = (cells["collapsed"] + cells["diverged"] > 0).to_numpy()
    half = (cells["unconverged"] > 0).to_numpy() & ~hollow
    return {"did not converge": half, "collapsed or diverged": hollow}


def _sparsity_axis(axes: Axes, sparsities: Any, room: float) -> None:
    """A tick at each sparsity; a label, from the highest on, where there is room."""
    places = -np.log10(1 - sparsities)
    labels: list[str] = []
    last = np.inf
    for place, sparsity in zip(places[::-1], sparsities[::-1], strict=True):
        fits = last - place >= room * np.ptp(places)
        last = place if fits else last
        labels.append(f"{100 * sparsity:.5g}" if fits else "")
    axes.set_xticks(places, labels[::-1])


def _noise_correlation_by_epoch(rows: pd.DataFrame, plan: _Plan) -> Drawing:
    title = "Correlation with the label noise while training"
    column = "noise_correlation_by_epoch"
    rows = rows[_lists(rows, column) & (rows["noise"] > 0)]
    if pruned(rows).empty:
        return Drawing(
            title, None, "No pruned network's epochs with noise are on file."
        )
    panels = _panels(rows, plan, by_sparsity=True)
    figure, grid = _grid(len(panels), sharey="noise" not in plan.panels)
    for axes, (name, panel) in zip(grid, panels, strict=True):
        for look, style, group in _series(panel, plan):
            curves = [np.asarray(curve, dtype=float) for curve in group[column]]
            last = max(map(len, curves))
            held = [np.pad(curve, (0, last - len(curve)), "edge") for curve in curves]
            mean, half_width = mean_interval(held)
            some = np.array(_spread(range(last), 50))  # for a small file
            # A count: a share of the axis fails on a curve that is NaN throughout.
            every = max(1, len(some) // 5)
            axes.plot(some + 1, mean[some], markevery=every, ms=4, **look.style(style))
            low, high = (mean - half_width)[some], (mean + half_width)[some]
            axes.fill_between(some + 1, low, high, color=look.color, alpha=0.12, lw=0)
        axes.set_title(name)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    _finish(figure, rows, plan, "epoch", "mean of ⟨f(x), z⟩")
    caption = (
        "Mean over the training points of ⟨f(x), z⟩ at the end of every epoch, as it "
        "is, not divided by ‖z‖². A network that has stopped holds its last value "
        "until the last of its group stops, so that no mean jumps because others "
        f"dropped out. {_chosen(rows, plan, panels)}Shown: "
        f"{plan.over}, as a band.{_notes(rows)}"
    )
    return Drawing(title, figure, caption)


def _kept_by_layer(rows: pd.DataFrame, plan: _Plan) -> Drawing:
    title = "Weights kept in each layer"
    rows = pruned(rows)
    for column in ("layers", "kept_by_layer", "size_by_layer"):
        rows = rows[_lists(rows, column)]
    if rows.empty:
        return Drawing(title, None, "No pruned network's layers are on file.")
    names = [re.sub("^params/|/kernel$", "", name) for name in rows["layers"].iloc[0]]
    kept, size = (
        [np.asarray(x, dtype=float) for x in rows[f"{which}_by_layer"]]
        for which in ("kept", "size")
    )
    shares = [100 * k / s for k, s in zip(kept, size, strict=True)]
    together = [100 * k.sum() / s.sum() for k, s in zip(kept, size, strict=True)]
    rows = rows.assign(shares=shares, together=together)
    panels = _panels(rows, plan, by_sparsity=True)
    figure, grid = _grid(len(panels), sharey=True)
    for axes, (name, panel) in zip(grid, panels, strict=True):
        lines = list(_series(panel, plan))
        for i, (look, style, group) in enumerate(lines):
            x = np.arange(len(names)) + 0.6 * ((i + 0.5) / len(lines) - 0.5)
            mean, half_width = mean_interval(list(group["shares"]))
            axes.errorbar(x, mean, half_width, lw=0.5, **BARS, **look.style(style))
        axes.axhline(panel["together"].mean(), color="#999999", lw=0.8)
        axes.set_title(name)
        axes.set_yscale("symlog", linthresh=0.1, linscale=0.3)
        axes.set_yticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
        axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 3 else 0)
    least = np.fmin(100.0, np.stack(shares)).min()  # fmin: NaN is passed over
    grid[0].set_ylim(least / 2 if least > 0.2 else -0.01, 150)
    _finish(figure, rows, plan, "layer", "weights kept (%)")
    caption = (
        "Share of a layer's weights that the mask keeps. The scale is logarithmic "
        "above 0.1 % and linear below, so that an emptied layer is seen, at 0. Gray: "
        f"the share kept of all layers together. {_chosen(rows, plan, panels)}Shown: "
        f"{plan.over}; the thin lines only guide the eye."
    )
    return Drawing(title, figure, caption)


def _lists(rows: pd.DataFrame, column: str) -> pd.Series[bool]:
    """Whether the row has a list there, with something in it."""
    values = rows.get(column, pd.Series(None, rows.index, dtype=object))
    return values.map(lambda x: isinstance(x, (list, np.ndarray)) and len(x) > 0)


def _chosen(rows: pd.DataFrame, plan: _Plan, panels: list[Any]) -> str:
    """Which sparsities a figure with a panel for each has left out."""
    some, all_ = len(panels), pruned(rows)["sparsity"].nunique()
    if plan.panels:
        return "Each panel shows its highest sparsity. " if all_ > 1 else ""
    return f"{some} of the {all_} sparsities have a panel. " if some < all_ else ""
