"""Controls: what is left of a mask when it is shuffled, or given fresh weights.

A shuffled mask keeps as many weights in every layer, at places drawn at random; with
fresh weights the mask stays, and training begins from another draw; a fine-tuned
network goes on from the weights that the mask comes from.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from nfp_jax.pages.common import (
    Drawing,
    Plan,
    chosen,
    empty_grid,
    explain,
    label_outer,
    panels_of,
)
from nfp_jax.pages.looks import BARS
from nfp_jax.pages.points import entries_of, marked, points_of
from nfp_jax.pages.pruners import pruned, pruners_of
from nfp_jax.pages.sheet import show
from nfp_jax.pages.words import shown
from nfp_jax.questions.memorization.networks import (
    MARKS,
    left_out,
    marks_told,
    with_ends,
)

METRIC = "train_accuracy"
# The variants of a mask by ablation, and whether the network was fine-tuned: their
# names and markers.
VARIANTS = {
    ("", False): ("mask as found", "o"),
    ("shuffle", False): ("shuffled in its layers", "s"),
    ("reinitialize", False): ("fresh weights", "^"),
    ("invert", False): ("inverted scores", "v"),
    ("", True): ("as found, fine-tuned", "D"),
}


def controls(rows: pd.DataFrame, plan: Plan) -> Drawing:
    """The share memorized by each variant of a pruner's masks, side by side.

    ``plan`` is that of the networks under masks as they were found.
    """
    title = "Controls: masks as found, shuffled, and with fresh weights"
    rows = pruned(rows)
    variants = [variant for variant in VARIANTS if _of(rows, variant).any()]
    rows = rows[np.any([_of(rows, variant) for variant in VARIANTS], axis=0)]
    if len(variants) < 2:
        why = "No two variants of the same masks are on file."
        return Drawing(title, None, why)
    more = [plan.lines] if plan.lines not in (None, "resume", "ablation") else []
    plan = plan._replace(panels=[*plan.panels, *more], lines=None)
    panels = panels_of(with_ends(rows, METRIC), plan, by_sparsity=True)
    names = pruners_of(rows)
    figure, grid = empty_grid(len(panels), sharey=True)
    width, height = figure.get_size_inches()
    down = len({round(axes.get_position().y0, 3) for axes in grid})
    # 0.11 inches a variant, so that their bars lie apart.
    needed = down * (0.11 * len(variants) + 0.12) * len(names) + 0.6 * down
    figure.set_size_inches(width + 1.3, max(height, needed))
    for axes, (name, panel) in zip(grid, panels, strict=True):
        for place, pruner in enumerate(names):
            color = plan.looks[pruner].color
            for i, variant in enumerate(variants):
                cells = panel[_of(panel, variant) & (panel["pruner"] == pruner)]
                y = place + 0.7 * ((i + 0.5) / len(variants) - 0.5)
                style = {"color": color, "marker": VARIANTS[variant][1], "ls": ""}
                if not cells.empty:
                    _draw(axes, y, cells, style)
        axes.set_title(name)
        axes.grid(True, axis="x")
        axes.set_yticks(range(len(names)), [plan.looks[name].label for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
    label_outer(figure, "share memorized", "")
    entries = [
        (words, {"color": "#555555", "marker": marker, "ls": ""})
        for words, marker in (VARIANTS[variant] for variant in variants)
    ]
    explain(figure, [*entries, *entries_of(with_ends(rows, METRIC), METRIC, MARKS)])
    return Drawing(title, figure, _caption(rows, plan, panels, variants))


def _of(rows: pd.DataFrame, variant: tuple[str, bool]) -> Any:
    """Which of the rows, or cells, are of a variant."""
    ablation, fine_tuned = variant
    fine = (rows["resume"] == "finetune") == fine_tuned
    return (rows["ablation"] == ablation) & fine


def _caption(
    rows: pd.DataFrame, plan: Plan, panels: list[Any], variants: list[Any]
) -> str:
    words = {
        "shuffle": "A shuffled mask keeps as many weights in each layer, at random "
        "places: what it still memorizes is owed to the layers' densities alone. ",
        "reinitialize": "With fresh weights, the mask stays and training begins from "
        "another draw. ",
        "invert": "Inverted scores keep the weights that the pruner would remove. ",
    }
    said = "".join(words.get(ablation, "") for ablation, fine in variants if not fine)
    if ("", True) in variants:
        said += "Fine-tuned networks go on from the weights that the mask comes from. "
    return (
        "Share of the n labels that the network gets right at the end of training, by "
        f"pruner and variant of its mask. {said}{chosen(rows, plan, panels)}Shown: "
        f"{shown(rows)}.{marks_told(rows)}{left_out(rows)}"
    )


def _draw(axes: Axes, y: float, cells: pd.DataFrame, style: dict[str, Any]) -> None:
    """Draws the cells' means at a height, with their intervals and marks."""
    x = cells[METRIC].to_numpy(dtype=float)
    half_width = cells[f"{METRIC}_half_width"].to_numpy(dtype=float)
    heights = np.full(len(x), y)
    axes.errorbar(x, heights, xerr=half_width, ms=4, **BARS, **style)
    lines = points_of(cells, METRIC, MARKS)
    show(axes, x, heights, lines, style["color"], flat=True)
    for mark, where in marked(cells, MARKS):
        if where.any():
            axes.plot(x[where], heights[where], ms=4, zorder=3, **(style | mark.style))
