"""Intervals and tests against textbooks, scipy, other formulas and their coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from nfp_jax import estimates


def test_three_values_have_the_interval_of_the_textbook():
    # t(0.975, 2) = 4.302653 (table); s = 1, k = 3: 4.302653 / sqrt(3) = 2.484138
    mean, half_width = estimates.mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half_width == pytest.approx(2.484138, abs=1e-6)  # digits of the table


def test_two_values_have_the_interval_in_closed_form():
    # With one degree of freedom t is Cauchy: the quantile is tan(pi (p - 1/2)), and
    # for 0 and 2 the standard error is sqrt(2) / sqrt(2) = 1.
    _, half_width = estimates.mean_interval([0.0, 2.0], confidence=0.9)
    assert half_width == pytest.approx(math.tan(math.pi * 0.45), rel=1e-12)


def test_one_value_has_no_interval_rather_than_one_of_width_0():
    mean, half_width = estimates.mean_interval([3.0])
    assert mean == 3.0 and math.isnan(half_width)


def test_missing_values_are_left_out_column_by_column():
    values = [
        [1.0, 5.0, math.nan],
        [2.0, math.nan, math.nan],
        [3.0, math.nan, math.nan],
    ]
    mean, half_width = estimates.mean_interval(values)
    np.testing.assert_allclose(mean, [2.0, 5.0, math.nan])
    np.testing.assert_allclose(half_width, [2.484138, math.nan, math.nan], atol=1e-6)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(size=(3, 20_000))
    mean, half_width = estimates.mean_interval(draws, confidence=0.8)
    # 0.8 ± 4 standard errors of a share of 20,000
    assert np.mean(abs(mean) < half_width) == pytest.approx(0.8, abs=0.0114)


def test_the_median_of_few_values_has_their_range_for_an_interval():
    assert estimates.median_interval([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)
    assert estimates.median_interval([4.0, 1.0]) == (2.5, 1.0, 4.0)
    median, low, high = estimates.median_interval([7.0])
    assert median == 7.0 and math.isnan(low) and math.isnan(high)
    assert all(map(math.isnan, estimates.median_interval([])))


# 1 - 2 P(B <= i), B binomial of k and 1/2, by hand. k = 6: i = 0 gives 0.969. k = 8:
# i = 1 gives 1 - 18/256 = 0.930, too little. k = 9: i = 1 gives 1 - 20/512 = 0.961.
# k = 10: i = 2 gives 1 - 112/1024 = 0.891, too little. k = 20: i = 5 gives 0.959.
@pytest.mark.parametrize(("k", "i"), [(6, 0), (8, 0), (9, 1), (10, 1), (20, 5)])
def test_the_median_of_many_has_order_statistics_for_an_interval(k, i):
    values = np.random.default_rng(k).permutation(k) + 1.0
    expected = (k + 1) / 2, i + 1, k - i
    assert estimates.median_interval(values) == expected
    lost = [*values, math.nan, math.inf]
    assert estimates.median_interval(lost) == expected


@pytest.mark.parametrize(("k", "level"), [(3, 0.75), (5, 0.9375), (9, 1 - 20 / 512)])
def test_the_interval_of_a_median_covers_it_as_often_as_it_says(k, level):
    draws = np.random.default_rng(0).exponential(size=(5000, k))
    ends = np.array([estimates.median_interval(values)[1:] for values in draws])
    covered = (ends[:, 0] < math.log(2)) & (math.log(2) < ends[:, 1])
    # 4 standard errors of a share of 5,000
    error = 4 * math.sqrt(level * (1 - level) / 5000)
    assert covered.mean() == pytest.approx(level, abs=error)


def test_a_slope_has_the_interval_of_the_textbook():
    # Slope 1.5, residuals 1/6, -1/3, 1/6: s² = 1/6, error sqrt(1/12); t(0.975, 1) =
    # 12.7062 (table).
    slope, low, high = estimates.slope_interval([0, 1, 2], [0, 1, 3])
    assert slope == pytest.approx(1.5)
    assert high - slope == pytest.approx(12.7062 / math.sqrt(12), abs=1e-4)
    assert slope - low == pytest.approx(high - slope)


def test_a_slope_is_that_of_another_formula_whatever_is_missing():
    rng = np.random.default_rng(0)
    x = rng.normal(size=30)
    y = 2 - 3 * x + rng.normal(size=30)
    known = stats.linregress(x, y)
    half_width = stats.t.ppf(0.95, 28) * known.stderr
    expected = known.slope, known.slope - half_width, known.slope + half_width
    found = estimates.slope_interval([*x, 1.0, math.nan], [*y, math.inf, 2.0], 0.9)
    np.testing.assert_allclose(found, expected)


def test_two_points_have_a_slope_without_an_interval_and_one_place_has_none():
    slope, low, high = estimates.slope_interval([1, 3], [1, 5])
    assert slope == 2 and math.isnan(low) and math.isnan(high)
    for x, y in (([], []), ([1], [2]), ([1, 1, 1], [1, 2, 3])):
        assert all(map(math.isnan, estimates.slope_interval(x, y)))


@pytest.mark.parametrize("infinite", [math.inf, -math.inf])
def test_what_is_not_finite_is_no_part_of_a_mean(infinite):
    mean, half_width = estimates.mean_interval([[1.0], [2.0], [3.0], [infinite]])
    np.testing.assert_allclose([mean, half_width], [[2.0], [2.484138]], atol=1e-6)


# t tests

SIX = [3.1, -0.4, 2.2, 1.9, 0.3, 2.7]


@pytest.mark.parametrize("than", [0.0, 1.0, 5.0, -2.0])
def test_a_mean_is_tested_by_students_t(than):
    found = estimates.mean_test(SIX, than, confidence=0.9)
    for side, p in (("greater", found.p_more), ("less", found.p_less)):
        test = stats.ttest_1samp(SIX, than, alternative=side)
        assert p == pytest.approx(test.pvalue)
    interval = stats.ttest_1samp(SIX, 0).confidence_interval(0.9)
    assert found[:3] == pytest.approx((np.mean(SIX), *interval))


def test_differences_are_tested_as_pairs_are():
    other = [2.0, 1.0, 0.5, 1.1, -1.0, 0.2]
    found = estimates.mean_test(np.subtract(SIX, other))
    test = stats.ttest_rel(SIX, other, alternative="greater")
    assert found.p_more == pytest.approx(test.pvalue)
    assert estimates.mean_test([*SIX, math.nan, math.inf]) == estimates.mean_test(SIX)


def test_values_that_agree_vary_by_their_rounding_if_it_is_given():
    error = 0.3 / math.sqrt(4)
    found = estimates.mean_test([2.0] * 4, least_deviation=0.3)
    half_width = stats.t.ppf(0.975, 3) * error
    assert found[:3] == pytest.approx((2, 2 - half_width, 2 + half_width))
    assert found.p_more == pytest.approx(stats.t.sf(2 / error, 3))
    wide = estimates.mean_test(SIX, least_deviation=0.3)
    assert wide == estimates.mean_test(SIX)


def test_values_that_agree_and_have_no_rounding_are_sure():
    assert estimates.mean_test([2.0] * 4, 1.0) == (2, 2, 2, 0, 1)
    assert estimates.mean_test([2.0] * 4, 2.0) == (2, 2, 2, 1, 1)


def test_fewer_than_two_values_decide_nothing():
    for values, mean in (([3.0], 3.0), ([], math.nan), ([math.inf], math.nan)):
        for found in (
            estimates.mean_test(values),
            estimates.equivalence_test(values, 100.0),
        ):
            assert found[3:] == (1, 1) and math.isnan(found.lower)
            assert found.estimate == pytest.approx(mean, nan_ok=True)


# Equivalence


@pytest.mark.parametrize("margin", [0.5, 2.0, 4.0])
@pytest.mark.parametrize("shift", [-3.0, -1.5, 0.0, 4.0])
def test_equivalence_is_two_one_sided_t_tests(margin, shift):
    values = np.array(SIX) + shift
    found = estimates.equivalence_test(values, margin)

    def p(than, side):
        return stats.ttest_1samp(values, than, alternative=side).pvalue

    within = max(p(-margin, "greater"), p(margin, "less"))
    outside = min(1.0, 2 * min(p(-margin, "less"), p(margin, "greater")))
    assert found.p_less == pytest.approx(within)
    assert found.p_more == pytest.approx(outside)
    assert found[:3] == estimates.mean_test(values)[:3]


def test_nothing_is_surely_within_a_margin_of_0_and_none_is_below():
    found = estimates.equivalence_test(np.array(SIX) - np.mean(SIX), 0.0)
    assert (found.p_less, found.p_more) == pytest.approx((0.5, 1))
    assert estimates.equivalence_test(SIX, 0.0).p_more == pytest.approx(
        stats.ttest_1samp(SIX, 0.0).pvalue
    )
    for margin in (-0.1, math.nan):
        with pytest.raises(ValueError, match=f"margin is {margin}, expected"):
            estimates.equivalence_test(SIX, margin)


def test_at_the_margin_it_is_taken_for_within_as_often_as_for_outside_by_chance():
    """5 % each; four standard errors of a share of 2,000 are 1.9 %."""
    draws = np.random.default_rng(0).normal(3.0, 1.0, (2000, 8))
    found = [estimates.equivalence_test(x, 3.0) for x in draws]
    assert np.mean([x.p_less <= 0.05 for x in found]) == pytest.approx(0.05, abs=0.019)
    outside = np.mean([x.p_more <= 0.05 for x in found])
    assert outside == pytest.approx(0.025, abs=0.014)  # doubled for the other side


# Two means


@pytest.mark.parametrize(
    ("a", "b", "level"),
    [
        ([5.0, 7.0, 6.5, 9.0], [1.0, 2.0], 0.95),
        ([1.0, 2.0, 3.0], [1.5, 2.5, 2.0, 9.0, 4.0], 0.9),
    ],
)
def test_the_interval_of_two_means_is_welchs(a, b, level):
    found = estimates.welch_test(a, b, confidence=level)
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(level)
    assert found[:3] == pytest.approx((np.mean(a) - np.mean(b), *expected))
    for side, p in (("greater", found.p_more), ("less", found.p_less)):
        test = stats.ttest_ind(a, b, equal_var=False, alternative=side)
        assert p == pytest.approx(test.pvalue)


def test_where_one_of_two_means_has_no_scatter_the_others_is_students():
    found = estimates.welch_test([1.0, 2.0, 4.0], [7.0, 7.0])
    mean = 7 / 3 - 7
    expected = stats.t.interval(0.95, 2, mean, stats.sem([1.0, 2.0, 4.0]))
    assert found[:3] == pytest.approx((mean, *expected))


def test_two_means_without_scatter_have_no_width():
    assert estimates.welch_test([3.0, 3.0], [1.0, 1.0]) == (2, 2, 2, 0, 1)
    assert estimates.welch_test([1.0, 1.0], [1.0, 1.0]) == (0, 0, 0, 1, 1)


def test_two_means_of_single_values_have_a_difference_without_an_interval():
    gap, low, high, *p = estimates.welch_test([3.0], [1.0, 2.0])
    assert gap == 1.5 and math.isnan(low) and math.isnan(high) and p == [1, 1]
    nothing = estimates.welch_test([], [1.0, 2.0])
    assert all(map(math.isnan, nothing[:3])) and nothing[3:] == (1, 1)
    lost = [1.0, math.nan, 2.0, 4.0]
    assert estimates.welch_test(lost, [0.0, 5.0]) == pytest.approx(
        estimates.welch_test([1.0, 2.0, 4.0], [0.0, 5.0])
    )


def test_two_means_vary_by_no_less_than_what_is_given_on_either_side():
    a, b = [1.0, 2.0, 4.0, 3.0], [7.0, 7.0, 7.0]
    found = estimates.welch_test(a, b, least_deviation=0.5)
    scattered = [6.5, 7.0, 7.5]  # a standard deviation of 0.5
    assert found == pytest.approx(estimates.welch_test(a, scattered))
    assert estimates.welch_test(a, scattered, least_deviation=0.4) == (
        estimates.welch_test(a, scattered)
    )
    same = estimates.welch_test(b, b, least_deviation=0.5)
    half_width = stats.t.ppf(0.975, 4) * 0.5 * math.sqrt(2 / 3)
    assert same == pytest.approx((0, -half_width, half_width, 0.5, 0.5))
    single = estimates.welch_test([3.0], b, least_deviation=0.5)
    assert math.isnan(single.lower) and single[3:] == (1, 1)


# Clustered errors


def clustered(rng, clusters=20, size=6, effect=1.0):
    """Values that share an effect in each cluster, on which x does not depend."""
    member = np.repeat(np.arange(clusters), size)
    x = np.column_stack(
        [rng.normal(size=clusters)[member], rng.normal(size=clusters * size)]
    )
    shared = effect * rng.normal(size=clusters)[member]
    y = 3 + x @ [2.0, -1.0] + shared + rng.normal(size=clusters * size)
    return x, y, member


def test_a_clustered_fit_is_least_squares_with_the_sandwich_of_its_formula():
    x, y, member = clustered(np.random.default_rng(0), clusters=7)
    design = np.column_stack([x, np.ones(len(y))])
    coefficients, *_ = np.linalg.lstsq(design, y)
    residuals = y - design @ coefficients
    bread, meat = np.linalg.inv(design.T @ design), np.zeros((3, 3))
    for g in range(7):
        inside = member == g
        score = design[inside].T @ residuals[inside]
        meat += np.outer(score, score)
    errors = np.sqrt(np.diag(7 / 6 * bread @ meat @ bread))
    half_width = stats.t.ppf(0.95, 6) * errors
    found = estimates.clustered_fit(x, y, member, confidence=0.9)
    np.testing.assert_allclose(found.coefficients, coefficients[:2])
    np.testing.assert_allclose(found.lower, (coefficients - half_width)[:2])
    np.testing.assert_allclose(found.upper, (coefficients + half_width)[:2])
    named = estimates.clustered_fit(x, y, [f"c{g}" for g in member], confidence=0.9)
    np.testing.assert_allclose(named, found)


def test_two_sets_of_clusters_have_the_sum_less_that_of_their_intersections():
    """The sandwich of pairs of rows that share a cluster of either set, by hand."""
    rng = np.random.default_rng(2)
    rows, columns = np.repeat(np.arange(6), 10), np.tile(np.arange(5), 12)

    def shared():
        return rng.normal(size=6)[rows] + rng.normal(size=5)[columns]

    x = np.column_stack([shared(), shared()])
    y = x @ [2.0, -1.0] + 2 * shared() + rng.normal(size=60)
    design = np.column_stack([x, np.ones(60)])
    bread = np.linalg.inv(design.T @ design)
    scores = design * (y - design @ bread @ design.T @ y)[:, None]

    def variance(same):
        """Of rows that are the same in pairs, with the factor of so many clusters."""
        count = len(np.unique(same, axis=0))
        return count / (count - 1) * np.diag(bread @ scores.T @ same @ scores @ bread)

    first, second = (np.equal.outer(z, z) for z in (rows, columns))
    single = [variance(first), variance(second)]
    total = single[0] + single[1] - variance(first & second)
    errors = np.sqrt(np.maximum(total, np.maximum(*single)))[:2]
    found = estimates.clustered_fit(x, y, np.column_stack([rows, columns]))
    np.testing.assert_allclose(
        found.upper - found.coefficients, stats.t.ppf(0.975, 4) * errors
    )
    assert (total > np.maximum(*single))[:2].any()  # else it would show little
    named = [[f"p{a}", f"{b}"] for a, b in zip(rows, columns, strict=True)]
    np.testing.assert_allclose(estimates.clustered_fit(x, y, named), found)


def test_a_second_set_of_clusters_makes_no_error_smaller_and_the_same_one_none_larger():
    x, y, member = clustered(np.random.default_rng(3), clusters=8)
    one = estimates.clustered_fit(x, y, member)
    other = np.random.default_rng(4).permutation(member)
    two = estimates.clustered_fit(x, y, np.column_stack([member, other]))
    np.testing.assert_allclose(two.coefficients, one.coefficients)
    assert (two.upper >= one.upper - 1e-12).all()
    twice = estimates.clustered_fit(x, y, np.column_stack([member, member]))
    np.testing.assert_allclose(twice, one)
    finer = estimates.clustered_fit(x, y, np.column_stack([member, np.arange(len(y))]))
    np.testing.assert_array_less(finer.lower, one.lower + 1e-12)


def test_it_covers_what_errors_of_single_rows_miss():
    """At least 95 % less what few clusters cost, and four standard errors (4 %)."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(500):
        x, y, member = clustered(rng)
        for clusters in (member, np.arange(len(y))):
            fit = estimates.clustered_fit(x, y, clusters)
            covered.append(fit.lower[0] <= 2 <= fit.upper[0])
    assert 0.89 <= np.mean(covered[::2]) <= 0.98
    assert np.mean(covered[1::2]) < 0.8


def test_without_two_clusters_or_columns_that_vary_there_is_no_fit():
    x, y, member = clustered(np.random.default_rng(0))
    assert estimates.clustered_fit(x, y, np.zeros(len(y))) is None
    for both in ([member, np.zeros(len(y))], [np.ones(len(y)), member]):
        assert estimates.clustered_fit(x, y, np.column_stack(both)) is None
    twice = np.column_stack([x[:, 0], 2 * x[:, 0]])
    assert estimates.clustered_fit(twice, y, member) is None
    assert estimates.clustered_fit(np.ones((len(y), 1)), y, member) is None


def test_a_fit_without_residuals_has_no_width_whatever_is_rounded():
    x, _, member = clustered(np.random.default_rng(0))
    found = estimates.clustered_fit(x, 3 + x @ [2.0, -1.0], member)
    np.testing.assert_allclose(found, [[2.0, -1.0]] * 3, atol=1e-12)
