import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from nfp_jax.measures.student_t import paired_gap


@given(
    st.lists(
        st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=2, max_size=20
    ),
    st.sampled_from([0.5, 0.95, 0.999]),
)
def test_the_interval_of_a_gap_is_that_of_the_paired_t_test(pairs, confidence):
    own, other = np.transpose(pairs)
    gap = paired_gap(own, other, confidence=confidence)
    assert gap.mean == pytest.approx(np.mean(own - other), abs=1e-9)
    if np.std(own - other) > 1e-6:  # else scipy warns of lost precision
        expected = scipy.stats.ttest_rel(own, other).confidence_interval(confidence)
        assert gap[1:] == pytest.approx(tuple(expected), rel=1e-6, abs=1e-6)


def test_gaps_that_are_all_the_same_have_an_interval_without_width():
    assert paired_gap([3.0, 4.0], [1.0, 2.0]) == (2.0, 2.0, 2.0)


def test_a_single_pair_has_a_mean_and_no_interval():
    gap = paired_gap([3.0], [1.0])
    assert gap.mean == 2.0 and math.isnan(gap.lower) and math.isnan(gap.upper)


def test_the_interval_of_a_gap_holds_as_often_as_it_says():
    """300 repetitions of 6 pairs with a common part that pairing removes; 80 %: 240
    hold, give or take 5 · sqrt(300 · 0.8 · 0.2) = 35."""
    random = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        common = 100 * random.normal(size=6)
        own, other = common + 2 + random.normal(size=6), common + random.normal(size=6)
        gap = paired_gap(own, other, confidence=0.8)
        held += gap.lower <= 2.0 <= gap.upper
    assert abs(held - 240) <= 35


@pytest.mark.parametrize(
    ("own", "other", "message"),
    [
        ([1.0, 2.0], [1.0], r"shapes \(2,\) and \(1,\), expected both \[k\]"),
        ([], [], r"shapes \(0,\) and \(0,\), expected both"),
        ([[1.0]], [[1.0]], r"shapes \(1, 1\) and \(1, 1\), expected both"),
        (1.0, 2.0, r"shapes \(\) and \(\), expected both"),
    ],
)
def test_pairs_that_do_not_match_are_refused(own, other, message):
    with pytest.raises(ValueError, match=message):
        paired_gap(own, other)
