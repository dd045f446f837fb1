"""Whether masks from training make smoother networks: what is compared, and decided."""

import math

import numpy as np
import pandas as pd
import pytest
from judging import judged
from test_robustness_figures import make_network

from nfp_jax.pages.claim import HOLDS, NOT, UNDECIDED


def make_slopes(times=4.0, proven=1.2, seeds=5, n=1000, sparsity=0.9, **rivals):
    """IMP's networks, and rivals that many times steeper, to a few percent by seed."""
    rows = []
    for name, factor in {"imp": 1.0, "snip": times, "synflow": 9.0, **rivals}.items():
        for seed in range(seeds):
            row = make_network(name, sparsity, seed, n=n, noise=1.0)
            row["noise"], row["excess"] = 1.0, 0.4 + 0.01 * seed
            row["lipschitz_lower"] = 5 * row["excess"] * factor * (1 + 0.02 * seed)
            row["lipschitz_upper"] = proven * row["lipschitz_lower"]
            rows.append(row)
    return pd.DataFrame(rows)


def claim_of(rows):
    """The only one about smoothness."""
    (claim,) = (x for x in judged(rows, "robustness") if "/smoother/" in x.key)
    return claim


@pytest.mark.parametrize(
    ("times", "proven", "verdict"),
    [(4.0, 1.2, HOLDS), (0.5, 1.2, NOT), (1.0, 1.2, UNDECIDED), (4.0, 5.0, UNDECIDED)],
)
def test_the_smoothest_rival_counts_and_the_proven_bounds_decide(
    times, proven, verdict
):
    claim = claim_of(make_slopes(times, proven))
    assert claim.key == "robustness/smoother/imp/n=1000/0.9"
    assert claim.measured == pytest.approx(times)
    assert claim.lower < times / proven and claim.upper > times * proven
    assert claim.verdict == verdict
    assert "of the smoothest, SNIP," in claim.what and "2 rivals, 5 seeds" in claim.what


def test_steepness_is_measured_by_the_excess():
    """The law demands as many times the constant as there is excess."""
    rows = make_slopes()
    rivals = rows["pruner"] != "imp"
    for name in ("excess", "lipschitz_lower", "lipschitz_upper"):
        rows.loc[rivals, name] *= 0.5
    assert claim_of(rows).measured == pytest.approx(4.0)


@pytest.mark.parametrize(
    "change", [{"train_accuracy": 0.9}, {"out_of_budget": 1}, {"excess": -0.1}]
)
def test_a_rival_that_does_not_fit_for_one_seed_is_named_and_not_compared(change):
    rows = make_slopes(0.5).assign(out_of_budget=0)
    row = rows.index[(rows["pruner"] == "snip") & (rows["data_seed"] == 2)]
    rows.loc[row, list(change)] = list(change.values())
    claim = claim_of(rows)
    assert claim.measured == pytest.approx(9.0) and claim.verdict == HOLDS
    assert "not compared, for not all fit in time: SNIP" in claim.what


def test_without_a_proven_bound_nothing_is_decided():
    claim = claim_of(make_slopes().assign(lipschitz_upper=math.inf))
    assert claim.measured == pytest.approx(4.0) and claim.verdict == UNDECIDED
    assert claim.lower == 0.0 and claim.upper == math.inf


def test_only_the_seeds_that_fit_under_the_trained_masks_are_compared():
    rows = make_slopes().assign(out_of_budget=0)
    first = (rows["pruner"] == "imp") & (rows["data_seed"] == 0)
    claim = claim_of(rows.assign(out_of_budget=np.where(first, 1, 0)))
    assert "2 rivals, 4 seeds" in claim.what and claim.verdict == HOLDS


def test_without_a_rival_that_fits_nothing_is_claimed():
    rows = make_slopes()
    rows.loc[rows["pruner"] != "imp", "train_accuracy"] = 0.6
    assert not [x for x in judged(rows, "robustness") if "/smoother/" in x.key]
