"""Scores: known values, independent formulas, and what every score must do."""

import functools
import itertools
import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from nfp_jax import masks, pruning, scores
from nfp_jax.models import ConvNet

KEY = jax.random.key(0)


def mlp(params, x):
    """A tanh network: smooth, so that its Hessian is no zero in disguise."""
    for layer in params[:-1]:
        x = jnp.tanh(x @ layer["w"] + layer["b"][None])
    return x @ params[-1]["w"] + params[-1]["b"][None]


def init(*widths, seed=0, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(seed), 2 * len(widths))
    return [
        {
            "w": jax.random.normal(keys[2 * i], (m, n), dtype) / m**0.5,
            "b": jax.random.normal(keys[2 * i + 1], (n,), dtype) / 3,
        }
        for i, (m, n) in enumerate(itertools.pairwise(widths))
    ]


def data(n=7, dim=3, classes=2, dtype=jnp.float32):
    x = jax.random.normal(jax.random.key(5), (n, dim), dtype)
    return x, jax.random.randint(jax.random.key(6), (n,), 0, classes)


def close(a, b, rtol):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol, 1e-7), a, b)


LOSS = scores.classification_loss(mlp, temperature=2.0)


# SNIP


@pytest.mark.parametrize("pruned", [False, True])
def test_snip_is_the_gradient_in_the_mask(pruned):
    params, batch = init(3, 4, 2), data()
    mask = masks.dense_mask(params)
    if pruned:
        mask = masks.top_k(scores.random()(params, key=KEY), 11)
    floating = jax.tree.map(lambda m: m.astype(float), mask)
    f = masks.masked_apply(lambda params, batch: LOSS(params, batch))
    gradient = jax.jit(jax.grad(f, argnums=1))(params, floating, batch)
    expected = jax.tree.map(jnp.abs, gradient)
    got = jax.jit(scores.snip(LOSS))(params, batch, mask=mask)
    # Where a weight is removed w is 0 in the masked network, and so is its score.
    expected = jax.tree.map(lambda e, m: jnp.where(m, e, 0.0), expected, mask)
    close(got, expected, 1e-5)  # float32 rounding of two orders of multiplication


# GraSP


@pytest.mark.parametrize("pruned", [False, True])
def test_grasp_is_the_hessian_times_the_gradient_of_what_is_left(pruned):
    with jax.enable_x64(True):
        params, batch = init(3, 4, 2, dtype=jnp.float64), data(dtype=jnp.float64)
        mask = masks.dense_mask(params)
        if pruned:
            mask = masks.top_k(scores.random()(params, key=KEY), 11)
        weights = masks.apply_mask(params, mask)
        flat, unravel = ravel_pytree(weights)
        ranked = jax.tree.map(lambda m, p: m & p, mask, masks.prunable_kernels(mask))

        def loss(flat):
            return LOSS(unravel(flat), batch)

        g = jnp.where(ravel_pytree(ranked)[0], jax.jit(jax.grad(loss))(flat), 0.0)
        expected = unravel(flat * (jax.jit(jax.hessian(loss))(flat) @ g))
        # 1e-9: double precision, sums in another order.
        got = jax.jit(scores.grasp(LOSS))(params, batch, mask=mask)
        close(got, expected, 1e-9)


def test_grasp_takes_the_gradient_over_what_prunable_says():
    params, batch = init(3, 2), data()
    everything = jax.tree.map(lambda _: True, params)
    kernels = scores.grasp(LOSS)(params, batch)[0]["w"]
    with_biases = scores.grasp(LOSS)(params, batch, prunable=everything)[0]["w"]
    assert not np.allclose(kernels, with_biases, rtol=1e-3)


def test_grasp_warns_at_temperature_one_and_not_at_two_hundred():
    with pytest.warns(UserWarning, match="temperature=200"):
        scores.grasp(scores.classification_loss(mlp))
    scores.grasp(scores.classification_loss(mlp, temperature=200))


# SynFlow


def linear_chain(params, x):
    for w in params:
        x = x @ w
    return x


def relu_net(params, x):
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"][None])
    return x @ params[-1]["w"] + params[-1]["b"][None]


def test_synflow_sums_the_paths_through_each_weight():
    widths = (2, 3, 2, 2)
    kernels = [np.asarray(layer["w"], float) for layer in init(*widths)]
    expected = [np.zeros_like(w) for w in kernels]
    for path in itertools.product(*map(range, widths)):
        edges = list(itertools.pairwise(path))
        product = math.prod(abs(w[e]) for w, e in zip(kernels, edges, strict=True))
        for total, edge in zip(expected, edges, strict=True):
            total[edge] += product
    params = [jnp.asarray(w, jnp.float32) for w in kernels]
    got = scores.synflow(linear_chain, (2,))(params)
    close(got, expected, 1e-6)
    # Conserved: every layer carries R, the sum over all paths.
    flows = [float(s.sum()) for s in got]
    assert flows == pytest.approx([flows[0]] * 3, rel=1e-6)


def test_synflow_takes_biases_by_absolute_value():
    params = [
        {"w": jnp.array([[-2.0]]), "b": jnp.array([-3.0])},
        {"w": jnp.array([[0.5]]), "b": jnp.array([7.0])},
    ]
    first, last = scores.synflow(relu_net, (1,))(params)
    # R = |w2| (|w1| + |b1|) + |b2|
    assert (first["w"].item(), first["b"].item()) == (1.0, 1.5)
    assert (last["w"].item(), last["b"].item()) == (2.5, 7.0)


def deep_net(params, x):
    def layer(x, w):
        return jax.nn.relu(x @ w), None

    return jax.lax.scan(layer, x @ params["first"], params["hidden"])[0]


def deep_params():
    """Sixty layers of 200, He normal; scanned over, to compile in a second."""
    first, hidden = jax.random.split(KEY)
    return {
        "first": jax.random.normal(first, (50, 200)) * (2 / 50) ** 0.5,
        "hidden": jax.random.normal(hidden, (60, 200, 200)) * (2 / 200) ** 0.5,
    }


def test_a_deep_network_needs_double_precision_and_then_ranks_exactly():
    params = deep_params()
    # Division of each layer by 16 is exact, and so is any common power of two.
    smaller = jax.tree.map(lambda w: w / 16.0, params)
    score = jax.jit(scores.synflow(deep_net, (50,), dtype=jnp.float64))
    with jax.enable_x64(True):
        wide, scaled = score(params), score(smaller)
    ratio = float(wide["first"][0, 0] / scaled["first"][0, 0])
    assert math.isfinite(ratio) and math.frexp(ratio)[0] == 0.5
    narrow = jax.jit(scores.synflow(deep_net, (50,)))(smaller)
    for name in params:
        assert (wide[name] == scaled[name] * ratio).all()
        # float32: 61 products of rounded sums of 200, 61 x 200 x 6e-8 at the worst.
        a, b = wide[name] / wide[name].max(), narrow[name] / narrow[name].max()
        np.testing.assert_allclose(a, b, rtol=7e-4)


def test_overflow_in_single_precision_is_an_error_that_names_a_layer():
    score = scores.synflow(deep_net, (50,))
    with pytest.raises(ValueError, match=r"'(first|hidden)' are NaN .*dtype=jnp.float"):
        pruning.prune(score, deep_params(), sparsity=0.5, rounds=2)
    wide = scores.synflow(deep_net, (50,), dtype=jnp.float64)
    mask = pruning.prune(wide, deep_params(), sparsity=0.5, rounds=2)
    assert float(masks.sparsity_of(mask)) == 0.5


def test_double_precision_under_a_transform_needs_the_64_bit_mode():
    score = scores.synflow(linear_chain, (1,), dtype=jnp.float64)
    params = [jnp.ones((1, 2)), jnp.ones((2, 1))]
    for transformed in (jax.jit(score), jax.jit(scores.invert(score))):
        with pytest.raises(ValueError, match=r"within jax.enable_x64\(True\)"):
            transformed(params)


def test_prune_turns_the_64_bit_mode_on_for_a_score_that_needs_it():
    model = ConvNet(classes=2, channels=(2,), widths=())
    params = model.init(KEY, jnp.zeros((1, 4, 4, 1)))
    wide = scores.synflow(model.apply, (4, 4, 1), dtype=jnp.float64)
    expected = pruning.prune(
        scores.synflow(model.apply, (4, 4, 1)), params, sparsity=0.5, rounds=3
    )
    got = pruning.prune(wide, params, sparsity=0.5, rounds=3)
    chex.assert_trees_all_equal(got, expected)
    assert not masks.has_x64()
    least = pruning.prune(scores.invert(wide), params, sparsity=0.5, rounds=3)
    assert float(masks.overlap(least, got)) < 0.5


@pytest.mark.parametrize("size", [1.0, 1e30, 1e-30])
def test_double_precision_scores_differ_by_a_power_of_two(size):
    params = [jnp.array([[size, 3 * size]]), jnp.array([[1e9], [1e-9]])]
    got = scores.synflow(linear_chain, (1,), dtype=jnp.float64)(params)
    assert got[0].dtype == jnp.float32 and not masks.has_x64()
    w = [np.asarray(p, np.float64) for p in params]
    expected = w[0] * w[1].T
    ratio = np.asarray(got[0], np.float64) / expected
    # 1e-7: one rounding to float32.
    np.testing.assert_allclose(ratio, ratio.max(), rtol=1e-7)
    mantissa = math.frexp(ratio.max())[0]
    assert mantissa == pytest.approx(0.5, rel=1e-7) or mantissa > 1 - 1e-7
    assert 2.0**-21 <= got[0].max() <= 2.0**100


def test_flow_that_would_vanish_in_single_precision_is_ranked_in_double():
    # Each path is below 2^-149: float32 scores are all 0, and tie.
    params = [jnp.array([[1e-30, 2e-30]]), jnp.array([[1e-20], [1e-20]])]
    assert scores.synflow(linear_chain, (1,))(params)[0].max() == 0
    wide = scores.synflow(linear_chain, (1,), dtype=jnp.float64)(params)[0]
    assert wide[0, 1] == 2 * wide[0, 0] > 0


# The others


def test_random_scores_ignore_data_and_mask_and_need_a_key():
    params, score = init(3, 4, 2), scores.random()
    one = score(params, data(), KEY, mask=masks.dense_mask(params))
    chex.assert_trees_all_equal(one, score(init(3, 4, 2, seed=1), None, KEY))
    other = score(params, None, jax.random.key(1))
    assert not np.array_equal(one[0]["w"], other[0]["w"])
    with jax.enable_x64(True):  # the same draw in either mode
        chex.assert_trees_all_equal(one, score(params, None, KEY))
    with pytest.raises(ValueError, match="random scores need a key, got None"):
        score(params)


def test_random_masks_of_one_key_are_nested():
    params = init(3, 4, 2)
    sparse, dense = (
        masks.ravel_mask(pruning.prune(scores.random(), params, key=KEY, sparsity=s))
        for s in (0.8, 0.4)
    )
    assert not np.any(sparse & ~dense)


def test_inversion_reverses_the_order_of_signed_scores_and_of_zeros():
    signed = jnp.array([[-2.0, 0.0, 3.0, -0.5]])
    score = scores.invert(lambda params, *_, **__: params)
    orders = [masks.top_k(score(signed), k)[0].tolist() for k in (1, 2, 3)]
    first, second, third = ([1, 0, 0, 0], [1, 0, 0, 1], [1, 1, 0, 1])
    assert orders == [first, second, third]


def test_the_loss_is_the_mean_cross_entropy_of_softened_logits():
    batch = jnp.array([[0.0, 4.0], [8.0, 0.0]]), jnp.array([1, 1])
    loss = scores.classification_loss(lambda _, x: x, temperature=4.0)
    expected = (math.log1p(math.exp(-1)) + math.log1p(math.exp(2))) / 2
    assert float(loss(None, batch)) == pytest.approx(expected, rel=1e-6)
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="expected a positive number"):
            scores.classification_loss(mlp, temperature=temperature)


# Chunks


@functools.cache
def of_the_whole_batch(build):
    """A score, compiled once a size of batch."""
    return jax.jit(build(LOSS))


@pytest.mark.parametrize("chunk_size", [1, 3, 4, 6, 7, 100])
@pytest.mark.parametrize("build", [scores.snip, scores.grasp])
def test_chunks_give_what_the_whole_batch_gives(build, chunk_size):
    params, batch = init(3, 4, 2), data(n=12 if chunk_size != 7 else 14)
    whole = of_the_whole_batch(build)(params, batch)
    chunked = jax.jit(build(LOSS, chunk_size=chunk_size))(params, batch)
    close(chunked, whole, 2e-5)  # float32 sums in another order


def test_chunks_refuse_what_they_cannot_cut():
    params, (x, y) = init(3, 4, 2), data()
    score = scores.snip(LOSS, chunk_size=2)
    with pytest.raises(
        ValueError, match=r"batch at '1' has shape \(6,\), .* as at '0'"
    ):
        score(params, (x, y[:-1]))
    with pytest.raises(ValueError, match="batch at '0' is a scalar"):
        score(params, (jnp.ones(()),))
    with pytest.raises(ValueError, match="batch has no leaves"):
        score(params, None)
    for build in (scores.snip, scores.grasp):
        with pytest.raises(ValueError, match="chunk_size is 0, expected at least 1"):
            build(LOSS, chunk_size=0)


# What every score must do


def dense(params, x):
    """A layer and its bias, wherever in a pytree they are."""
    leaves = jax.tree.leaves(params)
    kernel = next(leaf for leaf in leaves if leaf.ndim == 2)
    return x @ kernel + sum(leaf[None] for leaf in leaves if leaf.ndim == 1)


DENSE_LOSS = scores.classification_loss(dense, temperature=2.0)
EVERY = {
    "random": scores.random(),
    "magnitude": scores.magnitude(),
    "snip": scores.snip(DENSE_LOSS),
    "snip_chunked": scores.snip(DENSE_LOSS, chunk_size=3),
    "grasp": scores.grasp(DENSE_LOSS),
    "grasp_chunked": scores.grasp(DENSE_LOSS, chunk_size=3),
    "synflow": scores.synflow(dense, (3,)),
    "synflow_wide": scores.synflow(dense, (3,), dtype=jnp.float64),
    "invert": scores.invert(scores.snip(DENSE_LOSS)),
}


def mode(name):
    """The 64-bit mode for the one that needs it under a transform."""
    return jax.enable_x64(name == "synflow_wide")


@chex.dataclass
class Layer:
    kernel: jax.Array
    bias: jax.Array


class Pair(NamedTuple):
    kernel: jax.Array
    bias: jax.Array


KERNEL = jax.random.normal(jax.random.key(2), (3, 2))
BIAS = jnp.array([0.5, -0.25])
TREES = {
    "array": KERNEL,
    "list": [KERNEL, BIAS],
    "nested": {"params": {"Dense_0": ({"kernel": KERNEL}, None, BIAS)}},
    "dataclass": Layer(kernel=KERNEL, bias=BIAS),
    "named": [Pair(KERNEL, BIAS)],
}


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("name", EVERY)
def test_scores_are_like_the_params_and_the_same_under_jit(name, tree):
    params = TREES[tree]
    eager = EVERY[name](params, data(), KEY)
    with mode(name):
        jitted = jax.jit(EVERY[name])(params, data(), KEY)
    chex.assert_trees_all_equal_shapes_and_dtypes(eager, params)
    assert jax.tree.structure(eager) == jax.tree.structure(params)
    close(jitted, eager, 1e-5)  # fused and unfused float32
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(eager))


@pytest.mark.parametrize("name", EVERY)
def test_vmap_over_networks_equals_a_loop(name):
    many = [init(3, 2, seed=seed)[0] for seed in range(3)]
    keys = jax.random.split(KEY, 3)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *many)
    mask = {"w": jnp.ones((3, 2), bool).at[0, 0].set(False), "b": jnp.ones(2, bool)}
    score = jax.jit(lambda params, key: EVERY[name](params, data(), key, mask=mask))
    with mode(name):
        batched = jax.jit(jax.vmap(score))(stacked, keys)
        for i, params in enumerate(many):
            one = jax.tree.map(lambda leaf, i=i: leaf[i], batched)
            close(one, score(params, keys[i]), 2e-5)  # batched products, float32


@pytest.mark.parametrize("name", EVERY)
def test_scores_can_be_differentiated(name):
    def total(params):
        return sum(
            jnp.sum(s) for s in jax.tree.leaves(EVERY[name](params, data(), KEY))
        )

    with mode(name):
        gradient = jax.jit(jax.grad(total))(init(3, 2)[0])
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", EVERY)
def test_a_masked_score_is_that_of_the_masked_network(name):
    params = init(3, 2)[0]
    mask = {"w": jnp.array([[True, False]] * 3), "b": jnp.ones(2, bool)}
    masked = masks.apply_mask(params, mask)
    got = EVERY[name](params, data(), KEY, mask=mask)
    chex.assert_trees_all_equal(got, EVERY[name](masked, data(), KEY, mask=mask))
    if name not in ("random", "grasp", "grasp_chunked"):
        chex.assert_trees_all_equal(got, EVERY[name](masked, data(), KEY))
    bad = mask | {"w": jnp.ones((2, 3), bool)}
    if name != "random":
        with pytest.raises(ValueError, match="mask at 'w' has shape"):
            EVERY[name](params, data(), KEY, mask=bad)
