"""The rows of networks that fit noise, which the law of robustness is about."""

from __future__ import annotations

import pandas as pd

from nfp_jax.pages.claim import cut_short

ACCURATE = 0.95  # the least train accuracy; one at chance fits nothing


def fitting(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of networks that fit noise: accurate, below its level, with a slope."""
    accurate = rows["train_accuracy"].astype(float) >= ACCURATE
    steep = rows["lipschitz_lower"].astype(float) > 0
    return rows[accurate & steep & (rows["excess"].astype(float) > 0)]


def in_budget(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that rest on no training that used up its budget, or diverged."""
    return rows[~cut_short(rows)]
