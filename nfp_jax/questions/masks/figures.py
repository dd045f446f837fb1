"""What masks are like: counts, ties, seconds, empty layers and overlaps, on a page.

A row has the mask itself, packed, so that the overlap of two masks of a draw is the
Jaccard index of their bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from nfp_jax.pages.common import Drawing, Plan, empty_grid, plan_of, spread
from nfp_jax.pages.kind import Block, CardLine, Grid, Kind, block_of, grids_of, verdict
from nfp_jax.pages.layers import kept_by_layer
from nfp_jax.pages.looks import FIXED
from nfp_jax.pages.pruners import labels_of, pruned, pruners_of
from nfp_jax.pages.sheet import show
from nfp_jax.pages.words import (
    CELL,
    SEEDS,
    axes_of,
    counted,
    in_order,
    in_words,
    line_of,
    number,
    numbers,
    pruned_by,
    truth,
    varying,
)

TROUBLES = {
    "inexact": "do not keep as many weights as were asked for",
    "collapsed": "have no path from input to output",
    "emptied": "have a layer without a weight",
    "tied": "rest on the order of equal scores",
    "out_of_budget": "come from trainings that used up their budget",
}
TABLES = {
    "kept": "Weights kept, of those asked for",
    "ties": "Weights kept for their place among equal scores",
    "seconds": "Seconds a mask, without compiling",
    "empty": "Layers without a weight",
    "overlap": "Overlap of the weights kept, Jaccard index in %",
}
# What two masks must share to be compared: all but the pruner and what is of it.
ON = ["sparsity", "n", "noise", "select", *SEEDS]


def flagged(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, with a boolean for each of `TROUBLES`, and ``empty``: how many layers
    have no weight.
    """
    empty = np.array([int((np.asarray(x) == 0).sum()) for x in rows["kept_by_layer"]])
    ties = numbers(rows, "tied")
    return rows.assign(
        ties=ties,
        empty=empty,
        inexact=numbers(rows, "kept") != numbers(rows, "asked"),
        collapsed=truth(rows, "collapsed"),
        emptied=empty > 0,
        tied=ties > 0,
        out_of_budget=numbers(rows, "out_of_budget") > 0,
    )


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a cell: how many ``networks``, that is masks, and of each trouble.

    And the means of ``kept`` and ``seconds``, the largest of ``ties`` and ``empty``,
    and ``asked``.
    """
    lines = []
    rows = flagged(rows)
    for cell, group in rows.groupby(list(CELL), dropna=False):
        line = {**line_of(cell, group), "networks": len(group)}
        line |= {name: int(group[name].sum()) for name in TROUBLES}
        line |= {x: float(numbers(group, x).mean()) for x in ("kept", "seconds")}
        line |= {x: float(group[x].max()) for x in ("ties", "empty")}
        line["asked"] = float(numbers(group, "asked")[0])
        lines.append(line)
    more = ["networks", *TROUBLES, "kept", "seconds", "ties", "empty", "asked"]
    columns = dict.fromkeys([*CELL, "label", "sees", *more])
    return in_order(pd.DataFrame(lines, columns=list(columns)))


def overlaps(rows: pd.DataFrame, other: str) -> pd.DataFrame:
    """The overlap of masks with those that another pruner has found on the same draws.

    Args:
      rows: as on pages.
      other: the name of a pruner of theirs.

    Returns:
      A line a mask that has a counterpart, of the other pruners: the columns of
      ``CELL``, ``label``, ``sees`` and ``overlap``, the Jaccard index in [0, 1].
    """
    columns = [*dict.fromkeys([*CELL, *ON]), "label", "sees", "mask"]
    pairs = rows.loc[rows["pruner"] != other, columns].merge(
        rows.loc[rows["pruner"] == other, [*ON, "mask"]], on=ON, suffixes=("", "_other")
    )
    both = zip(pairs["mask"], pairs["mask_other"], strict=True)
    return pairs.assign(overlap=[jaccard(*masks) for masks in both])


def jaccard(a: bytes, b: bytes) -> float:
    """The Jaccard index of the weights that two packed masks keep; 1 of empty ones.

    >>> jaccard(bytes([0b1100_0000]), bytes([0b1000_0000]))
    0.5
    """
    first, second = (np.unpackbits(np.frombuffer(x, np.uint8)) for x in (a, b))
    either = int((first | second).sum())
    return int((first & second).sum()) / either if either else 1.0


# ---- The figures


def draw_masks(rows: pd.DataFrame) -> dict[str, Drawing]:
    """The figures of masks by name."""
    plan = plan_of(rows)
    return {
        "overlap": _overlap(rows, plan),
        "kept_by_layer": kept_by_layer(rows, plan),
    }


def _overlap(rows: pd.DataFrame, plan: Plan) -> Drawing:
    """A square for each pair of pruners, a panel for each of some sparsities."""
    title = "Overlap of the weights kept"
    names, labels = pruners_of(pruned(rows)), labels_of(rows)
    if len(names) < 2:
        return Drawing(title, None, "Masks of one pruner alone are on file.")
    sparsities = spread(sorted(set(rows["sparsity"])), 4)
    figure, grid = empty_grid(len(sparsities), sharey=True)
    for axes, sparsity in zip(grid, sparsities, strict=True):
        panel = rows[rows["sparsity"] == sparsity]
        square = np.eye(len(names)) * 100
        for j, other in enumerate(names):
            means = overlaps(panel, other).groupby("pruner")["overlap"].mean()
            for i, name in enumerate(names):
                if name != other:
                    square[i, j] = 100 * means.get(name, np.nan)
        axes.pcolormesh(square, cmap="Blues", vmin=0, vmax=100)
        for (i, j), share in np.ndenumerate(square):
            if share == share:
                color = FIXED[int(share <= 60)]
                text = f"{share:.0f}"
                axes.text(j + 0.5, i + 0.5, text, color=color, ha="center", va="center")
        known = [(i, j, x) for (i, j), x in np.ndenumerate(square) if x == x]
        lines = pd.DataFrame(
            [
                (labels[names[i]], sparsity, labels[names[j]], "overlap, in %", share)
                for i, j, share in known
            ],
            columns=["label", "sparsity", "with", "measure", "value"],
        )
        x, y = ([one[k] + 0.5 for one in known] for k in (1, 0))
        show(axes, x, y, lines, "black")
        places, told = np.arange(len(names)) + 0.5, [labels[name] for name in names]
        axes.set_xticks(places, told, rotation=90)
        axes.set_yticks(places, told)
        axes.set_ylim(len(names), 0)
        axes.set_title(in_words("sparsity", sparsity))
    others = [axis for axis in varying(rows) if axis not in ("resume", "ablation")]
    over = f"; the mean over {' and '.join(others)}, too" if others else ""
    caption = (
        "Weights that both masks keep, in % of those that either keeps (Jaccard "
        "index), between masks that were found on the same data and initial weights: "
        f"100 for equal masks. The mean over seeds{over}. Two random masks of density "
        "p overlap by p / (2 - p)."
    )
    return Drawing(title, figure, caption)


# ---- The tables and the page


def _grids(rows: pd.DataFrame, measure: str) -> Iterator[Grid]:
    """For each n and noise the table of a measure; of overlaps one a pruner."""
    if measure == "overlap":
        for other in pruners_of(pruned(rows)):
            yield from overlap_grids(rows, other)
        return
    cells = pruned(summary(rows)).copy()
    cells["text"] = [_entry(cell, measure) for _, cell in cells.iterrows()]
    yield from grids_of(rows, cells)


def overlap_grids(rows: pd.DataFrame, other: str) -> Iterator[Grid]:
    """The tables of overlaps with one pruner."""
    found = overlaps(rows, other)
    if found.empty:
        return
    lines = [
        {**line_of(cell, group), "text": f"{100 * group['overlap'].mean():.1f}"}
        for cell, group in found.groupby(list(CELL), dropna=False)
    ]
    for grid in grids_of(rows, in_order(pd.DataFrame(lines))):
        words = ", ".join(filter(None, (grid.title, f"with {labels_of(rows)[other]}")))
        yield grid._replace(title=words)


def _entry(cell: pd.Series[Any], measure: str) -> str:
    if measure == "kept":
        kept, asked = cell["kept"], cell["asked"]
        return f"{kept:,.6g}" if kept == asked else f"{kept:,.6g} for {asked:,.6g}"
    value = cell[measure]
    if value != value:
        return "no score"
    return f"{value:.2g}" if measure == "seconds" else number(value)


# ---- The card of a pruner


def _card(rows: pd.DataFrame, name: str) -> Iterator[Block]:
    """What holds of all masks of each pruner, and where it does not; overlaps."""
    groups = flagged(rows).groupby("pruner", sort=False)
    by = {str(pruner): mine for pruner, mine in groups}
    told = {
        "masks": lambda mine: str(len(mine)),
        "keep as many as asked": _exact,
        "decided by ties": _ties,
        "no path from input to output": lambda mine: _where(mine, "collapsed"),
        "a layer without a weight": lambda mine: _where(mine, "emptied"),
        "seconds a mask, median": lambda mine: f"{mine['seconds'].median():.2g}",
    }
    yield Block(
        "Masks",
        [
            CardLine(what, {pruner: tell(mine) for pruner, mine in by.items()})
            for what, tell in told.items()
        ],
    )
    for grid in overlap_grids(rows, name):
        yield block_of(f"{TABLES['overlap']} ({grid.title})", grid)


def _exact(rows: pd.DataFrame) -> str:
    """Whether all masks keep what was asked; else the one that is furthest from it."""
    wrong = rows[rows["inexact"]]
    if wrong.empty:
        return "all"
    kept, asked = wrong["kept"].astype(int), wrong["asked"].astype(int)
    worst = int((kept - asked).abs().to_numpy().argmax())
    where = in_words("sparsity", wrong["sparsity"].iloc[worst])
    most = f"{kept.iloc[worst]:,} for {asked.iloc[worst]:,} ({where})"
    return f"{len(rows) - len(wrong)} of {len(rows)}; {most}"


def _ties(rows: pd.DataFrame) -> str:
    """The most weights that ties decide, and where."""
    known = rows[rows["ties"].notna()]
    if known.empty:
        return "no score"
    worst = known.iloc[int(known["ties"].to_numpy().argmax())]
    if not worst["ties"]:
        return "none"
    return f"up to {worst['ties']:,.0f} ({in_words('sparsity', worst['sparsity'])})"


def _where(rows: pd.DataFrame, trouble: str) -> str:
    """How many masks have a trouble, by sparsity."""
    counts = rows.groupby("sparsity")[trouble].agg(["sum", "size"])
    told = [
        f"{hit} of {masks} ({in_words('sparsity', sparsity)})"
        for sparsity, hit, masks in counts[counts["sum"] > 0].itertuples()
    ]
    return "; ".join(told) or "never"


def _headline(rows: pd.DataFrame) -> str:
    what = f"{counted(len(rows), 'masks')}, by {pruned_by(pruned(rows))}. "
    flags = flagged(rows)[list(TROUBLES)]
    return f"{what}{axes_of(rows)}. {verdict(flags, 'masks', _FINE)}"


_FINE = "every mask keeps what was asked for, in every layer, and no tie decides"
KIND = Kind(
    unit="masks",
    troubles=TROUBLES,
    fine=_FINE,
    flagged=flagged,
    summary=summary,
    draw=draw_masks,
    tables=TABLES,
    grids=_grids,
    heading=lambda rows: "Weights kept by sparsity; mean over seeds",
    headline=_headline,
    entries=lambda rows: (
        "of weights kept, seconds and overlaps the mean over seeds; of ties and empty "
        "layers the largest; 'for' stands before what was asked, where that differs. "
        "Masks through training have no score here, and their part of the seconds of "
        "the trainings that they share"
    ),
    subject="masks that ",
    card=_card,
)
