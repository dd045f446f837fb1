"""How pruners and their variants look, in every figure, and in which order they come.

Nothing here depends on rows or draws. The order of `PALETTE` is the order of pruners
in legends, tables and sentences alike.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from matplotlib.path import Path


class Paint(NamedTuple):
    """A color and a marker."""

    color: str
    marker: str


class Look(NamedTuple):
    """How a pruner looks, in every figure."""

    label: str
    color: str
    marker: str

    def style(self, line: str) -> dict[str, Any]:
        """The look as matplotlib's options, with a line style."""
        return {"color": self.color, "marker": self.marker, "ls": line}

    def dot(self) -> dict[str, Any]:
        """The look of a point without a line: the dense network has a marker too."""
        return self.style("") | {"marker": self.marker or "*"}


# Color and marker, in the order of legends and tables: Okabe and Ito's colors, which
# color-blind readers can tell apart. A pruner without an entry comes after, in one of
# Paul Tol's muted ones.
PALETTE = {
    "dense": Paint("black", ""),
    "random": Paint("#8a8a8a", "o"),
    "magnitude_init": Paint("#e69f00", "s"),
    "snip": Paint("#56b4e9", "^"),
    "grasp": Paint("#009e73", "v"),
    "synflow": Paint("#cc79a7", "D"),
    "magnitude_trained": Paint("#0072b2", "P"),
    "imp": Paint("#d55e00", "X"),
}
FURTHER = (
    Paint("#882255", "p"),
    Paint("#999933", "h"),
    Paint("#332288", "<"),
    Paint("#44aa99", ">"),
    Paint("#661100", "*"),
    Paint("#aa4499", "d"),
)
LINES = {"finetune": ":", "per_layer": ":", "erk": "-.", "shuffle": ":"}
LINES |= {"reinitialize": "-.", "rescale": ":", "invert": "--"}
LINES |= {"swapped labels": ":"}  # all others solid

BARS: dict[str, Any] = {"elinewidth": 0.9, "capsize": 1.8}
RC = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 5.5,
    "svg.fonttype": "none",  # text that can be searched, edited and read out
    "pdf.fonttype": 42,  # TrueType, which every publisher takes
    "text.parse_math": False,  # a "$" in a name is a "$"
}

# White and black that stay as they are where a page is dark: texts on colored squares.
FIXED = ("#fefefe", "#010101")

# Guides behind the points.
BOUND: dict[str, Any] = {"color": "#777777", "ls": "--", "lw": 1.0}
LEVEL: dict[str, Any] = {"color": "#999999", "ls": "-", "lw": 1.0}
GUIDE: dict[str, Any] = {"color": "#bbbbbb", "ls": "-", "lw": 0.7}
GUIDE_TEXT: dict[str, Any] = {"color": "#999999", "size": 7}


def _arrow(begin: float, size: float) -> dict[str, Any]:
    """An arrow upward, that begins at the point or so much of its length below."""
    path = [(0.0, 0.0), (0.0, 1.0), (-0.25, 0.6), (0.0, 1.0), (0.25, 0.6)]
    codes = [Path.MOVETO, Path.LINETO, Path.MOVETO, Path.LINETO, Path.LINETO]
    marker: Any = Path([(x, y - begin) for x, y in path], codes)
    return {"marker": marker, "ms": size, "ls": "", "mfc": "none", "clip_on": False}


# The value at the point, or a larger one; and the same in a legend, which centers it.
OPEN = _arrow(0, 26)
OPEN_CENTERED = _arrow(0.5, 10)
