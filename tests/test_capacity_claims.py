"""Capacity: ratios to every rival, and searches that tell only "at least"."""

import math

import numpy as np
import pandas as pd
import pytest
from judging import ends, judged, numbers, tails
from test_capacity_figures import make_search, make_searches
from test_pages_joined import CAPACITY, make_part, make_parts

from nfp_jax.pages.claim import HOLDS, NOT, UNDECIDED
from nfp_jax.report.claims import claims

BEST = [500, 640, 550]
STEP = math.log1p(0.05)  # of a search, in the configuration of these tests


def searches(capacities, sparsity=0.9):
    return [
        make_search(pruner, sparsity, seed, capacity=x)
        for pruner, values in capacities.items()
        for seed, x in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("imp", "expected"),
    [
        ([1500, 2000, 1700], HOLDS),
        ([200, 250, 210], NOT),
        ([450, 900, 600], UNDECIDED),
        ([1500, 2300, 1700], HOLDS),  # ratios that vary by more than a step
    ],
)
def test_capacities_are_compared_with_every_rival_by_their_ratio(imp, expected):
    rows = searches({"imp": imp, "snip": BEST, "random": [9, 12, 10]})
    [claim] = judged(rows, "capacity")
    gap = np.log(imp) - np.log(BEST)
    upper = ends(gap, 1 - 0.05 / 2, STEP)[2]
    expected_ends = np.exp([*ends(gap, least=STEP)[:2], upper])
    assert numbers(claim) == pytest.approx(expected_ends.tolist())
    more, less = tails(gap, least=STEP)
    far = tails(np.log(imp) - np.log([9, 12, 10]), least=STEP)[1]
    simes = min(2 * min(less, far), max(less, far))
    assert (claim.p_holds, claim.p_not) == pytest.approx((more, simes))
    assert claim.verdict == expected
    assert "ratio to the closest, SNIP" in claim.what and "90 % removed" in claim.where
    assert claim.key == "capacity/capacity/imp/0.9"


@pytest.mark.parametrize("late", [0, 4, 8])
def test_one_search_that_tells_only_at_least_leaves_its_sparsity_undecided(late):
    capacities = {"imp": [3000, 3001, 3002], "snip": [100, 101, 99], "random": [50] * 3}
    wide, near = searches(capacities, 0.5), searches(capacities, 0.9)
    assert [x.verdict for x in judged([*wide, *near], "capacity")] == [HOLDS, HOLDS]
    wide[late]["capacity_at_least"] = True
    some, most = judged([*wide, *near], "capacity")
    assert (some.verdict, some.out_of_budget) == (UNDECIDED, 1)
    assert (most.verdict, most.out_of_budget) == (HOLDS, 0)


def test_networks_that_fit_nothing_have_a_capacity_to_compare():
    rows = make_searches(("imp", "snip"), (0.9,), capacity=0, collapsed=True)
    [claim] = judged(rows, "capacity")
    expected = np.exp(ends([0.0] * 3, least=STEP)).tolist()
    assert numbers(claim) == pytest.approx(expected) and claim.verdict == UNDECIDED


def test_a_capacity_of_0_counts_as_1_in_a_ratio():
    [claim] = judged(searches({"imp": [5, 5], "snip": [0, 0]}), "capacity")
    expected = np.exp(ends([math.log(5)] * 2, least=STEP)).tolist()
    assert numbers(claim) == pytest.approx(expected)


@pytest.mark.parametrize("precision", [0.05, 0.2])
def test_ratios_that_agree_vary_by_the_precision_of_the_search(precision):
    rows = searches({"imp": [600] * 4, "snip": [500] * 4})
    part = make_part(rows, "capacity")
    settings = CAPACITY | {"precision": precision}
    part = part._replace(config=part.config | {"capacity": settings})
    [claim] = claims(make_parts(part))
    gap, step = [math.log(1.2)] * 4, math.log1p(precision)
    assert numbers(claim) == pytest.approx(np.exp(ends(gap, least=step)).tolist())
    assert (claim.p_holds, claim.p_not) == pytest.approx(tails(gap, least=step))
    assert claim.verdict == {0.05: HOLDS, 0.2: UNDECIDED}[precision]


def test_one_seed_is_a_ratio_without_ends_and_undecided():
    for claim in judged(make_searches(seeds=1), "capacity"):
        assert math.isfinite(claim.measured) and claim.verdict == UNDECIDED
        assert math.isnan(claim.lower) and math.isnan(claim.upper)


@pytest.mark.parametrize(
    "pruners", [("dense",), ("imp",), ("imp", "magnitude_trained"), ("snip", "random")]
)
def test_where_there_is_nobody_to_compare_nothing_is_claimed(pruners):
    assert judged(make_searches(pruners), "capacity") == []


def test_a_capacity_that_is_not_there_is_not_paired():
    rows = pd.DataFrame(searches({"imp": [900, None, 950], "snip": BEST}))
    [claim] = judged(rows, "capacity")
    ratio = math.sqrt(900 * 950 / (500 * 550))
    assert claim.measured == pytest.approx(ratio) and "2 seeds" in claim.what
