"""The law of robustness: whether networks that fit noise are as steep as it demands.

Depends on `nfp_jax.joined` and `estimates`. What would surprise: the steepness found is
a lower bound, which can show that the law is met and never refute it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from nfp_jax.claims.claim import Claim, numbers, verdict
from nfp_jax.estimates import slope_interval
from nfp_jax.joined import Part, main_rows


def claims(part: Part) -> Iterator[Claim]:
    """What the rows of such a run say of the law of robustness."""
    rows = main_rows(part)
    steepness = steepness_of(rows)
    here = np.isfinite(steepness)
    if here.sum() < 3:
        return
    n, dim, kept = (
        rows[x].astype(float).to_numpy()[here] for x in ("n", "dim", "kept")
    )
    required, steepness = np.sqrt(n * dim / kept), steepness[here]
    where = f"{part.name}: {part.where}, {here.sum()} networks that fit noise"
    least = float((steepness / required).min())
    yield Claim(
        "Networks that fit noise are as steep as the law of robustness demands",
        where,
        "the least Lipschitz constant found ÷ ε·sqrt(n d / kept), constant 1; a lower "
        "bound, so it has no upper end",
        *numbers(least, least, math.inf),
        verdict(least, math.inf, 1.0),
    )
    yield from exponent(
        "The steepness of networks that fit noise grows with sqrt(n d / kept)",
        where,
        required,
        steepness,
    )


def steepness_of(rows: pd.DataFrame) -> np.ndarray:
    """The least Lipschitz constant by the excess; NaN where noise is not fitted."""
    lower, excess = (
        rows[name].astype(float).to_numpy() for name in ("lipschitz_lower", "excess")
    )
    here = (excess > 0) & (lower > 0)
    return np.divide(lower, excess, out=np.full(len(rows), np.nan), where=here)


def exponent(
    claim: str, where: str, required: np.ndarray, steepness: np.ndarray
) -> Iterator[Claim]:
    """Whether steepness grows with what is demanded, by least squares of logarithms."""
    slope, low, high = slope_interval(np.log(required), np.log(steepness))
    if math.isfinite(slope):
        yield Claim(
            claim,
            where,
            "exponent of the demanded constant, 1 where it grows in proportion; least "
            "squares",
            *numbers(slope, low, high),
            verdict(low, high),
        )
