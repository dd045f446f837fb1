"""Claims from synthetic rows: the numbers, their intervals and all three verdicts."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from test_figures import make_interval_row, make_row, make_rows
from test_figures_capacity import make_search, make_searches
from test_figures_robustness import make_network, make_networks
from test_figures_swap import make_swap, make_swaps
from test_joined import make_config, make_part, make_parts

from nfp_jax.claims import HOLDS, NOT, UNDECIDED, bootstrap, claims
from nfp_jax.claims import together as joint
from nfp_jax.claims.bootstrap import correlation
from nfp_jax.claims.claim import verdict
from nfp_jax.joined import read_part
from nfp_jax.results import open_results

THREE = {HOLDS: 1, NOT: -1, UNDECIDED: 0}  # and on which side the interval lies


def judged(rows, question="memorization", **groups):
    return claims(make_parts(make_part(rows, question, **groups)))


def about(found, *words):
    """The only claim whose text has all of the words."""
    [claim] = [x for x in found if all(word in " ".join(x[:3]) for word in words)]
    return claim


def numbers(claim):
    return [claim.measured, claim.lower, claim.upper]


# Verdicts


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        (0.1, 0.2, HOLDS),
        (0.0, 0.2, UNDECIDED),
        (-0.2, 0.0, NOT),
        (-0.2, 0.1, UNDECIDED),
        (0.0, 0.0, NOT),
        (-math.inf, math.inf, UNDECIDED),
        (0.1, math.inf, HOLDS),
        (math.nan, math.nan, UNDECIDED),
        (math.nan, 0.2, UNDECIDED),
        (-0.2, math.nan, UNDECIDED),
    ],
)
def test_more_than_holds_where_all_of_the_interval_is_above(lower, upper, expected):
    assert verdict(lower, upper) == expected
    assert verdict(lower + 3, upper + 3, 3.0) == expected


# Memorization and noise: each trained pruner against the best, paired by seed


def memorizers(points, sparsity=0.9, **changes):
    """A row for each pruner and seed, with so many points (and a correlation)."""
    return pd.DataFrame(
        [
            make_row(pruner, sparsity, seed, **changes)
            | {"memorized_points": x, "noise_correlation_normalized": x / 2000}
            for pruner, values in points.items()
            for seed, x in enumerate(values)
        ]
    )


BEST = [805.0, 790.0, 815.0]
IMP = {HOLDS: [902.0, 899.0, 908.0], NOT: [700.0, 701.0, 690.0]}
IMP |= {UNDECIDED: [800.0, 793.0, 814.0]}


@pytest.mark.parametrize("expected", THREE)
def test_memorized_points_are_compared_with_the_best_by_a_paired_t_test(expected):
    values = {"imp": IMP[expected], "snip": BEST, "random": [999.0, 500.0, 500.0]}
    found = judged(memorizers(values, n=1500))
    test = stats.ttest_rel(IMP[expected], BEST)
    interval = test.confidence_interval()
    mean = np.mean(IMP[expected]) - np.mean(BEST)
    points, noise = found
    assert "IMP memorize more points than those of every pruner" in points.claim
    assert numbers(points) == pytest.approx([mean, *interval])
    assert points.verdict == expected
    assert points.where == (
        "memorization: gaussian, d = 50, C = 2, mlp 200-200 (he_normal), n = 1,500, "
        "90 % removed"
    )
    assert "difference to SNIP, the best of them" in points.what
    assert "IMP correlate more with the label noise than" in noise.claim
    ends = np.array([mean, *interval]) / 2000
    assert numbers(noise) == pytest.approx(ends.tolist())
    assert noise.verdict == expected


def test_each_trained_pruner_and_each_n_has_claims_of_its_own():
    rows = pd.concat([make_rows(n=n) for n in (500, 1000)])
    found = judged(rows)
    assert len(found) == 8
    assert sum("IMP" in x.claim for x in found) == 4
    assert sum("magnitude after training" in x.claim for x in found) == 4
    assert sum("n = 500," in x.where for x in found) == 4


def test_pruners_are_judged_where_their_means_differ_most_whoever_is_ahead():
    even = memorizers({"imp": [950.0, 970.0], "snip": [850.0, 860.0]}, 0.5)
    apart = memorizers({"imp": [500.0, 520.0], "snip": [900.0, 910.0]}, 0.8)
    points, _ = judged(pd.concat([even, apart]))
    assert "80 % removed" in points.where and points.verdict == NOT
    assert points.measured == pytest.approx(-395)


def test_only_seeds_that_all_pruners_have_are_paired():
    values = {"imp": [900.0, 930.0, 1.0], "snip": [800.0, 790.0], "random": [5.0] * 2}
    points, _ = judged(memorizers(values))
    assert points.measured == pytest.approx(120) and "2 seeds" in points.what


def test_one_seed_is_a_number_without_ends_and_undecided():
    for found in (
        judged(make_rows(seeds=1)),
        judged(make_searches(seeds=1), "capacity"),
    ):
        assert found
        for claim in found:
            assert math.isfinite(claim.measured) and claim.verdict == UNDECIDED
            assert math.isnan(claim.lower) and math.isnan(claim.upper)


def test_without_noise_nothing_correlates_with_it():
    [points, _] = judged(make_rows(("imp", "snip"), noise=0.5))
    assert "noise" not in points.claim
    rows = make_rows(("imp", "snip"), noise=0.0, noise_correlation_normalized=0.3)
    [points] = judged(rows)
    assert "memorize more points" in points.claim
    rows = make_rows(("imp", "snip"), noise_correlation_normalized=None)
    assert len(judged(rows)) == 1


@pytest.mark.parametrize(
    "pruners", [("dense",), ("imp",), ("imp", "magnitude_trained"), ("snip", "random")]
)
def test_where_there_is_nobody_to_compare_nothing_is_claimed(pruners):
    assert judged(make_rows(pruners)) == []
    assert judged(make_searches(pruners), "capacity") == []


# Information: differences of certified intervals


def knowers(**ends):
    return [
        make_interval_row(
            pruner, information_lower=low, information_upper=high, label_entropy=20.0
        )
        for pruner, (low, high) in ends.items()
    ]


@pytest.mark.parametrize(
    ("imp", "expected"),
    [((9.0, 12.0), HOLDS), ((1.0, 2.0), NOT), ((4.0, 8.0), UNDECIDED)],
)
def test_information_is_compared_by_the_ends_of_certified_intervals(imp, expected):
    rows = knowers(imp=imp, snip=(3.0, 5.0), grasp=(2.0, 6.0), synflow=(0.0, 20.0))
    claim = about(judged(rows, "information"), "IMP", "that see the data")
    low, high = imp[0] - 6, imp[1] - 3
    assert numbers(claim) == pytest.approx([(low + high) / 2, low, high])
    assert claim.verdict == expected


@pytest.mark.parametrize(
    ("imp", "expected"),
    [((9.0, 12.0), HOLDS), ((0.0, 0.0), NOT), ((1.0, 3.0), UNDECIDED)],
)
def test_data_free_masks_are_a_comparison_of_their_own(imp, expected):
    rows = knowers(imp=imp, snip=(8.0, 10.0), random=(0.0, 1.0), synflow=(0.5, 2.0))
    claim = about(judged(rows, "information"), "IMP", "data-free")
    assert numbers(claim)[1:] == [imp[0] - 2, imp[1] - 0.5]
    assert claim.verdict == expected


@pytest.mark.parametrize(
    ("snip", "expected"),
    [((4.0, 10.0), HOLDS), ((11.0, 15.0), NOT), ((9.0, 11.0), UNDECIDED)],
)
def test_half_of_the_labels_information_is_a_claim_of_less(snip, expected):
    rows = knowers(imp=(18.0, 19.0), snip=snip, grasp=(1.0, 9.5), random=(0.0, 20.0))
    claim = about(judged(rows, "information"), "half of the labels'")
    low, high = snip[0] / 20, max(snip[1], 9.5) / 20
    assert numbers(claim) == pytest.approx([(low + high) / 2, low, high])
    assert claim.verdict == expected


def test_ends_are_means_over_seeds_at_the_highest_sparsity():
    rows = [
        make_interval_row("imp", 0.9, 0, information_lower=6.0, information_upper=8.0),
        make_interval_row("imp", 0.9, 1, information_lower=7.0, information_upper=8.5),
        make_interval_row("snip", 0.9, information_lower=3.0, information_upper=4.0),
        make_interval_row("snip", 0.5, information_lower=90.0, information_upper=99.0),
    ]
    claim = about(judged(rows, "information"), "IMP")
    assert numbers(claim)[1:] == pytest.approx([2.5, 5.25])
    assert "90 % removed" in claim.where


def test_information_of_labels_that_have_none_has_no_share_to_claim():
    for entropy in (0.0, None):
        rows = [
            make_interval_row("imp", label_entropy=entropy),
            make_interval_row("snip", label_entropy=entropy),
        ]
        [claim] = judged(pd.DataFrame(rows), "information")
        assert "IMP" in claim.claim


def test_information_that_is_not_there_decides_nothing():
    rows = knowers(imp=(math.nan, math.nan), snip=(3.0, 4.0), random=(0.0, 1.0))
    found = [x for x in judged(rows, "information") if "IMP" in x.claim]
    assert len(found) == 2
    assert {x.verdict for x in found} == {UNDECIDED}
    assert len(judged(knowers(random=(0.0, 1.0)), "information")) == 0


# Data swaps


@pytest.mark.parametrize("expected", THREE)
def test_a_gain_has_the_interval_of_its_row(expected):
    middle = 100.0 * THREE[expected]
    gap = {"swap_gap_points": middle, "swap_gap_lower": middle - 9}
    fresh = {"swap_gap_reinit_points": -middle, "swap_gap_reinit_lower": -middle - 9}
    row = make_swap(
        **gap, **fresh, swap_gap_upper=middle + 9, swap_gap_reinit_upper=9 - middle
    )
    own, reinit = judged([row], "swap")
    assert own.claim.startswith("IMP gains points on the labels that its mask was")
    assert numbers(own) == [middle, middle - 9, middle + 9]
    assert own.verdict == expected and "paired, 6 draws" in own.what
    assert reinit.claim == "The gain of IMP outlives fresh initial weights"
    assert numbers(reinit) == [-middle, -middle - 9, -middle + 9]
    assert THREE[reinit.verdict] == -THREE[expected]


def test_over_several_rows_a_gain_is_their_mean_with_its_interval():
    own, reinit = judged([make_swap(seed=i) for i in range(3)], "swap")
    # Gaps of 100, 102 and 104, half of each from fresh weights; s = 2 and 1.
    assert numbers(own) == pytest.approx([102, 102 - 4.968276, 102 + 4.968276])
    assert numbers(reinit) == pytest.approx([51, 51 - 2.484138, 51 + 2.484138])
    assert "18 draws" in own.what


def no_gain(gaps, imp_lower=50.0, **others):
    rows = [make_swap("imp", swap_gap_lower=imp_lower)]
    rows += [
        make_swap(pruner, swap_gaps=values, swap_gap_points=np.nanmean(values))
        for pruner, values in {"snip": gaps, **others}.items()
    ]
    return about(judged(rows, "swap"), "that see the labels gain nothing")


SMALL = [3.0, -5.0, 1.0, 4.0]  # 0.75 with an interval around 0


@pytest.mark.parametrize(
    ("gaps", "imp_lower", "expected"),
    [
        (SMALL, 50.0, HOLDS),
        (SMALL, 5.0, UNDECIDED),  # may be all that IMP gains
        ([30.0, 31.0, 33.0, 31.5], 50.0, NOT),
        ([30.0, 31.0, 33.0, 31.5], 5.0, NOT),
        ([30.0, 31.0, 33.0, -90.0], 20.0, UNDECIDED),
        (SMALL, math.nan, UNDECIDED),
        ([3.0], 50.0, UNDECIDED),
    ],
)
def test_that_nothing_is_gained_needs_0_and_less_than_imp(gaps, imp_lower, expected):
    assert no_gain(gaps, imp_lower).verdict == expected


def test_the_largest_gap_of_several_has_bonferronis_level():
    claim = no_gain(SMALL, grasp=[-1.0, 0.5, 0.0, -0.5], own=[-9.0, -8.0, 0.0, 1.0])
    ends = stats.t.interval(1 - 0.05 / 3, 3, np.mean(SMALL), stats.sem(SMALL))
    assert numbers(claim) == pytest.approx([0.75, *ends])
    assert "the largest gap of 3 pruners, that of SNIP" in claim.what
    alone = no_gain(SMALL)
    assert numbers(alone)[1:] == pytest.approx(
        stats.t.interval(0.95, 3, np.mean(SMALL), stats.sem(SMALL))
    )


def test_a_gap_that_is_not_there_hides_no_other():
    nothing = [math.nan] * 4
    for values in ({"gaps": nothing, "grasp": SMALL}, {"gaps": SMALL, "grasp": None}):
        rows = [make_swap("imp")]
        rows += [make_swap("snip", swap_gaps=values["gaps"])]
        rows += [make_swap("grasp", swap_gaps=values["grasp"])]
        claim = about(judged(rows, "swap"), "that see the labels gain nothing")
        assert claim.measured == 0.75


def test_gaps_of_several_rows_are_taken_together():
    rows = [make_swap("random", seed=i, swap_gaps=SMALL[2 * i :][:2]) for i in (0, 1)]
    [claim] = judged(rows, "swap")
    assert claim.claim == "Data-free masks gain nothing on their own labels"
    assert numbers(claim) == pytest.approx(
        [0.75, *stats.t.interval(0.95, 3, 0.75, stats.sem(SMALL))]
    )


def test_without_imp_no_gain_is_undecided_or_wrong_but_never_holds():
    for gaps, expected in ((SMALL, UNDECIDED), ([3.0, 4.0, 5.0], NOT)):
        [claim] = judged([make_swap("snip", swap_gaps=gaps)], "swap")
        assert claim.verdict == expected


def test_one_pair_decides_nothing():
    ends = [f"swap_gap{x}_{end}" for x in ("", "_reinit") for end in ("lower", "upper")]
    rows = make_swaps(**dict.fromkeys(ends), swap_gaps=[7.0], pairs=1)
    found = judged(rows, "swap")
    assert len(found) == 8 and {x.verdict for x in found} == {UNDECIDED}
    assert all(math.isnan(x.lower) and math.isnan(x.upper) for x in found)


# Capacity


@pytest.mark.parametrize(
    ("imp", "expected"),
    [
        ([900, 1000, 1200], HOLDS),
        ([300, 400, 350], NOT),
        ([450, 900, 600], UNDECIDED),
    ],
)
def test_capacities_are_compared_by_their_ratio(imp, expected):
    best = [500, 640, 550]
    rows = [
        make_search(pruner, seed=seed, capacity=x)
        for pruner, values in {"imp": imp, "snip": best, "random": [9] * 3}.items()
        for seed, x in enumerate(values)
    ]
    [claim] = judged(rows, "capacity")
    interval = stats.ttest_rel(np.log(imp), np.log(best)).confidence_interval()
    ratio = (np.prod(imp) / np.prod(best)) ** (1 / 3)
    assert numbers(claim) == pytest.approx([ratio, *np.exp(interval)])
    assert claim.verdict == expected
    assert "ratio to SNIP" in claim.what and "90 % removed" in claim.where


def test_a_sparsity_where_any_search_ended_at_its_end_is_left_out():
    wide = [
        make_search(pruner, 0.5, seed, capacity=x + seed)
        for pruner, x in (("imp", 3000), ("snip", 100), ("random", 50))
        for seed in range(3)
    ]
    near = [
        make_search(pruner, 0.9, seed, capacity=x + seed)
        for pruner, x in (("imp", 200), ("snip", 100), ("random", 50))
        for seed in range(3)
    ]
    [claim] = judged([*wide, *near], "capacity")
    assert "50 % removed" in claim.where
    wide[0]["capacity_at_least"] = True
    [claim] = judged([*wide, *near], "capacity")
    assert "90 % removed" in claim.where and 1.9 < claim.measured < 2
    near[-1]["capacity_at_least"] = True
    assert judged([*wide, *near], "capacity") == []


def test_networks_that_fit_nothing_have_a_capacity_to_compare():
    rows = make_searches(("imp", "snip"), (0.9,), capacity=0, collapsed=True)
    [claim] = judged(rows, "capacity")
    assert numbers(claim) == [1, 1, 1] and claim.verdict == NOT


def test_a_capacity_of_0_counts_as_1_in_a_ratio():
    rows = [make_search("imp", seed=seed, capacity=5) for seed in range(2)]
    rows += [make_search("snip", seed=seed, capacity=0) for seed in range(2)]
    [claim] = judged(rows, "capacity")
    assert numbers(claim) == pytest.approx([5, 5, 5])


# Robustness


def steep(exponent=1.0, scale=1.0, noise=0.0, seeds=2):
    """Networks whose steepness is a power of what the law demands."""
    rows = make_networks(seeds=seeds).to_dict("records")
    for row, error in zip(
        rows, np.random.default_rng(1).normal(0, noise, 99), strict=False
    ):
        demanded = math.sqrt(row["n"] * row["dim"] / row["kept"])
        row["lipschitz_lower"] = row["excess"] * scale * demanded**exponent
        row["lipschitz_lower"] *= math.exp(error)
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("scale", "expected"), [(1.5, HOLDS), (0.9, UNDECIDED)])
def test_a_lower_bound_can_show_the_demanded_steepness_and_never_refute_it(
    scale, expected
):
    claim = about(judged(steep(1.0, scale), "robustness"), "as steep as")
    assert numbers(claim) == pytest.approx([scale, scale, math.inf])
    assert claim.verdict == expected


@pytest.mark.parametrize(
    ("exponent", "noise", "expected"),
    [(0.8, 0.1, HOLDS), (-1.0, 0.1, NOT), (0.0, 0.5, UNDECIDED)],
)
def test_the_exponent_is_that_of_least_squares(exponent, noise, expected):
    rows = steep(exponent, noise=noise)
    steepness = rows["lipschitz_lower"] / rows["excess"]
    ratio = steepness / np.sqrt(rows["n"] * rows["dim"] / rows["kept"])
    least = about(judged(rows, "robustness"), "as steep as").measured
    assert least == pytest.approx(ratio.min())
    claim = about(judged(rows, "robustness"), "grows with sqrt(n d / kept)")
    x = np.log(rows["n"] * rows["dim"] / rows["kept"]) / 2
    fit = stats.linregress(x, np.log(rows["lipschitz_lower"] / rows["excess"]))
    half_width = stats.t.ppf(0.975, len(rows) - 2) * fit.stderr
    expected_numbers = [fit.slope, fit.slope - half_width, fit.slope + half_width]
    assert numbers(claim) == pytest.approx(expected_numbers)
    assert claim.verdict == expected


def test_networks_that_fit_no_noise_do_not_count():
    rows = steep()
    unfit = rows.assign(excess=[0.0, -0.1, math.nan] * 3 + [0.0], seconds=2.0)
    unfit = pd.concat([rows, unfit])
    first = [numbers(x) for x in judged(rows, "robustness")]
    assert [numbers(x) for x in judged(unfit, "robustness")] == first
    assert "10 networks that fit noise" in judged(unfit, "robustness")[0].where
    assert judged(rows.iloc[:2], "robustness") == []


def test_where_nothing_is_demanded_differently_there_is_no_exponent():
    rows = pd.DataFrame([make_network(seed=i) for i in range(4)])
    [claim] = judged(rows, "robustness")
    assert "as steep as" in claim.claim


# Correlation


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(bootstrap, "REPEATS", 200)


def make_cells(x, values, half_width=0.0, **columns):
    values = [np.atleast_1d(some).astype(float).tolist() for some in values]
    x = np.asarray(x, float)
    blank = {"where": "here", "n": 100, "sparsity": 0.9, "kept": 1.0}
    blank |= {"select": "global", "noise": 1.0}
    return pd.DataFrame(
        {
            "pruner": [f"p{i}" for i in range(len(x))],
            "values": values,
            "value": [np.median(some) for some in values],
            "p_eff_lower": x - half_width,
            "p_eff_upper": x + half_width,
            "information_lower": x - half_width,
            "information_upper": x + half_width,
        }
    ).assign(**(blank | columns))


TEN = np.arange(1.0, 11)


@pytest.mark.parametrize("ranked", [True, False])
def test_perfect_dependence_is_1_and_reversed_it_is_less(quick, ranked):
    power = make_cells(TEN, TEN**3)
    assert correlation(power, "p_eff", ranked=ranked) == pytest.approx((1, 1, 1))
    inverse = make_cells(TEN, 1 / TEN)
    found = correlation(inverse, "p_eff", ranked=ranked)
    assert found == pytest.approx((-1, -1, -1))


def test_it_is_spearmans_of_ranks_and_pearsons_of_logarithms(quick):
    rng = np.random.default_rng(0)
    x, y = np.exp(rng.normal(size=(2, 12))) + 1
    y = np.round(y + x, 1)  # some tie
    cells = make_cells(x, y)
    expected = stats.spearmanr(x, y).statistic
    assert correlation(cells, "p_eff", ranked=True)[0] == pytest.approx(expected)
    expected = stats.pearsonr(np.log(x), np.log(y)).statistic
    assert correlation(cells, "p_eff", ranked=False)[0] == pytest.approx(expected)


def test_independence_is_covered_about_as_often_as_the_interval_says(monkeypatch):
    """Of 100 repetitions; 87 is what a true 95 % falls below once in 600 times."""
    monkeypatch.setattr(bootstrap, "REPEATS", 60)
    rng = np.random.default_rng(0)
    covered = []
    for seed in range(100):
        cells = make_cells(rng.normal(size=12), rng.normal(size=12))
        _, low, high = correlation(cells, "p_eff", ranked=True, seed=seed)
        covered.append(low <= 0 <= high)
    assert 87 <= sum(covered) < 100


def test_wide_intervals_of_information_and_scattered_seeds_widen_it(quick):
    y = np.array([1.4, 1.3, 3.3, 4.9, 4.8, 6.1, 6.2, 8.6, 9.2, 9.5])

    def width(cells):
        _, low, high = correlation(cells, "p_eff", ranked=True)
        return high - low

    exact = width(make_cells(TEN, y))
    assert width(make_cells(TEN, y, half_width=5.0)) > 2 * exact + 0.1
    scattered = [[a - 5, a, a + 5] for a in y]
    assert width(make_cells(TEN, scattered)) > 2 * exact + 0.1


def test_seeds_are_drawn_anew_in_every_repeat(quick):
    """Else the interval would be that of a single draw, another for each seed."""
    cells = make_cells(TEN, [[a - 3, a - 3, a, a + 3, a + 3] for a in TEN])
    lows = [correlation(cells, "p_eff", ranked=True, seed=i)[1] for i in range(5)]
    assert np.ptp(lows) < 0.25


@pytest.mark.parametrize("ranked", [True, False])
def test_within_groups_simpsons_paradox_is_seen_through(quick, ranked):
    x = np.array([1.0, 2, 3, 4, 11, 12, 13, 14])
    y = np.array([4.0, 3, 2, 1, 44, 43, 42, 41])
    cells = make_cells(x, y, sparsity=[0.5] * 4 + [0.9] * 4)
    assert correlation(cells, "p_eff", ranked=ranked)[0] > 0.5
    middle, low, high = correlation(cells, "p_eff", ranked=ranked, within=True)
    assert middle < -0.9 and low <= middle <= high < -0.8
    for other in ({"n": [9] * 4 + [10] * 4}, {"where": ["a"] * 4 + ["b"] * 4}):
        one = cells.assign(sparsity=0.9)
        again = correlation(one.assign(**other), "p_eff", ranked=ranked, within=True)
        assert again == (middle, low, high)


def test_less_subtracts_the_correlation_with_another_column(quick):
    same = make_cells(TEN, TEN**2, kept=TEN)
    assert correlation(same, "p_eff", ranked=True, less="kept") == (0, 0, 0)
    reversed_ = make_cells(TEN, TEN**2, kept=-TEN)
    found = correlation(reversed_, "p_eff", ranked=True, less="kept")
    assert found == pytest.approx((2, 2, 2))


def test_what_does_not_vary_has_no_correlation(quick):
    for cells in (
        make_cells(np.ones(5), TEN[:5]),
        make_cells(TEN[:5], np.ones(5)),
        make_cells(TEN[:1], TEN[:1]),
        make_cells([], []),
    ):
        found = correlation(cells, "p_eff", ranked=True)
        assert np.isnan(found).all() and verdict(*found[1:]) == UNDECIDED
    constant = make_cells(TEN, TEN, kept=5.0)
    found = correlation(constant, "p_eff", ranked=True, less="kept")
    assert np.isnan(found).all()


def test_the_same_cells_and_seed_give_the_same_interval(quick):
    rng = np.random.default_rng(0)
    cells = make_cells(TEN, rng.normal(size=(10, 3)), half_width=1.0)
    first = correlation(cells, "p_eff", ranked=True)
    assert first == correlation(cells, "p_eff", ranked=True)
    assert first != correlation(cells, "p_eff", ranked=True, seed=1)


@given(st.permutations(range(8)), st.sampled_from([np.exp, np.sqrt, lambda x: 3 * x]))
def test_ranks_are_unchanged_by_a_monotone_map_of_the_values(order, map_):
    order = np.asarray(order, float)
    middle = []
    for values in (order, map_(order)):
        pair = [TEN[:8], values]
        middle.append(bootstrap._correlation(*pair, np.zeros(8, int), ranked=True))
    assert middle[0] == middle[1]
    assert middle[0] == pytest.approx(stats.spearmanr(TEN[:8], order).statistic)


# Runs read together

KNOWN = {"random": 0.0, "synflow": 10.0, "grasp": 40.0, "snip": 60.0, "imp": 70.0}


def together(points, *, kept=None, question="capacity", known=KNOWN, **changes):
    """Rows at one sparsity with such values by pruner, beside what their masks know."""
    kept = kept or dict.fromkeys(points, 100)
    if question == "capacity":
        rows = [
            make_search(pruner, seed=seed, capacity=x, kept=kept[pruner], **changes)
            for pruner, values in points.items()
            for seed, x in enumerate(values)
        ]
    else:
        rows = [
            make_swap(pruner, swap_gaps=values) for pruner, values in points.items()
        ]
    information = [
        make_interval_row(pruner, information_lower=x, information_upper=x + 1)
        for pruner, x in known.items()
    ]
    parts = make_parts(make_part(rows, question), make_part(information, "information"))
    return list(joint.claims(parts))


RISING = {"random": [100], "synflow": [120], "grasp": [140], "snip": [150]}


def test_capacity_that_follows_p_eff_holds_and_kept_weights_that_do_not_are_worse(
    quick,
):
    kept = {"random": 103, "synflow": 102, "grasp": 101, "snip": 100}
    found = together(RISING, kept=kept)
    ranks = about(found, "Capacity follows", "rank correlation;")
    assert ranks.measured == pytest.approx(1) and ranks.verdict == HOLDS
    line = about(found, "Capacity follows", "linear correlation")
    x = np.log([103.5, 112.5, 141.5, 160.5])
    expected = stats.pearsonr(x, np.log([100, 120, 140, 150])).statistic
    assert line.measured == pytest.approx(expected) and line.verdict == HOLDS
    better = about(found, "better than the weights kept")
    assert better.measured == pytest.approx(2) and better.verdict == HOLDS
    assert better.where.startswith("4 cells: gaussian, d = 50")


def test_capacity_that_falls_with_p_eff_does_not_follow_it(quick):
    found = together({name: [1000 - x for x in y] for name, y in RISING.items()})
    assert about(found, "Capacity follows", "rank").verdict == NOT
    assert about(found, "Capacity follows", "linear").verdict == NOT
    assert about(found, "fit more, at equal").verdict == NOT


def test_kept_weights_that_tell_as_much_leave_it_undecided(quick):
    kept = {"random": 100, "synflow": 200, "grasp": 300, "snip": 400}
    found = together(RISING, kept=kept)
    better = about(found, "better than the weights kept")
    assert better.measured == better.upper == 0 and better.verdict == NOT
    other = {"random": [130], "synflow": [100], "grasp": [150], "snip": [90]}
    assert about(together(other), "follows", "rank").verdict == UNDECIDED


def test_fewer_than_three_cells_that_fit_anything_are_no_correlation(quick):
    few = {"random": [100], "snip": [150]}
    assert together(few) == []
    none = {name: [0, 0, 0] for name in RISING}
    found = together(none)
    assert not [x for x in found if "follows" in x.claim]
    assert {x.verdict for x in found} == {UNDECIDED}


def test_searches_that_ended_at_their_end_are_compared_with_nothing(quick):
    points = {name: [150, 150] for name in KNOWN}
    assert together(points, capacity_at_least=True) == []


@pytest.mark.parametrize("expected", [HOLDS, NOT, UNDECIDED])
def test_at_equal_weights_gaps_are_correlated_with_information(quick, expected):
    names = [name for name in KNOWN if name != "imp"]
    values = {HOLDS: [1.0, 2, 3, 4], NOT: [9.0, 5, 4, 2], UNDECIDED: [3.0, 1, 4, 0]}
    points = {name: [x] * 3 for name, x in zip(names, values[expected], strict=True)}
    [claim] = together(points, question="swap")
    assert claim.claim == "Masks that hold more gain more, at equal ‖m‖₁"
    assert claim.verdict == expected
    middle = stats.spearmanr([1, 2, 3, 4], values[expected]).statistic
    assert claim.measured == pytest.approx(middle)


def test_gaps_are_compared_among_masks_of_one_sparsity(quick):
    """Where gaps rise with sparsity and information falls, all of it would be lost."""
    names = ("random", "synflow", "grasp", "snip")
    gaps, nats = [1.0, 2, 3, 4], [10.0, 20, 30, 40]
    swaps, information = [], []
    for sparsity, more in ((0.5, 0.0), (0.9, 100.0)):
        for name, gap, known in zip(names, gaps, nats, strict=True):
            swaps.append(make_swap(name, sparsity, swap_gaps=[gap + more]))
            ends = ("information_lower", "information_upper")
            ends = dict.fromkeys(ends, known - more + 200)
            information.append(make_interval_row(name, sparsity, **ends))
    [claim] = joint.claims(
        make_parts(make_part(swaps, "swap"), make_part(information, "information"))
    )
    assert claim.measured == pytest.approx(1) and claim.verdict == HOLDS
    assert "8 cells" in claim.where


@pytest.mark.parametrize(
    ("imp", "expected"),
    [
        ([22.0, 25.0, 19.0, 23.0], HOLDS),
        ([-3.0, -5.0, -4.0, -6.0], NOT),
        ([2.0, -5.0, 8.0, 1.0], UNDECIDED),
    ],
)
def test_imp_is_compared_with_masks_that_know_nearly_as_much_by_welch(
    quick, imp, expected
):
    snip = [1.0, 2.0, -1.0, 0.5, 1.5]
    found = together({"random": [0.0] * 4, "snip": snip, "imp": imp}, question="swap")
    claim = about(found, "IMP exceeds SNIP", "swap gap")
    interval = stats.ttest_ind(imp, snip, equal_var=False).confidence_interval()
    assert numbers(claim) == pytest.approx([np.mean(imp) - np.mean(snip), *interval])
    assert claim.verdict == expected
    assert "information at n = " in claim.where and "90 % removed" in claim.where


@pytest.mark.parametrize(("snip", "there"), [(57.0, True), (56.5, False)])
def test_nearly_as_much_is_four_fifths_of_imps_upper_end(quick, snip, there):
    """IMP's is 71 nats: the other's lower end has to be 56.8."""
    points = {"random": [0.0] * 3, "snip": [1.0, 2.0], "imp": [9.0, 8.0]}
    found = together(points, question="swap", known=KNOWN | {"snip": snip})
    assert bool([x for x in found if "IMP exceeds" in x.claim]) == there


@pytest.mark.parametrize(
    "points",
    [
        {"random": [0.0, 1.0], "snip": [1.0, 2.0], "grasp": [0.0, 1.0]},
        {"random": [0.0, 1.0], "imp": [1.0, 2.0], "synflow": [0.0, 1.0]},
        {"random": [0.0, 1.0], "imp": [1.0], "snip": [0.0, 1.0]},
        {"random": [0.0, 1.0], "imp": [1.0, 2.0], "snip": [1.0]},
    ],
    ids=["no imp", "nobody sees", "one draw of imp", "one draw of snip"],
)
def test_imp_is_compared_with_nobody_where_one_of_the_two_is_missing(quick, points):
    [claim] = together(points, question="swap")
    assert "at equal ‖m‖₁" in claim.claim


def test_noise_rates_are_not_compared_with_each_other(quick):
    """Each swap has the information of its own rate, of a run that has both."""
    points = {0.5: [22.0, 25.0, 19.0, 23.0], 1.0: [-3.0, -5.0, -4.0, -6.0]}
    others = {"random": [0.0] * 4, "snip": [1.0, 2.0, -1.0, 0.5]}
    swaps = [
        make_part(
            [
                make_swap(pruner, noise=noise, swap_gaps=gaps)
                for pruner, gaps in {**others, "imp": imp}.items()
            ],
            "swap",
            f"at {noise}",
        )
        for noise, imp in points.items()
    ]
    known = [
        make_interval_row(
            pruner, n=1000, noise=noise, information_lower=60.0, information_upper=70.0
        )
        for pruner in ("random", "snip", "imp")
        for noise in points
    ]
    found = claims(make_parts(*swaps, make_part(known, "information")))
    exceeding = [x for x in found if "IMP exceeds SNIP" in x.claim]
    assert [x.verdict for x in exceeding] == [HOLDS, NOT]
    [ranks] = [x for x in found if "at equal ‖m‖₁" in x.claim]
    assert ranks.where.startswith("6 cells")


@pytest.mark.parametrize(("level", "words"), [(0.95, ""), (0.9, ", at 90 %")])
def test_a_gap_says_at_what_level_where_it_is_not_the_usual_one(level, words):
    found = judged([make_swap(x, confidence=level) for x in ("imp", "snip")], "swap")
    assert about(found, "IMP gains").what.endswith(f"draws{words}")
    assert f"Bonferroni{words};" in about(found, "that see the labels gain").what


def test_nothing_is_read_together_of_other_networks(quick):
    parts = make_parts(
        make_part(make_searches(tuple(KNOWN)), "capacity"),
        make_part(make_swaps(tuple(KNOWN)), "swap"),
        make_part(make_networks(tuple(KNOWN)), "robustness"),
        make_part(
            [make_interval_row(x, n=1000) for x in KNOWN],
            "information",
            model={"widths": [50]},
        ),
    )
    assert list(joint.claims(parts)) == []


def law(exponent, known, n=1000, excess=(0.2, 0.1), seeds=2):
    """Networks as steep as a power of sqrt(n d / p_eff), and what their masks know."""
    rows, information = [], []
    for (pruner, sparsity), nats in known.items():
        own = {"information_lower": nats, "information_upper": nats, "noise": 0.5}
        information.append(make_interval_row(pruner, sparsity, n=n, **own))
        for seed in range(seeds):
            row = make_network(pruner, sparsity, seed, excess=excess[seed])
            demanded = math.sqrt(1000 * 50 / (row["kept"] + nats))
            row["lipschitz_lower"] = abs(excess[seed]) * demanded**exponent
            rows.append(row)
    return make_parts(
        make_part(rows, "robustness"), make_part(information, "information")
    )


NATS = {("imp", 0.9): 900.0, ("imp", 0.5): 300.0, ("snip", 0.9): 100.0}


@pytest.mark.parametrize(("exponent", "expected"), [(1.3, HOLDS), (-0.7, NOT)])
def test_the_law_with_p_eff_has_its_exponent_at_both_ends(exponent, expected):
    for claim in list(joint._robustness_of_p_eff(law(exponent, NATS))):
        assert claim.claim.endswith("grows with sqrt(n d / p_eff)")
        assert numbers(claim) == pytest.approx([exponent] * 3)
        assert claim.verdict == expected
    ends = [x.where for x in joint._robustness_of_p_eff(law(exponent, NATS))]
    assert ends == [
        f"3 cells with information at the same n; p_eff at its {end} end"
        for end in ("lower", "upper")
    ]


def test_a_network_that_fits_no_noise_has_no_part_in_the_law():
    for excess in ((0.2, -0.1), (0.2, 0.0), (0.1, math.nan)):
        found = list(joint._robustness_of_p_eff(law(1.0, NATS, excess=excess)))
        assert [x.measured for x in found] == pytest.approx([1, 1])
    assert not list(joint._robustness_of_p_eff(law(1.0, NATS, excess=(0.0, -0.1))))


def test_the_law_with_p_eff_needs_three_cells_at_one_n():
    assert not list(joint._robustness_of_p_eff(law(1.0, NATS, n=500)))
    two = {cell: NATS[cell] for cell in list(NATS)[:2]}
    assert not list(joint._robustness_of_p_eff(law(1.0, two)))


# What is odd


ROWS = {
    "memorization": make_rows(("snip", "random", "imp"), (0.5, 0.9)),
    "capacity": pd.concat(
        [make_searches(("snip", "random", "imp")), make_searches(("dense",), (0.0,))]
    ),
    "swap": make_swaps(),
    "robustness": make_networks(),
    "information": pd.DataFrame(
        [make_interval_row(x, y, n=1000) for x in KNOWN for y in (0.5, 0.9)]
    ),
}
NULL = {
    "memorization": ("memorized_points", "noise_correlation_normalized"),
    "capacity": ("capacity", "capacity_at_least"),
    "swap": [
        *("swap_gaps", "pairs", "confidence"),
        *(f"swap_gap{x}_{y}" for x in ("", "_reinit") for y in ("lower", "points")),
    ],
    "robustness": ("lipschitz_lower", "excess", "dim"),
    "information": ("information_lower", "information_upper", "label_entropy"),
}


def on_file(root, name, rows):
    store = open_results(root, name, "ab12", make_config(name))
    rows = rows.astype(object).where(rows.notna(), None)
    store.write(rows.to_dict("records"))
    return read_part(name, store.directory)


def test_rows_on_file_are_judged_as_those_in_memory(tmp_path, quick):
    in_memory = make_parts(*(make_part(rows, name) for name, rows in ROWS.items()))
    from_file = make_parts(*(on_file(tmp_path, *item) for item in ROWS.items()))
    found, again = claims(in_memory), claims(from_file)
    assert len(found) > 20
    for one, other in zip(found, again, strict=True):
        assert one[:3] == other[:3] and one.verdict == other.verdict
        assert numbers(one) == pytest.approx(numbers(other), nan_ok=True)
    names = [x.where.split(":")[0] for x in found]
    assert list(dict.fromkeys(names))[:5] == list(ROWS)


@pytest.mark.parametrize("question", ROWS)
def test_null_columns_decide_nothing(tmp_path, quick, question):
    others = {name: rows for name, rows in ROWS.items() if name != question}
    rows = ROWS[question].assign(**dict.fromkeys(NULL[question]))
    parts = {name: on_file(tmp_path, name, x) for name, x in others.items()}
    parts |= {question: on_file(tmp_path, question, rows)}
    found = [x for x in claims(parts) if x.where.startswith(f"{question}: ")]
    assert {x.verdict for x in found} <= {UNDECIDED}
    assert all(math.isnan(x.lower) for x in found)


@pytest.mark.parametrize("question", ["memorization", "capacity", "robustness"])
def test_of_dense_networks_alone_nothing_is_claimed_of_pruners(question):
    rows = ROWS[question].query("pruner == 'dense'")
    assert len(rows) and judged(rows, question) == []


def test_a_part_without_rows_is_passed_over(quick):
    empty = [make_part(rows.iloc[:0], name) for name, rows in ROWS.items()]
    assert claims(make_parts(*empty)) == []
    assert claims({}) == []


def test_a_run_of_one_sparsity_and_collapsed_networks_is_judged():
    rows = make_rows(sparsities=(0.98,), collapsed=True, train_accuracy=0.5)
    found = judged(rows.assign(memorized_points=500.0))
    claim = about(found, "IMP", "memorize more points")
    assert numbers(claim) == [0, 0, 0] and claim.verdict == NOT
