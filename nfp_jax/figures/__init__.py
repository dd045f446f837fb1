"""The figures of a run, from its rows: what they say, how they look, and their SVG.

Depends on `nfp_jax.results` alone; never on arrays or JAX. A file a question
(`memorization`, `information`), and `common` for what their figures share. What would
surprise: nobody says which question the rows are of; their columns do.
"""

import matplotlib.style
import pandas as pd

from nfp_jax.figures.common import (
    LOOKS,
    RC,
    Drawing,
    Look,
    in_words,
    mean_interval,
    networks_of,
    pruned,
    pruners_of,
    shown,
    svg,
    varying,
)
from nfp_jax.figures.information import (
    TROUBLES,
    about,
    draw_information,
    intervals,
    is_information,
    measured,
)
from nfp_jax.figures.memorization import (
    FAILURES,
    METRICS,
    draw_memorization,
    flagged,
    summary,
)

__all__ = [
    "FAILURES",
    "LOOKS",
    "METRICS",
    "TROUBLES",
    "Drawing",
    "Look",
    "about",
    "draw",
    "flagged",
    "in_words",
    "intervals",
    "is_information",
    "mean_interval",
    "measured",
    "networks_of",
    "pruned",
    "pruners_of",
    "shown",
    "summary",
    "svg",
    "varying",
]


def draw(rows: pd.DataFrame) -> dict[str, Drawing]:
    """The figures of the page by name, each with its caption."""
    draw_them = draw_information if is_information(rows) else draw_memorization
    with matplotlib.style.context(["default", RC]):
        return draw_them(rows)
