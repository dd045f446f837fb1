"""Criteria by initializations: how much and how fast, and what the masks know.

The figure that says what gets around the barrier, if anything does: networks that
differ in the mask and in the initial weights alone, at equal weights kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from nfp_jax.estimates import mean_interval
from nfp_jax.pages.claim import cut_short
from nfp_jax.pages.common import Drawing, decades, empty_grid, explain
from nfp_jax.pages.fitted import fitting
from nfp_jax.pages.joined import Part, information_rows, main_rows
from nfp_jax.pages.looks import FURTHER, PALETTE, Paint
from nfp_jax.pages.pruners import pruned
from nfp_jax.pages.sheet import cell_lines, show
from nfp_jax.pages.words import in_words

GROUP = ["network", "n", "sparsity", "select", "noise"]
TITLE = "Around the barrier? Criteria by initializations"
CAPTION = (
    "Networks that keep as many weights, by criterion (down, those whose networks "
    "memorize more points above) and initialization (color and marker). Points "
    "memorized where training settled, mean and 95 % Student-t interval over seeds. "
    "Epochs until 99 % of the labels are fitted, median and range over seeds (an "
    "arrow: at least half of the networks did not fit them), where any did. Effective "
    "parameters, weights kept plus what the mask knows of the labels, its certified "
    "interval. Steepness, the Lipschitz constant ÷ ε (slopes found), median and range "
    "over networks that fit 95 %. A mask from before training that gets around the "
    "barrier would lie with those from training (bold), with few effective parameters."
)
# Any order will do, if colors are as far apart as those of pruners.
PAINTS = (*list(PALETTE.values())[2:], *FURTHER)


def lines_of(parts: Mapping[str, Part]) -> pd.DataFrame:
    """Returns a line for each criterion and initialization, of networks that have two.

    Columns: ``network`` (the data and the network, but for its initialization),
    ``init``, the pruner's coordinates, ``label``, ``sees``, ``n``, ``kept``,
    ``points`` (a list: one a seed), ``epochs`` (the same, infinite where 99 % were not
    fitted), ``late`` (trainings that used up their budget), ``steepness`` (a list: one
    a network that fits, empty where it was not asked), ``p_eff_lower`` and
    ``p_eff_upper`` (NaN where information is not bounded).
    """
    lines: dict[Any, dict[str, Any]] = {}
    for part in parts.values():
        if part.question not in ("memorization", "robustness"):
            continue
        cells: Any = pruned(main_rows(part)).groupby(
            ["n", "pruner", "sparsity", "select", "noise"], sort=False
        )
        for place, rows in cells:
            line = lines.setdefault((part.but_init, part.init, *place), {})
            if not line:  # of several runs of one network the first
                epochs = rows["epochs_to_99"].astype("Float64")
                line |= {
                    "label": rows["label"].iloc[0],
                    "sees": rows["sees"].iloc[0],
                    "kept": float(rows["kept"].astype(float).mean()),
                    "points": rows["memorized_points"].astype(float).tolist(),
                    "epochs": epochs.to_numpy(float, na_value=np.inf).tolist(),
                    "late": int(cut_short(rows).sum()),
                    "steepness": _steepness(rows),
                    "p_eff_lower": np.nan,
                    "p_eff_upper": np.nan,
                }
    for part in parts.values():
        if part.question == "information":
            _add_information(lines, part)
    columns = ["network", "init", "n", "pruner", "sparsity", "select", "noise"]
    rest = ["label", "sees", "kept", "points", "epochs", "late", "steepness"]
    found = pd.DataFrame(
        [
            {**dict(zip(columns, place, strict=True)), **line}
            for place, line in lines.items()
        ],
        columns=[*columns, *rest, "p_eff_lower", "p_eff_upper"],
    )
    several = found.groupby(GROUP)["init"].transform("nunique") > 1
    return found[several].reset_index(drop=True) if len(found) else found


def _steepness(rows: pd.DataFrame) -> list[float]:
    """The slope found over ε, of networks that fit; none where it was not asked."""
    if "lipschitz_lower" not in rows:
        return []
    rows = fitting(rows)
    slopes, excess = (rows[x].astype(float) for x in ("lipschitz_lower", "excess"))
    return (slopes / excess).tolist()


def _add_information(lines: dict[Any, dict[str, Any]], part: Part) -> None:
    """Adds what masks know, where they are of the n of the networks."""
    cells: Any = pruned(information_rows(part, "labels")).groupby(
        ["n", "pruner", "sparsity", "select", "noise"], sort=False
    )
    for place, rows in cells:
        line = lines.get((part.but_init, part.init, *place))
        if line is not None:
            for end in ("lower", "upper"):
                nats = float(rows[f"information_{end}"].astype(float).mean())
                line[f"p_eff_{end}"] = line["kept"] + nats


def barrier(lines: pd.DataFrame) -> Iterator[tuple[str, Drawing]]:
    """Yields names and figures: one a network, n, sparsity, selection and noise rate.

    Args:
      lines: of ``lines_of``.
    """
    inits = list(dict.fromkeys(lines["init"]))
    looks = {name: PAINTS[i % len(PAINTS)] for i, name in enumerate(inits)}
    groups: Any = lines.groupby(GROUP, sort=False)
    for i, (place, group) in enumerate(groups, 1):
        named = dict(zip(GROUP, place, strict=True))
        words = [named["network"]]
        words += [in_words(x, named[x]) for x in ("n", "sparsity", "noise")]
        yield f"barrier_{i}", _drawn(group, looks, ", ".join(filter(None, words)))


def tables(lines: pd.DataFrame) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Yields the numbers of the figures: a title, heads, and a line a criterion.

    Points, and steepness where it was asked, with a column an initialization.

    Args:
      lines: of ``lines_of``.
    """
    groups: Any = lines.groupby(GROUP, sort=False)
    for place, group in groups:
        named = dict(zip(GROUP, place, strict=True))
        where = ", ".join(in_words(x, named[x]) for x in ("n", "sparsity"))
        yield _numbers(
            group,
            f"Points memorized, mean over seeds (+: some trainings used up their "
            f"budget); {where}",
            lambda line: f"{np.mean(line['points']):,.0f}{'+' * (line['late'] > 0)}",
        )
        if group["steepness"].map(len).any():
            yield _numbers(
                group,
                "Lipschitz constant ÷ ε, slopes found, median over networks that fit "
                f"95 %; {where}",
                lambda line: (
                    f"{np.median(line['steepness']):,.0f}" if line["steepness"] else "-"
                ),
            )


def _numbers(
    lines: pd.DataFrame, title: str, text_of: Callable[[Any], str]
) -> tuple[str, list[str], list[list[str]]]:
    """A table: the best by points first, an empty cell where there is no network."""
    inits = list(dict.fromkeys(lines["init"]))
    cells = {(x["pruner"], x["init"]): text_of(x) for _, x in lines.iterrows()}
    labels = dict(zip(lines["pruner"], lines["label"], strict=True))
    body = [
        [labels[pruner], *(cells.get((pruner, init), "") for init in inits)]
        for pruner in reversed(_by_points(lines))
    ]
    return title, ["criterion", *inits], body


def _by_points(lines: pd.DataFrame) -> list[str]:
    """The pruners, those whose networks memorize more points last."""
    best = lines.assign(best=[np.nanmean(x) for x in lines["points"]])
    return list(best.groupby("pruner")["best"].max().sort_values(kind="stable").index)


def _drawn(lines: pd.DataFrame, looks: Mapping[str, Paint], where: str) -> Drawing:
    order = _by_points(lines)
    height = {pruner: i for i, pruner in enumerate(order)}
    names = ["points memorized"]
    names += ["epochs to 99 %"] * any(np.isfinite(x).any() for x in lines["epochs"])
    names += ["effective parameters"] * bool(lines["p_eff_lower"].notna().any())
    names += ["steepness"] * bool(lines["steepness"].map(len).any())
    figure, grid = empty_grid(len(names), sharey=True, columns=len(names))
    panels = dict(zip(names, grid, strict=True))
    figure.set_size_inches(2.2 + 2.4 * len(names), 0.26 * len(order) + 1.1)
    inits = list(dict.fromkeys(lines["init"]))
    apart = np.linspace(0.27, -0.27, len(inits)) if len(inits) > 1 else np.zeros(1)
    draw = {
        "points memorized": _points,
        "epochs to 99 %": _epochs,
        "effective parameters": _p_eff,
        "steepness": _slopes,
    }
    for init, shift in zip(inits, apart, strict=True):
        for _, line in lines[lines["init"] == init].iterrows():
            for name, axes in panels.items():
                draw[name](axes, line, height[line["pruner"]] + shift, looks[init])
    labels = {line["pruner"]: line["label"] for _, line in lines.iterrows()}
    sees = {line["pruner"]: line["sees"] for _, line in lines.iterrows()}
    grid[0].set_yticks(range(len(order)), [labels[x] for x in order])
    for text, pruner in zip(grid[0].get_yticklabels(), order, strict=True):
        text.set_fontweight("bold" if sees[pruner] == "training" else "normal")
    for name, axes in panels.items():
        axes.set_xlabel(name)
        axes.grid(axis="x")
    for name, column in (("epochs to 99 %", "epochs"), ("steepness", "steepness")):
        if name in panels:
            values = np.concatenate([[1.0], *lines[column]])
            panels[name].set_xscale("log")
            decades(panels[name].xaxis, values[np.isfinite(values)])
    explain(
        figure,
        [
            (
                init,
                {"color": looks[init].color, "marker": looks[init].marker, "ls": ""},
            )
            for init in inits
        ],
    )
    return Drawing(f"{TITLE}: {where}", figure, CAPTION)


def _show(
    axes: Axes,
    y: float,
    line: pd.Series[Any],
    paint: Paint,
    measure: str,
    low: float,
    high: float,
    value: float = np.nan,
    values: Sequence[float] = (),
) -> None:
    """Notes a point, or without a value a bar, at a height."""
    numbered = [(f"network {i}", x) for i, x in enumerate(values, 1)]
    told = cell_lines(
        line.to_frame().T,
        measure=measure,
        value=value,
        low=low,
        high=high,
        networks=len(line["points"]),
    )
    told["by_seed"] = pd.Series([numbered or None], dtype=object)
    bar = bool(np.isnan(value))
    x = low if bar else value
    show(axes, x, y, told, paint.color, bar=bar, flat=True)


def _points(axes: Axes, line: pd.Series[Any], y: float, paint: Paint) -> None:
    mean, half_width = mean_interval(line["points"])
    ends = mean - half_width, mean + half_width
    _show(axes, y, line, paint, "points memorized", *ends, mean, line["points"])
    axes.errorbar(
        mean, y, xerr=half_width, color=paint.color, marker=paint.marker, elinewidth=0.9
    )


def _epochs(axes: Axes, line: pd.Series[Any], y: float, paint: Paint) -> None:
    """The median and the range over seeds; an arrow where the median is infinite."""
    middle, low, high = (f(line["epochs"]) for f in (np.median, np.min, np.max))
    _show(axes, y, line, paint, "epochs to 99 %", low, high, middle, line["epochs"])
    if np.isfinite(middle):
        axes.plot(middle, y, color=paint.color, marker=paint.marker, ls="")
        axes.hlines(y, low, high if np.isfinite(high) else middle, color=paint.color)
        return
    # At the right edge, in the height of its line.
    right = axes.get_yaxis_transform()
    axes.plot(0.98, y, color=paint.color, marker=9, ls="", transform=right)


def _p_eff(axes: Axes, line: pd.Series[Any], y: float, paint: Paint) -> None:
    ends = [line["p_eff_lower"], line["p_eff_upper"]]
    axes.plot(ends, [y, y], color=paint.color, marker="|", lw=2.4)
    _show(axes, y, line, paint, "p_eff", *ends)


def _slopes(axes: Axes, line: pd.Series[Any], y: float, paint: Paint) -> None:
    """The median and the range over networks that fit; nothing where none does."""
    slopes = line["steepness"]
    if slopes:
        ends = min(slopes), max(slopes)
        middle = float(np.median(slopes))
        _show(axes, y, line, paint, "Lipschitz constant ÷ ε", *ends, middle, slopes)
        axes.plot(middle, y, color=paint.color, marker=paint.marker, ls="")
        axes.hlines(y, *ends, color=paint.color)
