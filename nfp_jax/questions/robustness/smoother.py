"""Whether networks that fit noise are smoother under masks from training.

What the law of robustness is about: at equal weights kept, the network with more
effective parameters may fit noise with a smaller Lipschitz constant. Compared are
networks that fit their labels and whose trainings did not use up their budget, by their
constant over the excess ε, seed by seed, where each training ended: what fits late has
trained for longer. A constant is known to lie between two ends, the steepest slope
found and a bound that is proven; a verdict holds wherever between them it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from nfp_jax.estimates import Estimate, mean_test
from nfp_jax.pages.claim import Claim, groups, numbers
from nfp_jax.pages.joined import Part, scope
from nfp_jax.pages.paired import against_all, by_seed
from nfp_jax.pages.pruners import at_initialization, labels_of, trained

# Logarithms of ratios that vary by less from seed to seed are taken to vary by that.
LEAST_DEVIATION = 0.05


def smoother(part: Part, rows: pd.DataFrame, fitted: pd.DataFrame) -> Iterator[Claim]:
    """Yields a claim for every n and sparsity, and every pruner that sees training.

    Args:
      part: the run.
      rows: its networks, rewound and not ablated.
      fitted: those that fit their labels, in their budget.
    """
    for (n, sparsity), group in groups(fitted, ["n", "sparsity"]):
        everyone = rows[(rows["n"] == n) & (rows["sparsity"] == sparsity)]
        for pruner in trained(group):
            yield from _against_rivals(part, everyone, group, pruner, n, sparsity)


def _against_rivals(
    part: Part,
    everyone: pd.DataFrame,
    fitted: pd.DataFrame,
    pruner: str,
    n: int,
    sparsity: float,
) -> Iterator[Claim]:
    """The claim of one pruner, against rivals that fit wherever its networks do."""
    least, most = _logarithms(fitted, "lower"), _logarithms(fitted, "upper")
    if pruner not in least:
        return
    seeds = least.index[least[pruner].notna()]
    least, most = least.loc[seeds], most.loc[seeds]
    every = sorted(set(at_initialization(everyone)["pruner"]))
    rivals = [name for name in every if name in least and least[name].notna().all()]
    if not rivals:
        return
    # How many times steeper: as found, at least and at most, in logarithms.
    times = {
        name: tuple(
            (theirs[name] - mine[pruner]).to_numpy()
            for theirs, mine in ((least, least), (least, most), (most, least))
        )
        for name in rivals
    }
    found = against_all(times, _steeper)
    labels = labels_of(everyone)
    without = ", ".join(labels[name] for name in every if name not in rivals)
    unfit = f"; not compared, for not all fit in time: {without}" if without else ""
    yield Claim(
        f"Networks that fit noise are smoother under masks of {labels[pruner]} than "
        "under those of every pruner at initialization that fits it",
        scope(part, n=n, sparsity=sparsity, rows=fitted),
        f"Lipschitz constant ÷ ε of the smoothest, {labels[found.closest]}, ÷ its own, "
        "slopes found where each training ended; ends and verdict hold for constants "
        "anywhere between the slope found and the proven bound; paired t test of "
        f"logarithms, {len(rivals)} rivals, {len(seeds)} seeds{unfit}",
        *numbers(map(math.exp, found.numbers)),
        p_holds=found.p_holds,
        p_not=found.p_not,
        key=f"{part.name}/smoother/{pruner}/n={n}/{sparsity:g}",
    )


def _logarithms(rows: pd.DataFrame, end: str) -> pd.DataFrame:
    """Of an end of the constant over ε, by seed (down) and pruner (across)."""
    steepness = rows[f"lipschitz_{end}"].astype(float) / rows["excess"].astype(float)
    return by_seed(
        rows.assign(steepness=np.log(steepness)), "steepness", complete=False
    )


def _steeper(times: Any, confidence: float) -> Estimate:
    """The mean logarithm, and t tests against 0 at the ends that are against them."""
    found, least, most = (
        mean_test(x, least_deviation=LEAST_DEVIATION, confidence=confidence)
        if np.isfinite(x).all()  # without a proven bound an end is infinite
        else Estimate(math.nan, -math.inf, math.inf, 1.0, 1.0)
        for x in times
    )
    return Estimate(found.estimate, least.lower, most.upper, least.p_more, most.p_less)
