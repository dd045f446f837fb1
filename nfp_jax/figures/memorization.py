"""Memorization: its rows summed up, and their figures.

Every number is a mean over the networks of a cell (its seeds), with a Student-t
interval; where a single network stands for a cell, there is no interval, rather than
one of width 0. What would surprise: a mean leaves out what is not finite.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nfp_jax.figures.common import (
    BARS,
    CELL,
    Drawing,
    Plan,
    chosen,
    empty_grid,
    finish,
    in_order,
    mean_interval,
    panels_of,
    plan_of,
    pruned,
    series_of,
    sparsity_axis,
    spread,
)

METRICS = (
    *("train_accuracy", "test_accuracy", "memorized_points", "memorized_bits"),
    *("noise_correlation", "noise_correlation_normalized", "loss", "epochs", "seconds"),
)
FAILURES = {
    "collapsed": "collapsed (no path from input to output is left)",
    "diverged": "diverged (the loss is not finite)",
    "unconverged": "did not converge within their budget",
}


MARKS: dict[str, dict[str, Any]] = {  # at least one network of a cell
    "did not converge": {"fillstyle": "left", "mfcalt": "white"},
    "collapsed or diverged": {"mfc": "white"},
}


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
    return in_order(table)


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


# ---- The figures


def draw_memorization(rows: pd.DataFrame) -> dict[str, Drawing]:
    """The figures of memorization by name."""
    plan = plan_of(rows)
    return {
        "memorization": _memorization(rows, plan),
        "noise_correlation": _noise_correlation(rows, plan),
        "noise_correlation_by_epoch": _noise_correlation_by_epoch(rows, plan),
        "kept_by_layer": _kept_by_layer(rows, plan),
    }


def _memorization(rows: pd.DataFrame, plan: Plan) -> Drawing:
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


def _noise_correlation(rows: pd.DataFrame, plan: Plan) -> Drawing:
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


def _sparsity_caption(rows: pd.DataFrame, plan: Plan) -> str:
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
    rows: pd.DataFrame, plan: Plan, metric: str, ylabel: str
) -> Figure:
    cells = summary(rows)
    panels = panels_of(cells, plan)
    points = metric == "memorized_points"
    alike = not points or rows["n"].nunique() == 1
    figure, grid = empty_grid(len(panels), sharey=alike)
    sparsities = np.array(sorted(set(pruned(rows)["sparsity"])))
    places = -np.log10(1 - sparsities)
    gap = min(0.06 * (np.ptp(places) or 1), 0.5 * np.diff(places, append=np.inf).min())
    for axes, (title, panel) in zip(grid, panels, strict=True):
        for _, dense in panel[panel["pruner"] == "dense"].iterrows():
            y, h = dense[metric], dense[f"{metric}_half_width"]
            axes.axhline(y, color="black", ls="--")
            axes.axhspan(y - h, y + h, color="black", alpha=0.08, lw=0)
        lines = list(series_of(pruned(panel), plan))
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
        sparsity_axis(axes, sparsities, 0.16 if len(panels) > 1 else 0.09)
    gray = {"color": "#555555", "marker": "o", "ls": ""}
    marks = [
        (mark, gray | MARKS[mark])
        for mark, here in _marked(pruned(cells)).items()
        if here.any()
    ]
    return finish(figure, rows, plan, "weights removed (%)", ylabel, marks)


def _marked(cells: pd.DataFrame) -> dict[str, Any]:
    """For each of `MARKS`, which cells have it: the worst that befell a network."""
    hollow = (cells["collapsed"] + cells["diverged"] > 0).to_numpy()
    half = (cells["unconverged"] > 0).to_numpy() & ~hollow
    return {"did not converge": half, "collapsed or diverged": hollow}


def _noise_correlation_by_epoch(rows: pd.DataFrame, plan: Plan) -> Drawing:
    title = "Correlation with the label noise while training"
    column = "noise_correlation_by_epoch"
    rows = rows[_lists(rows, column) & (rows["noise"] > 0)]
    if pruned(rows).empty:
        return Drawing(
            title, None, "No pruned network's epochs with noise are on file."
        )
    panels = panels_of(rows, plan, by_sparsity=True)
    figure, grid = empty_grid(len(panels), sharey="noise" not in plan.panels)
    for axes, (name, panel) in zip(grid, panels, strict=True):
        for look, style, group in series_of(panel, plan):
            curves = [np.asarray(curve, dtype=float) for curve in group[column]]
            last = max(map(len, curves))
            held = [np.pad(curve, (0, last - len(curve)), "edge") for curve in curves]
            mean, half_width = mean_interval(held)
            some = np.array(spread(range(last), 50))  # for a small file
            # A count: a share of the axis fails on a curve that is NaN throughout.
            every = max(1, len(some) // 5)
            axes.plot(some + 1, mean[some], markevery=every, ms=4, **look.style(style))
            low, high = (mean - half_width)[some], (mean + half_width)[some]
            axes.fill_between(some + 1, low, high, color=look.color, alpha=0.12, lw=0)
        axes.set_title(name)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    finish(figure, rows, plan, "epoch", "mean of ⟨f(x), z⟩")
    caption = (
        "Mean over the training points of ⟨f(x), z⟩ at the end of every epoch, as it "
        "is, not divided by ‖z‖². A network that has stopped holds its last value "
        "until the last of its group stops, so that no mean jumps because others "
        f"dropped out. {chosen(rows, plan, panels)}Shown: "
        f"{plan.over}, as a band.{_notes(rows)}"
    )
    return Drawing(title, figure, caption)


def _kept_by_layer(rows: pd.DataFrame, plan: Plan) -> Drawing:
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
    panels = panels_of(rows, plan, by_sparsity=True)
    figure, grid = empty_grid(len(panels), sharey=True)
    for axes, (name, panel) in zip(grid, panels, strict=True):
        lines = list(series_of(panel, plan))
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
    finish(figure, rows, plan, "layer", "weights kept (%)")
    caption = (
        "Share of a layer's weights that the mask keeps. The scale is logarithmic "
        "above 0.1 % and linear below, so that an emptied layer is seen, at 0. Gray: "
        f"the share kept of all layers together. {chosen(rows, plan, panels)}Shown: "
        f"{plan.over}; the thin lines only guide the eye."
    )
    return Drawing(title, figure, caption)


def _lists(rows: pd.DataFrame, column: str) -> pd.Series[bool]:
    """Whether the row has a list there, with something in it."""
    values = rows.get(column, pd.Series(None, rows.index, dtype=object))
    return values.map(lambda x: isinstance(x, (list, np.ndarray)) and len(x) > 0)
