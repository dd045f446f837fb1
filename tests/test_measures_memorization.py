import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfp_jax import data
from nfp_jax.measures import memorization


def test_memorized_bits_of_hand_computed_cases():
    # C = 2, err = 1/4: 1 - h2(1/4) = 1 - (2 - 3/4 log2 3)
    expected = 1000 * (1 - (2 - 0.75 * math.log2(3)))
    assert float(memorization.memorized_bits(0.75, 1000, 2)) == pytest.approx(expected)
    # C = 4, err = 1/2: log2 4 - h2(1/2) - 1/2 log2 3
    expected = 10 * (2 - 1 - 0.5 * math.log2(3))
    assert float(memorization.memorized_bits(0.5, 10, 4)) == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_memorized_bits_are_all_of_them_at_accuracy_one_and_none_at_chance(classes):
    bits = memorization.memorized_bits(jnp.array([1.0, 1 / classes, 0.0]), 7, classes)
    np.testing.assert_allclose(bits, [7 * math.log2(classes), 0.0, 0.0], atol=1e-4)


@pytest.mark.parametrize("classes", [2, 10])
def test_memorized_bits_grow_with_accuracy(classes):
    bits = memorization.memorized_bits(jnp.linspace(0, 1, 101), 1000, classes)
    assert np.all(np.diff(bits) >= -1e-3)  # 1e-3: float32 near 1000


def test_memorized_bits_of_no_labels_are_undefined():
    assert math.isnan(memorization.memorized_bits(0.0, 0, 2))


def test_memorized_bits_refuse_one_class():
    with pytest.raises(ValueError, match="classes is 1, expected at least 2"):
        memorization.memorized_bits(1.0, 10, 1)


def test_memorized_points_are_the_points_fitted():
    assert float(memorization.memorized_points(0.25, 200)) == 50.0


def test_noise_correlation_and_power_of_a_hand_computed_case():
    """C = 3, rate 1/2: z is (1/3, -1/6, -1/6) in some order for a label that stayed,
    and 5/6 at the new label, -2/3 at the clean one, -1/6 elsewhere for one that moved.
    """
    clean, y = jnp.array([0, 1, 2, 0]), jnp.array([0, 2, 2, 1])
    z = jax.nn.one_hot(y, 3) - (0.5 * jax.nn.one_hot(clean, 3) + 0.5 / 3)
    stayed = (1 / 3) ** 2 + 2 * (1 / 6) ** 2
    moved = (5 / 6) ** 2 + (2 / 3) ** 2 + (1 / 6) ** 2
    assert float(memorization.noise_power(z)) == pytest.approx((stayed + moved) / 2)
    learnt = memorization.noise_correlation(jax.nn.one_hot(y, 3), z)
    assert float(learnt) == pytest.approx((1 / 3 + 5 / 6) / 2)


def test_a_constant_prediction_does_not_correlate_with_noise_of_mean_zero():
    z = jnp.array([[0.5, -0.5], [-0.5, 0.5]])
    assert float(memorization.noise_correlation(jnp.full((2, 2), 0.5), z)) == 0.0


def test_pure_noise_learnt_by_heart_has_normalized_correlation_one():
    """At rate 1, z = onehot(y) - 1/C, so <onehot(y), z> = |z|²."""
    y = jax.random.randint(jax.random.key(0), (50,), 0, 10)
    z = jax.nn.one_hot(y, 10) - 0.1
    learnt = memorization.noise_correlation(jax.nn.one_hot(y, 10), z)
    assert float(learnt / memorization.noise_power(z)) == pytest.approx(1.0, rel=1e-5)


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
        return float(memorization.noise_correlation(outputs, noisy.z))

    # 1e-5: a mean of 20,000 float32.
    blind = same - (1 - rate) - rate / classes
    assert correlation(noisy.clean) == pytest.approx(blind, abs=1e-5)
    learnt = 1 - (1 - rate) * same - rate / classes
    assert correlation(noisy.y) == pytest.approx(learnt, abs=1e-5)
    uniform = jnp.full((n, classes), 1 / classes)
    assert float(memorization.noise_correlation(uniform, noisy.z)) == pytest.approx(
        0.0, abs=1e-6
    )
    # All noise learnt is 1: <onehot(y), z> - |z|² = <onehot(y) - z, z>, 0 for every
    # sample at rate 1, else on average; 0.03: 5 deviations.
    power = float(memorization.noise_power(noisy.z))
    off = 1e-5 if rate == 1.0 else 0.03
    assert correlation(noisy.y) / power == pytest.approx(1.0, abs=off)


# Time to memorize


def test_epochs_to_a_share_is_the_first_epoch_that_has_it():
    accuracy = [0.2, 0.5, 0.45, 0.9, 0.99, 1.0]
    found = [
        memorization.epochs_to(accuracy, share) for share in (0.2, 0.5, 0.9, 0.95, 1)
    ]
    assert found == [1, 2, 4, 5, 6]
    assert memorization.epochs_to(accuracy[:5], 1.0) is None
    assert memorization.epochs_to([], 0.5) is None


@given(st.integers(1, 40_000), st.sampled_from([50, 90, 99, 100]))
def test_epochs_to_a_share_counts_labels_whatever_the_rounding(n, percent):
    needed = -(-percent * n // 100)
    accuracy = np.array([needed - 1, needed], np.float32) / np.float32(n)
    assert memorization.epochs_to(accuracy, percent / 100) == 2


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, math.nan])
def test_a_share_to_reach_out_of_its_range_is_refused(share):
    with pytest.raises(ValueError, match=rf"share is {share}, expected 0 < share <= 1"):
        memorization.epochs_to([1.0], share)


def test_the_area_is_that_under_accuracy_against_the_log_of_the_epoch():
    """From 1 to 2, 2 to 3 and 3 to 8, where the last accuracy is held."""
    by_hand = 0.2 * math.log(2) + 0.4 * math.log(3 / 2) + 0.8 * math.log(8 / 3)
    area = memorization.memorization_area([0.2, 0.4, 0.8], 8)
    assert area == pytest.approx(by_hand / math.log(8), rel=1e-12)
    # The whole budget used: the last epoch has no time left.
    area = memorization.memorization_area([0.2, 0.4, 0.8], 3)
    by_hand = 0.2 * math.log(2) + 0.4 * math.log(3 / 2)
    assert area == pytest.approx(by_hand / math.log(3), rel=1e-12)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 10), st.data()
)
def test_the_area_is_between_the_least_and_the_most_and_the_same_if_it_goes_on(
    accuracy, more, data
):
    budget = max(len(accuracy) + more + data.draw(st.integers(0, 5)), 2)
    area = memorization.memorization_area(accuracy, budget)
    # 1e-9: sums of float64.
    assert min(accuracy) - 1e-9 <= area <= max(accuracy) + 1e-9
    longer = accuracy + [accuracy[-1]] * (min(len(accuracy) + more, budget))
    longer = longer[: min(len(accuracy) + more, budget)]
    assert memorization.memorization_area(longer, budget) == pytest.approx(
        area, abs=1e-9
    )


def test_who_memorizes_sooner_has_the_larger_area():
    slow, fast = [0.5] * 9 + [1.0], [0.5] * 4 + [1.0]
    assert memorization.memorization_area(fast, 100) > memorization.memorization_area(
        slow, 100
    )


@pytest.mark.parametrize(("count", "budget"), [(0, 5), (6, 5), (1, 1)])
def test_an_area_of_no_epoch_or_beyond_the_budget_is_refused(count, budget):
    message = f"accuracy has {count} epochs and the budget is {budget}, expected 1 to"
    with pytest.raises(ValueError, match=message):
        memorization.memorization_area([0.5] * count, budget)
