"""PHEW: the law of its walks, exact counts, paths, and what is refused."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import model_entry, run, setup_of, spec_of

import nfp_jax as nfp
from nfp_jax import masks, pruners
from nfp_jax.fields import SpecError
from nfp_jax.models import MLP, ConvNet, initialize, layer_chain
from nfp_jax.pruners.contract import Network
from nfp_jax.pruners.phew import phew

KEY = jax.random.key(0)
MODEL = MLP(classes=2, widths=(8, 6))
PARAMS = initialize(MODEL, jax.random.key(1), (5,))  # 100 prunable weights
pytestmark = pytest.mark.usefixtures("one_device")


def chain(model):
    return [f"{path}/kernel" for path in layer_chain(model)]


def kernels_of(tree, layers):
    leaves = dict(masks.named_leaves(tree))
    return [np.asarray(leaves[path], float) for path in layers]


def kept(mask):
    return int(masks.ravel_mask(mask).sum())


@pytest.mark.parametrize("keep", [1, 2, 3, 7, 50, 80])
def test_counts_are_exact_by_cutting_the_last_walk(keep):
    found = phew(chain(MODEL))(PARAMS, key=KEY, keep=keep)
    assert kept(found) == keep
    traced = jax.jit(lambda keep: phew(chain(MODEL))(PARAMS, key=KEY, keep=keep))(keep)
    jax.tree.map(np.testing.assert_array_equal, traced, found)


def test_masks_of_one_key_are_nested_and_others_differ():
    mask_fn = phew(chain(MODEL))
    found = [masks.ravel_mask(mask_fn(PARAMS, key=KEY, keep=k)) for k in (10, 30, 60)]
    assert all((a <= b).all() for a, b in itertools.pairwise(found))
    other = masks.ravel_mask(mask_fn(PARAMS, key=jax.random.key(1), keep=30))
    assert (other != found[1]).any()


def test_the_first_walk_is_one_edge_a_layer_on_a_path_from_the_first_input():
    for seed in range(20):
        mask = phew(chain(MODEL))(PARAMS, key=jax.random.key(seed), keep=3)
        unit = 0
        for kernel in kernels_of(mask, chain(MODEL)):
            (edge,) = np.argwhere(kernel)
            assert edge[0] == unit
            unit = edge[1]


def test_every_weight_of_whole_walks_lies_on_a_path():
    """In a chain of dense layers, until the cut of the last walk at most."""
    layers = chain(MODEL)
    for seed in range(10):
        mask = phew(layers)(PARAMS, key=jax.random.key(seed), keep=40)
        kernels = [kernel > 0 for kernel in kernels_of(mask, layers)]
        reached = [np.ones(5, bool)]
        for kernel in kernels:
            reached.append((kernel & reached[-1][:, None]).any(axis=0))
        leads = [np.ones(2, bool)]
        for kernel in reversed(kernels):
            leads.append((kernel & leads[-1][None]).any(axis=1))
        lost = sum(
            (kernel & ~(a[:, None] & b[None])).sum()
            for kernel, a, b in zip(kernels, reached, leads[-2::-1], strict=False)
        )
        assert lost <= 2  # of the last walk


def marginals(weights, backward=False):
    """How often a walk takes each weight of dense kernels, by matrix products."""
    edges = [np.abs(w) for w in weights]
    found = []
    if backward:
        at = np.eye(edges[-1].shape[1])[0]
        for a in reversed(edges):
            step = a / a.sum(axis=0, keepdims=True) * at[None]
            found.insert(0, step)
            at = step.sum(axis=1)
        return found
    at = np.eye(edges[0].shape[0])[0]
    for a in edges:
        step = a / a.sum(axis=1, keepdims=True) * at[:, None]
        found.append(step)
        at = step.sum(axis=0)
    return found


def test_visits_have_the_marginals_of_matrix_products():
    """The first walk, from input 0, by 4,000 keys."""
    layers, keys = chain(MODEL), jax.random.split(KEY, 4000)
    first = jax.jit(jax.vmap(lambda key: phew(layers)(PARAMS, key=key, keep=3)))(keys)
    weights = kernels_of(PARAMS, layers)
    found = [x.mean(axis=0) for x in kernels_of(first, layers)]
    for share, expected in zip(found, marginals(weights), strict=True):
        error = 5 * np.sqrt(expected * (1 - expected) / 4000) + 1e-3
        assert (np.abs(share - expected) < error).all()


def test_walks_back_have_the_marginals_of_matrix_products():
    """Where the walk forward can take one way alone; a walk each, by 4,000 keys."""
    a, b = (
        jax.random.normal(jax.random.key(i), shape)
        for i, shape in ((3, (3, 4)), (4, (4, 2)))
    )
    params = {
        "a": a.at[0].set(jnp.array([1.0, 0.0, 0.0, 0.0])),
        "b": b.at[0].set(jnp.array([0.5, 0.0])),
    }
    two = phew(["a", "b"], max_walks=2)  # traced, it returns what these two visit
    keys = jax.random.split(KEY, 4000)
    found = jax.jit(jax.vmap(lambda key: two(params, key=key, keep=8)))(keys)
    weights = kernels_of(params, ["a", "b"])
    for visits, expected in zip(
        kernels_of(found, ["a", "b"]), marginals(weights, backward=True), strict=True
    ):
        share = visits.mean(axis=0)
        assert share[0, 0] == 1  # forward, from input 0
        error = 5 * np.sqrt(expected * (1 - expected) / 4000) + 1e-3
        assert (np.abs(share - expected) < error)[expected != expected[0, 0]].all()


CONV = ConvNet(classes=3, channels=(3, 4), widths=(5,))


def test_convolutions_are_walked_summed_over_space_then_at_one_element():
    params = initialize(CONV, jax.random.key(2), (8, 8, 2))
    layers, keys = chain(CONV), jax.random.split(KEY, 3000)
    found = jax.jit(jax.vmap(lambda key: phew(layers)(params, key=key, keep=4)))(keys)
    first, second, dense, head = kernels_of(found, layers)
    assert (first.sum(axis=(1, 2, 3, 4)) == 1).all()  # one element a walk
    weights = [np.abs(w) for w in kernels_of(params, layers)]
    # Of input 0 the first layer's law is |w| over its sum, space and outputs alike.
    expected = weights[0][:, :, 0] / weights[0][:, :, 0].sum()
    share = first[:, :, :, 0].mean(axis=0)
    assert (np.abs(share - expected) < 5 * np.sqrt(0.25 / 3000)).all()
    # A walk leaves a convolution by the channel at which it enters the next layer.
    entered = second.sum(axis=(1, 2, 4))
    assert (first.sum(axis=(1, 2, 3)) == entered).all()
    # Flattened, unit p * 4 + c is channel c at place p, chosen uniformly.
    left = second.sum(axis=(1, 2, 3))
    units = dense.sum(axis=2)  # [walks, 16]
    assert (units.reshape(-1, 4, 4).sum(axis=1) == left).all()
    places = units.reshape(-1, 4, 4).sum(axis=2).mean(axis=0)
    assert (np.abs(places - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 3000)).all()
    assert (head.sum(axis=(1, 2)) == 1).all()
    whole = phew(layers)(params, key=KEY, keep=150)
    assert kept(whole) == 150 and not masks.empty_layers(whole)


def test_many_masks_are_those_of_one_at_a_time():
    keys = jax.random.split(KEY, 3)
    params = jax.vmap(lambda key: initialize(MODEL, key, (5,)))(keys)
    mask_fn = phew(chain(MODEL))
    many = jax.jit(jax.vmap(lambda w, key: mask_fn(w, key=key, keep=30)))(params, keys)
    for i, key in enumerate(keys):
        one = mask_fn(jax.tree.map(lambda leaf, i=i: leaf[i], params), key=key, keep=30)
        found = jax.tree.map(lambda leaf, i=i: leaf[i], many)
        jax.tree.map(np.testing.assert_array_equal, found, one)


def test_an_earlier_mask_is_walked_within():
    earlier = masks.top_k(nfp.magnitude()(PARAMS), 40)
    found = phew(chain(MODEL))(PARAMS, key=KEY, keep=20, mask=earlier)
    assert kept(found) == 20
    assert (masks.ravel_mask(found) <= masks.ravel_mask(earlier)).all()


def test_phew_refuses():
    layers = chain(MODEL)
    with pytest.raises(ValueError, match="phew needs a key, got None"):
        phew(layers)(PARAMS, keep=3)
    with pytest.raises(ValueError, match="max_walks is 0, expected at least 1"):
        phew(layers, max_walks=0)
    with pytest.raises(ValueError, match=r"\['params/Dense_1/kernel'\] is not both in"):
        phew([layers[0], layers[2]])(PARAMS, key=KEY, keep=3)
    with pytest.raises(ValueError, match="Dense_2/kernel' has 6 inputs, expected a m"):
        phew([layers[0], layers[2], layers[1]])(PARAMS, key=KEY, keep=3)
    with pytest.raises(ValueError, match=r"phew visited \d+ weights in 4 walks, expe"):
        phew(layers, max_walks=4)(PARAMS, key=KEY, keep=60)
    zero = jax.tree.map(jnp.zeros_like, PARAMS["params"]["Dense_2"])
    headless = {"params": {**PARAMS["params"], "Dense_2": zero}}
    with pytest.raises(ValueError, match=r"no path .* layer 'params/Dense_2/kernel'"):
        phew(layers)(headless, key=KEY, keep=3)
    # Traced, nothing can be raised: it stops at once, and the mask is empty.
    jitted = jax.jit(lambda params: phew(layers)(params, key=KEY, keep=3))
    assert kept(jitted(headless)) == 0


BASE = {
    "data": {"dim": 4},
    "model": {"widths": (6,)},
    "train": {"max_epochs": 2, "stop": "still"},
    "grid": {"pruner": ("phew",), "sparsity": (0.5,), "n": (16,)},
}


def test_rows_of_a_run_have_exact_counts_one_by_one_and_stacked():
    for size in (1, 3):
        rows, failures, _ = run(spec_of(BASE, engine={"score_at_once": size}))
        [row] = rows.values()
        assert failures == [] and row["kept"] == 18 and row["pruning_gradients"] == 0


def test_a_network_without_a_chain_is_refused_with_its_first_layer(monkeypatch):
    from flax import linen as nn

    class Branches(nn.Module):
        classes: int

        @nn.compact
        def __call__(self, x):
            return nn.Dense(self.classes)(x) + nn.Dense(self.classes)(jnp.sin(x))

    name = model_entry(monkeypatch, "branches", lambda classes: Branches(classes))
    config = {**BASE, "model": {"name": name}}
    with pytest.raises(SpecError, match=r"phew walks a chain .*Dense_0/kernel'"):
        setup_of(spec_of(config))


def test_a_run_fails_cells_whose_walks_fall_short_and_says_so():
    short = {**BASE, "pruners": {"phew": {"max_walks": 2}}}
    rows, [failure], _ = run(spec_of(short))
    assert rows == {}
    assert "pruner 'phew' keeps" in failure.error and "fewer than" in failure.error
    short = {**short, "question": "information", "information": {"datasets": 4}}
    _, [failure], _ = run(spec_of(short))
    assert "pruner 'phew' keeps" in failure.error and "Dense_0" in failure.error


def test_the_card_builds_the_chain_of_the_network():
    net = Network(
        MODEL.apply,
        nfp.classification_loss(MODEL.apply),
        (5,),
        functools.partial(initialize, MODEL, input_shape=(5,)),
        layers=tuple(chain(MODEL)),
    )
    found = pruners.card("phew").build(net)(PARAMS, key=KEY, keep=30)
    expected = phew(chain(MODEL))(PARAMS, key=KEY, keep=30)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
