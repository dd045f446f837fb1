"""Figures that know what they show: a line a point, beside what is drawn.

``show`` notes points where they are drawn. ``table`` has them as lines of a file,
``tips`` where they lie and what hovering over them tells, and ``seen`` is an
alternative text. Nothing of it changes how a figure looks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from nfp_jax.pages.words import CELL, SEEDS, in_words, number

# What tells lines apart beside the cell, and how a tip says it.
FURTHER = {
    "init": "{}",
    "where": "{}",
    "variant": "{}",
    "labels": "{}",
    "with": "with {}",
    "layer": "{}",
    "load": "{:.3g} points a kept weight",
    "kept": "{:,.0f} weights kept",
    "epoch": "epoch {:,.0f}",
    "loss": "loss {:.3g}",
    "information": "information {} nats",
    "p_eff": "p_eff {}",
}
_OF_CELLS = ("init", "where", "variant", "labels", "load", "kept")
VALUE = ("measure", "value", "low", "high", "at_least")
LAST = ("networks", "by_seed", "notes")  # columns
MOST = 24  # lines that an alternative text tells
Seeds = Sequence[tuple[str, float]]  # a seed in words, and its value


class Points(NamedTuple):
    """Points of a panel, and what they stand for.

    Attributes:
      axes: the panel.
      x: places in data coordinates; NaN is a line across the whole panel. ``y`` too.
      lines: a line a point: coordinates as in `CELL` and `FURTHER`, ``label``, and
        some of `VALUE` and `LAST`. ``by_seed`` is `Seeds`.
      color: of the points.
      every: of so many points one has a tip.
      bar: the mark reaches from ``low`` to ``high``.
      flat: values lie along x.
    """

    axes: Axes
    x: np.ndarray
    y: np.ndarray
    lines: pd.DataFrame
    color: str
    every: int = 1
    bar: bool = False
    flat: bool = False


class Sheet(Figure):
    """A figure that knows what it shows."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.shown: list[Points] = []


def show(
    axes: Axes, x: Any, y: Any, lines: pd.DataFrame, color: Any, **options: Any
) -> None:
    """Notes points that are drawn; ``options`` are those of `Points`.

    Raises:
      TypeError: the axes are of no `Sheet`.
    """
    figure = axes.figure
    if not isinstance(figure, Sheet):
        raise TypeError(f"axes are of a {type(figure).__name__}, expected a Sheet")
    x, y = (np.broadcast_to(np.asarray(z, float), len(lines)) for z in (x, y))
    figure.shown.append(Points(axes, x, y, lines, to_hex(color), **options))


def cell_lines(cells: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """The coordinates of cells, and columns of `VALUE` and `LAST` beside them.

    Of those in `FURTHER` it takes what tells cells apart; ``columns`` has others.
    """
    known = ["label", *CELL, *_OF_CELLS, *LAST]
    lines = cells[[name for name in known if name in cells]]
    return lines.assign(**columns).reset_index(drop=True)


def lines_along(rows: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """The coordinates of rows of one cell, but for their seeds, with columns along it.

    ``columns`` are values, or arrays of one length: a line each.
    """
    coordinates = {name: rows[name].iloc[0] for name in ("label", *CELL)}
    return pd.DataFrame({**coordinates, **columns})


def seeds_in_words(rows: pd.DataFrame) -> list[str]:
    """The seeds of each row: ``seed 0``, or where the three differ ``seeds 0 1 0``."""
    told = []
    for seeds in rows[SEEDS].itertuples(index=False):
        one = len(set(seeds)) == 1
        told.append(f"seed {seeds[0]}" if one else f"seeds {' '.join(map(str, seeds))}")
    return told


def with_seeds(cells: pd.DataFrame, rows: pd.DataFrame, values: Any) -> pd.DataFrame:
    """The cells with a column ``by_seed``: the values of their rows.

    Args:
      cells: lines with the columns of `CELL`.
      rows: those that the cells sum up.
      values: ``[rows]``.
    """
    told, values = np.array(seeds_in_words(rows), object), np.asarray(values, float)
    groups: Any = rows.groupby(list(CELL), dropna=False).indices
    places = cells[list(CELL)].itertuples(index=False, name=None)
    found = [groups.get(place, np.array([], int)) for place in places]
    by_seed = pd.Series(
        [list(zip(told[i], values[i].tolist(), strict=True)) for i in found],
        index=cells.index,
        dtype=object,
    )
    return cells.assign(by_seed=by_seed)


# ---- As a file


def table(figure: Figure | None) -> pd.DataFrame | None:
    """What the figure shows, a line a point; None: it knows of no point.

    Values by seed are JSON, as in ``{"seed 0": 0.5}``.
    """
    if not isinstance(figure, Sheet) or not figure.shown:
        return None
    parts = [
        points.lines.assign(panel=points.axes.get_title().replace("\n", " "))
        for points in figure.shown
    ]
    columns = ["panel", "label", *CELL, *FURTHER, *VALUE, *LAST]
    whole = pd.concat([part.astype(object) for part in parts], ignore_index=True)
    whole = whole[[name for name in columns if name in whole]]
    if "by_seed" in whole:
        whole["by_seed"] = [_json(seeds) for seeds in whole["by_seed"]]
    whole["panel"] = whole["panel"].str.replace("\N{NO-BREAK SPACE}", " ")
    return whole.dropna(axis="columns", how="all")


def _json(seeds: Any) -> str:
    if not isinstance(seeds, list):
        return ""
    inside = ", ".join(f'"{seed}": {_plain(value)}' for seed, value in seeds)
    return f"{{{inside}}}"


def _plain(x: float) -> str:
    return f"{x:.6g}" if math.isfinite(x) else "null"


# ---- On a page


class Tip(NamedTuple):
    """Where a point lies in a figure, in points from the upper left, and its text.

    Attributes:
      start: an end of what is hovered over; ``end`` is the other, or the same.
      seeds: where the values of the seeds lie.
      color: of the point.
      text: what is told.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    seeds: list[tuple[float, float]]
    color: str
    text: str


def tips(figure: Figure | None) -> list[Tip]:
    """The tips of a figure that was drawn; those outside their panel are left out."""
    if not isinstance(figure, Sheet):
        return []
    varying = _varying(figure.shown)
    return [
        tip for points in figure.shown for tip in _tips_of(points, varying) if tip.text
    ]


def _tips_of(points: Points, varying: Mapping[str, bool]) -> Iterator[Tip]:
    figure = points.axes.get_figure(root=True)
    assert figure is not None  # `show` asked for one
    scale, height = 72 / figure.dpi, 72 * figure.get_size_inches()[1]
    window = points.axes.bbox.padded(1)
    across = points.axes.get_yaxis_transform()

    def place(x: float, y: float) -> tuple[float, float] | None:
        """In pixels."""
        if math.isnan(x):
            x, y = across.transform((0.985, y))
        else:
            x, y = points.axes.transData.transform((x, y))
        return (x, y) if window.contains(x, y) else None

    def on_page(x: float, y: float) -> tuple[float, float]:
        return x * scale, height - y * scale

    records: Any = points.lines.to_dict("records")
    for i in range(0, len(records), points.every):
        line, x, y = records[i], float(points.x[i]), float(points.y[i])
        ends = [place(x, y)] * 2
        if points.bar:
            reach = [line.get("low", math.nan), line.get("high", math.nan)]
            ends = [place(z, y) if points.flat else place(x, z) for z in reach]
        known = [end for end in ends if end]
        if not known:
            continue
        seeds = line.get("by_seed")
        values = [z for _, z in seeds] if isinstance(seeds, list) else []
        dots = [place(z, y) if points.flat else place(x, z) for z in values]
        yield Tip(
            on_page(*known[0]),
            on_page(*known[-1]),
            [on_page(*dot) for dot in dots if dot] if len(dots) > 1 else [],
            points.color,
            told(line, varying),
        )


def _varying(shown: Sequence[Points]) -> dict[str, bool]:
    """Of the coordinates, whether they have more than one value in the figure."""
    found = {}
    for name in (*CELL, *FURTHER):
        values: set[Any] = set()
        for points in shown:
            if name in points.lines:
                values.update(points.lines[name].tolist())
                values = {x for x in values if not _missing(x)}
            if len(values) > 1:
                break
        found[name] = len(values) > 1
    return found


def told(line: Mapping[str, Any], varying: Mapping[str, bool]) -> str:
    """What hovering over a point tells: which it is, its value, and that of each seed.

    >>> line = {"label": "SNIP", "sparsity": 0.9, "value": 12.5, "low": 10.0}
    >>> seeds = [("seed 0", 11.0), ("seed 1", 14.0)]
    >>> told(line | {"high": 15.0, "by_seed": seeds}, {"sparsity": True})
    'SNIP, 90 % removed: 12.5 (10 to 15); seed 0: 11, seed 1: 14'
    """
    words = [str(line.get("label", ""))]
    for name in CELL[1:]:
        if varying.get(name) and line.get(name) not in (None, ""):
            dense = name == "sparsity" and line[name] == 0
            words.append("" if dense else in_words(name, line[name]))
    for name, text in FURTHER.items():
        if varying.get(name) and not _missing(line.get(name)):
            words.append(text.format(line[name]))
    text = ", ".join(filter(None, words))
    value, low, high = (line.get(x, math.nan) for x in ("value", "low", "high"))
    least = "at least " if line.get("at_least") else ""
    reach = "" if _missing(low) else f"{_short(low)} to {_short(high)}"
    if not _missing(value):
        text += f": {least}{_short(value)}{f' ({reach})' if reach else ''}"
    elif reach:
        text += f": {least}{reach}"
    seeds = line.get("by_seed")
    if isinstance(seeds, list) and len(seeds) > 1:
        each = (f"{seed}: {'-' if _missing(x) else _short(x)}" for seed, x in seeds)
        text += f"; {', '.join(each)}"
    elif isinstance(seeds, list) and seeds:
        text += f"; {seeds[0][0]}"
    elif not _missing(line.get("networks")) and line["networks"] > 1:
        text += f"; of {line['networks']} rows"
    notes = line.get("notes")
    return f"{text}; {notes}" if isinstance(notes, str) and notes else text


def _short(x: float) -> str:
    """Three digits; of whole numbers no decimals."""
    return f"{x:,.0f}" if x % 1 == 0 and abs(x) < 1e9 else number(x)


def _missing(x: Any) -> bool:
    return x is None or x == "" or (isinstance(x, float) and math.isnan(x))


# ---- In place of the figure


def seen(title: str, figure: Figure | None) -> str:
    """An alternative text: the axes, and where each line begins and ends.

    Of several panels the last is told, which is that of the most weights removed.
    """
    if not isinstance(figure, Sheet) or not figure.shown:
        return title
    panels = list(dict.fromkeys(points.axes for points in figure.shown))
    axes = panels[-1]
    labels = [_label(panels, "get_ylabel"), _label(panels, "get_xlabel")]
    text = (
        ": ".join(filter(None, (title, " against ".join(filter(None, labels))))) + "."
    )
    if len(panels) > 1:
        name = " ".join(axes.get_title().split())
        text += f" {len(panels)} panels. Of the last, {name}:"
    lines: dict[str, list[str]] = {}
    variants = ("resume", "ablation", "select", "labels", "init", "with", "n")
    varying = _varying(figure.shown)
    for points in figure.shown:
        if points.axes is axes:
            order = np.argsort(points.x, kind="stable")
            records: Any = points.lines.to_dict("records")
            for line in (records[i] for i in order):
                kept = {x: line.get(x) for x in ("label", *variants)}
                lines.setdefault(told(kept, varying), []).extend(_value(line))
    parts = [f"{name} {_from_to(values)}" for name, values in lines.items() if values]
    if len(parts) > MOST:
        parts[MOST:] = [f"{len(parts) - MOST} more"]
    return " ".join(f"{text} {'; '.join(parts)}.".split())


def _value(line: Mapping[str, Any]) -> Iterator[str]:
    """The value of a point, or of a bar both ends; nothing where there is none."""
    value, low, high = (line.get(x, math.nan) for x in ("value", "low", "high"))
    if not _missing(value):
        yield _short(value)
    elif not _missing(low):
        yield f"{_short(low)} to {_short(high)}"


def _from_to(values: Sequence[str]) -> str:
    first, last = values[0], values[-1]
    if first == last:
        return first
    several = " to " in first + last
    return f"first {first}, last {last}" if several else f"from {first} to {last}"


def _label(panels: Sequence[Axes], which: str) -> str:
    found = (" ".join(getattr(axes, which)().split()) for axes in panels)
    return next(filter(None, found), "")
