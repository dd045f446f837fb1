"""RigL and SET: one move by hand, and moves within any optax optimizer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nfp_jax as nfp
from nfp_jax import masks, pruners
from nfp_jax.pruners.contract import Network
from nfp_jax.pruners.regrowth import move_mask, random_erk, regrow, share_moved
from nfp_jax.pruners.rigl import steepest

SHAPES = {"a": (5, 8), "b": (8, 3)}
KEYS = jax.random.split(jax.random.key(0), 4)
PARAMS = {
    **{name: jax.random.normal(KEYS[0], shape) for name, shape in SHAPES.items()},
    "bias": jnp.ones(8),
}
MASK = nfp.prune(nfp.random(), PARAMS, None, KEYS[1], sparsity=0.5)
START = nfp.apply_mask(PARAMS, MASK)
TARGET = {
    name: jax.random.normal(jax.random.fold_in(KEYS[2], i), leaf.shape)
    for i, (name, leaf) in enumerate(PARAMS.items())
}
NAMES = ("rigl", "set")


def loss_fn(params, batch=None):
    """A quadratic, whose slope is known: ``params - target``."""
    square = jax.tree.map(lambda w, t: jnp.sum((w - t) ** 2) / 2, params, TARGET)
    return sum(jax.tree.leaves(square))


def moving(name, optimizer, mask=MASK, *, key=KEYS[3], **options):
    """RigL or SET around an optimizer."""
    options = {"until": 8, "every": 2, "fraction": 0.5, **options}
    if name == "rigl":
        return nfp.rigl(optimizer, mask, **options)
    return nfp.sparse_evolution(optimizer, mask, key, **options)


@functools.partial(jax.jit, static_argnums=(0, 1))
def train(optimizer, steps, params, state):
    """Weights and states after every step, each leaf ``[steps, ...]``."""

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss_fn)(params), state, params)
        carry = optax.apply_updates(params, updates), state
        return carry, carry

    return jax.lax.scan(step, (params, state), length=steps)[1]


def run(optimizer, steps=9, params=START):
    return train(optimizer, steps, params, optimizer.init(params))


def counts(mask):
    return {name: int(mask[name].sum()) for name in SHAPES}


def official(weights, mask, scores, fraction):
    """One layer's move as the authors' code sorts: [weights], bool, [weights]."""
    kept = int(mask.sum())
    gone = int(np.float32(kept) * np.float32(fraction))
    order = np.argsort(-np.where(mask, np.abs(weights), -1), kind="stable")
    first = np.zeros(mask.size, bool)
    first[order[: kept - gone]] = True
    lifted = np.where(first, scores.min() - 1, scores)
    second = np.zeros(mask.size, bool)
    second[np.argsort(-lifted, kind="stable")[:gone]] = True
    assert not np.any(first & second)
    return first | second


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(0, 1), st.sampled_from([0.0, 0.3, 0.9]))
def test_a_move_is_that_of_the_authors_and_keeps_each_layer_s_count(
    seed, fraction, sparsity
):
    """Small integers: many ties, and zeros among the weights kept."""
    rng = np.random.default_rng(seed)
    mask = {n: rng.random(s) >= sparsity for n, s in SHAPES.items()}
    weights = {n: rng.integers(-2, 3, s).astype(np.float32) for n, s in SHAPES.items()}
    weights = {n: weights[n] * mask[n] for n in SHAPES}
    scores = {n: rng.integers(0, 4, s).astype(np.float32) for n, s in SHAPES.items()}
    found = MOVE(weights, mask, scores, np.float32(fraction))
    for name in SHAPES:
        flat = (np.ravel(tree[name]) for tree in (weights, mask, scores))
        expected = official(*flat, fraction)
        np.testing.assert_array_equal(np.ravel(found[name]), expected)
    assert counts(found) == counts(mask)
    if sparsity == 0.0:  # a dense one is left as it is
        assert all(np.all(found[name]) for name in SHAPES)


MOVE = jax.jit(regrow)


def test_nothing_moves_at_a_share_of_zero():
    found = MOVE(PARAMS, MASK, TARGET, 0.0)
    jax.tree.map(np.testing.assert_array_equal, found, MASK)


def test_a_weight_kept_at_zero_stays_before_one_that_is_not_kept():
    w = jnp.array([[0.0, 0.0, 0.0, 5.0]])
    mask = jnp.array([[False, False, True, True]])
    scores = jnp.array([[3.0, 2.0, 1.0, 0.0]])
    assert MOVE(w, mask, scores, 0.0).tolist() == [[False, False, True, True]]
    assert MOVE(w, mask, scores, 0.5).tolist() == [[True, False, False, True]]


def test_the_share_falls_by_a_cosine():
    found = [float(share_moved(t, 8, 0.3)) for t in (0, 2, 4, 8)]
    expected = [0.3, 0.15 * (1 + np.cos(np.pi / 4)), 0.15, 0.0]
    np.testing.assert_allclose(found, expected, atol=1e-7)  # float32


def test_steps_and_moves_by_hand():
    """SGD with momentum; 1e-5: float32 over nine steps."""
    params, state = run(moving("rigl", optax.sgd(0.1, momentum=0.9)))
    w = {name: np.asarray(START[name], np.float64) for name in SHAPES}
    m = {name: np.asarray(MASK[name]) for name in SHAPES}
    v = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for t in range(9):
        for name, shape in SHAPES.items():
            slope = w[name] - np.asarray(TARGET[name], np.float64)
            if t in (2, 4, 6, 8):
                share = float(share_moved(t, 8, 0.5))
                flat = (np.ravel(x) for x in (w[name], m[name], np.abs(slope)))
                moved = official(*flat, share).reshape(shape)
                stayed = moved & m[name]
                m[name], w[name], v[name] = moved, w[name] * stayed, v[name] * stayed
            else:
                v[name] = 0.9 * v[name] + slope * m[name]
                w[name] = (w[name] - 0.1 * v[name]) * m[name]
            np.testing.assert_array_equal(state.mask[name][t], m[name])
            np.testing.assert_allclose(params[name][t], w[name], atol=1e-5)
    assert any(np.any(state.mask[n][-1] != MASK[n]) for n in SHAPES)


@pytest.mark.parametrize("name", NAMES)
def test_the_step_of_a_move_trains_nothing_and_clears_the_moments_of_what_moved(name):
    params, state = run(moving(name, optax.adam(0.1)), steps=3)
    adam = state.inner[0]
    assert adam.count.tolist() == [1, 2, 2] and state.step.tolist() == [1, 2, 3]
    for layer in SHAPES:
        before, after = np.asarray(state.mask[layer])[[1, 2]]
        stayed = before & after
        assert np.any(before & ~after) and np.any(after & ~before)
        np.testing.assert_array_equal(params[layer][2], params[layer][1] * stayed)
        for moment in (adam.mu, adam.nu):
            expected = moment[layer][1] * stayed
            np.testing.assert_array_equal(moment[layer][2], expected)
            assert np.all(np.asarray(moment[layer][1])[stayed] != 0)
    np.testing.assert_array_equal(params["bias"][2], params["bias"][1])


def test_one_that_just_went_may_come_back_with_its_value():
    """The smallest weight kept has the steepest slope of all that are then removed."""
    mask, w = jnp.array([[True, True, False]]), jnp.array([[2.0, 1.0, 0.0]])
    optimizer = nfp.rigl(optax.adam(0.1), mask, until=9, every=1, fraction=0.6)
    state = optimizer.init(w)
    for slope in (0.0, 7.0):
        updates, state = optimizer.update(jnp.array([[0.0, slope, 1.0]]), state, w)
        w = optax.apply_updates(w, updates)
    assert w.tolist() == [[2.0, 1.0, 0.0]] and state.mask.tolist() == mask.tolist()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "make",
    [
        lambda: optax.adamw(0.1),
        lambda: optax.chain(
            optax.clip(1.0), optax.sgd(optax.linear_schedule(0.1, 0, 9), 0.9)
        ),
        lambda: optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
        lambda: optax.multi_transform(
            {"adam": optax.adam(0.1), "sgd": optax.sgd(0.1, 0.9)},
            {"a": "adam", "b": "sgd", "bias": "sgd"},
        ),
    ],
)
def test_any_optimizer_may_be_within(name, make):
    params, state = run(moving(name, make()))
    for layer in SHAPES:
        mask = np.asarray(state.mask[layer])
        assert set(mask.sum(axis=(1, 2))) == {int(MASK[layer].sum())}
        assert not np.any(np.asarray(params[layer])[~mask])
        assert np.all(mask[-1].any()) and np.any(mask[-1] != MASK[layer])
    assert loss_fn(jax.tree.map(lambda leaf: leaf[-1], params)) < loss_fn(START)


def test_it_may_be_within_a_chain_or_multi_steps():
    """Steps of two halves of a batch are those of the whole; 1e-6: float32."""
    alone, _ = run(moving("rigl", optax.adam(0.1)), steps=6)
    chain = optax.chain(optax.identity(), moving("rigl", optax.adam(0.1)))
    chained, state = run(chain, steps=6)
    assert optax.tree.get(state, "mask")["a"].shape == (6, 5, 8)
    twice = optax.MultiSteps(moving("rigl", optax.adam(0.1)), 2)
    halves, _ = run(twice, steps=12)
    for layer in PARAMS:
        np.testing.assert_allclose(chained[layer], alone[layer], atol=1e-6)
        np.testing.assert_allclose(halves[layer][1::2], alone[layer], atol=1e-6)


def test_rigl_finds_weights_that_fit_better_than_those_it_began_with():
    """Of the quadratic, whose best mask keeps the largest targets of each layer."""

    def least(mask):
        removed = {name: np.sum(TARGET[name][~mask[name]] ** 2) for name in SHAPES}
        return sum(removed.values()) / 2

    options = {"until": 30, "every": 3, "fraction": 0.5}
    _, state = run(moving("rigl", optax.sgd(0.5), **options), steps=31)
    last = {name: np.asarray(state.mask[name][-1]) for name in SHAPES}
    size = jax.tree.map(jnp.abs, TARGET)
    best = masks.top_k_by_quota(size, {**counts(MASK), "bias": 8})
    first = least({name: np.asarray(MASK[name]) for name in SHAPES})
    lowest = least({name: np.asarray(best[name]) for name in SHAPES})
    # Half of the way at least: masks of as many weights at random gain nothing.
    assert lowest <= least(last) < (first + lowest) / 2


def test_set_draws_what_comes_by_its_key_and_rigl_draws_nothing():
    def last(name, key, steps=3):
        return run(moving(name, optax.sgd(0.1), key=key), steps)[1].mask["a"][-1]

    same, again, other = (last("set", key) for key in (KEYS[0], KEYS[0], KEYS[1]))
    assert np.all(same == again) and np.any(same != other)
    assert np.all(last("rigl", KEYS[0]) == last("rigl", KEYS[1]))


def test_many_networks_move_as_each_does():
    optimizer = moving("rigl", optax.adam(0.1))
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf, -leaf]), START)
    params, state = jax.vmap(lambda params: run(optimizer, 5, params))(many)
    for i in range(3):
        alone, own = run(optimizer, 5, jax.tree.map(lambda leaf, i=i: leaf[i], many))
        for layer in SHAPES:
            np.testing.assert_array_equal(state.mask[layer][i], own.mask[layer])
            np.testing.assert_allclose(params[layer][i], alone[layer], atol=1e-6)


NET = Network(lambda params, x: x, loss_fn, (5,), lambda key: PARAMS)


def test_cards_move_what_the_network_says_may_be_pruned():
    """A bias too: the rule by axes and names would leave it as it was."""
    net = NET._replace(prunable={"a": False, "b": True, "bias": True})
    half = {name: jnp.arange(leaf.size) % 2 == 0 for name, leaf in PARAMS.items()}
    mask = {name: half[name].reshape(PARAMS[name].shape) for name in half}
    mask["a"] = jnp.ones(SHAPES["a"], bool)
    params = nfp.apply_mask(PARAMS, mask)

    def gradient_fn(params):  # steep where nothing is
        return jax.tree.map(lambda keep: jnp.float32(1) - keep, mask)

    for name in NAMES:
        update = pruners.card(name).build(net, every=1, until=8, fraction=1.0)
        state = update.init(params, mask, KEYS[3])
        _, after = update.update(state, params, mask, gradient_fn, 0)
        moved = [n for n in PARAMS if np.any(after[n] != mask[n])]
        assert moved == ["b", "bias"] and int(after["bias"].sum()) == 4


def test_cards_start_at_erk_densities_and_move_at_the_epochs_that_they_name():
    keep, prunable = 32, masks.prunable_kernels(PARAMS)
    expected = nfp.top_k_erk(nfp.random()(PARAMS, key=KEYS[0]), keep)
    for name in NAMES:
        card = pruners.card(name)
        assert (card.when, card.sees) == ("during", "training")
        update = card.build(NET, every=3, until=8, fraction=1.0)
        mask = update.start(PARAMS, None, KEYS[0], keep=keep, prunable=prunable)
        jax.tree.map(np.testing.assert_array_equal, mask, expected)
        params, moved = nfp.apply_mask(PARAMS, mask), []
        gradient_fn = jax.grad(loss_fn)
        state = update.init(params, mask, KEYS[3])
        for epoch in range(9):
            _, after = update.update(state, params, mask, gradient_fn, epoch)
            moved.append(any(np.any(after[n] != mask[n]) for n in SHAPES))
            assert counts(after) == counts(mask)
        # After the third and the sixth, the ends of epochs 2 and 5.
        assert np.flatnonzero(moved).tolist() == [2, 5]
        if name == "rigl":
            _, after = update.update(state, params, mask, gradient_fn, 2)
            slopes = jax.tree.map(jnp.abs, gradient_fn(params))
            by_hand = regrow(params, mask, slopes, share_moved(3, 8, 1.0))
            jax.tree.map(np.testing.assert_array_equal, after, by_hand)


def test_what_is_out_of_range_or_missing_is_named():
    for options, message in (
        ({"until": 0}, "until is 0, expected at least 1"),
        ({"every": 0}, "every is 0, expected at least 1"),
        ({"fraction": 1.5}, "fraction is 1.5, expected 0 <= fraction <= 1"),
    ):
        with pytest.raises(ValueError, match=message):
            moving("rigl", optax.sgd(0.1), **options)
        with pytest.raises(ValueError, match=message):
            pruners.card("set").build(NET, **options)
    optimizer = moving("rigl", optax.sgd(0.1))
    with pytest.raises(ValueError, match="mask at 'a' has shape"):
        optimizer.init({**PARAMS, "a": jnp.ones((2, 2))})
    with pytest.raises(ValueError, match="needs params"):
        optimizer.update(PARAMS, optimizer.init(PARAMS))
    with pytest.raises(ValueError, match="random scores need a key, got None"):
        random_erk()(PARAMS, keep=10)
    with pytest.raises(ValueError, match="scores at 'a' are NaN"):
        regrow(PARAMS, MASK, {**PARAMS, "a": PARAMS["a"] * jnp.nan}, 0.5)
    assert move_mask(optax.sgd(0.1), MASK, steepest, until=1).init(PARAMS).key is None
