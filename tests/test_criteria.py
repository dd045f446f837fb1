"""FORCE, ProsPr, NTK-SAP: their limits, invariants and cases worked out by hand."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nfp_jax as nfp
from nfp_jax import masks, pruners
from nfp_jax.models import MLP, initialize
from nfp_jax.pruners.contract import Network
from nfp_jax.pruners.force import force
from nfp_jax.pruners.ntk_sap import ntk_sap, output_change
from nfp_jax.pruners.prospr import prospr, prospr_first_order

KEY = jax.random.key(0)
MODEL = MLP(classes=2, widths=(8, 6))
LOSS = nfp.classification_loss(MODEL.apply)
PARAMS = initialize(MODEL, jax.random.key(1), (5,))  # 100 prunable weights
X = jax.random.normal(jax.random.key(2), (16, 5))
BATCH = X, jax.random.randint(jax.random.key(3), (16,), 0, 2)


def init_fn(key):
    return initialize(MODEL, key, (5,))


NET = Network(MODEL.apply, LOSS, (5,), init_fn)


def flat(mask):
    return np.asarray(masks.ravel_mask(mask))


def close(found, expected, rtol=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol, 1e-7), found, expected
    )


# FORCE


def test_force_of_one_round_is_snip():
    found = nfp.prune(force(LOSS), PARAMS, BATCH, keep=[30], nested=False)
    expected = nfp.prune(nfp.snip(LOSS), PARAMS, BATCH, keep=[30])
    chex.assert_trees_all_equal(found, expected)


def test_force_scores_removed_weights_by_the_gradient_of_the_masked_network():
    """The rounds by hand, over all weights; some return, and never in nested rounds."""
    keep, mask, returned = [40, 20, 10], masks.dense_mask(PARAMS), 0
    for t, count in enumerate(keep):
        gradient = jax.grad(LOSS)(masks.apply_mask(PARAMS, mask), BATCH)
        scores = jax.tree.map(lambda g, w: jnp.abs(g * w), gradient, PARAMS)
        before, mask = mask, masks.top_k(scores, count)
        returned += int((flat(mask) & ~flat(before)).sum())
        found = nfp.prune(force(LOSS), PARAMS, BATCH, keep=keep[: t + 1], nested=False)
        chex.assert_trees_all_equal(found, mask)
    assert returned > 0
    nested = [
        flat(nfp.prune(nfp.snip(LOSS), PARAMS, BATCH, keep=keep[: t + 1]))
        for t in range(3)
    ]
    assert all((b <= a).all() for a, b in itertools.pairwise(nested))


def test_the_card_of_force_keeps_the_counts_of_its_authors():
    by = pruners.card("force").build(NET, rounds=4)
    densities = [0.13 ** (t / 4) for t in range(1, 5)]
    expected = [int(101 * density) for density in densities[:-1]] + [int(101 * 0.13)]
    assert by.counts(101, 0.87).tolist() == expected
    # 0.3 of 10 is 2.9999... in binary, and 3 as it is written.
    assert by.counts(10, 0.7)[-1] == 3
    linear = pruners.card("force").build(NET, rounds=4, schedule="linear")
    assert linear.counts(100, 0.6).tolist() == [85, 70, 55, 40]
    for keep in (by.counts(100, 0.87), 13):
        assert flat(by(PARAMS, BATCH, keep=keep)).sum() == 13
    with pytest.raises(ValueError, match="rounds is 0, expected at least 1"):
        masks.floor_counts(10, 0.5, rounds=0, schedule=nfp.linear)


def test_iterative_snip_is_snip_in_rounds():
    found = pruners.card("iterative_snip").build(NET, rounds=5)(PARAMS, BATCH, keep=20)
    expected = nfp.prune(nfp.snip(LOSS), PARAMS, BATCH, sparsity=0.8, rounds=5)
    chex.assert_trees_all_equal(found, expected)


# ProsPr


@pytest.mark.parametrize("build", [prospr, prospr_first_order])
@pytest.mark.parametrize("options", [{"steps": 0}, {"learning_rate": 0.0}])
def test_prospr_without_a_step_is_snip(build, options):
    found = build(LOSS, **options)(PARAMS, BATCH)
    close(found, nfp.snip(LOSS)(PARAMS, BATCH))


def test_prospr_of_a_parabola():
    """L = ½a(w m - c)²: full a(1-αa)²(w-c)w, first order a(1-αa)(w-c)w."""
    a, c, alpha = 0.5, 0.25, 0.4
    w = jnp.array([[2.0, -1.5]])

    def loss(w, batch):
        return 0.5 * a * jnp.sum((w - c) ** 2)

    first = np.abs(a * (1 - alpha * a) * (w - c) * w)
    one = {"steps": 1, "learning_rate": alpha}
    close(prospr_first_order(loss, **one)(w), first)
    close(prospr(loss, **one)(w), (1 - alpha * a) * first)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_prospr_is_the_derivative_in_the_mask_through_every_step(momentum):
    """By central differences in float64: each step on the next examples, around."""
    with jax.enable_x64(True):
        params, x = jax.tree.map(
            lambda leaf: jnp.asarray(leaf, jnp.float64), (PARAMS, X)
        )
        mask = masks.top_k(nfp.random()(PARAMS, key=KEY), 60)
        parts = [(0, 6), (6, 12), (12, 18), (18, 24)]
        rows = [np.arange(*part) % 16 for part in parts]

        def loss_after(params, steps=3):
            velocity = jax.tree.map(jnp.zeros_like, params)
            theta = params
            for i in range(steps):
                g = jax.grad(LOSS)(theta, (x[rows[i]], BATCH[1][rows[i]]))
                g = masks.apply_mask(g, mask)
                velocity = jax.tree.map(lambda v, g: momentum * v + g, velocity, g)
                theta = jax.tree.map(lambda w, v: w - 0.5 * v, theta, velocity)
            return theta, LOSS(theta, (x[rows[3]], BATCH[1][rows[3]]))

        masked = masks.apply_mask(params, mask)
        options = {"learning_rate": 0.5, "momentum": momentum, "batch_size": 6}
        batch = (x, BATCH[1])
        found = jax.jit(prospr(LOSS, **options))(masked, batch, mask=mask)

        def moved(m):
            kernel = masked["params"]["Dense_0"]["kernel"] * m
            layers = {**masked["params"], "Dense_0": {"kernel": kernel}}
            layers["Dense_0"]["bias"] = masked["params"]["Dense_0"]["bias"]
            return loss_after({"params": layers})[1]

        moved, ones = jax.jit(moved), np.ones((5, 8))
        for place in [(0, 0), (2, 3), (4, 7), (1, 5)]:
            step = np.zeros((5, 8))
            step[place] = 1e-5
            slope = (moved(ones + step) - moved(ones - step)) / 2e-5
            got = found["params"]["Dense_0"]["kernel"][place]
            # 1e-9: central differences of a loss near 1, in double precision.
            np.testing.assert_allclose(got, abs(slope), 1e-4, 1e-9)
        theta, _ = loss_after(masked)
        last = jax.grad(LOSS)(theta, (x[rows[3]], BATCH[1][rows[3]]))
        expected = jax.tree.map(lambda g, w: jnp.abs(g * w), last, masked)
        first = prospr_first_order(LOSS, **options)(masked, batch, mask=mask)
        close(first, expected, 1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps is -1, expected at least 0"),
        ({"learning_rate": -0.1}, "learning_rate is -0.1, expected at least 0"),
        ({"momentum": 1.0}, "momentum is 1.0, expected 0 <= momentum < 1"),
        ({"batch_size": 0}, "batch_size is 0, expected 1 or more"),
    ],
)
def test_prospr_refuses(options, message):
    for build in (prospr, prospr_first_order):
        with pytest.raises(ValueError, match=message):
            build(LOSS, **options)


# NTK-SAP


def test_the_change_of_outputs_is_the_trace_of_the_tangent_kernel():
    """E_Z J/ε² tends to ‖m ⊙ ∂f/∂W‖², by 4,000 draws of Z."""
    mask = masks.top_k(nfp.random()(PARAMS, key=KEY), 60)
    floats = jax.tree.map(lambda m: m.astype(float), mask)
    jacobian = jax.jacobian(MODEL.apply)(masks.apply_mask(PARAMS, mask), X)
    expected = sum(
        float(np.sum((np.asarray(leaf) * np.asarray(m)) ** 2))
        for leaf, m in zip(
            jax.tree.leaves(jacobian), jax.tree.leaves(floats), strict=True
        )
        if m.ndim == 2
    )

    def once(key):
        leaves, treedef = jax.tree.flatten(PARAMS)
        noise = [
            1e-3 * jax.random.normal(jax.random.fold_in(key, i), leaf.shape)
            if leaf.ndim == 2
            else jnp.zeros_like(leaf)
            for i, leaf in enumerate(leaves)
        ]
        noise = jax.tree.unflatten(treedef, noise)
        return output_change(MODEL.apply, PARAMS, noise, floats, X) / 1e-6

    found = jax.jit(jax.vmap(once))(jax.random.split(KEY, 4000))
    # 5 standard errors, and 1 %: float32 of differences of 1e-3.
    error = 5 * float(found.std()) / 4000**0.5 + 0.01 * expected
    assert abs(float(found.mean()) - expected) < error


def test_every_layer_has_twice_the_change_of_outputs():
    """With zero biases and ReLU f is of degree 1 in each layer's mask, J of degree 2.

    Of the gradients of NTK-SAP's score: it is their absolute value.
    """
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    noise = jax.tree.map(
        lambda w: 0.1 * jax.random.normal(KEY, w.shape) * (w.ndim == 2), PARAMS
    )
    args = MODEL.apply, PARAMS, noise
    change, gradient = jax.value_and_grad(output_change, 3)(*args, ones, X)
    for layer in gradient["params"].values():
        assert float(layer["kernel"].sum()) == pytest.approx(2 * float(change), 1e-4)


def test_ntk_sap_sums_over_draws_and_then_takes_absolute_values():
    """By hand of its keys: weights, noise and inputs of every draw; biases stay."""
    params = jax.tree.map(lambda w: w if w.ndim == 2 else w + 0.3, PARAMS)
    mask = masks.top_k(nfp.random()(PARAMS, key=KEY), 60)
    total = jax.tree.map(jnp.zeros_like, params)
    for draw in range(3):
        keys = [jax.random.fold_in(jax.random.fold_in(KEY, draw), i) for i in range(3)]
        fresh, x = init_fn(keys[0]), jax.random.normal(keys[2], (4, 5))
        weights = jax.tree.map(lambda f, w: f if w.ndim == 2 else w, fresh, params)
        leaves, treedef = jax.tree.flatten(weights)
        noise = treedef.unflatten(
            0.1 * jax.random.normal(jax.random.fold_in(keys[1], i), leaf.shape)
            if leaf.ndim == 2
            else 0 * leaf
            for i, leaf in enumerate(leaves)
        )
        floats = jax.tree.map(lambda m: m.astype(float), mask)
        gradient = jax.grad(
            lambda m, w=weights, z=noise, x=x: jnp.sum(
                (
                    MODEL.apply(jax.tree.map(jnp.multiply, m, w), x)
                    - MODEL.apply(jax.tree.map(lambda m, w, z: m * (w + z), m, w, z), x)
                )
                ** 2
            )
        )(floats)
        total = jax.tree.map(jnp.add, total, gradient)
    score_fn = ntk_sap(MODEL.apply, (5,), init_fn, epsilon=0.1, draws=3, examples=4)
    # The kernels of params are not looked at: they are redrawn.
    other = jax.tree.map(lambda w: 7 * w if w.ndim == 2 else w, params)
    found = score_fn(other, key=KEY, mask=mask)
    expected = jax.tree.map(
        lambda s, m: jnp.abs(s * m) if s.ndim == 2 else 0 * s, total, mask
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-6), found, expected
    )


def test_the_card_of_ntk_sap_has_a_key_a_round_and_nested_masks():
    by = pruners.card("ntk_sap").build(NET, rounds=3, examples=8)
    mask, before = masks.dense_mask(PARAMS), np.ones(100, bool)
    for t, count in enumerate(by.counts(100, 0.8)):
        key = jax.random.fold_in(KEY, t)
        scores = by.score_fn(PARAMS, None, key, mask=mask)
        mask = masks.top_k(scores, int(count), mask=mask)
        assert (flat(mask) <= before).all() and flat(mask).sum() == count
        before = flat(mask)
    chex.assert_trees_all_equal(by(PARAMS, key=KEY, keep=20), mask)


def test_ntk_sap_refuses():
    for options, message in (
        ({"epsilon": 0.0}, "epsilon is 0.0, expected a positive number"),
        ({"draws": 0}, "draws is 0, expected at least 1"),
        ({"examples": 0}, "examples is 0, expected at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            ntk_sap(MODEL.apply, (5,), init_fn, **options)
    with pytest.raises(ValueError, match="ntk_sap needs a key, got None"):
        ntk_sap(MODEL.apply, (5,), init_fn)(PARAMS)


# Many networks at once

CRITERIA = {
    "force": {"rounds": 3},
    "iterative_snip": {"rounds": 3},
    "prospr": {"rounds": 2, "momentum": 0.5},
    "ntk_sap": {"rounds": 3, "examples": 8},
}


@pytest.mark.parametrize("name", CRITERIA)
def test_many_masks_are_those_of_one_at_a_time(name):
    by = pruners.card(name).build(NET, **CRITERIA[name])
    keys = jax.random.split(jax.random.key(9), 3)
    params = jax.vmap(init_fn)(keys)
    keep = by.counts(100, 0.7)
    many = nfp.prune_many(
        by.score_fn,
        params,
        BATCH,
        keys,
        in_axes=(0, None, 0),
        keep=keep,
        **by.options,
    )
    for i, key in enumerate(keys):
        one = by(jax.tree.map(lambda leaf, i=i: leaf[i], params), BATCH, key, keep=30)
        found = jax.tree.map(lambda leaf, i=i: leaf[i], many)
        assert flat(found).sum() == 30
        assert (flat(found) == flat(one)).all()
