"""Intervals of means, medians and slopes against textbooks and their coverage."""

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


@pytest.mark.parametrize(
    ("a", "b", "level"),
    [
        ([5.0, 7.0, 6.5, 9.0], [1.0, 2.0], 0.95),
        ([1.0, 2.0, 3.0], [1.5, 2.5, 2.0, 9.0, 4.0], 0.9),
    ],
)
def test_the_interval_of_two_means_is_welchs(a, b, level):
    found = estimates.welch_interval(a, b, level)
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(level)
    assert found == pytest.approx((np.mean(a) - np.mean(b), *expected))


def test_where_one_of_two_means_has_no_scatter_the_others_is_students():
    found = estimates.welch_interval([1.0, 2.0, 4.0], [7.0, 7.0])
    mean = 7 / 3 - 7
    expected = stats.t.interval(0.95, 2, mean, stats.sem([1.0, 2.0, 4.0]))
    assert found == pytest.approx((mean, *expected))


def test_two_means_without_scatter_have_no_width():
    assert estimates.welch_interval([3.0, 3.0], [1.0, 1.0]) == (2, 2, 2)


def test_two_means_of_single_values_have_a_difference_without_an_interval():
    gap, low, high = estimates.welch_interval([3.0], [1.0, 2.0])
    assert gap == 1.5 and math.isnan(low) and math.isnan(high)
    assert all(map(math.isnan, estimates.welch_interval([], [1.0, 2.0])))
    lost = [1.0, math.nan, 2.0, 4.0]
    assert estimates.welch_interval(lost, [0.0, 5.0]) == pytest.approx(
        estimates.welch_interval([1.0, 2.0, 4.0], [0.0, 5.0])
    )
