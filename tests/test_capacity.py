import fractions
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from nfp_jax import capacity, data


def test_memorized_bits_of_hand_computed_cases():
    # C = 2, err = 1/4: 1 - h2(1/4) = 1 - (2 - 3/4 log2 3)
    expected = 1000 * (1 - (2 - 0.75 * math.log2(3)))
    assert float(capacity.memorized_bits(0.75, 1000, 2)) == pytest.approx(expected)
    # C = 4, err = 1/2: log2 4 - h2(1/2) - 1/2 log2 3
    expected = 10 * (2 - 1 - 0.5 * math.log2(3))
    assert float(capacity.memorized_bits(0.5, 10, 4)) == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_memorized_bits_are_all_of_them_at_accuracy_one_and_none_at_chance(classes):
    bits = capacity.memorized_bits(jnp.array([1.0, 1 / classes, 0.0]), 7, classes)
    np.testing.assert_allclose(bits, [7 * math.log2(classes), 0.0, 0.0], atol=1e-4)


@pytest.mark.parametrize("classes", [2, 10])
def test_memorized_bits_grow_with_accuracy(classes):
    bits = capacity.memorized_bits(jnp.linspace(0, 1, 101), 1000, classes)
    assert np.all(np.diff(bits) >= -1e-3)  # 1e-3: float32 near 1000


def test_memorized_bits_of_no_labels_are_undefined():
    assert math.isnan(capacity.memorized_bits(0.0, 0, 2))


def test_memorized_bits_refuse_one_class():
    with pytest.raises(ValueError, match="classes is 1, expected at least 2"):
        capacity.memorized_bits(1.0, 10, 1)


def test_memorized_points_are_the_points_fitted():
    assert float(capacity.memorized_points(0.25, 200)) == 50.0


def test_noise_correlation_and_power_of_a_hand_computed_case():
    """C = 3, rate 1/2: z is (1/3, -1/6, -1/6) in some order for a label that stayed,
    and 5/6 at the new label, -2/3 at the clean one, -1/6 elsewhere for one that moved.
    """
    clean, y = jnp.array([0, 1, 2, 0]), jnp.array([0, 2, 2, 1])
    z = jax.nn.one_hot(y, 3) - (0.5 * jax.nn.one_hot(clean, 3) + 0.5 / 3)
    stayed = (1 / 3) ** 2 + 2 * (1 / 6) ** 2
    moved = (5 / 6) ** 2 + (2 / 3) ** 2 + (1 / 6) ** 2
    assert float(capacity.noise_power(z)) == pytest.approx((stayed + moved) / 2)
    learnt = capacity.noise_correlation(jax.nn.one_hot(y, 3), z)
    assert float(learnt) == pytest.approx((1 / 3 + 5 / 6) / 2)


def test_a_constant_prediction_does_not_correlate_with_noise_of_mean_zero():
    z = jnp.array([[0.5, -0.5], [-0.5, 0.5]])
    assert float(capacity.noise_correlation(jnp.full((2, 2), 0.5), z)) == 0.0


def test_pure_noise_learnt_by_heart_has_normalized_correlation_one():
    """At rate 1, z = onehot(y) - 1/C, so <onehot(y), z> = |z|²."""
    y = jax.random.randint(jax.random.key(0), (50,), 0, 10)
    z = jax.nn.one_hot(y, 10) - 0.1
    learnt = capacity.noise_correlation(jax.nn.one_hot(y, 10), z)
    assert float(learnt / capacity.noise_power(z)) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("rate", [0.2, 0.5, 1.0])
def test_correlation_of_networks_whose_outputs_are_known(rate):
    """z_i = onehot(y_i) - ((1-ρ) onehot(clean_i) + ρ/C), so of the share s of labels
    that are as they were: <onehot(clean), z> = s - (1-ρ) - ρ/C, <onehot(y), z> =
    1 - (1-ρ) s - ρ/C, and an output that is the same for all classes has 0.
    """
    n, classes = 20_000, 4
    clean = data.gaussian(jax.random.key(0), n, 1, classes=classes)
    noisy = data.with_label_noise(clean, jax.random.key(1), rate)
    same = float(np.mean(noisy.y == noisy.clean))
    # 5 deviations of the share.
    assert same == pytest.approx(1 - rate + rate / classes, abs=5 * 0.5 / n**0.5)

    def correlation(labels):
        outputs = jax.nn.one_hot(labels, classes)
        return float(capacity.noise_correlation(outputs, noisy.z))

    # 1e-5: a mean of 20,000 float32.
    blind = same - (1 - rate) - rate / classes
    assert correlation(noisy.clean) == pytest.approx(blind, abs=1e-5)
    learnt = 1 - (1 - rate) * same - rate / classes
    assert correlation(noisy.y) == pytest.approx(learnt, abs=1e-5)
    uniform = jnp.full((n, classes), 1 / classes)
    assert float(capacity.noise_correlation(uniform, noisy.z)) == pytest.approx(
        0.0, abs=1e-6
    )
    # All noise learnt is 1: <onehot(y), z> - |z|² = <onehot(y) - z, z>, 0 for every
    # sample at rate 1, else on average; 0.03: 5 deviations.
    power = float(capacity.noise_power(noisy.z))
    off = 1e-5 if rate == 1.0 else 0.03
    assert correlation(noisy.y) / power == pytest.approx(1.0, abs=off)


# Time to memorize


def test_epochs_to_a_share_is_the_first_epoch_that_has_it():
    accuracy = [0.2, 0.5, 0.45, 0.9, 0.99, 1.0]
    found = [capacity.epochs_to(accuracy, share) for share in (0.2, 0.5, 0.9, 0.95, 1)]
    assert found == [1, 2, 4, 5, 6]
    assert capacity.epochs_to(accuracy[:5], 1.0) is None
    assert capacity.epochs_to([], 0.5) is None


@given(st.integers(1, 40_000), st.sampled_from([50, 90, 99, 100]))
def test_epochs_to_a_share_counts_labels_whatever_the_rounding(n, percent):
    needed = -(-percent * n // 100)
    accuracy = np.array([needed - 1, needed], np.float32) / np.float32(n)
    assert capacity.epochs_to(accuracy, percent / 100) == 2


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, math.nan])
def test_a_share_to_reach_out_of_its_range_is_refused(share):
    with pytest.raises(ValueError, match=rf"share is {share}, expected 0 < share <= 1"):
        capacity.epochs_to([1.0], share)


def test_the_area_is_that_under_accuracy_against_the_log_of_the_epoch():
    """From 1 to 2, 2 to 3 and 3 to 8, where the last accuracy is held."""
    by_hand = 0.2 * math.log(2) + 0.4 * math.log(3 / 2) + 0.8 * math.log(8 / 3)
    area = capacity.memorization_area([0.2, 0.4, 0.8], 8)
    assert area == pytest.approx(by_hand / math.log(8), rel=1e-12)
    # The whole budget used: the last epoch has no time left.
    area = capacity.memorization_area([0.2, 0.4, 0.8], 3)
    by_hand = 0.2 * math.log(2) + 0.4 * math.log(3 / 2)
    assert area == pytest.approx(by_hand / math.log(3), rel=1e-12)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 10), st.data()
)
def test_the_area_is_between_the_least_and_the_most_and_the_same_if_it_goes_on(
    accuracy, more, data
):
    budget = max(len(accuracy) + more + data.draw(st.integers(0, 5)), 2)
    area = capacity.memorization_area(accuracy, budget)
    # 1e-9: sums of float64.
    assert min(accuracy) - 1e-9 <= area <= max(accuracy) + 1e-9
    longer = accuracy + [accuracy[-1]] * (min(len(accuracy) + more, budget))
    longer = longer[: min(len(accuracy) + more, budget)]
    assert capacity.memorization_area(longer, budget) == pytest.approx(area, abs=1e-9)


def test_who_memorizes_sooner_has_the_larger_area():
    slow, fast = [0.5] * 9 + [1.0], [0.5] * 4 + [1.0]
    assert capacity.memorization_area(fast, 100) > capacity.memorization_area(slow, 100)


@pytest.mark.parametrize(("count", "budget"), [(0, 5), (6, 5), (1, 1)])
def test_an_area_of_no_epoch_or_beyond_the_budget_is_refused(count, budget):
    message = f"accuracy has {count} epochs and the budget is {budget}, expected 1 to"
    with pytest.raises(ValueError, match=message):
        capacity.memorization_area([0.5] * count, budget)


# The search for the capacity


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


# The gap of pairs


@given(
    st.lists(
        st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=2, max_size=20
    ),
    st.sampled_from([0.5, 0.95, 0.999]),
)
def test_the_interval_of_a_gap_is_that_of_the_paired_t_test(pairs, confidence):
    own, other = np.transpose(pairs)
    gap = capacity.paired_gap(own, other, confidence=confidence)
    assert gap.mean == pytest.approx(np.mean(own - other), abs=1e-9)
    if np.std(own - other) > 1e-6:  # else scipy warns of lost precision
        expected = scipy.stats.ttest_rel(own, other).confidence_interval(confidence)
        assert gap[1:] == pytest.approx(tuple(expected), rel=1e-6, abs=1e-6)


def test_gaps_that_are_all_the_same_have_an_interval_without_width():
    assert capacity.paired_gap([3.0, 4.0], [1.0, 2.0]) == (2.0, 2.0, 2.0)


def test_a_single_pair_has_a_mean_and_no_interval():
    gap = capacity.paired_gap([3.0], [1.0])
    assert gap.mean == 2.0 and math.isnan(gap.lower) and math.isnan(gap.upper)


def test_the_interval_of_a_gap_holds_as_often_as_it_says():
    """300 repetitions of 6 pairs with a common part that pairing removes; 80 %: 240
    hold, give or take 5 · sqrt(300 · 0.8 · 0.2) = 35."""
    random = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        common = 100 * random.normal(size=6)
        own, other = common + 2 + random.normal(size=6), common + random.normal(size=6)
        gap = capacity.paired_gap(own, other, confidence=0.8)
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
        capacity.paired_gap(own, other)
