import math

import numpy as np
import pytest

from nfp_jax.measures.betting import betting_lower_bound, betting_upper_bound

ALPHA, REPEATS = 0.1, 200
# A bound of the stated confidence misses more often than this in 1 of 700 seeds.
ALLOWED = ALPHA * REPEATS + 3 * math.sqrt(REPEATS * ALPHA * (1 - ALPHA))


def misses(draw, mean):
    """How often the lower bounds of 60 values, at least 0, are above their mean."""
    rng = np.random.default_rng(0)
    bounds = [betting_lower_bound(draw(rng, 60), 0.0, ALPHA) for _ in range(REPEATS)]
    assert np.median(bounds) > mean / 4  # and they say something
    return sum(bound > mean for bound in bounds)


def stops_when_ahead(rng, count):
    """Bernoulli(0.3) until the mean so far is above 0.4, and 0.3 from then on.

    The mean given the past is 0.3 each time; a bound for one fixed number of
    independent values, at the best moment, is above it in most repetitions.
    """
    values = (rng.random(count) < 0.3).astype(float)
    means = np.cumsum(values)[9:] / np.arange(10, count + 1)
    ahead = np.flatnonzero(means > 0.4)
    if len(ahead):
        values[10 + ahead[0] :] = 0.3
    return values


def falls_behind(rng, count):
    """Mean 0.5, and 0.3 for each value after one above the mean."""
    values = np.empty(count)
    for i in range(count):
        values[i] = rng.random() * (0.6 if i and values[i - 1] > 0.5 else 1.0)
    return values


@pytest.mark.parametrize(
    ("draw", "mean"),
    [
        (lambda rng, count: rng.random(count) < 0.1, 0.1),
        # Lognormal without a limit: a few values make up the mean.
        (lambda rng, count: rng.lognormal(0, 1, count), math.exp(0.5)),
        (stops_when_ahead, 0.3),
        (falls_behind, 0.5),
    ],
    ids=["bernoulli", "skewed", "stops when ahead", "falls behind"],
)
def test_a_lower_bound_is_above_the_mean_no_more_often_than_allowed(draw, mean):
    assert misses(draw, mean) <= ALLOWED


def test_an_upper_bound_is_below_a_rare_event_no_more_often_than_allowed():
    """Where normal intervals fail: P(no event) is 0.45, and their upper end then 0."""
    rng = np.random.default_rng(1)
    values = (rng.random((REPEATS, 40)) < 0.02).astype(float)
    normal = values.mean(axis=1) + 1.28 * values.std(axis=1) / math.sqrt(40)
    assert np.sum(normal < 0.02) > 2 * ALLOWED
    bounds = [betting_upper_bound(row, 1.0, ALPHA) for row in values]
    assert np.sum(np.less(bounds, 0.02)) <= ALLOWED
    assert np.median(bounds) < 0.15


def test_bets_that_start_later_keep_the_confidence():
    """Of 60 values the first 20 are far too low, as those of a model that learns."""

    def draw(rng, count):
        values = rng.random(count)
        values[:20] *= 0.2
        return values

    rng = np.random.default_rng(2)
    rows = [draw(rng, 60) for _ in range(REPEATS)]
    late = np.array([betting_lower_bound(v, 0.0, ALPHA, starts=(0, 20)) for v in rows])
    assert np.sum(late > 0.5) <= ALLOWED
    twice = betting_lower_bound(
        rows[0], 0.0, ALPHA, starts=(0, 0)
    )  # shares add up to one
    assert twice == pytest.approx(betting_lower_bound(rows[0], 0.0, ALPHA))
    whole = np.array([betting_lower_bound(v, 0.0, ALPHA) for v in rows[:40]])
    assert late[:40].mean() > whole.mean() + 0.05


def test_values_without_variance_are_bounded_as_a_bet_of_everything_bounds_them():
    """All 1, ``m^-K`` is the most that betting can make; half the capital makes it."""
    for count in (1, 10, 1000):
        bound = betting_lower_bound(np.ones(count), 0.0, 0.05)
        assert (0.05 / 2) ** (1 / count) <= bound <= 0.05 ** (1 / count)


def test_the_bounds_are_tight_for_many_values():
    values = np.random.default_rng(0).random(1000)
    lower = betting_lower_bound(values, 0.0, 0.025)
    upper = betting_upper_bound(values, 1.0, 0.025)
    # A normal interval is 0.018 to each side.
    assert values.mean() - 0.06 < lower < values.mean() - 0.015
    assert values.mean() + 0.015 < upper < values.mean() + 0.06


def test_the_bounds_move_with_the_values_and_mirror_each_other():
    values = np.random.default_rng(0).exponential(size=50)
    bound = betting_lower_bound(values, 0.0, 0.05)
    assert betting_lower_bound(3 * values - 7, -7.0, 0.05) == pytest.approx(
        3 * bound - 7
    )
    assert betting_upper_bound(2 - values, 2.0, 0.05) == pytest.approx(2 - bound)


def test_more_confidence_is_a_wider_bound():
    values = np.random.default_rng(0).random(50)
    alphas = (0.001, 0.01, 0.1, 0.5)
    lower = [betting_lower_bound(values, 0.0, alpha) for alpha in alphas]
    upper = [betting_upper_bound(values, 1.0, alpha) for alpha in alphas]
    assert np.all(np.diff(lower) > 0)
    assert np.all(np.diff(upper) < 0)


def test_nothing_is_said_without_values_or_above_the_least():
    assert betting_lower_bound([], -2.0, 0.05) == -2.0
    assert betting_upper_bound([], 2.0, 0.05) == 2.0
    assert betting_lower_bound([-2.0] * 9, -2.0, 0.05) == -2.0


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_a_confidence_out_of_range_is_refused(alpha):
    with pytest.raises(ValueError, match=f"alpha is {alpha}, expected 0 < alpha < 1"):
        betting_lower_bound([1.0], 0.0, alpha)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.0, -1.5], r"values hold -1\.5, expected all >= least = -1\.0"),
        ([0.0, math.nan], r"values hold nan, expected all >= least = -1\.0"),
        ([0.0, math.inf], "values hold inf, expected finite ones"),
    ],
)
def test_values_that_cannot_be_bounded_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        betting_lower_bound(values, -1.0, 0.05)
