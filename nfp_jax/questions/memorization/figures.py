"""Memorization: how much networks memorize, and the page of their rows.

How much is told at the end of training, by sparsity and by points a kept weight; how
fast, in ``curves`` and ``speed``. Main figures have masks as they were found; the
others are in ``controls``, and the tables have all.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from nfp_jax.pages.common import (
    Drawing,
    Plan,
    chosen,
    empty_grid,
    finish,
    log_x,
    panels_of,
    series_of,
)
from nfp_jax.pages.kind import Grid, Kind, blocks_of, grids_of
from nfp_jax.pages.layers import kept_by_layer
from nfp_jax.pages.points import against_sparsity, draw_points, entries_of
from nfp_jax.pages.pruners import DENSE, pruned
from nfp_jax.pages.words import (
    axes_of,
    counted,
    medians_shown,
    numbers,
    pruned_by,
    shown,
    varying,
)
from nfp_jax.questions.memorization import speed
from nfp_jax.questions.memorization.controls import controls
from nfp_jax.questions.memorization.curves import (
    memorization_by_epoch,
    noise_correlation_by_epoch,
    noise_correlation_by_loss,
)
from nfp_jax.questions.memorization.networks import (
    FAILURES,
    MARKS,
    as_found,
    dashed,
    flagged,
    left_out,
    marks_told,
    plan_as_found,
    sparsity_caption,
    summary,
    with_ends,
)

TABLES = {
    "train_accuracy": "Train accuracy, the share of the n points memorized",
    "test_accuracy": "Test accuracy",
    "noise_correlation_normalized": "Correlation with the label noise, 1 = all learned",
    speed.TIME: "Time to memorize, epochs to 99 % of the labels",
}


# ---- The figures


def draw_memorization(rows: pd.DataFrame) -> dict[str, Drawing]:
    """The figures of memorization by name."""
    plan, main = plan_as_found(rows), as_found(rows)
    return {
        "memorization": memorized(rows),
        "memorized_by_load": _memorized_by_load(main, plan),
        "controls": controls(rows, plan),
        "memorization_by_epoch": memorization_by_epoch(main, plan),
        "time_to_memorize": speed.time_to_memorize(main, plan),
        "noise_correlation": _noise_correlation(main, plan),
        "noise_correlation_by_noise": _noise_correlation_by_noise(main, plan),
        "noise_correlation_by_loss": noise_correlation_by_loss(main, plan),
        "noise_correlation_by_epoch": noise_correlation_by_epoch(main, plan),
        "kept_by_layer": kept_by_layer(main, plan),
    }


def memorized(rows: pd.DataFrame) -> Drawing:
    """The memorized points against sparsity, under masks as they were found."""
    title = "Memorization against sparsity"
    plan, rows = plan_as_found(rows), as_found(rows)
    if pruned(rows).empty:
        return Drawing(title, None, "No pruned network is on file.")
    one = rows["n"].nunique() == 1
    label = "memorized points" + (f" (of {rows['n'].iloc[0]:,})" if one else "")
    metric = "memorized_points"
    figure = against_sparsity(
        with_ends(rows, metric),
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
    return Drawing(title, figure, caption + sparsity_caption(rows, plan))


# By n, from the smallest on; more than four begin again.
_STYLES = ("-", ":", "-.", "--")


def _memorized_by_load(rows: pd.DataFrame, plan: Plan) -> Drawing:
    title = "Memorization against points a kept weight"
    rows = rows[numbers(rows, "kept") > 0]
    if pruned(rows).empty:
        return Drawing(title, None, "No pruned network that keeps a weight is on file.")
    sizes = sorted(set(rows["n"]))
    one = len(sizes) == 1
    metric = "memorized_points" if one else "train_accuracy"
    cells = with_ends(rows, metric)
    cells["load"] = cells["n"].astype(float) / cells["kept"]
    if not one:
        styles = {str(n): _STYLES[i % len(_STYLES)] for i, n in enumerate(sizes)}
        others = [axis for axis in varying(rows) if axis != "n"]
        plan = plan._replace(panels=others, lines="n", styles=styles)
    panels = panels_of(cells, plan)
    figure, grid = empty_grid(len(panels), sharey=True)
    places = np.unique(np.log10(pruned(cells)["load"].to_numpy()))
    room = np.diff(places, append=np.inf)
    gap = min(0.06 * (np.ptp(places) or 1), 0.5 * room[room > 1e-3].min())
    for axes, (name, panel) in zip(grid, panels, strict=True):
        order = pruned(panel)["pruner"].unique().tolist()
        for look, line, group in series_of(panel, plan):
            pruner = group["pruner"].iloc[0]
            aside = 0.0
            if pruner != DENSE:
                aside = gap * ((order.index(pruner) + 0.5) / len(order) - 0.5)
            x = group["load"].to_numpy() * 10**aside
            style = look.style(line) | {"marker": look.dot()["marker"]}
            draw_points(axes, x, group, metric, style, MARKS)
        axes.set_title(name)
        log_x(axes, cells["load"], room=2)
        axes.yaxis.set_major_formatter("{x:,g}")
        if one:
            _end_at_n(axes, cells)
    label = f"memorized points (of {sizes[0]:,})" if one else "share memorized"
    entries = entries_of(cells, metric, MARKS)
    finish(figure, cells, plan, "n / weights kept", label, entries, dots=True)
    lines = (
        ""
        if one
        else " A line style stands for an n: where lines of the same color lie on each "
        "other, the share depends on n / weights kept alone."
    )
    caption = (
        ("Points" if one else "Share of the n labels")
        + " that the network gets right at the end of training, against the points of "
        "the training set a prunable weight that its mask keeps, on a logarithmic "
        f"scale.{lines} Shown: {plan.over}. Markers are moved sideways a little, so as "
        f"not to hide each other.{marks_told(rows)}{left_out(rows)}"
    )
    return Drawing(title, figure, caption)


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
    figure = against_sparsity(with_ends(rows, metric), plan, metric, label, MARKS)
    return Drawing(title, figure, _NORMALIZED + sparsity_caption(rows, plan))


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
    cells = with_ends(noisy, metric)
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
        f"{marks_told(noisy)}{left_out(noisy)}{dashed(noisy)}"
    )
    return Drawing(title, figure, caption)


def _end_at_n(axes: Axes, cells: pd.DataFrame) -> None:
    low, high = axes.get_ylim()
    n = cells["n"].max()
    axes.set_ylim(max(low, -0.04 * n), min(high, 1.04 * n))


# ---- The tables and the page


def grids(rows: pd.DataFrame, metric: str) -> Iterator[Grid]:
    """For each n and noise the table of a metric."""
    if metric == speed.TIME:
        yield from speed.grids(rows)
        return
    cells = summary(rows, [metric]).dropna(subset=[metric])
    halves = [f" ± {x:.3f}" if x == x else "" for x in cells[f"{metric}_half_width"]]
    cells["text"] = cells[metric].map("{:.3f}".format) + halves
    yield from grids_of(rows, cells)


def networks_in_words(rows: pd.DataFrame) -> str:
    """How many networks there are, dense and pruned, by what, and at which axes."""
    sparse = pruned(rows)
    dense = len(rows) - len(sparse)
    what = f"{len(rows):,} networks: " + (f"{dense:,} dense" if dense else "")
    if not sparse.empty:
        what += f"{', ' if dense else ''}{len(sparse):,} pruned by {pruned_by(sparse)}"
    return f"{what}. {axes_of(rows)}."


_SHORT = {
    "collapsed": "collapsed",
    "diverged": "diverged",
    "out_of_budget": "ran out of budget",
    "unconverged": "did not converge",
}


def _headline(rows: pd.DataFrame) -> str:
    flags = flagged(rows)
    failed = {name: int(flags[name].sum()) for name in FAILURES}
    parts = [f"{count:,} {_SHORT[name]}" for name, count in failed.items() if count]
    end = f"Of {counted(len(rows), 'networks')} {', '.join(parts)}; see Warnings."
    fine = KIND.fine
    return f"{networks_in_words(rows)} {end if parts else f'No warnings: {fine}.'}"


def entries(rows: pd.DataFrame) -> str:
    """What an entry of a table is: a mean, and its interval's half-width."""
    return f"{shown(rows)}; after ± the interval's half-width"


KIND: Kind = Kind(
    unit="networks",
    troubles=FAILURES,
    fine="every training ended within its budget, none collapsed or diverged",
    flagged=flagged,
    summary=summary,
    draw=draw_memorization,
    tables=TABLES,
    grids=grids,
    heading=lambda rows: f"Train accuracy by sparsity; {shown(rows)}",
    headline=_headline,
    entries=lambda rows: (
        f"{entries(rows)}. Of the time to memorize: {medians_shown(rows, 'networks')}; "
        ">: a lower bound, since networks ran out of budget; never: they settled below "
        "99 %; in parentheses how many got there, where not all did"
    ),
    card=lambda rows, name: blocks_of(KIND, rows, "train_accuracy", speed.TIME),
)
