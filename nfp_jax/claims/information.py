"""Information: whose masks hold more of it, and whether half of the labels' is reached.

Depends on `nfp_jax.joined` and `figures`. What would surprise: ends are those of
certified intervals, not of intervals over seeds, and the number told is their middle;
it is read at the highest sparsity.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from nfp_jax.claims.claim import (
    DATA_FREE,
    HOLDS,
    NOT,
    TRAINED,
    Claim,
    groups,
    numbers,
    verdict,
)
from nfp_jax.figures import label_of
from nfp_jax.joined import Part, main_rows


def claims(part: Part) -> Iterator[Claim]:
    """What the rows of such a run say of what their masks hold."""
    rows = main_rows(part)
    for n, of_n in groups(rows, "n"):
        sparsity = float(of_n["sparsity"].max())
        ends = (
            of_n[of_n["sparsity"] == sparsity]
            .groupby("pruner")[["information_lower", "information_upper"]]
            .mean()
        )
        where = f"{part.name}: {part.where}, n = {n:,}, {100 * sparsity:g} % removed"
        entropy = float(of_n["label_entropy"].astype(float).mean())
        blind = [name for name in ends.index if name in DATA_FREE]
        seeing = [name for name in ends.index if name not in (*blind, *TRAINED)]
        for trained in (name for name in TRAINED if name in ends.index):
            for others, what in (
                (blind, "data-free masks"),
                (seeing, "masks at initialization that see the data"),
            ):
                if others:
                    yield _more_information(ends, trained, others, what, where)
        if seeing and 0 < entropy < math.inf:
            low = float(ends.loc[seeing, "information_lower"].max()) / entropy
            high = float(ends.loc[seeing, "information_upper"].max()) / entropy
            more = verdict(low, high, 0.5)
            yield Claim(
                "Pruning at initialization can't gather half of the labels' "
                "information",
                where,
                "the most that a pruner at initialization has, as a share of the "
                "labels' entropy; certified interval",
                *numbers((low + high) / 2, low, high),
                {HOLDS: NOT, NOT: HOLDS}.get(more, more),
            )


def _more_information(
    ends: pd.DataFrame, trained: str, others: list[str], what: str, where: str
) -> Claim:
    low = ends.loc[trained, "information_lower"]
    high = ends.loc[trained, "information_upper"]
    low = float(low - ends.loc[others, "information_upper"].max())
    high = float(high - ends.loc[others, "information_lower"].max())
    return Claim(
        f"Masks of {label_of(trained)} hold more information than {what}",
        where,
        "difference to the most of them, in nats, from certified intervals",
        *numbers((low + high) / 2, low, high),
        verdict(low, high),
    )
