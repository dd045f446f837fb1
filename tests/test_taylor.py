"""Fisher-Taylor, Hutchinson-Taylor and Fisher without data."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import nfp_jax as nfp
from nfp_jax import cards, masks, pruners
from nfp_jax.losses import first_of
from nfp_jax.models import MLP, initialize
from nfp_jax.pruners.contract import Network
from nfp_jax.pruners.fisher_free import fisher_free
from nfp_jax.pruners.fisher_taylor import fisher_taylor, gradient_moments
from nfp_jax.pruners.hutchinson_taylor import hutchinson_taylor

KEY = jax.random.key(0)
MODEL = MLP(classes=3, widths=(6,), activation=jnp.tanh)  # smooth: a Hessian that is
LOSS = nfp.classification_loss(MODEL.apply)
PARAMS = initialize(MODEL, jax.random.key(1), (4,))  # 42 prunable weights
X = jax.random.normal(jax.random.key(2), (11, 4))
BATCH = X, jax.random.randint(jax.random.key(3), (11,), 0, 3)
NET = Network(MODEL.apply, LOSS, (4,), lambda key: initialize(MODEL, key, (4,)))


def close(found, expected, rtol=1e-4, atol=1e-7):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol, atol), found, expected
    )


def by_loop(params, batch):
    """Means of gradients and of their squares, one example at a time."""
    gradients = [
        jax.grad(LOSS)(params, jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], batch))
        for i in range(len(batch[0]))
    ]

    def mean(*leaves):
        return np.mean(leaves, axis=0)

    squares = [jax.tree.map(np.square, g) for g in gradients]
    return jax.tree.map(mean, *gradients), jax.tree.map(mean, *squares)


@pytest.mark.parametrize("chunk_size", [None, 1, 4, 11])
def test_moments_are_those_of_each_example_alone(chunk_size):
    found = gradient_moments(LOSS, PARAMS, BATCH, chunk_size=chunk_size)
    close(found, by_loop(PARAMS, BATCH))
    padded = first_of(BATCH, 7)
    found = gradient_moments(LOSS, PARAMS, padded, chunk_size=chunk_size)
    close(found, by_loop(PARAMS, jax.tree.map(lambda leaf: leaf[:7], BATCH)))


def test_fisher_taylor_squares_the_gradient_of_each_example_and_not_of_the_batch():
    mask = masks.top_k(nfp.random()(PARAMS, key=KEY), 20)
    weights = masks.apply_mask(PARAMS, mask)
    g, g2 = by_loop(weights, BATCH)
    expected = jax.tree.map(lambda w, g, h: abs(w * g + w * w * h / 2), weights, g, g2)
    close(fisher_taylor(LOSS, chunk_size=3)(PARAMS, BATCH, mask=mask), expected)
    of_batch = jax.tree.map(
        lambda w, g: abs(w * g + w * w * g**2 / 2),
        weights,
        jax.grad(LOSS)(weights, BATCH),
    )
    kernel = expected["params"]["Dense_0"]["kernel"]
    assert not np.allclose(kernel, of_batch["params"]["Dense_0"]["kernel"], rtol=1e-2)


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_hutchinson_taylor_has_the_mean_of_z_times_hessian_z(chunk_size):
    """By the whole Hessian, and the signs by their keys, of the weights left alone."""
    mask = masks.top_k(nfp.random()(PARAMS, key=KEY), 20)
    weights = masks.apply_mask(PARAMS, mask)
    flat, unravel = ravel_pytree(weights)
    hessian = np.asarray(jax.hessian(lambda w: LOSS(unravel(w), BATCH))(flat))
    g = jax.grad(LOSS)(weights, BATCH)
    leaves, treedef = jax.tree.flatten(mask)
    total = np.zeros(len(flat))
    for probe in range(3):
        key = jax.random.fold_in(KEY, probe)
        z = [
            jax.random.rademacher(jax.random.fold_in(key, i), m.shape, jnp.float32) * m
            if m.ndim == 2
            else jnp.zeros(m.shape)
            for i, m in enumerate(leaves)
        ]
        z = np.asarray(ravel_pytree(treedef.unflatten(z))[0])
        total += z * (hessian @ z)
    h = unravel(jnp.asarray(total / 3, jnp.float32))
    expected = jax.tree.map(lambda w, g, h: abs(w * g + w * w * h / 2), weights, g, h)
    score_fn = hutchinson_taylor(LOSS, probes=3, chunk_size=chunk_size)
    close(score_fn(PARAMS, BATCH, KEY, mask=mask), expected, 1e-3, 1e-6)


def test_hutchinson_tends_to_the_diagonal():
    flat, unravel = ravel_pytree(PARAMS)
    hessian = jax.hessian(lambda w: LOSS(unravel(w), BATCH))(flat)
    diagonal = unravel(jnp.diagonal(hessian))
    g = jax.grad(LOSS)(PARAMS, BATCH)
    expected = jax.tree.map(
        lambda w, g, h: abs(w * g + w * w * h / 2), PARAMS, g, diagonal
    )
    found = hutchinson_taylor(LOSS, probes=4000)(PARAMS, BATCH, KEY)
    # Entries off the diagonal are below 1, and 4,000 signs average them to 1/63.
    for name in ("Dense_0", "Dense_1"):
        a, b = (x["params"][name]["kernel"] for x in (found, expected))
        np.testing.assert_allclose(a, b, 0.05, 0.02)


def test_fisher_without_data_has_the_fisher_information_of_the_outputs():
    """E g² over labels of the outputs' law, by sums over classes; and E g is 0."""
    x = jax.random.normal(jax.random.fold_in(KEY, 0), (4000, 4))
    p = jax.nn.softmax(MODEL.apply(PARAMS, x))

    def loss_of(params, x, label):
        return LOSS(params, (x[None], label[None]))

    per = jax.vmap(jax.grad(loss_of), (None, 0, None))
    expected = jax.tree.map(jnp.zeros_like, PARAMS)
    for label in range(3):
        g = per(PARAMS, x, jnp.int32(label))
        expected = jax.tree.map(
            lambda t, g, c=label: t + jnp.tensordot(p[:, c], g**2, 1) / 4000,
            expected,
            g,
        )
    found = fisher_free(MODEL.apply, (4,), examples=4000, chunk_size=500)(
        PARAMS, key=KEY
    )
    for name in ("Dense_0", "Dense_1"):
        w = PARAMS["params"][name]["kernel"]
        information = found["params"][name]["kernel"] / (w * w / 2)
        wanted = expected["params"][name]["kernel"]
        # 4,000 labels: 5 standard errors of squares are a fifth at most.
        np.testing.assert_allclose(information, wanted, 0.2, 1e-4)


@pytest.mark.parametrize("name", ["fisher_taylor", "hutchinson_taylor", "fisher_free"])
def test_many_masks_are_those_of_one_at_a_time(name):
    by = pruners.card(name).build(NET, rounds=2)
    keys = jax.random.split(jax.random.key(9), 2)
    params = jax.vmap(NET.init_fn)(keys)
    keep = by.counts(42, 0.5)
    many = nfp.prune_many(
        by.score_fn, params, BATCH, keys, in_axes=(0, None, 0), keep=keep, **by.options
    )
    for i, key in enumerate(keys):
        one = by(jax.tree.map(lambda leaf, i=i: leaf[i], params), BATCH, key, keep=21)
        found = jax.tree.map(lambda leaf, i=i: leaf[i], many)
        chex.assert_trees_all_equal(found, one)
        assert int(masks.ravel_mask(one).sum()) == 21


def test_what_they_cost_and_refuse():
    costs = {"fisher_taylor": 1, "hutchinson_taylor": 21, "fisher_free": 1}
    for name, cost in costs.items():
        card = pruners.card(name)
        settings = cards.settings_of(card.build)
        assert card.cost(settings) == cost
        assert card.cost({**settings, "rounds": 3}) == 3 * cost
    with pytest.raises(ValueError, match="probes is 0, expected at least 1"):
        hutchinson_taylor(LOSS, probes=0)
    with pytest.raises(ValueError, match="examples is 0, expected at least 1"):
        fisher_free(MODEL.apply, (4,), examples=0)
    for build in (hutchinson_taylor(LOSS), fisher_free(MODEL.apply, (4,))):
        with pytest.raises(ValueError, match="needs a key, got None"):
            build(PARAMS, BATCH)
    for make in (fisher_taylor, hutchinson_taylor):
        with pytest.raises(ValueError, match="chunk_size is 0"):
            make(LOSS, chunk_size=0)
