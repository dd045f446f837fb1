"""Smart ratio and the hybrid ticket: quotas by hand, exact counts, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import run, setup_of, spec_of

import nfp_jax as nfp
from nfp_jax import masks, pruners
from nfp_jax.fields import SpecError
from nfp_jax.models import MLP, ConvNet, initialize
from nfp_jax.pruners.contract import Network
from nfp_jax.pruners.order import order_of_use
from nfp_jax.pruners.smart_ratio import smart_ratio_counts

KEY = jax.random.key(0)
SHAPES = {
    "c0": (3, 3, 1, 4),  # 36
    "c1": (3, 3, 4, 4),  # 144
    "c2": (1, 1, 4, 8),  # 32
    "head": (8, 10),  # 80
}
pytestmark = pytest.mark.usefixtures("one_device")


def network(model, shape):
    return Network(
        model.apply,
        nfp.classification_loss(model.apply),
        shape,
        lambda key: initialize(model, key, shape),
    )


CONV = ConvNet(classes=3, channels=(4, 12), widths=(5,))
NET = network(CONV, (8, 8, 2))
SIZES = {"Conv_0": 72, "Conv_1": 432, "Dense_0": 240, "Dense_1": 15}


def kept_of(mask):
    layers = mask["params"]
    return {name: int(layer["kernel"].sum()) for name, layer in layers.items()}


def test_quotas_follow_k_squared_plus_k():
    """80 linear weights keep 24; of the rest c0, c1, c2 by 20·36, 12·144, 6·32."""
    counts = smart_ratio_counts(SHAPES, 24 + 66)
    assert counts["head"] == 24 and list(counts) == list(SHAPES)
    exact = [66 * x / (20 * 36 + 12 * 144 + 6 * 32) for x in (20 * 36, 12 * 144, 192)]
    assert exact == [18, 43.2, 4.8]
    assert [counts[name] for name in ("c0", "c1", "c2")] == [18, 43, 5]


def test_quotas_by_depth_are_divided_by_its_square():
    counts = smart_ratio_counts(SHAPES, 24 + 60, by_depth=True)
    weights = np.array([20 * 36 / 1, 12 * 144 / 4, 6 * 32 / 9])
    exact = 60 * weights / weights.sum()  # 36.8, of which c0 has room for 36
    assert exact[0] > 36
    assert counts["c0"] == 36
    assert counts["c1"] == int(exact[1] + exact[0] - 36) + 1  # and the larger rest
    assert counts["c2"] == int(exact[2]) and sum(counts.values()) == 84


@pytest.mark.parametrize("by_depth", [False, True])
def test_every_count_that_can_be_met_is_met_to_the_weight(by_depth):
    for keep in range(24, 24 + 36 + 144 + 32 + 1):
        counts = smart_ratio_counts(SHAPES, keep, by_depth=by_depth)
        assert sum(counts.values()) == keep and counts["head"] == 24
        assert all(0 <= counts[x] <= np.prod(SHAPES[x]) for x in SHAPES)
    # All convolutions are full at the last: overflow goes around to where room is.
    assert [counts[x] for x in ("c0", "c1", "c2")] == [36, 144, 32]


def test_what_can_not_be_met_is_refused_with_the_layers():
    for keep, left in ((23, "-1 of 23"), (24 + 213, "213 of 237")):
        with pytest.raises(ValueError, match=rf"\['head'\], so that {left} are left"):
            smart_ratio_counts(SHAPES, keep)
    with pytest.raises(ValueError, match=r"among convolutions, and \['head'\] are lin"):
        smart_ratio_counts({"head": (8, 10)}, 20)
    with pytest.raises(ValueError, match=r"linear_keep is 1\.5, expected 0 <= share"):
        smart_ratio_counts(SHAPES, 90, linear_keep=1.5)


def test_layers_count_in_the_order_of_their_use():
    """Conv_10 is after Conv_9, whatever the order of the tree."""
    model = ConvNet(classes=2, channels=(1,) * 11, widths=())
    params = jax.eval_shape(
        lambda: initialize(model, jax.random.key(0), (2048, 2048, 1))
    )
    leaves = [path for path, _ in masks.named_leaves(params)]
    used = order_of_use(jax.jit(model.apply), params, (2048, 2048, 1))
    kernels = [leaves[i] for i in used if leaves[i].endswith("kernel")]
    names = [f"params/Conv_{i}/kernel" for i in range(11)]
    assert kernels == [*names, "params/Dense_0/kernel"] != sorted(kernels)


def test_leaves_that_meet_no_input_come_last_and_casts_do_not_count():
    def apply_fn(params, x):
        params = jax.tree.map(lambda w: w.astype(jnp.float32) * 2, params)
        return jax.checkpoint(lambda x: jnp.sin(x @ params["c"]))(x) @ params["a"]

    params = {"a": jnp.ones((3, 1)), "b": jnp.ones((9,)), "c": jnp.ones((2, 3))}
    assert order_of_use(apply_fn, params, (2,)) == (2, 0, 1)


def test_masks_are_random_with_the_quotas_and_the_same_under_vmap():
    by = pruners.card("smart_ratio").build(NET)
    total, sparsity = sum(SIZES.values()), 0.7
    keep = masks.keep_count(total, sparsity)
    paths = ("Conv_0", "Conv_1", "Dense_0", "Dense_1")
    shapes = {x: (1, 1, 1, n) if x[0] == "C" else (1, n) for x, n in SIZES.items()}
    expected = smart_ratio_counts(shapes, keep)
    counts = by.counts(total, sparsity)
    assert counts.shape == (1, 4)
    assert dict(zip(paths, counts[0].tolist(), strict=True)) == expected
    params = NET.init_fn(KEY)
    one = by(params, key=KEY, keep=keep)
    assert kept_of(one) == expected
    again = by(params, key=KEY, keep=counts)
    jax.tree.map(np.testing.assert_array_equal, one, again)
    other = by(params, key=jax.random.key(1), keep=keep)
    assert kept_of(other) == expected and nfp.overlap(one, other) < 0.9
    keys = jnp.stack([KEY, jax.random.key(1)])
    many = jax.vmap(lambda key: by(params, key=key, keep=jnp.asarray(counts)))(keys)
    for i, mask in enumerate((one, other)):
        found = jax.tree.map(lambda leaf, i=i: leaf[i], many)
        jax.tree.map(np.testing.assert_array_equal, found, mask)


BASE = {
    "data": {"name": "digits", "download": False},
    "model": {"name": "convnet", "channels": (4, 6), "widths": (8,)},
    "train": {"max_epochs": 2, "stop": "still"},
    "grid": {
        "pruner": ("dense", "smart_ratio", "hybrid_ticket", "magnitude_trained"),
        "sparsity": (0.5, 0.8),
        "n": (30,),
    },
}


@pytest.mark.parametrize("at_once", [1, 3])
def test_the_rows_of_a_run_have_the_quotas(at_once):
    """And the hybrid ticket keeps in each layer the largest weights after training."""
    spec = spec_of(BASE, engine={"score_at_once": at_once})
    rows, failures, _ = run(spec)
    assert failures == [] and len(rows) == 7
    setup = setup_of(spec)
    for row in rows.values():
        if row["pruner"] in ("smart_ratio", "hybrid_ticket"):
            shapes = {
                path: (1, 1, 1, size) if "Conv" in path else (1, size)
                for path, size in setup.layers.items()
            }
            expected = smart_ratio_counts(
                shapes, masks.keep_count(setup.total, row["sparsity"])
            )
            assert row["kept_by_layer"] == list(expected.values())
            dense = row["pruner"] == "hybrid_ticket"
            assert (row["pruning_gradients"] > 0) == dense


def test_the_hybrid_ticket_keeps_the_largest_weights_of_each_layer():
    trajectory = pruners.card("hybrid_ticket").build(NET)
    [only] = trajectory.plan(sum(SIZES.values()), [0.7])
    params = NET.init_fn(KEY)
    scores = trajectory.score_fn(params)
    mask = trajectory.select(scores, only.cuts[0.7])
    assert sum(kept_of(mask).values()) == masks.keep_count(sum(SIZES.values()), 0.7)
    for name, count in zip(SIZES, only.cuts[0.7], strict=True):
        kernel = np.abs(params["params"][name]["kernel"]).ravel()
        largest = np.sort(kernel)[-count:].min()
        kept = mask["params"][name]["kernel"].ravel()
        assert (np.asarray(kept) == (kernel >= largest)).all()


@pytest.mark.parametrize("name", ["smart_ratio", "hybrid_ticket"])
def test_a_run_refuses_a_network_without_convolutions_and_other_selections(name):
    build = pruners.card(name).build
    with pytest.raises(ValueError, match=r"among convolutions, and .*Dense_1/kernel"):
        build(network(MLP(classes=2, widths=(3,)), (4,)))
    linear = {**BASE, "model": {"name": "mlp", "widths": (6,)}}
    with pytest.raises(SpecError, match=f"pruners.{name}.smart_ratio divides weights"):
        setup_of(spec_of(linear, grid={"pruner": (name,)}))
    with pytest.raises(SpecError, match="selects by itself, expected 'global'"):
        setup_of(spec_of(BASE, grid={"pruner": (name,), "select": ("erk",)}))


def test_a_cell_whose_quota_can_not_be_met_fails_alone():
    grid = {"pruner": ("random", "smart_ratio"), "sparsity": (0.99,)}
    rows, [failure], _ = run(spec_of(BASE, grid=grid))
    assert [row["pruner"] for row in rows.values()] == ["random"]
    assert failure.cell["pruner"] == "smart_ratio"
    assert "Dense_0/kernel" in failure.error and "change linear_keep" in failure.error
