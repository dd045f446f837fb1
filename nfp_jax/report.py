"""Tables, figures and the page of a run, from its rows alone.

``python -m nfp_jax.report results/NAME-HASH`` makes the page again. Depends on
`nfp_jax.results`; never on arrays or JAX. Every number is a mean over the networks of
a cell (its seeds), with a Student-t interval; where a single network stands for a cell,
there is no interval, rather than one of width 0. What would surprise: sparsities lie on
a logarithmic scale of the share *kept*, since 0.9 to 0.98 is a factor of 5 in weights.
"""

from __future__ import annotations

import argparse
import html
import io
import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy import special

from nfp_jax.results import COORDINATES, ResultsError, read_json, read_rows, write_file

CELL = COORDINATES[:7]  # all but the seeds
METRICS = (
    *("train_accuracy", "test_accuracy", "memorized_points", "memorized_bits"),
    *("noise_correlation", "noise_correlation_normalized", "loss", "epochs", "seconds"),
)
TABLES = {
    "train_accuracy": "Train accuracy, the share of the n points memorized",
    "test_accuracy": "Test accuracy",
    "noise_correlation_normalized": "Correlation with the label noise, 1 = all learned",
}
FAILURES = {
    "collapsed": "collapsed: no path from input to output is left",
    "diverged": "diverged: the loss is not finite",
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
    "lines.markersize": 5,
    "svg.fonttype": "path",  # looks the same where the font is missing
}


def mean_interval(values: Any, confidence: float = 0.95) -> tuple[Any, Any]:
    """Mean over the first axis and half-width of its Student-t interval.

    Half-width ``t * s / sqrt(k)`` with k values, s their standard deviation (k - 1 in
    the denominator) and t the quantile for k - 1 degrees of freedom. Missing values
    (NaN) are left out; one value has no interval (NaN), none has no mean either.

    >>> mean, half_width = mean_interval([1.0, 2.0, 3.0])
    >>> f"{mean:.3f} ± {half_width:.3f}"
    '2.000 ± 2.484'
    """
    x = np.asarray(values, dtype=float)
    here = ~np.isnan(x)
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
    for cell, group in _flagged(rows).groupby(list(CELL), dropna=False):
        line = dict(zip(CELL, cell, strict=True))
        line["networks"] = len(group)
        line |= {kind: int(group[kind].sum()) for kind in FAILURES}
        for metric in METRICS:
            values = group[metric].to_numpy(dtype=float, na_value=np.nan)
            line[metric], line[f"{metric}_half_width"] = mean_interval(values)
        lines.append(line)
    extra = [name for metric in METRICS for name in (metric, f"{metric}_half_width")]
    table = pd.DataFrame(lines, columns=[*CELL, "networks", *FAILURES, *extra])
    rank = {pruner: i for i, pruner in enumerate(_pruners(rows))}
    table = table.sort_values(
        list(CELL), key=lambda c: c.map(rank) if c.name == "pruner" else c
    )
    return table.reset_index(drop=True)


def failures(rows: pd.DataFrame) -> list[str]:
    """One sentence for each pruner and way to fail, with counts by sparsity."""
    lines = []
    for kind, words in FAILURES.items():
        for pruner, hit in _failed(rows, kind).groupby("pruner", sort=False):
            total = f"{hit[kind].sum()} of {hit['networks'].sum()} networks of {pruner}"
            places: dict[str, list[str]] = {}  # "3 of 3": the sparsities where
            for few, all_, s in zip(
                hit[kind], hit["networks"], hit["sparsity"], strict=True
            ):
                places.setdefault(f"{few} of {all_}", []).append(f"{s:g}")
            if pruner == "dense":
                lines.append(f"{total} {words}")
            elif len(hit) == 1:
                lines.append(f"{total} at sparsity {hit['sparsity'].iloc[0]:g} {words}")
            else:
                at = [f"{count} at {', '.join(s)}" for count, s in places.items()]
                lines.append(f"{total} {words} (by sparsity: {'; '.join(at)})")
    return lines


def table(rows: pd.DataFrame, width: int = 110) -> str:
    """Train accuracy by pruner and sparsity, for a terminal; then what failed."""
    if rows.empty:
        return "no rows"
    parts = textwrap.wrap(f"{TABLES['train_accuracy']}; {_over(rows)}", width)
    for title, heads, lines in _grids(rows, "train_accuracy"):
        parts.append(title)
        columns = zip(heads[0], *(names for names, _ in lines), strict=True)
        pads = [max(map(len, column)) for column in columns]
        step = max(1, (width - sum(pads) - 2 * len(pads)) // 15)
        for start in range(0, len(heads[1]), step):
            for names, entries in [heads, *lines]:
                line = [f"{x:<{pad}}" for x, pad in zip(names, pads, strict=True)]
                line += [f"{x:>13}" for x in entries[start : start + step]]
                parts.append("  ".join(line))
    for kind, words in FAILURES.items():
        hit = (
            _failed(rows, kind).groupby("pruner", sort=False)[[kind, "networks"]].sum()
        )
        if not hit.empty:
            counts = (f"{p} {few} of {all_}" for p, few, all_ in hit.itertuples())
            text = f"warning: {words}: {', '.join(counts)}"
            parts += textwrap.wrap(text, width, subsequent_indent="  ")
    return "\n".join(parts)


def _failed(rows: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The networks and the failures of a kind, by pruner and sparsity, where any."""
    cells = summary(rows).groupby(["pruner", "sparsity"], sort=False)
    counts = cells[["networks", *FAILURES]].sum().reset_index()
    return counts[counts[kind] > 0]


class Drawing(NamedTuple):
    """A figure, its title and caption; without a figure, the caption says why."""

    title: str
    figure: Figure | None
    caption: str


def figures(rows: pd.DataFrame) -> dict[str, Drawing]:
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


def write_report(directory: str | os.PathLike[str]) -> Path:
    """Makes ``figures/*.svg`` and ``report.html``, a file that needs no other.

    Raises:
      ResultsError: there are no rows, or a file can't be read or written.
    """
    directory = Path(directory)
    rows = read_rows(directory)
    if rows.empty:
        raise ResultsError(f"{directory} has no rows yet")
    run = directory / "run.json"
    runs = read_json(run)["runs"] if run.exists() else []
    config = read_json(directory / "config.json")
    (directory / "figures").mkdir(exist_ok=True)
    parts = []
    for name, drawing in figures(rows).items():
        title, caption = html.escape(drawing.title), html.escape(drawing.caption)
        file = directory / "figures" / f"{name}.svg"
        if drawing.figure is None:
            file.unlink(missing_ok=True)  # an earlier report may have had it
            parts.append(f"<p><b>{title}</b>: no figure. {caption}</p>")
            continue
        image = svg(drawing.figure, name)
        write_file(file, image.encode())
        image = image.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
        parts.append(
            f"<figure><div class=card>{image}</div>"
            f"<figcaption><b>{title}.</b> {caption}</figcaption></figure>"
        )
    page = directory / "report.html"
    write_file(page, _page(directory, rows, parts, config, runs).encode())
    return page


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the page of a run again; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m nfp_jax.report", description="Make the page of a run again."
    )
    parser.add_argument("directory", help="results/NAME-HASH")
    try:
        print(write_report(parser.parse_args(argv).directory))
    except (ResultsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


# ---- Rows, grouped and put in words


def _flagged(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with every metric, and a plain boolean for each way to fail."""
    names = [*rows.columns, *METRICS, "converged", "diverged", "collapsed"]
    rows = rows.reindex(columns=list(dict.fromkeys(names)))

    def is_(name: str, value: bool) -> pd.Series[bool]:
        return rows[name].astype("boolean").eq(value).fillna(False).astype(bool)

    diverged = is_("diverged", True)
    unconverged = is_("converged", False) & ~diverged
    collapsed = is_("collapsed", True)
    return rows.assign(collapsed=collapsed, diverged=diverged, unconverged=unconverged)


def _pruners(rows: pd.DataFrame) -> list[str]:
    """The rows' pruners, in the order of `LOOKS`; a user's own come last."""
    names = set(rows["pruner"])
    return [x for x in LOOKS if x in names] + sorted(names - LOOKS.keys())


def _pruned(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["pruner"] != "dense"]


def _varying(rows: pd.DataFrame) -> list[str]:
    """Of n, noise, select, resume and ablation, those with more than one value."""
    values = {axis: set(_pruned(rows)[axis]) for axis in CELL[2:]}
    values["resume"] -= {""}  # pruning at initialization has nothing to resume
    return [axis for axis in values if len(values[axis]) > 1]


def _value(axis: str, value: Any) -> str:
    """An axis' value in words, for a panel or a legend."""
    if axis == "sparsity":
        return f"{100 * value:.5g} % removed"
    if axis in ("n", "noise"):
        return f"{axis} = {value:,}" if axis == "n" else f"noise = {value:g}"
    return value or ("no ablation" if axis == "ablation" else "")


def _over(rows: pd.DataFrame) -> str:
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


Line = tuple[list[str], list[str]]  # names of a pruner and its variant; entries


def _grids(rows: pd.DataFrame, metric: str) -> Iterator[tuple[str, Line, list[Line]]]:
    """For each n and noise a title, the heads and the lines of a table."""
    cells = summary(rows).dropna(subset=[metric])
    halves = [f" ± {x:.3f}" if x == x else "" for x in cells[f"{metric}_half_width"]]
    cells["text"] = cells[metric].map("{:.3f}".format) + halves
    variants = [axis for axis in _varying(rows) if axis not in ("n", "noise")]
    for (n, noise), group in cells.groupby(["n", "noise"]):
        title = f"{_value('n', n)}, {_value('noise', noise)}"
        for text in group.loc[group["pruner"] == "dense", "text"]:
            title += f"; the dense network: {text}"
        pruned = _pruned(group)
        sparsities = sorted(set(pruned["sparsity"]))
        heads = ["pruner", *variants], [f"{s:g}" for s in sparsities]
        lines = []
        for names, line in pruned.groupby(["pruner", *variants], sort=False):
            texts = dict(zip(line["sparsity"], line["text"], strict=True))
            entries = [texts.get(s, "") for s in sparsities]
            lines.append(([str(name) for name in names], entries))
        yield title, heads, lines


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
        looks[name] = Look(name.replace("$", r"\$"), OWN_COLORS[k], OWN_MARKERS[k])
    axes = _varying(rows)
    lines = next((x for x in ("resume", "ablation", "select") if x in axes), None)
    return _Plan(looks, [x for x in axes if x != lines], lines, _over(rows))


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
        for value in choose(sorted(set(_pruned(rows)[axis]))):
            shared = axis not in ("n", "noise") and rows["pruner"] == "dense"
            words = _value(axis, value).replace(" ", "\N{NO-BREAK SPACE}")
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
    for pruner in _pruners(rows):
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
    figure: Figure, rows: pd.DataFrame, plan: _Plan, xlabel: str, ylabel: str
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
    for pruner in _pruners(rows):
        look = plan.looks[pruner]
        entries.append((look.label, look.style("--" if pruner == "dense" else "-")))
    for value in sorted(set(_pruned(rows)[plan.lines])) if plan.lines else []:
        style = {"color": "#555555", "ls": LINES.get(value, "-")}
        entries.append((_value(str(plan.lines), value), style))
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
    if _pruned(rows).empty:
        return Drawing(title, None, "No pruned network is on file.")
    one = rows["n"].nunique() == 1
    label = (
        f"memorized points (of {rows['n'].iloc[0]:,})" if one else "memorized points"
    )
    figure = _against_sparsity(rows, plan, "memorized_points", label)
    caption = (
        "Points of the training set that the network gets right at the end of "
        "training (n × train accuracy), against the share of prunable weights removed. "
    )
    return Drawing(title, figure, caption + _sparsity_caption(rows, plan))


def _noise_correlation(rows: pd.DataFrame, plan: _Plan) -> Drawing:
    title = "Correlation with the label noise against sparsity"
    metric = "noise_correlation_normalized"
    rows = rows[rows["noise"] > 0]
    if _pruned(rows)[metric].isna().all():
        return Drawing(title, None, "No pruned network had label noise (noise > 0).")
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
    if _flagged(rows)[["collapsed", "diverged"]].any(axis=None):
        text += " Hollow: at least one of the networks collapsed or diverged."
    if "dense" in set(rows["pruner"]):
        text += " Dashed: the dense network, its interval in gray."
    return text


def _against_sparsity(
    rows: pd.DataFrame, plan: _Plan, metric: str, ylabel: str
) -> Figure:
    cells = summary(rows)
    panels = _panels(cells, plan)
    alike = metric != "memorized_points" or rows["n"].nunique() == 1
    figure, grid = _grid(len(panels), sharey=alike)
    sparsities = np.array(sorted(set(_pruned(rows)["sparsity"])))
    places = -np.log10(1 - sparsities)
    width = np.ptp(places) or 1.0
    gap = min(0.05 * width, 0.5 * np.diff(places, append=np.inf).min())
    for axes, (title, panel) in zip(grid, panels, strict=True):
        lines = list(_series(panel, plan))
        for i, (look, style, line) in enumerate(lines):
            mean = line[metric].to_numpy()
            half_width = line[f"{metric}_half_width"].to_numpy()
            if look is LOOKS["dense"]:
                y, h = mean[0], half_width[0]
                axes.axhline(y, color=look.color, ls=style)
                axes.axhspan(y - h, y + h, color=look.color, alpha=0.08, lw=0)
                continue
            x = -np.log10(1 - line["sparsity"].to_numpy())
            x += gap * (i / len(lines) - 0.5)
            axes.errorbar(x, mean, half_width, **BARS, **look.style(style))
            bad = (line["collapsed"] + line["diverged"] > 0).to_numpy()
            hollow = {**look.style(""), "mfc": "white", "zorder": 3}
            axes.plot(x[bad], mean[bad], **hollow)
        axes.set_title(title)
        axes.yaxis.set_major_formatter("{x:,g}")
        _sparsity_axis(axes, sparsities, 0.16 if len(panels) > 1 else 0.09)
    return _finish(figure, rows, plan, "weights removed (%)", ylabel)


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
    if _pruned(rows).empty:
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
    _finish(figure, rows, plan, "epoch", "correlation with the noise, raw")
    caption = (
        "Mean over the training points of ⟨f(x), z⟩ at the end of every epoch, as it "
        "is, not divided by ‖z‖². A network that has stopped holds its last value "
        "until the last of its group stops, so that no mean jumps because others "
        f"dropped out. {_shown(rows, plan, panels)}Shown: {plan.over}."
    )
    return Drawing(title, figure, caption)


def _kept_by_layer(rows: pd.DataFrame, plan: _Plan) -> Drawing:
    title = "Weights kept in each layer"
    rows = _pruned(rows)
    for column in ("layers", "kept_by_layer", "size_by_layer"):
        rows = rows[_lists(rows, column)]
    if rows.empty:
        return Drawing(title, None, "No pruned network's layers are on file.")
    panels = _panels(rows, plan, by_sparsity=True)
    figure, grid = _grid(len(panels), sharey=True)
    names = [re.sub("^params/|/kernel$", "", name) for name in rows["layers"].iloc[0]]
    least = 100.0
    for axes, (name, panel) in zip(grid, panels, strict=True):
        lines = list(_series(panel, plan))
        for i, (look, style, group) in enumerate(lines):
            kept = np.stack(list(group["kept_by_layer"]))
            size = np.stack(list(group["size_by_layer"]))
            share = 100 * kept / size
            least = min(least, share.min())
            x = np.arange(len(names)) + 0.6 * ((i + 0.5) / len(lines) - 0.5)
            mean, half_width = mean_interval(share)
            axes.errorbar(x, mean, half_width, lw=0.5, **BARS, **look.style(style))
        kept, size = (
            np.concatenate(list(panel[f"{which}_by_layer"])).sum()
            for which in ("kept", "size")
        )
        axes.axhline(100 * kept / size, color="#999999", lw=0.8)
        axes.set_title(name)
        axes.set_yscale("symlog", linthresh=0.1, linscale=0.3)
        axes.set_yticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
        axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 3 else 0)
    grid[0].set_ylim(least / 2 if least > 0.2 else -0.01, 150)
    _finish(figure, rows, plan, "layer", "weights kept (%)")
    caption = (
        "Share of a layer's weights that the mask keeps. The scale is logarithmic "
        "above 0.1 % and linear below, so that an emptied layer is seen, at 0. Gray: "
        f"the share kept of all layers together. {_shown(rows, plan, panels)}Shown: "
        f"{plan.over}; the thin lines only guide the eye."
    )
    return Drawing(title, figure, caption)


def _lists(rows: pd.DataFrame, column: str) -> pd.Series[bool]:
    """Whether the row has a list there, with something in it."""
    values = rows.get(column, pd.Series(None, rows.index, dtype=object))
    return values.map(lambda x: isinstance(x, (list, np.ndarray)) and len(x) > 0)


def _shown(rows: pd.DataFrame, plan: _Plan, panels: list[Any]) -> str:
    """Which sparsities a figure with a panel for each has left out."""
    some, all_ = len(panels), _pruned(rows)["sparsity"].nunique()
    if plan.panels:
        return "Each panel shows its highest sparsity. " if all_ > 1 else ""
    return f"{some} of the {all_} sparsities have a panel. " if some < all_ else ""


# ---- The page

CSS = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.5rem }
figure { margin: 1.5rem 0 } figcaption { font-size: .875rem }
.card { background: white; padding: .75rem; border: 1px solid #8884; overflow-x: auto }
.card svg { display: block; max-width: 100%; height: auto; margin: auto }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: .875rem;
  font-variant-numeric: tabular-nums; margin: .5rem 0 1rem }
caption { text-align: left; padding: .25rem 0 }
th, td { text-align: right; padding: .2rem .7rem; border-bottom: 1px solid #8884;
  white-space: nowrap }
th.name, td.name { text-align: left; padding-left: 0 }
pre { overflow-x: auto; font-size: .8125rem; background: #8881; padding: .75rem }
"""


def _page(
    directory: Path,
    rows: pd.DataFrame,
    drawings: list[str],
    config: Any,
    runs: list[Mapping[str, Any]],
) -> str:
    name = html.escape(directory.resolve().name)
    failed = "".join(f"<li>{html.escape(line)}" for line in failures(rows))
    tables = [
        _html(f"{words}. {title}", heads, lines)
        for metric, words in TABLES.items()
        for title, heads, lines in _grids(rows, metric)
    ]
    launches = [
        _html(f"Launch {i}", None, [([key, _fact(run[key])], []) for key in run])
        for i, run in enumerate(runs, 1)
    ]
    settings = html.escape(json.dumps(config, indent=2, sort_keys=True))
    return f"""<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>{name}</title>
<meta name="viewport" content="width=device-width"><style>{CSS}</style>
<h1>{name}</h1>
<p>{html.escape(_headline(rows))}</p>
<h2>Figures</h2>
{"".join(drawings)}
<h2>Tables</h2>
<p>Across: sparsity, the share of prunable weights removed. Entries:
{html.escape(_over(rows))}; after ± the interval's half-width.</p>
{"".join(tables)}
<h2>Warnings</h2>
<ul>{failed or "<li>None: every network converged, none collapsed or diverged."}</ul>
<h2>Configuration</h2>
<pre>{settings}</pre>
<h2>Launches</h2>
{"".join(launches) or "<p>None is on file.</p>"}
<p>Made from the rows on file; to make it again:
<code>python -m nfp_jax.report {html.escape(str(directory))}</code></p>
</html>
"""


def _headline(rows: pd.DataFrame) -> str:
    pruned = _pruned(rows)
    sparsities = sorted(set(pruned["sparsity"]))
    what = f"{len(rows):,} networks"
    if sparsities:
        pruners = _pruners(pruned)
        what += f", pruned by {', '.join(pruners)}"
        what += f" to {len(sparsities)} sparsities ({_span(sparsities)})"
    axes = {axis: sorted(set(rows[axis]) - {""}) for axis in COORDINATES[2:]}
    parts = [f"{axis}: {_span(values)}" for axis, values in axes.items() if values]
    failed = _flagged(rows)[list(FAILURES)].any(axis=1).sum()
    end = "All converged, none collapsed or diverged."
    if failed:
        end = (
            f"{failed:,} of them collapsed, diverged or did not converge: see Warnings."
        )
    return f"{what}. Of {'; '.join(parts)}. {end}"


def _span(values: Sequence[Any]) -> str:
    """The values, or where there are many numbers, the first, the last and how many."""
    texts = [x if isinstance(x, str) else f"{x:,}".removesuffix(".0") for x in values]
    if len(texts) > 5 and not isinstance(values[0], str):
        return f"{texts[0]} to {texts[-1]}, {len(texts)} values"
    return ", ".join(texts)


def _html(title: str, heads: Line | None, lines: list[Line]) -> str:
    text = f"<div class=scroll><table><caption>{html.escape(title)}</caption>"
    for names, entries in [heads, *lines] if heads else lines:
        tag = "th" if (names, entries) == heads else "td"
        text += "<tr>"
        text += "".join(f"<{tag} class=name>{html.escape(name)}" for name in names)
        text += "".join(f"<{tag}>{html.escape(entry)}" for entry in entries)
    return text + "</table></div>"


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_fact(x)}" for key, x in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
