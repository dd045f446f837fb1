"""Memorization: its rows summed up, and their figures.

Every number is a mean over the networks of a cell (its seeds), with a Student-t
interval; where a single network stands for a cell, there is no interval, rather than
one of width 0. What would surprise: a mean leaves out what is not finite.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from nfp_jax.estimates import mean_interval
from nfp_jax.figures.common import (
    Drawing,
    Plan,
    chosen,
    empty_grid,
    finish,
    panels_of,
    plan_of,
    series_of,
    spread,
)
from nfp_jax.figures.kind import Grid, Kind, grids_of
from nfp_jax.figures.looks import BARS
from nfp_jax.figures.points import (
    LOGARITHMIC,
    Mark,
    against_sparsity,
    draw_points,
    entries_of,
    marks_in_words,
)
from nfp_jax.figures.words import (
    CELL,
    axes_of,
    in_order,
    numbers,
    pruned,
    pruned_by,
    shown,
    truth,
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
TABLES = {
    "train_accuracy": "Train accuracy, the share of the n points memorized",
    "test_accuracy": "Test accuracy",
    "noise_correlation_normalized": "Correlation with the label noise, 1 = all learned",
}
MARKS = (
    Mark.hollow("collapsed or diverged", "collapsed", "diverged"),
    Mark.half("did not converge", "unconverged"),
)


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
    rows = rows.reindex(columns=list(dict.fromkeys([*rows.columns, *METRICS])))
    diverged = truth(rows, "diverged")
    return rows.assign(
        collapsed=truth(rows, "collapsed"),
        diverged=diverged,
        unconverged=truth(rows, "converged", False) & ~diverged,
    )


# ---- The figures


def draw_memorization(rows: pd.DataFrame) -> dict[str, Drawing]:
    """The figures of memorization by name."""
    plan = plan_of(rows)
    return {
        "memorization": memorized(rows, plan),
        "noise_correlation": _noise_correlation(rows, plan),
        "noise_correlation_by_noise": _noise_correlation_by_noise(rows, plan),
        "noise_correlation_by_epoch": _noise_correlation_by_epoch(rows, plan),
        "kept_by_layer": _kept_by_layer(rows, plan),
    }


def memorized(rows: pd.DataFrame, plan: Plan) -> Drawing:
    """The memorized points against sparsity."""
    title = "Memorization against sparsity"
    if pruned(rows).empty:
        return Drawing(title, None, "No pruned network is on file.")
    one = rows["n"].nunique() == 1
    label = "memorized points" + (f" (of {rows['n'].iloc[0]:,})" if one else "")
    metric = "memorized_points"
    figure = against_sparsity(
        _with_ends(rows, metric),
        plan,
        metric,
        label,
        MARKS,
        alike=one,
        finally_=_end_at_n,
    )
    caption = (
        "Points of the training set that the network gets right at the end of "
        "training (n × train accuracy), against the share of prunable weights removed. "
        "The axis ends at n, though an interval may not. "
    )
    return Drawing(title, figure, caption + _sparsity_caption(rows, plan))


_NORMALIZED = (
    "Mean over the training points of ⟨f(x), z⟩, with f the softmax output at the end "
    "of training and z the label noise, divided by the mean of ‖z‖²: 0 where none of "
    "the noise is learned, 1 where all of it is. "
)


def _noise_correlation(rows: pd.DataFrame, plan: Plan) -> Drawing:
    title = "Correlation with the label noise against sparsity"
    metric = "noise_correlation_normalized"
    rows = rows[rows["noise"] > 0]
    if not np.isfinite(numbers(pruned(rows), metric)).any():
        why = "No pruned network has label noise (noise > 0) and a finite correlation."
        return Drawing(title, None, why)
    label = "correlation with the noise"
    figure = against_sparsity(_with_ends(rows, metric), plan, metric, label, MARKS)
    return Drawing(title, figure, _NORMALIZED + _sparsity_caption(rows, plan))


def _noise_correlation_by_noise(rows: pd.DataFrame, plan: Plan) -> Drawing:
    title = "Correlation with the label noise against the noise rate"
    metric = "noise_correlation_normalized"
    noisy = rows[np.isfinite(numbers(rows, metric))]  # none is where there is no noise
    rates = sorted(set(pruned(noisy)["noise"]))
    if len(rates) < 2:
        count = "just one noise rate" if rates else "no noise rate"
        why = f"Pruned networks have a finite correlation at {count} above 0."
        return Drawing(title, None, why)
    missing = " Missing: noise = 0, where there is no noise and 0 / 0 is undefined."
    missing = missing if (rows["noise"] == 0).any() else ""
    plan = plan._replace(panels=[axis for axis in plan.panels if axis != "noise"])
    cells = _with_ends(noisy, metric)
    panels = panels_of(cells, plan, by_sparsity=True)
    figure, grid = empty_grid(len(panels), sharey=True)
    gap = min(0.06 * np.ptp(rates), 0.5 * np.diff(rates).min())
    for axes, (name, panel) in zip(grid, panels, strict=True):
        lines = list(series_of(panel, plan))
        for i, (look, line, group) in enumerate(lines):
            x = group["noise"].to_numpy() + gap * ((i + 0.5) / len(lines) - 0.5)
            draw_points(axes, x, group, metric, look.style(line), MARKS)
        axes.set_title(name)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    entries = entries_of(cells, metric, MARKS)
    finish(figure, noisy, plan, "noise rate", "correlation with the noise", entries)
    caption = (
        f"{_NORMALIZED}The noise rate is the share of labels that are drawn anew. "
        f"{chosen(noisy, plan, panels)}Shown: {plan.over}. Markers are moved sideways "
        f"a little, so as not to hide each other.{missing}"
        f"{marks_in_words(cells, MARKS)}{_left_out(noisy)}{_dashed(noisy)}"
    )
    return Drawing(title, figure, caption)


def _with_ends(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The cells, with the lower and upper end of a metric's interval."""
    cells = summary(rows)
    mean, half_width = cells[metric], cells[f"{metric}_half_width"]
    ends = {f"{metric}_low": mean - half_width, f"{metric}_high": mean + half_width}
    return cells.assign(**ends)


def _end_at_n(axes: Axes, cells: pd.DataFrame) -> None:
    low, high = axes.get_ylim()
    n = cells["n"].max()
    axes.set_ylim(max(low, -0.04 * n), min(high, 1.04 * n))


def _sparsity_caption(rows: pd.DataFrame, plan: Plan) -> str:
    marks = marks_in_words(summary(pruned(rows)), MARKS)
    return f"Shown: {plan.over}. {LOGARITHMIC}{marks}{_notes(rows)}"


def _notes(rows: pd.DataFrame) -> str:
    band = ", its interval in gray" if (rows["pruner"] == "dense").sum() > 1 else ""
    return _left_out(rows) + _dashed(rows).replace("network", f"network{band}")


def _left_out(rows: pd.DataFrame) -> str:
    diverged = flagged(rows)["diverged"].any()
    return " Means leave out what is not finite." if diverged else ""


def _dashed(rows: pd.DataFrame) -> str:
    dense = (rows["pruner"] == "dense").any()
    return " Dashed: the dense network." if dense else ""


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


# ---- The tables and the page


def grids(rows: pd.DataFrame, metric: str) -> Iterator[Grid]:
    """For each n and noise the table of a metric."""
    cells = summary(rows).dropna(subset=[metric])
    halves = [f" ± {x:.3f}" if x == x else "" for x in cells[f"{metric}_half_width"]]
    cells["text"] = cells[metric].map("{:.3f}".format) + halves
    return grids_of(rows, cells)


def networks_in_words(rows: pd.DataFrame) -> str:
    """How many networks there are, dense and pruned, by what, and at which axes."""
    some = pruned(rows)
    dense = len(rows) - len(some)
    what = f"{len(rows):,} networks: " + (f"{dense:,} dense" if dense else "")
    if not some.empty:
        what += f"{', ' if dense else ''}{len(some):,} pruned by {pruned_by(some)}"
    return f"{what}. {axes_of(rows)}."


def _headline(rows: pd.DataFrame) -> str:
    failed = flagged(rows)[list(FAILURES)].any(axis=1).sum()
    end = "All converged, none collapsed or diverged."
    if failed:
        end = f"{failed:,} networks collapsed, diverged or did not converge; see "
        end += "Warnings."
    return f"{networks_in_words(rows)} {end}"


def entries(rows: pd.DataFrame) -> str:
    """What an entry of a table is: a mean, and its interval's half-width."""
    return f"{shown(rows)}; after ± the interval's half-width"


MEMORIZATION = Kind(
    column="train_accuracy",
    unit="networks",
    troubles=FAILURES,
    fine="every network converged, none collapsed or diverged",
    flagged=flagged,
    summary=summary,
    draw=draw_memorization,
    tables=TABLES,
    grids=grids,
    heading=lambda rows: f"Train accuracy by sparsity; {shown(rows)}",
    headline=_headline,
    entries=entries,
)
