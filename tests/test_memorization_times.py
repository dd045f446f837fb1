"""Times to memorize, of which some are only known to lie beyond a budget."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from judging import ends, tails
from rows import make_row

from nfp_jax.questions.memorization.times import (
    LEAST_DEVIATION,
    MOST_UNKNOWN,
    Times,
    paired_times,
    times_sooner,
    with_times,
)

BUDGET = 100.0


def known(times, others):
    one, other = np.array(times, float), np.array(others, float)
    return Times(one, one, other, other)


def rows_of(fitted, late, pruner="imp", trained=100):
    rows = [make_row(pruner, 0.9, seed) for seed in range(len(fitted))]
    return pd.DataFrame(rows).assign(
        epochs_to_99=fitted, out_of_budget=late, epochs=trained
    )


def test_a_time_is_known_infinite_or_beyond_the_budget():
    rows = with_times(rows_of([20, 99, None, None], [0, 1, 0, 2]))
    assert rows["time_least"].tolist() == [20, 99, math.inf, 100]
    assert rows["time_most"].tolist() == [20, 99, math.inf, math.inf]
    bare = with_times(rows_of([20], [0]).drop(columns="epochs_to_99"))
    assert bare["time_least"].isna().all() and bare["time_most"].isna().all()


def test_times_are_paired_by_seed_whatever_their_order():
    rows = with_times(rows_of([20, 30, 40], [0, 0, 0]))
    others = with_times(rows_of([50, 60, None], [0, 0, 1], "snip")).iloc[::-1]
    pairs = paired_times(rows, others.iloc[:2])  # seeds 1 and 2
    assert [x.tolist() for x in pairs] == [
        [30, 40],
        [30, 40],
        [60, 100],
        [60, math.inf],
    ]


def test_known_times_are_compared_by_the_t_test_of_their_shares():
    one, other = [20, 22, 19, 30], [40, 41, 50, 42]
    found = times_sooner(known(one, other))
    shares, inverse = np.divide(one, other), np.divide(other, one)
    mean, low, high = ends(shares, least=LEAST_DEVIATION)
    assert found[:3] == pytest.approx((1 / mean, 1 / high, 1 / low))
    assert found.p_more == pytest.approx(tails(shares, 1.0, LEAST_DEVIATION)[1])
    assert found.p_less == pytest.approx(tails(inverse, 1.0, LEAST_DEVIATION)[1])


def test_nothing_is_sooner_or_later_where_neither_is_known_to_fit():
    never = [math.inf] * 3
    found = times_sooner(known(never, never))
    assert math.isnan(found.estimate) and found[1:] == (0, math.inf, 1, 1)
    behind = times_sooner(known(never, [20, 22, 19]))
    assert behind[:2] == (0, 0) and behind.p_more == 1 and behind.p_less < 1e-3


TIME = st.floats(1, BUDGET)


@given(
    st.lists(
        st.tuples(TIME, TIME, st.booleans(), st.floats(1, 1e6)), min_size=2, max_size=6
    )
)
def test_no_time_beyond_the_budget_would_say_more_against_or_for(pairs):
    one, other, unknown, factor = (np.array(x) for x in zip(*pairs, strict=True))
    least = np.where(unknown, BUDGET, other)
    most = np.where(unknown, math.inf, other)
    found = times_sooner(Times(one, one, least, most))
    later = np.where(unknown, BUDGET * factor, other)
    actual = times_sooner(known(one, later))
    assert actual.p_more <= found.p_more + 1e-9
    assert found.lower <= actual.lower * (1 + 1e-9)
    assert found.upper >= actual.upper * (1 - 1e-9)
    if unknown.any():
        assert found.p_less == 1


def test_of_too_many_unknown_times_nothing_is_said():
    count = MOST_UNKNOWN + 1
    one, least, most = np.ones(count), np.full(count, BUDGET), np.full(count, math.inf)
    found = times_sooner(Times(one, one, least, most))
    assert found.p_more == found.p_less == 1 and math.isnan(found.estimate)
    fewer = times_sooner(Times(*(x[:-1] for x in (one, one, least, most))))
    assert fewer.p_more < 1e-6
