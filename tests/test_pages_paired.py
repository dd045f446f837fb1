"""One against all of several rivals, of which none is chosen."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from judging import ends, tails
from rows import make_row
from scipy import stats

from nfp_jax.pages.paired import against_all, by_seed, mean_of, simes

RNG = np.random.default_rng(0)
DIFFERENCES = {
    "a": RNG.normal(5, 2, 6),
    "b": RNG.normal(3, 4, 6),
    "c": RNG.normal(9, 1, 6),
}


def test_it_is_more_than_all_as_surely_as_than_the_least_sure_of_them():
    found = against_all(DIFFERENCES, mean_of(0.0))
    single = {name: tails(x) for name, x in DIFFERENCES.items()}
    assert found.p_holds == pytest.approx(max(more for more, _ in single.values()))
    least = min(less for _, less in single.values())
    assert found.p_not == pytest.approx(min(1, 3 * least))
    assert found.closest == "b"
    assert found.estimate == pytest.approx(np.mean(DIFFERENCES["b"]))
    assert found.lower == pytest.approx(min(ends(x)[1] for x in DIFFERENCES.values()))
    level = 1 - 0.05 / 3
    uppers = [ends(x, level)[2] for x in DIFFERENCES.values()]
    assert found.upper == pytest.approx(min(uppers))


def test_against_one_rival_it_is_a_paired_t_test():
    found = against_all({"a": DIFFERENCES["a"]}, mean_of(0.0, 2.0))
    assert found.numbers == pytest.approx(tuple(ends(DIFFERENCES["a"])))
    more, less = tails(DIFFERENCES["a"], 2.0)
    assert (found.p_holds, found.p_not) == pytest.approx((more, less))


def test_one_rival_that_is_certainly_better_is_enough_to_refute():
    worse = DIFFERENCES | {"d": DIFFERENCES["c"] - 30}
    found = against_all(worse, mean_of(0.0))
    assert found.p_not == pytest.approx(4 * tails(worse["d"])[1]) and found.p_not < 1e-6
    assert found.p_holds > 0.999


def test_the_order_of_the_rivals_does_not_matter():
    expected = against_all(DIFFERENCES, mean_of(0.0))
    for order in itertools.permutations(DIFFERENCES):
        again = against_all({name: DIFFERENCES[name] for name in order}, mean_of(0.0))
        assert again == expected


def test_a_hopeless_rival_changes_neither_the_number_nor_whether_it_holds():
    expected = against_all(DIFFERENCES, mean_of(0.0))
    found = against_all(DIFFERENCES | {"z": DIFFERENCES["c"] + 500}, mean_of(0.0))
    assert found[:3] == expected[:3] and found.p_holds == expected.p_holds
    assert found.p_not >= expected.p_not and found.upper >= expected.upper


@pytest.mark.parametrize("order", [1, -1])
def test_a_rival_without_numbers_leaves_nothing_decided(order):
    few = {"a": DIFFERENCES["c"], "gone": np.array([3.0])}
    found = against_all(dict(list(few.items())[::order]), mean_of(0.0))
    assert found.p_holds == 1.0 and math.isnan(found.lower)
    nothing = against_all({"gone": np.array([])}, mean_of(0.0))
    assert math.isnan(nothing.estimate) and nothing[-2:] == (1.0, 1.0)


def test_with_an_unsure_rival_it_is_never_more_than_all_however_far_ahead():
    far = DIFFERENCES | {"z": DIFFERENCES["c"] + 500}
    sure = against_all(far, mean_of(0.0))
    for unsure in (["z"], ["a"], list(far)):
        found = against_all(far, mean_of(0.0), unsure)
        assert found.p_holds == 1
        assert found[:4] == sure[:4]  # the numbers are of all rivals


def test_that_it_is_not_more_rests_on_sure_rivals_alone_times_the_number_of_all():
    worse = DIFFERENCES | {"d": DIFFERENCES["c"] - 30}
    sure = against_all(worse, mean_of(0.0))
    one = against_all(worse, mean_of(0.0), {"a": 2})
    assert one.p_not == sure.p_not == pytest.approx(4 * tails(worse["d"])[1])
    without = against_all(worse, mean_of(0.0), {"d": 1})
    least = min(tails(x)[1] for x in DIFFERENCES.values())
    assert without.p_not == pytest.approx(min(1, 4 * least))
    assert without.closest == "d" and without.p_not > 100 * sure.p_not
    assert against_all(worse, mean_of(0.0), worse).p_not == 1
    # A name that is no rival is none.
    assert against_all(worse, mean_of(0.0), ["x"]).p_not == sure.p_not


def test_equal_to_one_of_three_it_seldom_counts_as_more_than_all_or_as_less():
    """At most 5 % each; four standard errors of a share of 1,000 are 2.8 %."""
    rng = np.random.default_rng(1)
    shift = np.array([[0.0], [3.0], [0.5]])
    holds, fails = [], []
    for x in rng.normal(size=(1000, 3, 5)):
        found = against_all(dict(zip("abc", x + shift, strict=True)), mean_of(0.0))
        holds.append(found.p_holds <= 0.05)
        fails.append(found.p_not <= 0.05)
    assert np.mean(holds) <= 0.05 + 0.028
    assert np.mean(fails) <= 0.05 + 0.028


def test_the_ends_hold_the_least_difference_as_often_as_they_say():
    """At least 95 %; four standard errors of a share of 1,000 are 2.8 %."""
    rng = np.random.default_rng(2)
    means = np.array([[1.0], [1.0], [1.3]])
    covered = []
    for x in rng.normal(size=(1000, 3, 5)):
        found = against_all(dict(zip("abc", x + means, strict=True)), mean_of(0.0))
        covered.append(found.lower <= 1.0 <= found.upper)
    assert np.mean(covered) >= 0.95 - 0.028


def test_by_seed_has_a_line_a_seed_that_all_have():
    rows = [
        make_row(pruner, seed=seed, loss=loss)
        for pruner, losses in {"imp": [1.0, 2.0, 3.0], "snip": [4.0, None, 6.0]}.items()
        for seed, loss in enumerate(losses)
    ]
    wide = by_seed(pd.DataFrame(rows), "loss")
    assert wide["imp"].tolist() == [1.0, 3.0] and wide["snip"].tolist() == [4.0, 6.0]
    assert wide.index.tolist() == [(0, 0, 0), (2, 2, 2)]
    assert by_seed(pd.DataFrame(rows).assign(loss=None), "loss").empty


@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_simes_is_wrong_as_often_as_its_level_says_of_shared_sides(correlation):
    """One-sided tests of four normal differences, none of them real."""
    rng = np.random.default_rng(0)
    shared, own = rng.normal(size=(4000, 1)), rng.normal(size=(4000, 4))
    z = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
    wrong = np.mean([simes(p, 4) <= 0.05 for p in stats.norm.sf(z)])
    assert 0.01 < wrong < 0.06  # 0.0034 is the standard error at 0.05


def test_simes_combines_what_bonferroni_takes_alone():
    assert simes([0.01] * 4, 4) == pytest.approx(0.01)
    assert simes([0.01], 4) == pytest.approx(0.04)  # the others may be anything
    assert simes([], 4) == 1.0
