"""Weights rescaled for a mask: variances after it, and which axes are inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfp_jax.masks import sparse_aware


def test_the_variance_is_that_of_the_inputs_left():
    """Weights of variance 2 / fan_in get 2 / kept, unit by unit."""
    fan_in, units = 400, 300
    w = jax.random.normal(jax.random.key(0), (fan_in, units)) * (2 / fan_in) ** 0.5
    kept = np.tile([4, 40, 400], units // 3)
    mask = jnp.asarray(np.arange(fan_in)[:, None] < kept[None])
    found = np.asarray(sparse_aware(w, mask))
    assert (found[~np.asarray(mask)] == 0).all()
    for count in (4, 40, 400):
        moment = np.mean((found**2).sum(axis=0)[kept == count])
        # 100 units of so many weights: three deviations of the mean square.
        assert moment == pytest.approx(2, rel=3 * (2 / (100 * count)) ** 0.5)
    np.testing.assert_allclose(found[:, 2::3], w[:, 2::3], rtol=1e-6)  # none removed


def test_the_inputs_of_convolutions_and_of_attention_are_those_of_a_unit():
    params = {
        "conv": {"kernel": jnp.ones((3, 3, 2, 4)), "bias": jnp.ones(4)},
        "query": {"kernel": jnp.ones((6, 2, 3)), "bias": jnp.ones((2, 3))},
        "out": {"kernel": jnp.ones((2, 3, 6)), "bias": jnp.ones(6)},
    }
    mask = jax.tree.map(lambda p: jnp.ones(p.shape, bool), params)
    mask["conv"]["kernel"] = mask["conv"]["kernel"].at[0, ..., 1].set(False)  # 12 of 18
    mask["query"]["kernel"] = mask["query"]["kernel"].at[2:, 1, 2].set(False)  # 2 of 6
    mask["out"]["kernel"] = mask["out"]["kernel"].at[..., 0].set(False)  # none of 6
    found = sparse_aware(params, mask)
    conv, query = found["conv"]["kernel"], found["query"]["kernel"]
    np.testing.assert_allclose(conv[1, 1, 0], [1, 1.5**0.5, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(query[0], [[1, 1, 1], [1, 1, 3**0.5]], rtol=1e-6)
    assert (found["out"]["kernel"][..., 0] == 0).all()
    for layer in params:
        assert (found[layer]["bias"] == 1).all()


def test_masks_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="'w' has shape"):
        sparse_aware({"w": jnp.ones((2, 3))}, {"w": jnp.ones((3, 3), bool)})
