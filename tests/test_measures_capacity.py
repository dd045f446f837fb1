import fractions
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfp_jax.measures import capacity


def table(entries, seen=None):
    """The accuracy of a look-up table, which fits n points up to its entries."""

    def accuracy(n):
        if seen is not None:
            seen.append(n)
        return min(1.0, entries / n)

    return accuracy


@pytest.mark.parametrize("most", [1, 2, 7, 200, 1000])
def test_a_precise_search_finds_every_capacity(most):
    for entries in range(min(most, 200) + 1):
        search = capacity.memorization_capacity(
            table(entries), most=most, share=1.0, precision=1e-9
        )
        assert search.fitted == entries and search.at_least == (entries == most)
        assert search.unfitted == (None if entries == most else entries + 1)


@given(st.integers(0, 3000), st.integers(1, 3000), st.sampled_from([0.01, 0.05, 1.0]))
def test_a_search_brackets_the_capacity_in_logarithmically_many_steps(
    entries, most, precision
):
    seen = []
    search = capacity.memorization_capacity(
        table(entries, seen), most=most, share=1.0, precision=precision
    )
    assert len(set(seen)) == len(seen) and all(1 <= n <= most for n in seen)
    truth = min(entries, most)
    assert search.fitted <= truth
    if search.at_least:
        assert search.fitted == most == truth and search.unfitted is None
    else:
        assert truth < search.unfitted <= most
        near = max(1, precision * search.fitted)
        assert search.unfitted - search.fitted <= near
    # On a log scale each step halves what is left of log(most + 1), until it is
    # log(1 + precision), or a point near 1 / precision; 3: rounding to integers.
    steps = math.log2(math.log(most + 1) / math.log1p(precision) + 1)
    assert len(seen) <= steps + 3


def test_a_search_tells_what_it_tries_step_by_step():
    """Ends 1 and 101: sqrt(101) = 10; 10 fitted: sqrt(1010) = 32; not: sqrt(320)."""
    search = capacity.Search(most=100, precision=0.5)
    tried = []
    while (n := search.next_n()) is not None:
        tried.append(n)
        search = search.told(n, n <= 20)
    assert tried == [10, 32, 18, 24] and search == (100, 0.5, 18, 24)


def test_a_search_for_what_fits_nothing_ends_at_one():
    search = capacity.memorization_capacity(lambda n: 0.0, most=1000)
    assert search.fitted == 0 and search.unfitted == 1 and not search.at_least


def test_the_end_of_a_search_is_tried_before_it_is_said_to_be_fitted():
    seen = []
    search = capacity.memorization_capacity(table(10**6, seen), most=90)
    assert search.at_least and seen[-1] == search.fitted == 90
    nearly = capacity.memorization_capacity(table(89), most=90, share=1.0)
    assert not nearly.at_least and nearly.unfitted == 90


def test_the_share_counts_labels():
    """99 % of n from a table of 99 entries: n = 100, of which 99 are enough."""
    search = capacity.memorization_capacity(table(99), most=1000, precision=1e-9)
    assert search.fitted == 100 and search.unfitted == 101


@given(st.integers(1, 50_000), st.data())
def test_a_share_is_fitted_by_count_whatever_the_rounding(n, drawn):
    hundredths = drawn.draw(st.sampled_from([51, 90, 95, 99, 100]))
    needed = math.ceil(fractions.Fraction(hundredths, 100) * n)
    for count in {needed - 1, needed, min(needed + 1, n)}:
        accuracy = float(np.float32(count) / np.float32(n))
        assert capacity.fits(accuracy, n, hundredths / 100) == (count >= needed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.0}, r"share is 0\.0, expected 0 < share <= 1"),
        ({"share": 1.01}, r"share is 1\.01, expected 0 < share <= 1"),
        ({"most": 0}, "most is 0, expected at least 1"),
        ({"precision": 0.0}, r"precision is 0\.0, expected precision > 0"),
        ({"precision": math.nan}, "precision is nan, expected precision > 0"),
    ],
)
def test_a_search_refuses_what_it_cannot_do(options, message):
    def unused(n):
        raise AssertionError("called before the options are checked")

    with pytest.raises(ValueError, match=message):
        capacity.memorization_capacity(unused, **{"most": 10, **options})
