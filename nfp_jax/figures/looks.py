"""How pruners and their variants look, in every figure, and in which order they come.

Nothing here depends on rows or draws. The order of `LOOKS` is the order of pruners in
legends, tables and sentences alike.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from matplotlib.path import Path


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


# In the order of legends and tables. Okabe and Ito's colors, which color-blind readers
# can tell apart; a user's own pruners come after, in Paul Tol's muted ones.
LOOKS = {
    "dense": Look("dense", "black", ""),
    "random": Look("random", "#8a8a8a", "o"),
    "magnitude_init": Look("magnitude at init", "#e69f00", "s"),
    "snip": Look("SNIP", "#56b4e9", "^"),
    "grasp": Look("GraSP", "#009e73", "v"),
    "synflow": Look("SynFlow", "#cc79a7", "D"),
    "magnitude_trained": Look("magnitude after training", "#0072b2", "P"),
    "imp": Look("IMP", "#d55e00", "X"),
}
OWN_COLORS = ("#882255", "#999933", "#332288", "#44aa99", "#661100", "#aa4499")
OWN_MARKERS = "ph<>*d"
LINES = {"finetune": ":", "per_layer": ":", "erk": "-.", "shuffle": ":"}
LINES |= {"reinitialize": "-.", "invert": "--"}
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
    "svg.fonttype": "path",  # looks the same where the font is missing
    "text.parse_math": False,  # a "$" in a name is a "$"
}

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
