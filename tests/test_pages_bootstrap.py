"""Kendall's correlation of two columns of intervals, its range and its bootstrap."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nfp_jax.pages import bootstrap
from nfp_jax.pages.bootstrap import NOTHING, correlation
from nfp_jax.pages.claim import LEVEL


@pytest.fixture(autouse=True, scope="module")
def quick():
    """500 repeats: as many as are made at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "REPEATS", 500)
        yield


def make_cells(x, values, half_width=0.0, at_least=(), **columns):
    """Lines with such values; those numbered in ``at_least`` have no upper end."""
    values = [np.atleast_1d(some).astype(float).tolist() for some in values]
    upper = [
        [math.inf] * len(some) if i in at_least else some
        for i, some in enumerate(values)
    ]
    x = np.asarray(x, float)
    blank = {"where": "here", "n": 100, "sparsity": 0.9, "kept": 1.0}
    blank |= {"select": "global", "noise": 1.0}
    return pd.DataFrame(
        {
            "pruner": [f"p{i}" for i in range(len(x))],
            "values": values,
            "values_upper": upper,
            "value": [np.median(some) for some in values],
            "p_eff_lower": x - half_width,
            "p_eff_upper": x + half_width,
            "information_lower": x - half_width,
            "information_upper": x + half_width,
        }
    ).assign(**(blank | columns))


def tau_a(x, y):
    """Kendall's, over all pairs; scipy's has other denominators where values tie."""
    pairs = list(itertools.combinations(range(len(x)), 2))
    signs = [np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]) for i, j in pairs]
    return sum(signs) / len(pairs)


TEN = np.arange(1.0, 11)
RNG = np.random.default_rng(0)


def test_of_exact_values_it_is_kendalls():
    x, y = RNG.normal(size=(2, 12))
    found = correlation(make_cells(x, y), "p_eff")
    assert found.least == found.greatest == pytest.approx(tau_a(x, y))
    assert found.least == pytest.approx(stats.kendalltau(x, y).statistic)
    x, y = np.round(x), np.round(y)  # some tie
    found = correlation(make_cells(x, y), "p_eff")
    assert found.least == found.greatest == pytest.approx(tau_a(x, y))


def test_perfect_dependence_is_1_and_reversed_it_is_less():
    rising = correlation(make_cells(TEN, TEN**3), "p_eff")
    assert rising[:4] == (1, 1, 1, 1) and rising[4:] == (1 / 501, 1)
    falling = correlation(make_cells(TEN, 1 / TEN), "p_eff")
    assert falling[:4] == (-1, -1, -1, -1) and falling[4:] == (1, 1 / 501)


@given(st.permutations(range(8)), st.sampled_from([np.exp, np.sqrt, lambda x: 3 * x]))
def test_it_is_unchanged_by_a_monotone_map_of_either(order, map_):
    x, y = TEN[:8], np.asarray(order, float)
    expected = correlation(make_cells(x, y), "p_eff")
    assert correlation(make_cells(map_(x), map_(y)), "p_eff") == expected


@given(st.integers(0, 10_000), st.booleans())
def test_no_values_within_the_intervals_leave_its_range(seed, within):
    rng = np.random.default_rng(seed)
    x, y, kept = rng.integers(0, 8, (3, 6)).astype(float)
    half_width = rng.choice([0.0, 0.3, 1.0, 2.5], 6)
    sparsity = rng.choice([0.5, 0.9], 6) if within else np.full(6, 0.9)
    open_ = np.flatnonzero(rng.uniform(size=6) < 0.3)
    cells = make_cells(x, y, half_width, open_, kept=kept, sparsity=sparsity)
    pairs = [
        (i, j)
        for i, j in itertools.combinations(range(6), 2)
        if sparsity[i] == sparsity[j]
    ]
    for less in (None, "kept"):
        found = correlation(cells, "p_eff", within=within, less=less)
        for _ in range(100):
            point = x + half_width * rng.choice([-1.0, 1.0, rng.uniform(-1, 1)], 6)
            value = y.copy()
            value[open_] += rng.choice([0.0, 0.5, 2.0, 100.0], len(open_))
            total = 0.0
            for i, j in pairs:
                side = np.sign(point[i] - point[j])
                side -= np.sign(kept[i] - kept[j]) if less else 0
                total += side * np.sign(value[i] - value[j])
            if pairs:
                mean = total / len(pairs)
                assert found.least - 1e-9 <= mean <= found.greatest + 1e-9
        assert pairs or found == NOTHING


def test_intervals_that_all_overlap_tell_nothing():
    found = correlation(make_cells(TEN, TEN, half_width=5.0), "p_eff")
    assert (found.least, found.greatest) == (-1, 1)
    assert found.p_more == found.p_less == 1


def test_its_range_is_that_of_three_pairs_by_hand():
    """Of 1, 2 and 2.5 ± 0.4, the last two may change places: 2 of 3 pairs are sure."""
    cells = make_cells([1.0, 2.0, 2.5], [1.0, 2.0, 3.0], 0.4)
    found = correlation(cells, "p_eff")
    assert (found.least, found.greatest) == pytest.approx((1 / 3, 1))


def test_of_a_value_that_is_at_least_a_number_no_more_is_taken_to_be_known():
    """The first may be anything above 1: its pairs with 2 and 3 count either way."""
    found = correlation(make_cells(TEN[:4], TEN[:4], at_least=[0]), "p_eff")
    assert (found.least, found.greatest) == (0, 1)
    largest = correlation(make_cells(TEN[:4], TEN[:4], at_least=[3]), "p_eff")
    assert (largest.least, largest.greatest) == (1, 1)  # it is more all the same
    both = correlation(make_cells(TEN[:4], TEN[:4], at_least=[2, 3]), "p_eff")
    assert (both.least, both.greatest) == pytest.approx((4 / 6, 1))
    none = correlation(make_cells(TEN[:4], TEN[:4], at_least=range(4)), "p_eff")
    assert (none.least, none.greatest) == (-1, 1)
    assert none.p_more == none.p_less == 1


def test_a_line_is_open_where_the_median_of_its_seeds_is():
    """Of three seeds one that is at least a number leaves the median known."""
    cells = make_cells(TEN[:3], [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [3.0, 3.0, 3.0]])
    for count, least in ((1, 1.0), (2, -1 / 3)):
        upper = [math.inf] * count + [1.0] * (3 - count)
        cells["values_upper"] = [upper, *cells["values"][1:]]
        found = correlation(cells, "p_eff")
        assert (found.least, found.greatest) == pytest.approx((least, 1))


def test_open_values_make_it_less_sure_and_never_surer():
    y = np.array([2.0, 1, 3, 5, 4, 6, 8, 7, 10, 9])
    known = correlation(make_cells(TEN, y), "p_eff")
    for at_least in ([9], [0], [2, 5]):
        found = correlation(make_cells(TEN, y, at_least=at_least), "p_eff")
        assert found.p_more >= known.p_more and found.p_less >= known.p_less
        assert found.lower <= known.lower and found.upper >= known.upper


def test_scattered_seeds_widen_its_interval_and_are_drawn_anew_in_every_repeat():
    y = np.array([1.4, 1.3, 3.3, 4.9, 4.8, 6.1, 6.2, 8.6, 9.2, 9.5])

    def width(cells):
        found = correlation(cells, "p_eff")
        return found.upper - found.lower

    scattered = make_cells(TEN, [[a - 5, a, a + 5] for a in y])
    assert width(scattered) > 2 * width(make_cells(TEN, y)) + 0.1
    lows = [correlation(scattered, "p_eff", seed=i).lower for i in range(5)]
    assert np.ptp(lows) < 0.25  # else it would be that of a single draw


def test_two_copies_of_a_pruner_are_no_pair_and_its_own_lines_are_in_each():
    """Of two pruners, a resample has both or one of them twice.

    With both, 4 pairs agree of 6, and 2 don't: 1/3. With one twice its only two lines
    are the pair, in each copy, and do not agree: -1.
    """
    x = [1.0, 2.0, 11.0, 12.0]
    cells = make_cells(x, [2.0, 1.0, 12.0, 11.0], pruner=["a", "a", "b", "b"])
    found = correlation(cells, "p_eff")
    assert found.least == pytest.approx(1 / 3)
    assert (found.lower, found.upper) == pytest.approx((-1, 1 / 3))
    one_line_each = correlation(make_cells([1.0, 2.0], [1.0, 2.0]), "p_eff")
    assert (one_line_each.lower, one_line_each.upper) == (1, 1)


def test_a_pruner_twice_in_a_resample_counts_twice_against_every_other():
    """a, a', b: pairs of a with b are two, with the copy none; so their mean is 1/2.

    a agrees with b, b not with c and a with c: resamples of two kinds have all, or two
    kinds of which each has one sign.
    """
    cells = make_cells([1.0, 2.0, 3.0], [1.0, 3.0, 2.0])
    found = correlation(cells, "p_eff")
    assert found.least == pytest.approx(1 / 3)
    # Of a and b, or a and c alone: 1; of b and c alone: -1, in 6 of 27 resamples.
    assert (found.lower, found.upper) == (-1, 1)
    # Of the 24 with a pair. Four standard errors of a share of 450 are 8.2 %.
    assert found.p_more == pytest.approx(6 / 24, abs=0.082)


@pytest.mark.parametrize(("k", "p"), [(3, 1 / 6), (4, 1 / 24), (5, 1 / 120)])
def test_no_p_value_of_few_pruners_is_less_than_that_of_any_order_by_chance(k, p):
    found = correlation(make_cells(TEN[:k], TEN[:k]), "p_eff")
    assert found.p_more == pytest.approx(p) and found.p_less == 1


@pytest.mark.parametrize("order", [(2, 1, 3, 4), (1, 3, 2, 4), (1, 2, 4, 3)])
def test_of_four_pruners_only_one_order_says_that_they_correlate(order, monkeypatch):
    """By chance one of 24 orders, so at most 5 %; with a pair changed it is 14 / 252.

    Of so many resamples with a pair the changed pair is alone in 14.
    """
    monkeypatch.setattr(bootstrap, "REPEATS", 10_000)
    found = correlation(make_cells(TEN[:4], order), "p_eff")
    assert found.p_more == pytest.approx(14 / 252, abs=0.0092)  # four standard errors
    assert found.p_more > LEVEL


@pytest.mark.parametrize("k", [6, 12])
def test_of_independent_columns_it_seldom_says_that_they_correlate(k):
    """Of 150; four standard errors of a share of 5 % are 7.1 %."""
    rng = np.random.default_rng(0)
    wrong = []
    for seed in range(150):
        cells = make_cells(rng.normal(size=k), rng.normal(size=k))
        found = correlation(cells, "p_eff", seed=seed)
        wrong.append([found.p_more <= LEVEL, found.p_less <= LEVEL])
    # Each alone: of a claim only one of its two verdicts is wrong.
    assert np.mean(wrong, axis=0).max() <= LEVEL + 0.071


def test_within_groups_simpsons_paradox_is_seen_through():
    x = np.array([1.0, 2, 3, 4, 11, 12, 13, 14])
    y = np.array([4.0, 3, 2, 1, 44, 43, 42, 41])
    cells = make_cells(x, y, sparsity=[0.5] * 4 + [0.9] * 4)
    # 16 pairs across agree, 12 within do not.
    assert correlation(cells, "p_eff").least == pytest.approx(4 / 28)
    found = correlation(cells, "p_eff", within=True)
    assert found[:4] == (-1, -1, -1, -1)
    for other in (
        {"n": [9] * 4 + [10] * 4},
        {"where": ["a"] * 4 + ["b"] * 4},
        {"noise": [0.5] * 4 + [1.0] * 4},
    ):
        one = cells.assign(sparsity=0.9).assign(**other)
        assert correlation(one, "p_eff", within=True) == found


def test_less_subtracts_the_correlation_with_another_column_pair_by_pair():
    same = correlation(make_cells(TEN, TEN**2, kept=TEN), "p_eff", less="kept")
    assert same[:4] == (0, 0, 0, 0) and same[4:] == (1, 1)
    reversed_ = make_cells(TEN, TEN**2, kept=-TEN)
    assert correlation(reversed_, "p_eff", less="kept")[:4] == (2, 2, 2, 2)
    x, y, kept = RNG.normal(size=(3, 9))
    found = correlation(make_cells(x, y, kept=kept), "p_eff", less="kept")
    assert found.least == pytest.approx(tau_a(x, y) - tau_a(kept, y))


def test_what_does_not_vary_correlates_with_nothing():
    for cells in (make_cells(np.ones(5), TEN[:5]), make_cells(TEN[:5], np.ones(5))):
        found = correlation(cells, "p_eff")
        assert found == (0, 0, 0, 0, 1, 1)


def test_where_there_is_no_pair_there_is_nothing():
    apart = make_cells(TEN[:2], TEN[:2], sparsity=[0.5, 0.9])
    for cells in (make_cells(TEN[:1], TEN[:1]), make_cells([], []), apart):
        found = correlation(cells, "p_eff", within=True)
        assert math.isnan(found.least) and math.isnan(found.upper)
        assert found.p_more == found.p_less == 1


def test_the_same_cells_and_seed_give_the_same_interval():
    cells = make_cells(TEN, RNG.normal(size=(10, 3)), half_width=1.0)
    first = correlation(cells, "p_eff")
    assert first == correlation(cells, "p_eff")
    assert first != correlation(cells, "p_eff", seed=1)
