"""What a mask is besides its layers' densities, and besides its initial weights.

Networks under masks as they were found against the same masks shuffled within their
layers, or trained from fresh initial weights: whether they memorize as many points, and
whether they fit 99 % of the labels sooner.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from nfp_jax.estimates import equivalence_test
from nfp_jax.pages.claim import (
    MARGIN,
    RESOLUTION,
    SHOWN,
    UNDECIDED,
    Claim,
    collapsed,
    groups,
    late,
    numbers,
)
from nfp_jax.pages.joined import Part, scope, usual_rows
from nfp_jax.pages.pruners import labels_of, pruned
from nfp_jax.pages.words import SEEDS
from nfp_jax.questions.memorization.times import (
    HOW,
    paired_times,
    times_sooner,
    unknown,
    unknown_in_words,
    with_times,
)

POINTS = "memorized_points"
# Ablations by what stays the same where the claim holds.
SAME = {
    "shuffle": "{label}: networks memorize as much when the mask is shuffled within "
    "its layers (a random mask of its layers' densities)",
    "reinitialize": "{label}: networks memorize as much from fresh initial weights",
}
# And by what is slower without it, where the claim holds.
FASTER = {
    "shuffle": "{label}: networks fit 99 % of the labels in fewer epochs of the last "
    "training than when the mask is shuffled within its layers",
    "reinitialize": "{label}: networks fit 99 % of the labels in fewer epochs of the "
    "last training than from fresh initial weights",
}


def ablated(part: Part) -> Iterator[Claim]:
    """Whether something beside densities, and beside the initial weights, matters."""
    rows = pruned(usual_rows(part))
    rows = with_times(rows[rows["resume"] != "finetune"])
    labels = labels_of(rows)
    plain = rows[rows["ablation"] == ""]
    for (n, sparsity, pruner), mine in groups(plain, ["n", "sparsity", "pruner"]):
        for ablation, claim in SAME.items():
            same = (rows["pruner"] == pruner) & (rows["sparsity"] == sparsity)
            same &= (rows["n"] == n) & (rows["ablation"] == ablation)
            other = rows[same]
            both = mine.merge(other, on=SEEDS, suffixes=("", "_ablated"))
            if both.empty:
                continue
            gap = (both[POINTS] - both[f"{POINTS}_ablated"]).astype(float)
            margin = MARGIN * n
            tested = equivalence_test(gap, margin, least_deviation=RESOLUTION * n)
            why = _says_nothing(both, n)
            yield Claim(
                claim.format(label=labels[str(pruner)]),
                scope(part, n=n, sparsity=sparsity, rows=mine),
                f"points at settled with the mask as it is, less those without; within "
                f"{margin:g} is as much; paired, {len(both)} seeds{why}",
                *numbers(tested),
                p_holds=tested.p_less,
                p_not=tested.p_more,
                out_of_budget=late(mine) + late(other),
                verdict=SHOWN if why else UNDECIDED,
                key=f"{part.name}/{ablation}/{pruner}/n={n}/{sparsity:g}",
            )
            known = pd.concat([mine["time_most"], other["time_most"]])
            if np.isfinite(known).any() and not collapsed(both):
                yield _faster(part, mine, other)


def _faster(part: Part, mine: pd.DataFrame, other: pd.DataFrame) -> Claim:
    """Whether masks of a pruner are faster as they are than when they are ablated."""
    first = mine.iloc[0]
    pruner, n, sparsity = str(first["pruner"]), int(first["n"]), first["sparsity"]
    ablation = str(other["ablation"].iloc[0])
    times = paired_times(mine, other)
    found = times_sooner(times)
    ratio, lower, upper = numbers(found)
    return Claim(
        FASTER[ablation].format(label=labels_of(mine)[pruner]),
        scope(part, n=n, sparsity=sparsity, rows=mine),
        f"epochs without it ÷ epochs with it, paired, {len(times.least)} seeds; "
        f"{HOW}{unknown_in_words(other)}",
        ratio,
        lower,
        upper,
        p_holds=found.p_more,
        p_not=found.p_less,
        out_of_budget=late(mine),
        left_out=unknown(other),
        key=f"{part.name}/{ablation}-epochs/{pruner}/n={n}/{sparsity:g}",
    )


def _says_nothing(both: pd.DataFrame, n: int) -> str:
    """Why an ablation can't show anything; empty where it can."""
    columns = (POINTS, f"{POINTS}_ablated")
    if all((both[name].astype(float) >= n).all() for name in columns):
        return "; not judged, for both fit all points: capacity does not bind"
    if collapsed(both):
        return "; not judged, for networks collapsed"
    return ""
