"""The law of robustness: how steep networks are that fit noise, and their figures.

Rows have all columns of memorization, and beside them a lower and an upper end of the
Lipschitz constant and how far the squared error is below the noise (``excess``, the ε
of ``Lip >= ε sqrt(n d / p_eff)``, up to constants and logarithms). An upper end may be
infinite, and a mean with it; a diverged network has no ends and is left out of means.
The law is about networks that fit their labels: figures of it leave out all others.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from nfp_jax.estimates import mean_interval, slope_interval
from nfp_jax.pages.bars import BOTH_LOGARITHMIC, BY_SPARSITY, Bars, draw_bars
from nfp_jax.pages.common import (
    Drawing,
    Plan,
    decades,
    empty_grid,
    finish,
    logarithmic,
    panels_of,
    plan_of,
    series_of,
)
from nfp_jax.pages.kind import Grid, Kind, grids_of, verdict
from nfp_jax.pages.looks import BOUND
from nfp_jax.pages.pruners import dense, pruned
from nfp_jax.pages.sheet import cell_lines, seeds_in_words, show
from nfp_jax.pages.words import CELL, counted, networks_of, number, numbers, varying
from nfp_jax.questions.memorization import figures as memorization
from nfp_jax.questions.memorization.figures import networks_in_words
from nfp_jax.questions.memorization.networks import FAILURES, MARKS, marks_told

FITTED = 0.95  # train accuracy from which on the law is looked at
TROUBLES = FAILURES | {
    "unfit": "do not fit below the noise level (ε ≤ 0), so the law says nothing of them"
}
TABLES = {
    "lipschitz": "Lipschitz constant, lower-upper end, in units where E‖x‖² = 1",
    "lipschitz_product": "Product of the layers' spectral norms",
    "excess": "ε, the noise variance less the squared error",
    "train_accuracy": memorization.TABLES["train_accuracy"],
}
MEANS = ("lipschitz_lower", "lipschitz_upper", "lipschitz_product", "excess")


def flagged(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with every metric, and a boolean for each of `TROUBLES`."""
    return memorization.flagged(rows).assign(unfit=numbers(rows, "excess") <= 0)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """The summary of memorization, and what the law speaks of.

    Besides: how many networks are ``unfit``, the mean of each of `MEANS`, infinite
    where one of its networks is, and ``excess_half_width``.
    """
    lines = []
    for cell, group in flagged(rows).groupby(list(CELL), dropna=False):
        line = dict(zip(CELL, cell, strict=True))
        line["unfit"] = int(group["unfit"].sum())
        line |= {name: _mean(numbers(group, name)) for name in MEANS}
        line["excess_half_width"] = mean_interval(numbers(group, "excess"))[1]
        lines.append(line)
    law = pd.DataFrame(lines)
    return memorization.summary(rows).merge(law, on=list(CELL), how="left")


def draw_robustness(rows: pd.DataFrame) -> dict[str, Drawing]:
    """The figures of robustness by name."""
    plan = plan_of(rows)
    return {
        "lipschitz": _lipschitz(rows, plan),
        "law_of_robustness": _law(rows, plan),
        "memorization": memorization.memorized(rows),
    }


class Fit(NamedTuple):
    """The points of the law, and its line through them."""

    rows: pd.DataFrame  # with x = sqrt(n d / weights kept) and y = lower end / ε
    slope: tuple[float, float, float]  # of log y on log x, and its interval
    constant: float  # of y = constant x, the law's exponent for x


def fit(rows: pd.DataFrame) -> Fit:
    """The networks of the law, and the exponent fitted to them.

    They have a train accuracy of at least `FITTED`, ε > 0 and a lower end above 0; the
    exponent is that of ``n d / weights kept``: the law has 1/2.
    """
    with np.errstate(divide="ignore"):
        ratio = numbers(rows, "n") * numbers(rows, "dim") / numbers(rows, "kept")
    lower, excess = numbers(rows, "lipschitz_lower"), numbers(rows, "excess")
    usable = (excess > 0) & (lower > 0) & np.isfinite(lower) & np.isfinite(ratio)
    usable &= numbers(rows, "train_accuracy") >= FITTED
    rows = rows[usable].assign(
        x=np.sqrt(ratio[usable]), y=lower[usable] / excess[usable]
    )
    x, y = np.log(rows["x"].to_numpy()), np.log(rows["y"].to_numpy())
    constant = float(np.exp(np.mean(y - x))) if len(rows) else np.nan
    return Fit(rows, slope_interval(2 * x, y), constant)


# ---- The figures


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else np.nan


def _over(rows: pd.DataFrame) -> str:
    count, many = networks_of(rows)
    over = f"mean of the lower and mean of the upper ends over {count} networks"
    return "one network each (a single seed)" if many == 1 else over


def _lipschitz(rows: pd.DataFrame, plan: Plan) -> Drawing:
    title, cells = "Lipschitz constant against sparsity", summary(rows)
    if not np.isfinite(pruned(cells)["lipschitz_lower"]).any():
        why = "No pruned network has a finite lower end of its Lipschitz constant."
        return Drawing(title, None, why)
    ends = cells[["lipschitz_lower", "lipschitz_upper"]]
    scale = functools.partial(logarithmic, values=ends)
    bars = Bars("lipschitz", "Lipschitz constant", scale, marks=MARKS)
    plan = plan._replace(panels=varying(rows), lines=None)
    figure = draw_bars(cells, plan, panels_of(cells, plan), BY_SPARSITY, bars)
    caption = (
        "Lipschitz constant of the softmax outputs, in units where inputs have "
        "E‖x‖² = 1. Each bar goes from a lower end (the largest Jacobian norm that was "
        "found) to an upper end that holds everywhere: the constant lies anywhere "
        f"between. Shown: {_over(rows)}. "
        f"{BOTH_LOGARITHMIC}"
        f"{marks_told(rows)}"
        f"{'' if dense(cells).empty else ' Dashed: both ends of the dense network.'}"
    )
    return Drawing(title, figure, caption)


_SHARE = f"at least {100 * FITTED:g} %"


def _law(rows: pd.DataFrame, plan: Plan) -> Drawing:
    title = "The law of robustness, network by network"
    fitted = fit(rows)
    networks = fitted.rows
    if networks.empty:
        why = f"No network fits {_SHARE} of its labels, and below the noise level "
        why += "(ε > 0), with a lower end above 0."
        return Drawing(title, None, why)
    figure, [axes] = empty_grid(1, sharey=True)
    for look, _, group in series_of(networks, plan._replace(lines=None)):
        axes.plot(group["x"], group["y"], ms=4, alpha=0.7, **look.dot())
        seeds = zip(seeds_in_words(group), group["y"], strict=True)
        told = cell_lines(group, measure="lower end / ε", value=group["y"].to_numpy())
        told["by_seed"] = pd.Series([[one] for one in seeds], dtype=object)
        show(axes, group["x"], group["y"], told, look.color)
    ends = np.array([networks["x"].min(), networks["x"].max()])
    axes.plot(ends, fitted.constant * ends, zorder=1, **BOUND)
    axes.set_xscale("log")
    axes.set_yscale("log")
    decades(axes.xaxis, networks["x"], room=1.5)
    decades(axes.yaxis, networks["y"])
    entries = [("exponent 1/2", BOUND)]
    label = "lower end of the Lipschitz constant / ε"
    plan = plan._replace(lines=None)
    finish(figure, networks, plan, "√(n d / weights kept)", label, entries, dots=True)
    left = len(rows) - len(networks)
    out = (
        f" Left out: {counted(left, 'networks')} with a train accuracy below "
        f"{FITTED:g}, with ε ≤ 0, or without a lower end above 0."
        if left
        else ""
    )
    caption = (
        "Lower end of the Lipschitz constant divided by ε, the noise variance less the "
        "squared error, against √(n d / weights kept): the law has p_eff, weights kept "
        "plus information, in their place, so points may belong further left. A point "
        f"is a network that fits {_SHARE} of its labels. {_exponent(fitted)} Dashed: "
        f"the law, exponent 1/2, its constant fitted. Both scales are logarithmic.{out}"
    )
    return Drawing(title, figure, caption)


def _exponent(fitted: Fit) -> str:
    slope, low, high = fitted.slope
    if not np.isfinite(slope):
        return "There is no exponent to fit: n d / weights kept does not vary."
    text = f"Exponent of n d / weights kept, by least squares: {slope:.2f}"
    if not np.isfinite(low):
        return f"{text} (two networks, so there is no interval)."
    count = f"{len(fitted.rows):,} networks, taken as independent"
    text += f" (95 % Student-t interval {low:.2f} to {high:.2f}, {count})."
    return text


# ---- The tables and the page


def _grids(rows: pd.DataFrame, measure: str) -> Iterator[Grid]:
    """For each n and noise the table of a measure."""
    if measure == "train_accuracy":
        yield from memorization.grids(rows, measure)
        return
    cells = summary(rows)
    cells = cells[cells[MEANS[0] if measure == "lipschitz" else measure].notna()].copy()
    cells["text"] = [_entry(cell, measure) for _, cell in cells.iterrows()]
    yield from grids_of(rows, cells)


def _entry(cell: pd.Series[Any], measure: str) -> str:
    if measure == "lipschitz":
        low, high = (number(cell[f"{measure}_{end}"]) for end in ("lower", "upper"))
        return f"{low}-{high}"
    half_width = cell.get(f"{measure}_half_width", np.nan)
    if measure == "excess":
        half = f" ± {half_width:.3f}" if half_width == half_width else ""
        return f"{cell[measure]:.3f}{half}"
    return number(cell[measure])


def _headline(rows: pd.DataFrame) -> str:
    flags = flagged(rows)[list(TROUBLES)]
    return f"{networks_in_words(rows)} {verdict(flags, 'networks', _FINE)}"


_FINE = (
    "every training ended within its budget and every network fits below the noise "
    "level, none collapsed or diverged"
)
KIND = Kind(
    unit="networks",
    troubles=TROUBLES,
    fine=_FINE,
    flagged=flagged,
    summary=summary,
    draw=draw_robustness,
    tables=TABLES,
    grids=_grids,
    heading=lambda rows: (
        f"Lipschitz constant by sparsity, lower-upper end; {_over(rows)}"
    ),
    headline=_headline,
    entries=lambda rows: (
        f"of the constant lower-upper end, {_over(rows)}; of the product a mean; of ε "
        f"and accuracy {memorization.entries(rows)}"
    ),
)
