"""Memorization and noise: whether masks from training make networks learn more of both.

Depends on `nfp_jax.joined`, `figures` and ``paired``. What would surprise: of data
without label noise nothing is claimed of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from nfp_jax.claims.claim import Claim, groups, verdict
from nfp_jax.claims.paired import against_the_best
from nfp_jax.figures import label_of
from nfp_jax.joined import Part, main_rows


def claims(part: Part) -> Iterator[Claim]:
    """What the rows of such a run say of memorization and noise."""
    rows = main_rows(part)
    for n, of_n in groups(rows, "n"):
        yield from _more(
            part, of_n, n, "memorized_points", "memorize more points than", "points"
        )
        if of_n["noise"].iloc[0] > 0:
            yield from _more(
                part,
                of_n,
                n,
                "noise_correlation_normalized",
                "correlate more with the label noise than",
                "correlation, 1 = all noise learned",
            )


def _more(
    part: Part, rows: pd.DataFrame, n: Any, column: str, more: str, unit: str
) -> Iterator[Claim]:
    for pair in against_the_best(rows, column):
        yield Claim(
            f"Networks under masks of {label_of(pair.trained)} {more} those of every "
            "pruner at initialization",
            f"{part.name}: {part.where}, n = {n:,}, {100 * pair.sparsity:g} % removed",
            f"difference to {label_of(pair.best)}, the best of them, in {unit}; "
            f"paired, {pair.seeds} seeds",
            *pair.difference,
            verdict(*pair.difference[1:]),
        )
