"""Curves of trainings: memorization and correlation by epoch, correlation by loss.

Rows keep their histories at epochs of their own (``history_epochs``); without these, an
entry is an epoch. Between two entries a history stands still at the earlier one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from nfp_jax.estimates import mean_interval
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
from nfp_jax.pages.points import entries_of
from nfp_jax.pages.pruners import DENSE, pruned
from nfp_jax.pages.sheet import lines_along, seeds_in_words, show
from nfp_jax.pages.words import lists, numbers
from nfp_jax.questions.memorization.networks import (
    MARKS,
    flagged,
    marks_told,
    notes,
)

MOST = 64  # points of a curve, for a small file


class History(NamedTuple):
    """What a network was at the end of some of its epochs."""

    epochs: np.ndarray
    values: np.ndarray


class Curve(NamedTuple):
    """Means at the places of x, with the half-widths of their intervals."""

    x: np.ndarray
    mean: np.ndarray
    half_width: np.ndarray


def histories(rows: pd.DataFrame, column: str) -> list[History]:
    """The histories of the rows' networks.

    Raises:
      ValueError: a history has more or fewer entries than ``history_epochs``.
    """
    found = []
    given = rows.get("history_epochs", pd.Series(None, rows.index, dtype=object))
    where = lists(rows, "history_epochs")
    for values, at, known in zip(rows[column], given, where, strict=True):
        epochs = np.asarray(at) if known else np.arange(1, len(values) + 1)
        if len(epochs) != len(values):
            raise ValueError(
                f"{column} has {len(values)} entries, expected the {len(epochs)} of "
                "history_epochs"
            )
        found.append(History(epochs, np.asarray(values, dtype=float)))
    return found


def by_epoch(several: list[History]) -> Curve:
    """The mean of histories at epochs evenly spread on a logarithmic scale.

    From epoch 1 to the last of all; a network that has stopped holds its last value.
    """
    last = max(one.epochs[-1] for one in several)
    x = np.unique(np.geomspace(1, last, MOST).round().astype(int))
    return Curve(x, *mean_interval([held(one, x) for one in several]))


def held(one: History, x: np.ndarray) -> np.ndarray:
    """The values of a history at these epochs; after its last it stands still."""
    return one.values[np.searchsorted(one.epochs, x, side="right").clip(1) - 1]


def by_loss(losses: list[History], others: list[History]) -> Curve | None:
    """The mean of other histories where each network has the same loss.

    A network's value at a loss is that at which its loss first falls so low, between
    two entries by interpolation on the logarithm of the loss. The curve goes from the
    highest to the lowest loss that all networks have passed; None: there is none.
    Networks without a finite, positive loss are left out.
    """
    passed = []
    for loss, other in zip(losses, others, strict=True):
        y, values = loss.values, other.values
        where = np.isfinite(y) & (y > 0) & np.isfinite(values)
        y, values = y[where], values[where]
        lower = y < np.minimum.accumulate(np.append(np.inf, y))[:-1]
        if lower.any():
            passed.append((np.log(y[lower])[::-1], values[lower][::-1]))
    if not passed:
        return None
    low = max(logs[0] for logs, _ in passed)
    high = min(logs[-1] for logs, _ in passed)
    if low > high:
        return None
    x = np.linspace(high, low, MOST if low < high else 1)
    return Curve(np.exp(x), *mean_interval([np.interp(x, *one) for one in passed]))


# ---- The figures


def memorization_by_epoch(rows: pd.DataFrame, plan: Plan) -> Drawing:
    """The share of labels memorized while training."""
    title, column = "Memorization against epoch", "train_accuracy_by_epoch"
    rows = rows[lists(rows, column)]
    if pruned(rows).empty:
        return Drawing(title, None, "No pruned network's epochs are on file.")
    caption = (
        "Share of the n labels that the network gets right at the end of every epoch: "
        "how fast it memorizes, where the figures at the end of training tell how much."
    )
    return _by_epoch(rows, plan, column, title, "share memorized", caption)


def noise_correlation_by_epoch(rows: pd.DataFrame, plan: Plan) -> Drawing:
    """The correlation with the label noise while training."""
    title = "Correlation with the label noise while training"
    column = "noise_correlation_by_epoch"
    rows = rows[lists(rows, column) & (rows["noise"] > 0)]
    if pruned(rows).empty:
        why = "No pruned network's epochs with noise are on file."
        return Drawing(title, None, why)
    caption = (
        "Mean over the training points of ⟨f(x), z⟩ at the end of every epoch, as it "
        "is, not divided by ‖z‖²."
    )
    return _by_epoch(rows, plan, column, title, "mean of ⟨f(x), z⟩", caption)


def noise_correlation_by_loss(rows: pd.DataFrame, plan: Plan) -> Drawing:
    """The correlation with the label noise against the training loss."""
    title = "Correlation with the label noise at equal training loss"
    names = ("loss_by_epoch", "noise_correlation_by_epoch")
    where = lists(rows, names[0]) & lists(rows, names[1]) & (rows["noise"] > 0)
    rows = rows[where]
    rows = rows[
        rows[names[0]].map(len) == rows[names[1]].map(len)
    ]  # of the same epochs
    rows = flagged(rows).assign(factor=noise_factor(rows))
    rows = rows[np.isfinite(rows["factor"])]
    why = "No pruned network's losses and correlations with noise are on file."
    if pruned(rows).empty:
        return Drawing(title, None, why)
    panels = panels_of(rows, plan, by_sparsity=True)
    curves = [
        [(look, style, group, _at_loss(group)) for look, style, group in lines]
        for lines in (series_of(panel, plan) for _, panel in panels)
    ]
    losses = [c.x for lines in curves for *_, c in lines if c is not None]
    if not losses:
        return Drawing(title, None, why)
    figure, grid = empty_grid(len(panels), sharey=True)
    for axes, (name, _), lines in zip(grid, panels, curves, strict=True):
        for look, style, group, curve in lines:
            if curve is not None:
                every = _draw(axes, curve, group, look.style(style))
                told = _told(curve, group, "correlation, normalized", "loss")
                show(axes, curve.x, curve.mean, told, look.color, every=every)
        axes.set_title(name)
        log_x(axes, np.concatenate(losses), room=2)
        axes.set_xlim(*axes.get_xlim()[::-1])
    label = "correlation with the noise"
    entries = entries_of(rows, label, MARKS)
    finish(figure, rows, plan, "training loss", label, entries)
    caption = (
        "Mean over the training points of ⟨f(x), z⟩ divided by the mean of ‖z‖², "
        "against the training loss in nats, which falls from left to right on a "
        "logarithmic scale: networks are compared where they are equally sure of their "
        "labels. A network counts at the first epoch with so low a loss; a line goes "
        "from the highest to the lowest loss that all its networks pass. "
        f"{chosen(rows, plan, panels)}Shown: {plan.over}; the interval is the band."
        f"{_ends(rows)}{notes(rows)}"
    )
    return Drawing(title, figure, caption)


def noise_factor(rows: pd.DataFrame) -> np.ndarray:
    """What a correlation with the noise is multiplied by to be normalized.

    One over the mean of ‖z‖², a number of the data set: the median over the networks of
    the same n, noise and data seed, NaN where none of them has it.
    """
    raw = numbers(rows, "noise_correlation")
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = numbers(rows, "noise_correlation_normalized") / raw
    factor[~np.isfinite(factor)] = np.nan
    shared = [rows[axis].to_numpy() for axis in ("n", "noise", "data_seed")]
    medians = pd.Series(factor).groupby(shared).transform("median")
    return medians.to_numpy(dtype=float)


def _at_loss(group: pd.DataFrame) -> Curve | None:
    losses = histories(group, "loss_by_epoch")
    raw = histories(group, "noise_correlation_by_epoch")
    scaled = [
        History(one.epochs, factor * one.values)
        for one, factor in zip(raw, group["factor"], strict=True)
    ]
    return by_loss(losses, scaled)


def _by_epoch(
    rows: pd.DataFrame, plan: Plan, column: str, title: str, label: str, about: str
) -> Drawing:
    rows = flagged(rows)
    panels = panels_of(rows, plan, by_sparsity=True)
    figure, grid = empty_grid(len(panels), sharey="noise" not in plan.panels)
    for axes, (name, panel) in zip(grid, panels, strict=True):
        last = 1
        for look, style, group in series_of(panel, plan):
            several = histories(group, column)
            curve = by_epoch(several)
            every = _draw(axes, curve, group, look.style(style))
            each = [held(one, curve.x) for one in several]
            told = _told(curve, group, label, "epoch", each)
            show(axes, curve.x, curve.mean, told, look.color, every=every)
            last = max(last, curve.x[-1])
        axes.set_title(name)
        log_x(axes, [1, last], room=1)
    entries = entries_of(rows, column, MARKS)
    finish(figure, rows, plan, "epoch", label, entries)
    caption = (
        f"{about} The scale of epochs is logarithmic. A network that has stopped holds "
        "its last value until the last of its group stops, so that no mean jumps "
        f"because others dropped out. {chosen(rows, plan, panels)}Shown: {plan.over}; "
        f"the interval is the band.{_ends(rows)}{notes(rows)}"
    )
    return Drawing(title, figure, caption)


def _told(
    curve: Curve,
    group: pd.DataFrame,
    measure: str,
    along: str,
    each: Sequence[np.ndarray] = (),
) -> pd.DataFrame:
    """The lines of a curve for `show`; ``each`` are the values of its networks."""
    x, mean, half_width = curve
    told = seeds_in_words(group)
    lines = lines_along(
        group,
        **{along: x, "measure": measure, "value": mean, "networks": len(group)},
        low=mean - half_width,
        high=mean + half_width,
    )
    if len(each):
        values = np.transpose(each).tolist()  # [x, networks]
        by_seed = [list(zip(told, one, strict=True)) for one in values]
        lines["by_seed"] = pd.Series(by_seed, dtype=object)
    return lines


def _draw(axes: Axes, curve: Curve, group: pd.DataFrame, style: dict[str, Any]) -> int:
    """Draws a curve with its band; the mark of its networks is at its end.

    ``group`` are these networks, flagged, of one pruner; dense ones have no mark.
    Returns of how many points one has a marker.
    """
    x, mean, half_width = curve
    # A count: a share of the axis fails on a curve that is NaN throughout.
    every = max(1, len(x) // 5)
    axes.plot(x, mean, markevery=every, ms=4, **style)
    low, high = mean - half_width, mean + half_width
    axes.fill_between(x, low, high, color=style["color"], alpha=0.12, lw=0)
    if group["pruner"].iloc[0] == DENSE:
        return every
    for mark in MARKS:
        if any(group[trouble].any() for trouble in mark.troubles):
            options = {**style, "ls": ""} | mark.style
            axes.plot(x[-1:], mean[-1:], ms=5, zorder=3, **options)
            break  # the worst alone
    return every


def _ends(rows: pd.DataFrame) -> str:
    text = marks_told(rows)
    return f" A line's end has the mark of its networks.{text}" if text else ""
