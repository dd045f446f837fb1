import jax.numpy as jnp
import numpy as np
import pytest

from nfp_jax.measures import law


def test_squared_error_and_excess_of_a_hand_computed_case():
    probabilities = jnp.array([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])
    error = law.squared_error(probabilities, jnp.array([0, 1]))
    assert float(error) == pytest.approx((0.25 + 2 / 16 + 2.0) / 2)
    eps = law.excess(error, jnp.array([2.0, 1.0]))
    np.testing.assert_allclose(eps, [0.8125, -0.1875], rtol=1e-6)


def test_the_law_of_a_hand_computed_case():
    """0.4 sqrt(50,000 · 3072 / 1e6) = 0.4 sqrt(153.6); nothing without excess."""
    eps = jnp.array([0.4, 0.0, -0.1, jnp.nan])
    required = law.lipschitz_required(eps, 50_000, 3072, 1_000_000)
    assert float(required[0]) == pytest.approx(4.95742, rel=1e-5)
    assert np.isnan(required[1:]).all()


def test_the_law_of_many_networks_is_that_of_each():
    parameters = jnp.array([100.0, 400.0])
    required = law.lipschitz_required(jnp.array([0.5, 0.5]), 100, 4, parameters)
    np.testing.assert_allclose(required, [1.0, 0.5], rtol=1e-6)
