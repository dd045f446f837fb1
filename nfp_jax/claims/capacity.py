"""Capacity: whether networks under masks from training fit more points.

Depends on `nfp_jax.joined`, `figures` and ``paired``. What would surprise: capacities
are compared by their ratio, where 0 counts as 1; and a sparsity where any search ended
at its end is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from nfp_jax.claims.claim import Claim, numbers, verdict
from nfp_jax.claims.paired import against_the_best
from nfp_jax.figures import label_of
from nfp_jax.joined import Part, main_rows


def claims(part: Part) -> Iterator[Claim]:
    """What the rows of such a run say of capacity."""
    rows = within_search(main_rows(part))
    rows = rows.assign(logarithm=np.log(rows["capacity"].astype(float).clip(lower=1)))
    for pair in against_the_best(rows, "logarithm"):
        ratio = numbers(*np.exp(pair.difference))
        yield Claim(
            f"Networks under masks of {label_of(pair.trained)} have a larger capacity "
            "than those of every pruner at initialization",
            f"{part.name}: {part.where}, {100 * pair.sparsity:g} % removed",
            f"ratio to {label_of(pair.best)}, the best of them; paired, {pair.seeds} "
            "seeds",
            *ratio,
            verdict(*ratio[1:], 1.0),
        )


def within_search(rows: pd.DataFrame) -> pd.DataFrame:
    """Those of sparsities where no search ended at its end.

    There it says only "at least", which compares with nothing.
    """
    at_least = rows["capacity_at_least"].astype("boolean").fillna(False).astype(bool)
    return rows[~rows["sparsity"].isin(rows.loc[at_least, "sparsity"])]
