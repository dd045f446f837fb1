"""Compaction: which neurons are dead, the smaller network, and the way back."""

import functools
import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfp_jax import masks, models, scores, training
from nfp_jax.compaction import is_dead_at_zero, keeps_dead_weights, make_shrink

MLP = models.MLP(3, widths=(20, 24))
MLP_SHAPE = (6,)
CONV = models.ConvNet(3, channels=(6, 8), widths=(10,))
CONV_SHAPE = (8, 8, 2)
NETWORKS = pytest.mark.parametrize(
    ("model", "shape"), [(MLP, MLP_SHAPE), (CONV, CONV_SHAPE)], ids=["mlp", "convnet"]
)


def chain_of(*widths):
    """A chain of dense layers a, b, … of ones, with zero biases."""
    return {
        name: {"kernel": np.ones(pair, np.float32), "bias": np.zeros(pair[1])}
        for name, pair in zip("abcdef", itertools.pairwise(widths), strict=False)
    }


def kept_weights(params, **edges):
    """The mask that keeps of each kernel the edges given, and every bias."""
    mask = jax.tree.map(lambda p: np.ones(np.shape(p), bool), params)
    for name, pairs in edges.items():
        kernel = np.zeros(params[name]["kernel"].shape, bool)
        kernel[tuple(np.transpose(pairs))] = True
        mask[name]["kernel"] = kernel
    return mask


def shrinker(model, *, dead_inputs=True, least_saving=1.0):
    return make_shrink(
        models.layer_chain(model), dead_inputs=dead_inputs, least_saving=least_saving
    )


@functools.cache
def params_and_scores(model, shape):
    """Of a seed: initial params and random scores, compiled once."""

    def drawn(seed):
        params = models.initialize(model, jax.random.key(seed), shape)
        return params, scores.random()(params, None, jax.random.key(seed + 1))

    return jax.jit(drawn)


top_k = jax.jit(masks.top_k)


def random_start(model, shape, *, sparsity, seed, bias=0.0):
    """Initial params, with a random part of the biases at ``bias``; a random mask."""
    params, score = params_and_scores(model, shape)(seed)
    keep = masks.keep_count(masks.prunable_size(params), sparsity)
    mask = top_k(score, keep)
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda p: p if p.ndim > 1 else bias * rng.integers(0, 2, p.shape), params
    )
    return jax.tree.map(np.float32, params), jax.device_get(mask)


def is_removed(small):
    """Which weights of the full network the small one has not."""
    marked = small.expand(jax.tree.map(lambda p: np.full_like(p, np.nan), small.params))
    return jax.tree.map(lambda p: ~np.isnan(p), marked)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# Which neurons are dead


def test_the_live_neurons_of_a_hand_made_chain_are_those_on_its_paths():
    """Of 8 and 8 hidden units: 5 -> 2 is the only path; 0 -> 1 ends there, and 6
    begins at 3, which has no inputs."""
    params = chain_of(2, 8, 8, 1)
    params["a"]["kernel"] = np.arange(16, dtype=np.float32).reshape(2, 8) + 1
    mask = kept_weights(
        params,
        a=[(0, 5), (1, 0)],
        b=[(5, 2), (0, 1), (3, 6)],
        c=[(2, 0), (6, 0)],
    )
    small = make_shrink("abc", dead_inputs=True)(params, mask)
    assert small.params["a"]["kernel"].tolist() == [[6.0], [0.0]]
    assert small.params["b"]["kernel"].tolist() == [[1.0]]
    assert small.mask["c"]["kernel"].tolist() == [[True]]
    assert small.params["c"]["bias"].shape == (1,)


def test_a_neuron_without_inputs_stays_unless_the_activation_is_dead_at_zero():
    params = chain_of(2, 8, 1)
    mask = kept_weights(params, a=[(0, 5)], b=[(5, 0), (6, 0)])
    shapes = {
        dead: make_shrink("ab", dead_inputs=dead)(params, mask).params["a"]["bias"].size
        for dead in (True, False)
    }
    assert shapes == {True: 1, False: 2}


@pytest.mark.parametrize(("kept", "width"), [(True, 2), (False, 1)])
def test_a_neuron_without_inputs_stays_for_a_bias_that_is_kept_and_not_0(kept, width):
    params = chain_of(2, 8, 1)
    params["a"]["bias"][6] = 0.5
    params["a"]["bias"][3] = 0.5  # of no use: it does not reach the output
    mask = kept_weights(params, a=[(0, 5)], b=[(5, 0), (6, 0)])
    mask["a"]["bias"][6] = kept
    small = make_shrink("ab", dead_inputs=True)(params, mask)
    assert small.params["a"]["bias"].tolist() == [0.0, 0.5][:width]


def test_a_bias_far_from_the_output_keeps_the_whole_path_behind_it():
    params = chain_of(2, 8, 8, 1)
    params["a"]["bias"][7] = 0.5
    mask = kept_weights(params, a=[(0, 0)], b=[(7, 4)], c=[(4, 0)])
    small = make_shrink("abc", dead_inputs=True)(params, mask)
    assert small.params["a"]["bias"].tolist() == [0.5]
    assert small.mask["b"]["kernel"].tolist() == [[True]]


def test_a_channel_is_live_where_any_place_after_the_flattening_uses_it():
    """Two places of three channels are six rows, the channel index the fastest."""
    params = {
        "a": {"kernel": np.ones((3, 3, 1, 3), np.float32)},
        "b": {"kernel": np.arange(6, dtype=np.float32).reshape(6, 1)},
    }
    mask = kept_weights(params, b=[(4, 0)])
    small = make_shrink("ab", dead_inputs=True)(params, mask)
    assert small.params["a"]["kernel"].shape == (3, 3, 1, 1)
    assert small.params["b"]["kernel"].tolist() == [[0.0], [4.0]]
    assert small.mask["b"]["kernel"].tolist() == [[False], [True]]


@settings(max_examples=60)
@given(
    widths=st.lists(st.integers(1, 5), min_size=2, max_size=5),
    seed=st.integers(0, 2**16),
    dead_inputs=st.booleans(),
)
def test_what_is_removed_lies_on_no_path(widths, seed, dead_inputs):
    """Against the enumeration of all paths, from inputs and from constant neurons."""
    rng = np.random.default_rng(seed)
    params = chain_of(*widths)
    edges = {
        name: np.argwhere(rng.random(layer["kernel"].shape) < 0.4)
        for name, layer in params.items()
    }
    for layer in params.values():
        layer["bias"][:] = rng.random(layer["bias"].shape) < 0.15
    mask = kept_weights(params, **{k: v for k, v in edges.items() if len(v)})
    for name in (name for name, pairs in edges.items() if not len(pairs)):
        mask[name]["kernel"][:] = False
    live = [set() for _ in widths]
    names = list(params)
    for path in itertools.product(*map(range, widths)):
        kept = [
            mask[name]["kernel"][pair]
            for name, pair in zip(names, itertools.pairwise(path), strict=True)
        ]
        for i in range(1, len(widths) - 1):
            biased = params[names[i - 1]]["bias"][path[i]] != 0
            starts = biased or not dead_inputs or (i == 1 and kept[0])
            if starts and all(kept[i:]):
                for j in range(i, len(widths) - 1):
                    live[j].add(path[j])
    small = make_shrink(names, dead_inputs=dead_inputs, least_saving=1.0)(params, mask)
    for name, width, neurons in zip(names, widths[1:-1], live[1:-1], strict=False):
        removed = set(np.flatnonzero(is_removed(small)[name]["bias"]))
        assert not removed & neurons
        size = width - len(removed)
        # The next smaller size would not hold the live ones.
        sizes = sorted({-(-width // 2**i) for i in range(4)})
        assert size == next(s for s in sizes if s >= len(neurons))
    assert_same(small.expand(small.params), masks.apply_mask(params, mask))


# The smaller network


@pytest.mark.parametrize(
    ("live", "size"),
    [(0, 1), (1, 1), (2, 2), (3, 4), (4, 4), (5, 7), (7, 7), (8, 13), (14, 13 * 2)],
)
def test_widths_are_halvings_of_the_full_one(live, size):
    """Of 26: 26, 13, 7, 4, 2, 1."""
    params = chain_of(1, 26, 1)
    mask = kept_weights(params, b=[(26 - 1 - i, 0) for i in range(live)] or [(0, 0)])
    mask["b"]["kernel"][:, 0] &= live > 0
    small = make_shrink("ab", dead_inputs=True, least_saving=1.0)(params, mask)
    assert small.params["a"]["bias"].shape == (size,)


def test_the_first_dead_neurons_fill_up_the_width_with_their_weights():
    params = chain_of(1, 8, 1)
    params["a"]["kernel"] = np.arange(8, dtype=np.float32)[None]
    mask = kept_weights(params, b=[(1, 0), (6, 0), (3, 0)])
    small = make_shrink("ab", dead_inputs=True)(params, mask)
    assert small.params["a"]["kernel"].tolist() == [[0.0, 1.0, 3.0, 6.0]]
    assert small.mask["b"]["kernel"].ravel().tolist() == [False, True, True, True]


@functools.cache
def forward_and_gradient(model):
    """Of the full network, compiled once."""
    loss_fn = scores.classification_loss(model.apply)
    return jax.jit(model.apply), jax.jit(jax.grad(loss_fn))


@NETWORKS
@pytest.mark.parametrize("bias", [0.0, 0.3])
@pytest.mark.parametrize("sparsity", [0.8, 0.9, 0.95, 0.98])
def test_weights_that_are_removed_have_a_gradient_of_exactly_0(
    model, shape, sparsity, bias
):
    _, gradient_fn = forward_and_gradient(model)
    any_removed = False
    for seed in range(4):
        params, mask = random_start(
            model, shape, sparsity=sparsity, seed=seed, bias=bias
        )
        x = jax.random.normal(jax.random.key(seed), (16, *shape))
        y = jax.random.randint(jax.random.key(seed), (16,), 0, 3)
        gradient = gradient_fn(masks.apply_mask(params, mask), (x, y))
        gradient = masks.apply_mask(gradient, mask)
        small = shrinker(model)(params, mask)
        removed = is_removed(small)
        jax.tree.map(
            lambda g, r: np.testing.assert_array_equal(np.asarray(g)[r], 0.0),
            gradient,
            removed,
        )
        any_removed |= any(leaf.any() for leaf in jax.tree.leaves(removed))
        assert_same(small.expand(small.params), masks.apply_mask(params, mask))
    assert any_removed


@NETWORKS
@pytest.mark.parametrize(("sparsity", "bias"), [(0.8, 0.0), (0.9, 0.0), (0.9, 0.3)])
def test_the_small_network_computes_what_the_masked_one_does(
    model, shape, sparsity, bias
):
    forward, _ = forward_and_gradient(model)
    params, mask = random_start(model, shape, sparsity=sparsity, seed=1, bias=bias)
    small = shrinker(model)(params, mask)
    x = jax.random.normal(jax.random.key(0), (5, *shape))
    logits = jax.jit(models.apply_at_any_width(model))(small.params, x)
    # 1e-5: sums of some hundred products, in another order.
    expected = forward(masks.apply_mask(params, mask), x)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert np.max(np.abs(expected)) > 1e-3


ADAM = optax.adam(1e-2)


@functools.cache
def training_of(model, optimizer, max_epochs):
    """For networks of any width: once, so that the full one is compiled once."""
    apply_fn = models.apply_at_any_width(model)
    return training.make_training(
        scores.classification_loss(apply_fn),
        optimizer,
        metrics_fn=training.classification_metrics(apply_fn),
        stop=training.stop_when_still(),
        batch_size=8,
        max_epochs=max_epochs,
    )


def both_trainings(model, shape, params, mask, optimizer=ADAM, max_epochs=12):
    """The full network and the shrunk one, trained alike: results and the shrunk."""
    job = training_of(model, optimizer, max_epochs)
    x = jax.random.normal(jax.random.key(1), (30, *shape))
    data = (x, jax.random.randint(jax.random.key(2), (30,), 0, model.classes))
    small = shrinker(model)(params, mask)
    full = training.train(job, params, mask, data, jax.random.key(3))
    less = training.train(job, small.params, small.mask, data, jax.random.key(3))
    return full, less, small


def assert_trained_alike(full, less, small, start, *, tolerance=2e-5):
    """2e-5: sums in another order, over some fifty steps of 0.01."""
    expanded = small.expand(less.params)
    jax.tree.map(
        lambda u, v: np.testing.assert_allclose(u, v, rtol=0, atol=tolerance),
        full.params,
        expanded,
    )
    for trained in (full.params, expanded):
        jax.tree.map(
            lambda t, p, r: np.testing.assert_array_equal(t[r], p[r]),
            *jax.device_get((trained, start)),
            is_removed(small),
        )
    assert int(full.epochs) == int(less.epochs)
    for name, value in full.history.items():
        np.testing.assert_allclose(value, less.history[name], rtol=1e-4)
    assert not full.diverged


def all_layers_move(result, start):
    trained, start = jax.device_get((result.params, start))
    moved = jax.tree.map(lambda u, v: bool(np.any(u != v)), trained, start)
    return all(layer["kernel"] for layer in moved["params"].values())


@pytest.mark.parametrize("bias", [0.0, 0.3], ids=["at-init", "finetuned"])
@pytest.mark.parametrize(
    "optimizer",
    [
        ADAM,
        optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1, momentum=0.9)),
    ],
    ids=["adam", "clipped"],
)
def test_training_the_small_network_is_training_the_full_one(bias, optimizer):
    model, shape = models.MLP(3, widths=(40, 40)), (10,)
    params, mask = random_start(model, shape, sparsity=0.95, seed=0, bias=bias)
    full, less, small = both_trainings(model, shape, params, mask, optimizer)
    start = masks.apply_mask(params, mask)
    full_size, size = masks.prunable_size(params), masks.prunable_size(small.params)
    assert full_size > 2 * size
    assert_trained_alike(full, less, small, start)
    assert all_layers_move(full, start)


def test_training_a_small_convnet_is_training_the_full_one():
    params, mask = random_start(CONV, CONV_SHAPE, sparsity=0.95, seed=4)
    full, less, small = both_trainings(CONV, CONV_SHAPE, params, mask, max_epochs=4)
    start = masks.apply_mask(params, mask)
    assert_trained_alike(full, less, small, start)
    assert all_layers_move(full, start)


@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_a_collapsed_network_shrinks_to_width_1_and_trains_the_same(bias):
    params, mask = random_start(MLP, MLP_SHAPE, sparsity=0.9, seed=0, bias=bias)
    mask["params"]["Dense_1"]["kernel"] = jnp.zeros((20, 24), bool)
    mask["params"]["Dense_2"]["kernel"] = jnp.zeros((24, 3), bool)
    full, less, small = both_trainings(MLP, MLP_SHAPE, params, mask)
    assert small.params["params"]["Dense_1"]["kernel"].shape == (1, 1)
    assert_trained_alike(full, less, small, masks.apply_mask(params, mask))


def test_a_tanh_network_trains_the_same_without_the_neurons_of_no_use():
    model = models.MLP(3, widths=(40, 40), activation=jnp.tanh)
    params, mask = random_start(model, (10,), sparsity=0.97, seed=0)
    without_inputs = shrinker(model)(params, mask)
    small = shrinker(model, dead_inputs=False)(params, mask)
    sizes = [masks.prunable_size(s.params) for s in (without_inputs, small)]
    assert sizes[0] < sizes[1] < masks.prunable_size(params)
    x = jax.random.normal(jax.random.key(0), (16, 10))
    y = jax.random.randint(jax.random.key(1), (16,), 0, 3)
    _, gradient_fn = forward_and_gradient(model)
    gradient = gradient_fn(masks.apply_mask(params, mask), (x, y))
    gradient = masks.apply_mask(gradient, mask)

    def largest(shrunk):
        return max(
            float(np.max(np.abs(g)[r], initial=0.0))
            for g, r in zip(
                *map(jax.tree.leaves, (gradient, is_removed(shrunk))), strict=True
            )
        )

    assert largest(small) == 0.0
    assert largest(without_inputs) > 0.0


# Contract


def test_no_saving_is_none_and_depends_on_the_network_alone():
    """Of 8 hidden units 4 are live: 24 multiply-adds to 12, a saving of exactly 2."""
    params = chain_of(2, 8, 1)
    mask = kept_weights(params, b=[(i, 0) for i in range(4)])
    for least, is_none in [(1.0, False), (2.0, False), (2.01, True)]:
        shrink = make_shrink("ab", dead_inputs=True, least_saving=least)
        assert (shrink(params, mask) is None) == is_none
    assert make_shrink("ab", dead_inputs=True)(params, masks.dense_mask(params)) is None


def test_positions_weigh_the_layers():
    """8 + 64 + 8 weights to 8 + 8 + 1, but layer a alone saves nothing."""
    params = chain_of(1, 8, 8, 1)
    mask = kept_weights(params, c=[(0, 0)])
    options = {"dead_inputs": True, "least_saving": 4.0}
    assert make_shrink("abc", **options)(params, mask) is not None
    weighed = make_shrink("abc", positions=(100, 1, 1), **options)
    assert weighed(params, mask) is None


def test_arrays_of_device_and_host_give_the_same_and_results_are_on_the_host():
    params, mask = random_start(MLP, MLP_SHAPE, sparsity=0.9, seed=0)
    on_host = jax.device_get((params, mask))
    small, same = shrinker(MLP)(params, mask), shrinker(MLP)(*on_host)
    assert_same(small.params, same.params)
    assert_same(small.mask, same.mask)
    leaves = jax.tree.leaves((small.params, small.mask, small.expand(small.params)))
    assert all(isinstance(leaf, np.ndarray) for leaf in leaves)
    assert jax.tree.structure(small.params) == jax.tree.structure(params)
    trained = jax.tree.map(lambda p: jnp.asarray(p) + 1, small.params)
    assert_same(small.expand(trained), small.expand(jax.device_get(trained)))
    assert_same(small.expand(small.params), masks.apply_mask(params, mask))


def test_scalars_outside_the_chain_go_through():
    params = {**chain_of(2, 8, 1), "temperature": np.float32(2.0)}
    mask = kept_weights(params, b=[(3, 0)])
    small = make_shrink("ab", dead_inputs=True)(params, mask)
    assert small.params["temperature"] == 2.0
    trained = {**small.params, "temperature": np.float32(3.0)}
    assert small.expand(trained)["temperature"] == 3.0


def test_an_array_outside_the_chain_is_refused_by_its_path():
    params = chain_of(2, 8, 1)
    params["a"]["scale"] = np.ones(8)
    with pytest.raises(ValueError, match=r"'a/scale' has shape \(8,\).*\['a', 'b'\]"):
        make_shrink("ab", dead_inputs=True)(params, masks.dense_mask(params))


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ("ac", r"params has no 'c/kernel'.*'a/bias'"),
        ("a", r"'b/bias' has shape \(3,\)"),
        ("ba", r"'a/kernel' has shape \(2, 8\), expected 3 inputs"),
    ],
)
def test_a_chain_that_does_not_fit_is_refused(chain, message):
    params = chain_of(2, 8, 3)
    if chain == "ac":
        del params["b"]
    with pytest.raises(ValueError, match=message):
        make_shrink(chain, dead_inputs=True)(params, masks.dense_mask(params))


def test_arguments_that_do_not_fit_are_refused():
    for chain in ((), ("a", "a")):
        with pytest.raises(ValueError, match=r"chain is \[.*expected different paths"):
            make_shrink(chain, dead_inputs=True)
    with pytest.raises(ValueError, match=r"positions is \(1,\), expected one for each"):
        make_shrink("ab", dead_inputs=True, positions=(1,))
    with pytest.raises(ValueError, match=r"least_saving is 0.5, expected at least 1"):
        make_shrink("ab", dead_inputs=True, least_saving=0.5)
    params = chain_of(2, 8, 1)
    params["b"]["bias"] = np.ones(3)
    with pytest.raises(ValueError, match=r"'b/bias' has shape \(3,\), expected \(1,\)"):
        make_shrink("ab", dead_inputs=True)(params, masks.dense_mask(params))


def test_masks_and_trained_params_that_do_not_fit_are_refused():
    params = chain_of(2, 8, 1)
    mask = kept_weights(params, b=[(3, 0)])
    shrink = make_shrink("ab", dead_inputs=True)
    with pytest.raises(ValueError, match=r"params at 'a/bias' has shape \(8,\)"):
        shrink(params, mask).expand(params)
    mask["b"]["kernel"] = mask["b"]["kernel"][1:]
    with pytest.raises(ValueError, match=r"mask at 'b/kernel' has shape \(7, 1\)"):
        shrink(params, mask)


# What makes it exact


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (jax.nn.relu, True),
        (jnp.square, True),
        (lambda x: jnp.maximum(x, 0.0), False),  # JAX's derivative at a tie is 1/2
        (jnp.tanh, False),
        (jax.nn.gelu, False),
        (jax.nn.sigmoid, False),
        (jax.nn.leaky_relu, False),
        (lambda x: x, False),
        (lambda x: jnp.cos(x), False),
    ],
)
def test_an_activation_is_dead_at_zero_with_value_and_derivative(activation, expected):
    assert is_dead_at_zero(activation) is expected


def decay_kernels(params):
    return jax.tree.map(lambda p: p.ndim > 1, params)


@pytest.mark.parametrize(
    ("name", "optimizer", "expected"),
    [
        ("sgd", optax.sgd(0.1), True),
        ("momentum", optax.sgd(0.1, momentum=0.9, nesterov=True), True),
        ("adam", optax.adam(0.1), True),
        ("rmsprop", optax.rmsprop(0.1), True),
        ("novograd", optax.novograd(0.1), True),  # norms of gradients alone
        ("warmup", optax.adam(optax.linear_schedule(0.0, 0.1, 10)), True),
        ("inject", optax.inject_hyperparams(optax.adam)(learning_rate=0.1), True),
        ("clip", optax.chain(optax.clip_by_global_norm(0.1), optax.adam(0.1)), True),
        ("adamw", optax.adamw(0.1), False),
        (
            "kernels",
            optax.chain(
                optax.masked(optax.add_decayed_weights(0.1), decay_kernels),
                optax.sgd(0.1),
            ),
            False,
        ),
        ("lamb", optax.lamb(0.1), False),
        ("lars", optax.lars(0.1), False),
        ("adafactor", optax.adafactor(0.1), False),
        ("yogi", optax.yogi(0.1), False),  # its moments do not start at 0
        ("center", optax.chain(optax.centralize(), optax.sgd(0.1)), False),
        ("block", optax.chain(optax.clip_by_block_rms(9.0), optax.sgd(0.1)), False),
        ("free", optax.contrib.schedule_free_adamw(0.1), False),  # averages round
        ("value", optax.polyak_sgd(), False),
        ("search", optax.lbfgs(), False),
        ("frozen", optax.set_to_zero(), False),
        ("rare", optax.MultiSteps(optax.adamw(0.1), 8), False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_optimizers_that_leave_dead_weights_alone_are_told(name, optimizer, expected):
    if isinstance(optimizer, optax.MultiSteps):
        optimizer = optimizer.gradient_transformation()
    assert keeps_dead_weights(optimizer) is expected


def test_an_optimizer_that_warns_or_raises_is_told_without():
    def update(updates, state, params=None):
        warnings.warn("old", DeprecationWarning, stacklevel=2)
        return updates, state

    def broken(updates, state, params=None):
        raise RuntimeError("no")

    warns = optax.GradientTransformation(lambda params: (), update)
    assert keeps_dead_weights(warns) is True
    raises = optax.GradientTransformation(lambda params: (), broken)
    assert keeps_dead_weights(raises) is False


def test_a_nan_where_the_gradient_is_0_is_no_update_of_0():
    def update(updates, state, params=None):
        return jax.tree.map(lambda g: g / jnp.abs(g), updates), state

    signs = optax.GradientTransformation(lambda params: (), update)
    assert keeps_dead_weights(signs) is False


def test_the_trained_network_of_an_optimizer_that_decays_is_another():
    """The probe's reason: with adamw the dead weights of the full network shrink."""
    params, mask = random_start(MLP, MLP_SHAPE, sparsity=0.95, seed=0)
    optimizer = optax.adamw(1e-2, weight_decay=0.1)
    full, less, small = both_trainings(MLP, MLP_SHAPE, params, mask, optimizer)
    gap = jax.tree.map(
        lambda u, v: float(np.max(np.abs(u - v))),
        full.params,
        small.expand(less.params),
    )
    assert max(jax.tree.leaves(gap)) > 1e-3
