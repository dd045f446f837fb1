"""``freeze_pruned`` for some parameters only, as optax hands them on; what is no array.

The chains of whole parameters are in test_pruning.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nfp_jax as nfp

PARAMS = {
    "embed": {"table": jnp.full((7, 4), 2.0)},
    "dense": {"kernel": jnp.arange(1.0, 13.0).reshape(4, 3), "bias": jnp.ones(3)},
}
ONES = jax.tree.map(jnp.ones_like, PARAMS)
HALF = nfp.prune(nfp.magnitude(), PARAMS, sparsity=0.5)
# Of 28 + 12 weights, of which the table's are the smaller ones but for 1 and 2.
FEW = nfp.prune(nfp.magnitude(), PARAMS, sparsity=0.9)
LEAVES = {"embed": {"table": "free"}, "dense": {"kernel": "cut", "bias": "free"}}
LAYERS = {"embed": "free", "dense": "cut"}  # a label stands for a whole layer
LABELS = {"leaves": LEAVES, "layers": LAYERS}


def flags(labels):
    return jax.tree.map(lambda label: label == "cut", labels)


def optimizers(labels):
    """The same optimizer in the two ways that optax gives a part of the parameters."""
    freeze = nfp.freeze_pruned(HALF)
    return {
        "multi_transform": optax.multi_transform(
            {"cut": optax.chain(optax.sgd(0.5), freeze), "free": optax.sgd(0.5)},
            labels,
        ),
        "masked": optax.chain(optax.sgd(0.5), optax.masked(freeze, flags(labels))),
    }


def stepped(optimizer, state, params):
    updates, state = optimizer.update(ONES, state, params)
    return optax.apply_updates(params, updates), state


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("name", ["multi_transform", "masked"])
def test_a_group_is_held_at_zero_and_the_others_are_trained_whole(name, labels):
    optimizer = optimizers(LABELS[labels])[name]
    params, _ = stepped(optimizer, optimizer.init(PARAMS), PARAMS)
    kept = np.asarray(HALF["dense"]["kernel"])
    expected = np.where(kept, np.asarray(PARAMS["dense"]["kernel"]) - 0.5, 0)
    np.testing.assert_array_equal(params["dense"]["kernel"], expected)
    assert 0 < kept.sum() < kept.size
    # The mask would remove most of the table; it is of another group.
    np.testing.assert_array_equal(params["embed"]["table"], np.full((7, 4), 1.5))
    np.testing.assert_array_equal(params["dense"]["bias"], np.full(3, 0.5))


@pytest.mark.parametrize("name", ["multi_transform", "masked"])
def test_the_mask_of_a_group_is_replaced_by_one_of_all_parameters(name):
    optimizer = optimizers(LEAVES)[name]
    params, state = stepped(optimizer, optimizer.init(PARAMS), PARAMS)
    state = nfp.replace_mask(state, FEW)
    params, _ = jax.jit(lambda p, s: stepped(optimizer, s, p))(params, state)
    kept = np.asarray(FEW["dense"]["kernel"])
    assert kept.sum() == 4
    np.testing.assert_array_equal(np.asarray(params["dense"]["kernel"]) != 0, kept)
    np.testing.assert_array_equal(params["embed"]["table"], np.full((7, 4), 1.0))


def test_accumulated_steps_and_injected_rates_hold_weights_at_zero():
    def chain(learning_rate):
        return optax.chain(optax.adam(learning_rate), nfp.freeze_pruned(HALF))

    injected = optax.inject_hyperparams(chain)(learning_rate=0.5)
    accumulated = optax.MultiSteps(chain(0.5), every_k_schedule=2)
    start = nfp.apply_mask(PARAMS, HALF)
    for optimizer, moves_at in ((injected, 1), (accumulated, 2)):
        params, state = start, optimizer.init(start)
        for step in (1, 2):
            params, state = stepped(optimizer, state, params)
            moved = params["dense"]["kernel"] != start["dense"]["kernel"]
            kept = HALF["dense"]["kernel"]
            expected = kept if step >= moves_at else np.zeros_like(kept)
            np.testing.assert_array_equal(moved, expected)
            assert not np.any(params["dense"]["kernel"][~kept])


def test_a_mask_that_does_not_fit_the_group_is_refused():
    optimizer = optimizers(LAYERS)["multi_transform"]
    without_bias = {"embed": PARAMS["embed"], "dense": {"kernel": jnp.ones((4, 3))}}
    expected = r"^mask does not have the structure of params: .*\['dense'\]"
    with pytest.raises(ValueError, match=expected):
        optimizer.init(without_bias)
    wrong = {**PARAMS, "dense": {"kernel": jnp.ones((5, 3)), "bias": jnp.ones(3)}}
    expected = r"mask at 'dense/kernel' has shape \(4, 3\), expected \(5, 3\)"
    with pytest.raises(ValueError, match=expected):
        optimizer.init(wrong)


MODULE = {"weight": jnp.ones((2, 2)), "activation": jax.nn.relu}
WITH_FUNCTION = {
    "prune": lambda: nfp.prune(nfp.magnitude(), MODULE, sparsity=0.5),
    "prune, prunable given": lambda: nfp.prune(
        nfp.magnitude(),
        MODULE,
        sparsity=0.5,
        prunable={"weight": True, "activation": False},
    ),
    "prune_many": lambda: nfp.prune_many(
        nfp.magnitude(), MODULE, in_axes=(None, 0, 0), sparsity=0.5
    ),
    "dense_mask": lambda: nfp.dense_mask(MODULE),
    "apply_mask": lambda: nfp.apply_mask(MODULE, {"weight": jnp.ones((2, 2), bool)}),
    "freeze_pruned": lambda: nfp.freeze_pruned({"weight": jnp.ones((2, 2), bool)}).init(
        MODULE
    ),
}


@pytest.mark.parametrize("call", WITH_FUNCTION)
def test_a_module_with_functions_among_its_leaves_is_refused_in_a_line(call):
    expected = (
        r"^params at 'activation' is 'relu', expected an array; of an Equinox module "
        r"give eqx\.filter\(model, eqx\.is_inexact_array\), or the first of "
        r"eqx\.partition$"
    )
    with pytest.raises(ValueError, match=expected):
        WITH_FUNCTION[call]()


def test_an_equinox_module_is_pruned_by_its_arrays():
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(4, 2, 8, 1, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"'activation' .* eqx\.partition$"):
        nfp.prune(nfp.magnitude(), model, sparsity=0.5)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    mask = nfp.prune(nfp.magnitude(), params, sparsity=0.5)
    assert int(nfp.ravel_mask(mask).sum()) == (4 * 8 + 8 * 2) // 2
    sparse = eqx.combine(nfp.apply_mask(params, mask), static)
    assert sparse.activation is model.activation
    assert sparse(jnp.ones(4)).shape == (2,)
