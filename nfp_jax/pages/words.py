"""Rows, grouped into cells and put in words; tables and captions say the same.

Knows of rows their coordinates, what their pruners are called and see, and nothing that
only one kind of rows has. A column may be missing, or be null, or of pandas' nullable
types: `numbers` and `truth` take them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from nfp_jax.pages.pruners import labels_of, pruned, pruners_of

# The coordinates of a cell, all but the seeds; and those.
CELL = ("pruner", "sparsity", "n", "noise", "select", "resume", "ablation")
SEEDS = ["init_seed", "data_seed", "train_seed"]
ENOUGH = 6  # values, for an order-statistic interval of 95 %

# ---- Rows and their columns


def line_of(cell: Sequence[Any], group: pd.DataFrame) -> dict[str, Any]:
    """The beginning of a cell's line: its coordinates, and what its pruner is.

    That is the ``label``, and what it ``sees``, of the cell's rows.
    """
    told = {name: group[name].iloc[0] for name in ("label", "sees")}
    return dict(zip(CELL, cell, strict=True)) | told


def in_order(cells: pd.DataFrame) -> pd.DataFrame:
    """The lines of a table by cell (`CELL`), the pruners in the order of legends."""
    rank = {pruner: i for i, pruner in enumerate(pruners_of(cells))}
    cells = cells.sort_values(
        list(CELL), key=lambda c: c.map(rank) if c.name == "pruner" else c
    )
    return cells.reset_index(drop=True)


def varying(rows: pd.DataFrame) -> list[str]:
    """Of n, noise, select, resume and ablation, those with more than one value."""
    sparse = pruned(rows[[*CELL]])
    values = {axis: set(sparse[axis]) for axis in CELL[2:]}
    values["resume"] -= {""}  # pruning at initialization has nothing to resume
    return [axis for axis in values if len(values[axis]) > 1]


def numbers(rows: pd.DataFrame, name: str) -> np.ndarray:
    """The column as floats; what is null, or not there at all, is NaN."""
    column = rows.get(name, pd.Series(np.nan, rows.index))
    return pd.to_numeric(column).to_numpy(dtype=float, na_value=np.nan)


def truth(rows: pd.DataFrame, name: str, value: bool = True) -> np.ndarray:
    """Whether the column has the value; what is null, or not there, has neither."""
    column = rows.get(name, pd.Series(None, rows.index, dtype="boolean"))
    known = column.astype("boolean").fillna(not value).to_numpy(dtype=bool)
    return known if value else ~known


def lists(rows: pd.DataFrame, column: str) -> pd.Series[bool]:
    """Whether the row has a list there, with something in it."""
    values = rows.get(column, pd.Series(None, rows.index, dtype=object))
    return values.map(lambda x: isinstance(x, (list, np.ndarray)) and len(x) > 0)


def values_of(rows: pd.DataFrame, name: str) -> list[Any]:
    """The different values of a column, sorted; none where it is null or missing."""
    return sorted(set(rows[name].dropna())) if name in rows else []


# ---- In words


def in_words(axis: str, value: Any) -> str:
    """An axis' value in words, for a panel or a legend."""
    if axis == "sparsity":
        return f"{100 * value:.5g} % removed"
    if axis in ("n", "noise"):
        return f"{axis} = {value:,}" if axis == "n" else f"noise = {value:g}"
    return value or ("no ablation" if axis == "ablation" else "")


def number(x: float) -> str:
    """Three digits, or all of those before the point; 0 is 0."""
    if np.isinf(x):
        return "∞" if x > 0 else "-∞"
    return f"{x:,.0f}" if abs(x) >= 99.95 or x == 0 else f"{x:#.3g}"


def span(values: Sequence[Any]) -> str:
    """The values, or where there are many numbers, the first, the last and how many."""
    texts = [x if isinstance(x, str) else f"{x:,}".removesuffix(".0") for x in values]
    if len(texts) > 5 and not isinstance(values[0], str):
        return f"{texts[0]} to {texts[-1]}, {len(texts)} values"
    return ", ".join(texts)


def counted(count: int, unit: str) -> str:
    """How many there are: of the unit, in its plural, one has no "s".

    >>> counted(1, "networks"), counted(1200, "searches")
    ('1 network', '1,200 searches')
    """
    if count == 1:
        unit = unit.removesuffix("es") if unit.endswith("ches") else unit[:-1]
    return f"{count:,} {unit}"


def pruned_by(rows: pd.DataFrame) -> str:
    """The pruners of the rows, and to which sparsities they prune."""
    labels = labels_of(rows)
    names = ", ".join(labels[pruner] for pruner in pruners_of(rows))
    return f"{names}, to sparsity {span(sorted(set(rows['sparsity'])))}"


def axes_of(rows: pd.DataFrame) -> str:
    """The values of all axes but pruner and sparsity."""
    axes = {axis: sorted(set(rows[axis]) - {""}) for axis in (*CELL[2:], *SEEDS)}
    return "; ".join(
        f"{axis}: {span(values)}" for axis, values in axes.items() if values
    )


def networks_of(rows: pd.DataFrame) -> tuple[str, int]:
    """How many networks stand for a cell, in words, and the most that do."""
    sizes = rows.groupby(list(CELL)).size()
    few, many = int(sizes.min()), int(sizes.max())
    return f"{many}" if few == many else f"{few} to {many}", many


def seeds_of(rows: pd.DataFrame) -> str:
    """What tells the networks of a cell apart."""
    values = rows.groupby(list(CELL))[SEEDS].nunique()
    crossed = values.max().max() < networks_of(rows)[1]
    return "seeds crossed, taken as independent" if crossed else "seeds"


def shown(rows: pd.DataFrame) -> str:
    """What a number stands for: how many networks, and what the interval is."""
    count, many = networks_of(rows)
    if many == 1:
        return "one network each (a single seed), so there is no interval"
    over = f"over {count} networks ({seeds_of(rows)})"
    return f"mean and 95 % Student-t interval {over}"


def medians_shown(rows: pd.DataFrame, unit: str) -> str:
    """What a median stands for: how many of the unit, and what the interval is."""
    sizes = rows.groupby(list(CELL)).size()
    few, many = int(sizes.min()), int(sizes.max())
    if many == 1:
        one = counted(1, unit).removeprefix("1 ")
        return f"one {one} each (a single seed), so there is no interval"
    over = f"over {networks_of(rows)[0]} {unit} ({seeds_of(rows)})"
    statistics = "order-statistic interval for it, of confidence 95 % at least"
    if few >= ENOUGH:
        return f"median and {statistics}, {over}"
    # The smallest and the largest of k values are on one side of the median with
    # probability 2 / 2^k.
    levels = [
        f"{100 * (1 - 2 ** (1 - k)):.4g} % with {k}"
        for k in sorted(set(sizes))
        if 1 < k < ENOUGH
    ]
    text = "median and range, smallest to largest, "
    text += f"{over}; as an interval for the median its confidence is "
    text += ", ".join(levels)
    more = f"; with {ENOUGH} or more, the {statistics}"
    return text + (more if many >= ENOUGH else "")


def p_eff_in_words(rows: pd.DataFrame) -> str:
    """``p_eff``, and of which information it is: that about labels or about data.

    Rows that do not say so are of labels.

    >>> p_eff_in_words(pd.DataFrame({"conditioning": ["data", "data"]}))
    'p_eff (data)'
    """
    return f"p_eff ({', '.join(values_of(rows, 'conditioning')) or 'labels'})"


# Follows where p_eff (labels) stands alone.
OF_LABELS_ALONE = (
    "p_eff (labels) is a lower bound of the paper's count, p_eff (data), since "
    "I(m; D | W) = I(m; X | W) + I(m; y | X, W)"
)
