"""Every row of a run: a table that is made when it is asked for, and ``networks.csv``.

Of a row it has what is one value: no histories, layers or masks.
"""

from __future__ import annotations

import html
import json
import math
from typing import Any

import pandas as pd

MOST = 400_000  # bytes of rows on a page; the file has all
LAST = ("label", "sees", "settings", "version")  # of columns, for they are wide


def scalars(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns that hold one value a row, and are not null throughout."""
    kept = [name for name in rows if not _holds_many(rows[name])]
    return rows[kept].dropna(axis="columns", how="all")


def _holds_many(column: pd.Series[Any]) -> bool:
    if column.dtype != object:
        return False
    known = column.dropna()
    return any(hasattr(x, "__len__") and not isinstance(x, str) for x in known)


def csv(rows: pd.DataFrame) -> bytes:
    """The rows as a file that a spreadsheet reads, a line each."""
    table = scalars(rows)
    return table.to_csv(index=False, float_format="%.8g", lineterminator="\n").encode()


def section(rows: pd.DataFrame, unit: str, file: str = "", room: int = MOST) -> str:
    """The rows, folded, as HTML: a script makes the table once it is unfolded.

    Columns that have one value are told above it. Without room for the rows on the
    page, they are in the file alone.

    Args:
      rows: as on pages.
      unit: what a row is, in the plural.
      file: the address of ``networks.csv``.
      room: bytes that the rows may take.
    """
    table = scalars(rows)
    same = [name for name in table if table[name].nunique(dropna=False) == 1]
    varying = sorted((x for x in table if x not in same), key=LAST.__contains__)
    known = {name: _value(table[name].iloc[0]) for name in same}
    told = ", ".join(f"{name} = {x}" for name, x in known.items() if x != "")
    link = f'<a href="{html.escape(file)}">{html.escape(file)}</a>' if file else ""
    columns = {name: [_value(x) for x in table[name]] for name in varying}
    # Strings of rows may hold anything, also the end of a script.
    data = json.dumps(columns, separators=(",", ":")).replace("<", "\\u003c")
    if len(data) > room:
        where = f" They are in {link}." if link else ""
        return f"<p>{len(rows):,} {unit} are too many rows for a page.{where}</p>"
    where = f" The same as a file: {link}." if link else ""
    without = f"<noscript>The table needs scripts.{where}</noscript>"
    return (
        f'<details class="rows"><summary>{len(rows):,} {html.escape(unit)}, a row '
        f"each</summary><p>The same in all: {html.escape(told)}.{where}</p>{without}"
        f'<script type="application/json">{data}</script></details>'
    )


def _value(x: Any) -> Any:
    """A value for JSON, with six digits."""
    if x is None or x is pd.NA or x is pd.NaT:
        return None
    x = x.item() if hasattr(x, "item") else x
    if isinstance(x, float):
        return float(f"{x:.6g}") if math.isfinite(x) else None
    return x if isinstance(x, (bool, int, str)) else str(x)
