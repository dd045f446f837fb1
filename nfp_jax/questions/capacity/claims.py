"""Capacity: whether networks under masks from training fit more points.

Capacities are compared by their ratio, where 0 counts as 1; what varies by less than
the precision of a search is taken to vary by that. A search of which only "at
least" is known, for it ended at its end or a deciding failure used up its budget, is
counted with the trainings out of budget: the claim is undecided.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from nfp_jax.pages.claim import Claim, groups, numbers
from nfp_jax.pages.joined import Part, main_rows, scope
from nfp_jax.pages.paired import against_all, differences_of, mean_of
from nfp_jax.pages.pruners import at_initialization, labels_of, pruned, trained


def claims(part: Part) -> Iterator[Claim]:
    """What the rows of such a run say of capacity."""
    rows = pruned(main_rows(part))
    labels = labels_of(rows)
    rows = rows.assign(logarithm=np.log(rows["capacity"].astype(float).clip(lower=1)))
    for sparsity, group in groups(rows, "sparsity"):
        rivals = at_initialization(group)
        for pruner in trained(group):
            both = pd.concat([group[group["pruner"] == pruner], rivals])
            differences = differences_of(both, pruner, "logarithm")
            if not differences:
                continue
            seeds = len(next(iter(differences.values())))
            step = np.log1p(part.config.get("capacity", {}).get("precision", 0.05))
            found = against_all(differences, mean_of(step))
            ratio = np.exp(np.array(found.numbers))
            yield Claim(
                f"Networks under masks of {labels[pruner]} have a larger capacity "
                "than those of every pruner at initialization",
                scope(part, sparsity=sparsity, rows=both),
                f"ratio to the closest, {labels[found.closest]}; least over "
                f"{len(differences)} rivals, paired, {seeds} seeds; undecided "
                "where a search gives only at least",
                *numbers(ratio),
                p_holds=found.p_holds,
                p_not=found.p_not,
                out_of_budget=at_least(both),
                key=f"{part.name}/capacity/{pruner}/{sparsity:g}",
            )


def at_least(rows: pd.DataFrame) -> int:
    """How many searches tell only a lower bound of the capacity."""
    return int(rows["capacity_at_least"].astype("boolean").fillna(False).sum())
