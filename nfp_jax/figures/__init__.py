"""The figures of a run, from its rows: what they say, how they look, and their SVG.

Depends on `nfp_jax.results`, `estimates` and `joined`; never on arrays or JAX. A file a
kind of rows, which ends with its `Kind`: all that a page needs to know of it.
``words``, ``looks``, ``common``, ``points`` and ``bars`` are what they share;
``networks``, ``curves``, ``speed`` and ``controls`` belong to memorization. The columns
of rows say of which kind they are. A new kind is a new file and its place in `KINDS`.
"""

import matplotlib.style
import pandas as pd

from nfp_jax.figures.capacity import CAPACITY
from nfp_jax.figures.common import Drawing, svg
from nfp_jax.figures.information import INFORMATION, about, intervals, measured
from nfp_jax.figures.kind import Grid, Kind, Line
from nfp_jax.figures.looks import LOOKS, RC, Look
from nfp_jax.figures.memorization import MEMORIZATION
from nfp_jax.figures.networks import METRICS, flagged, summary
from nfp_jax.figures.robustness import ROBUSTNESS
from nfp_jax.figures.swap import SWAP
from nfp_jax.figures.together import capacity_against_p_eff, gap_against_information
from nfp_jax.figures.words import (
    in_words,
    label_of,
    networks_of,
    pruned,
    pruners_of,
    shown,
    span,
    varying,
)

# The first that has its column filled is the rows' kind: robustness has all columns of
# memorization, which stands for everything else.
KINDS = (CAPACITY, SWAP, ROBUSTNESS, INFORMATION, MEMORIZATION)

__all__ = [
    "KINDS",
    "LOOKS",
    "METRICS",
    "RC",
    "Drawing",
    "Grid",
    "Kind",
    "Line",
    "Look",
    "about",
    "capacity_against_p_eff",
    "draw",
    "flagged",
    "gap_against_information",
    "in_words",
    "intervals",
    "kind_of",
    "label_of",
    "measured",
    "networks_of",
    "pruned",
    "pruners_of",
    "shown",
    "span",
    "summary",
    "svg",
    "varying",
]


def kind_of(rows: pd.DataFrame) -> Kind:
    """The kind of the rows, from the columns that they have."""
    return next((kind for kind in KINDS if kind.has(rows)), MEMORIZATION)


def draw(rows: pd.DataFrame) -> dict[str, Drawing]:
    """The figures of the page by name, each with its caption."""
    with matplotlib.style.context(["default", RC]):
        return kind_of(rows).draw(rows)
