"""Each trained pruner against the best pruner at initialization, paired by seed.

Depends on `nfp_jax.joined` and `estimates`. What would surprise: of several sparsities
it takes the one where the pruners' means differ most, whoever is ahead; and the best is
chosen by the same rows that it is then compared in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from nfp_jax.claims.claim import TRAINED
from nfp_jax.estimates import mean_ends
from nfp_jax.joined import SEEDS


class Paired(NamedTuple):
    """A trained pruner against the best at initialization.

    Attributes:
      trained: the one.
      best: the other.
      sparsity: where they are compared.
      seeds: how many pairs there are.
      difference: trained less best: the mean, and its interval's ends.
    """

    trained: str
    best: str
    sparsity: float
    seeds: int
    difference: tuple[float, float, float]


def against_the_best(rows: pd.DataFrame, column: str) -> Iterator[Paired]:
    """Compares a column's values; nothing where there is nobody to compare."""
    table = _by_seed(rows, column)
    if table is None:
        return
    sparsity, wide = table
    at_init = [str(name) for name in wide if name not in TRAINED]
    if not at_init:
        return
    best = max(at_init, key=lambda name: wide[name].mean())
    for trained in (name for name in TRAINED if name in wide):
        difference = mean_ends(wide[trained] - wide[best])
        yield Paired(trained, best, sparsity, len(wide), difference)


def _by_seed(rows: pd.DataFrame, column: str) -> tuple[float, pd.DataFrame] | None:
    """A column by seed and pruner, at the sparsity where pruners differ most."""
    rows = rows[(rows["pruner"] != "dense") & rows[column].notna()]
    if rows.empty:
        return None
    rows = rows.assign(value=rows[column].astype(float))
    means = rows.groupby(["sparsity", "pruner"])["value"].mean()
    sparsity: Any = means.groupby("sparsity").std().fillna(0.0).idxmax()
    wide = rows[rows["sparsity"] == sparsity].pivot_table(
        index=SEEDS, columns="pruner", values="value"
    )
    wide = wide.dropna()
    return (float(sparsity), wide) if len(wide) else None
