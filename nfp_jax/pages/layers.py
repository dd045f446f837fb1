"""The share of each layer that masks keep: a figure of rows that have layers."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from nfp_jax.estimates import mean_interval
from nfp_jax.pages.common import (
    Drawing,
    Plan,
    chosen,
    empty_grid,
    finish,
    panels_of,
    series_of,
)
from nfp_jax.pages.looks import BARS
from nfp_jax.pages.pruners import pruned
from nfp_jax.pages.sheet import lines_along, seeds_in_words, show
from nfp_jax.pages.words import lists


def kept_by_layer(rows: pd.DataFrame, plan: Plan) -> Drawing:
    """The share of each layer that masks keep, by sparsity."""
    title = "Weights kept in each layer"
    rows = pruned(rows)
    for column in ("layers", "kept_by_layer", "size_by_layer"):
        rows = rows[lists(rows, column)]
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
            each = np.stack(list(group["shares"]), axis=1)  # [layers, networks]
            seeds = seeds_in_words(group)
            by_seed = [list(zip(seeds, layer.tolist(), strict=True)) for layer in each]
            told = lines_along(
                group,
                layer=names,
                measure="kept, in %",
                value=mean,
                low=mean - half_width,
                high=mean + half_width,
                by_seed=by_seed,
            )
            show(axes, x, mean, told, look.color)
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
