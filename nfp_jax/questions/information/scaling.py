"""Bits a kept weight against points a kept weight: does n/k alone tell them?

A panel a pruner, a color an n. Two masks of one pruner with the same n/k and another n
lie one above the other where n/k alone tells how much a kept weight holds.
"""

from __future__ import annotations

import itertools
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from nfp_jax.pages.bars import Bars, Behind, draw_ends, entries_of_bars
from nfp_jax.pages.common import (
    Drawing,
    Plan,
    empty_grid,
    explain,
    label_outer,
    log_x,
    panels_of,
    zero_and_decades,
)
from nfp_jax.pages.looks import BOUND, Look
from nfp_jax.pages.points import Marks
from nfp_jax.pages.pruners import labels_of, pruners_of

TITLE = "Bits a kept weight against n/k"
MARKERS = "osDv^PX"  # of the sizes, from the smallest n
APART = 0.1  # decades of n/k over which bars of one n/k are moved sideways


def bits_by_load(cells: pd.DataFrame, plan: Plan, marks: Marks, words: str) -> Drawing:
    """The figure of bits a kept weight against n/k.

    Args:
      cells: the summary, with ``bits_lower``, ``bits_upper``, ``kept``, ``n`` and
        ``label_entropy``.
      plan: of the page; its panels but for n stand beside those of pruners.
      marks: of cells that are in trouble.
      words: what the caption ends with.
    """
    cells = cells[cells["kept"] > 0]
    sizes = sorted(set(cells["n"]))
    if len(sizes) < 2:
        why = "Masks are of one n; the figure against sparsity has the same."
        return Drawing(TITLE, None, why)
    entropy = cells["label_entropy"].astype(float) / (np.log(2) * cells["kept"])
    cells = cells.assign(load=cells["n"] / cells["kept"], bits_entropy=entropy)
    bars = Bars(
        "bits",
        "bits a kept weight",
        behind=Behind("bits_entropy", "label entropy", BOUND),
        marks=marks,
    )
    looks = _looks_of(sizes)
    panels = _panels(cells, plan)
    figure, grid = empty_grid(len(panels), sharey=True)
    values = cells[["bits_lower", "bits_upper", "bits_entropy"]]
    for axes, (title, panel) in zip(grid, panels, strict=True):
        _draw(axes, panel, bars, looks)
        log_x(axes, cells["load"], room=1.5)
        zero_and_decades(axes, values, room=0.6)
        axes.set_title(title)
    label_outer(figure, "n/k, points a kept weight", bars.label)
    entries = [(look.label, look.style("")) for look in looks.values()]
    explain(figure, [*entries, *entries_of_bars(cells, bars)])
    return Drawing(TITLE, figure, _caption(cells) + words)


def _looks_of(sizes: list[int]) -> dict[int, Look]:
    """A color, from dark to light, and a marker for each n."""
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(sizes)))
    return {
        n: Look(f"n = {n:,}", matplotlib.colors.to_hex(color), marker)
        for n, color, marker in zip(
            sizes, colors, itertools.cycle(MARKERS), strict=False
        )
    }


def _panels(cells: pd.DataFrame, plan: Plan) -> list[tuple[str, pd.DataFrame]]:
    """Titles and cells: for each pruner, and each value of what else varies but n."""
    labels = labels_of(cells)
    others = plan._replace(panels=[axis for axis in plan.panels if axis != "n"])
    return [
        (", ".join(filter(None, (labels[pruner], title))), mine)
        for pruner in pruners_of(cells)
        for title, mine in panels_of(cells[cells["pruner"] == pruner], others)
        if len(mine)
    ]


def _draw(axes: Axes, cells: pd.DataFrame, bars: Bars, looks: dict[int, Look]) -> None:
    """The bars of a panel, those of one n/k moved apart; behind them the entropy."""
    level: Any = cells.groupby("load")["bits_entropy"].max().dropna()
    axes.plot(level.index, level, zorder=0, **BOUND)
    for i, (n, look) in enumerate(looks.items()):
        mine = cells[cells["n"] == n]
        if len(mine):
            shift = APART * ((i + 0.5) / len(looks) - 0.5)
            x = mine["load"].to_numpy() * 10**shift
            draw_ends(axes, x, mine, bars, look, 4)


def _caption(cells: pd.DataFrame) -> str:
    entropy = ""
    if np.isfinite(cells["bits_entropy"]).any():
        entropy = (
            "Dashed gray: the label entropy a kept weight; an upper end on it says "
            "nothing of the mask. "
        )
    return (
        "Information of the mask, in bits, divided by the weights k that it keeps, "
        f"against the points n a kept weight; a color an n. {entropy}Where bars of one "
        "pruner at one n/k don't overlap, n/k alone does not tell the bits; where they "
        "do, it may. 1 bit a kept weight is no limit: which k of the P weights are "
        "kept can hold up to log2 (P choose k) bits. "
    )
