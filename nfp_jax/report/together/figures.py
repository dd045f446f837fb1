"""Figures of several runs read together: a value against information or p_eff.

From lines of `beside_information`, each a pruner at a sparsity of a data set and
network.
Information is an interval, so a point is a bar across.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from nfp_jax.estimates import mean_interval, median_interval
from nfp_jax.pages.common import (
    Drawing,
    decades,
    empty_grid,
    finish,
    logarithmic,
    plan_of,
)
from nfp_jax.pages.joined import GROUP
from nfp_jax.pages.looks import GUIDE
from nfp_jax.pages.pruners import pruners_of
from nfp_jax.pages.sheet import cell_lines, show
from nfp_jax.pages.words import in_words, number, p_eff_in_words

NOTHING = "No two runs of the collection are of the same data and network."


def capacity_against_p_eff(cells: pd.DataFrame) -> Drawing:
    """The figure of capacities beside the effective parameter count."""
    name = p_eff_in_words(cells)
    title = f"Memorization capacity against {name}"
    if cells.empty:
        return Drawing(title, None, NOTHING)
    plan = plan_of(_rows(cells))._replace(panels=[], lines=None)
    panels = list(cells.groupby("where"))
    figure, grid = empty_grid(len(panels), sharey=False)
    for axes, (where, panel) in zip(grid, panels, strict=True):
        for pruner in pruners_of(panel):
            mine = panel[panel["pruner"] == pruner]
            look = plan.looks[pruner]
            _across(axes, mine, "p_eff", look.color)
            medians = [median_interval(values) for values in mine["values"]]
            middle, low, high = np.transpose(medians)
            x = np.sqrt(mine["p_eff_lower"] * mine["p_eff_upper"])
            axes.vlines(x, low, high, color=look.color, lw=0.9)
            axes.plot(x, middle, ms=4, **look.style(""))  # small: bars are short
            _show(axes, x, mine, "p_eff", "points", (middle, low, high), look.color)
        axes.set_xscale("log")
        ends = panel[["p_eff_lower", "p_eff_upper"]].to_numpy()
        decades(axes.xaxis, ends)
        logarithmic(axes, np.concatenate([*panel["values"], ends.ravel()]))
        span = np.array([ends.min(), ends.max()])
        axes.plot(span, span, zorder=0, **GUIDE)
        axes.set_title(_title(where))
    xlabel = f"{name}, weights kept + nats"
    finish(figure, _rows(cells), plan, xlabel, "points", dots=True)
    caption = (
        "The largest number of random labels that a masked network fits, median over "
        f"seeds (bar: its interval), against {name}, the weights kept plus the "
        "information of the mask in nats (bar: its certified interval; the point is at "
        "the middle). "
        "Information is that at the n nearest to the capacity at which it was bounded. "
        "Gray: one point an effective parameter."
    )
    return Drawing(title, figure, caption)


def gap_against_information(cells: pd.DataFrame) -> Drawing:
    """The figure of data-swap gaps beside the information of the masks."""
    title = "What a mask's own labels buy against what it knows of them"
    if cells.empty:
        return Drawing(title, None, NOTHING)
    plan = plan_of(_rows(cells))._replace(panels=[], lines=None)
    groups: Any = cells.groupby(GROUP)
    panels = list(groups)
    varying = [x for x in ("select", "noise") if cells[x].nunique() > 1]
    figure, grid = empty_grid(len(panels), sharey=True)
    for axes, (group, panel) in zip(grid, panels, strict=True):
        place = dict(zip(GROUP, group, strict=True))
        axes.axhline(0, zorder=0, **GUIDE)
        for pruner in pruners_of(panel):
            mine = panel[panel["pruner"] == pruner]
            look = plan.looks[pruner]
            _across(axes, mine, "information", look.color)
            x = (mine["information_lower"] + mine["information_upper"]) / 2
            means = [mean_interval(values) for values in mine["values"]]
            mean, half_width = np.transpose(means)
            axes.errorbar(x, mean, half_width, elinewidth=0.9, **look.style(""))
            ends = mean, mean - half_width, mean + half_width
            _show(axes, x, mine, "information", "points more", ends, look.color)
        named = ("n", "sparsity", *varying)
        words = [place["where"], *(in_words(x, place[x]) for x in named)]
        axes.set_title(_title(*words, *_elsewhere(panel)))
    finish(
        figure,
        _rows(cells),
        plan,
        "information of the mask, nats",
        "points more than on fresh labels",
        dots=True,
    )
    caption = (
        "Points that the network memorizes of the labels that its mask was found on, "
        "less those of fresh labels under the same mask, where its trainings ended "
        "(mean and 95 % Student-t interval over draws), against the information of the "
        "mask on its labels (bar: its certified interval; the marker in its middle is "
        "no estimate). In a panel all masks keep as many weights: were the gap told by "
        "the information alone, it would rise from left to right. Whether it does can "
        "be seen only of masks whose bars don't overlap. Information is what a mask "
        "holds, a gap what a training made of it: a gap of 0 beside a bar away from 0 "
        "is information that no training used, or that it did not need where the "
        "network fits fresh labels as well; a gap above 0 needs information."
    )
    return Drawing(title, figure, caption)


def _show(
    axes: Axes,
    x: Any,
    cells: pd.DataFrame,
    against: str,
    measure: str,
    ends: Sequence[Any],
    color: str,
) -> None:
    """Notes points, each with the interval that it lies in across."""
    both = zip(cells[f"{against}_lower"], cells[f"{against}_upper"], strict=True)
    across = [f"{number(low)} to {number(high)}" for low, high in both]
    told: dict[str, Any] = {against: across, "measure": measure}
    told |= dict(zip(("value", "low", "high"), ends, strict=True))
    told["networks"] = [len(values) for values in cells["values"]]
    lines = cell_lines(cells, **told)
    show(axes, x, ends[0], lines, color)


def _title(*words: Any) -> str:
    """A panel's title, whose lines break after commas, if what is between them fits."""
    phrases = ", ".join(map(str, words)).split(", ")
    bound = (x.replace(" ", "\N{NO-BREAK SPACE}") for x in phrases)
    return ", ".join(
        x if len(x) > 30 else y for x, y in zip(phrases, bound, strict=True)
    )


def _elsewhere(panel: pd.DataFrame) -> list[str]:
    """Of which other n the information of a panel is, in words, where it is."""
    known = sorted(set(panel["information_n"]) - set(panel["n"]))
    if not known:
        return []
    return ["information at n = " + " and ".join(f"{n:,.0f}" for n in known)]


def _across(axes: Axes, cells: pd.DataFrame, measure: str, color: str) -> None:
    """A bar across for each interval, at the height of its point."""
    height = [_height(values, measure) for values in cells["values"]]
    low, high = (cells[f"{measure}_{end}"] for end in ("lower", "upper"))
    axes.hlines(height, low, high, color=color, lw=0.9)


def _height(values: Any, measure: str) -> float:
    return float(np.median(values) if measure == "p_eff" else np.mean(values))


def _rows(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells with the coordinates that a plan asks for."""
    blank: dict[str, Any] = {"resume": "", "ablation": ""}
    seeds = dict.fromkeys(("init_seed", "data_seed", "train_seed"), 0)
    return cells.assign(**blank, **seeds)
