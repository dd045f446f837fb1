import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfp_jax import capacity


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
