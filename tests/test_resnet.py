"""Residual networks: counts, what may be pruned, flows, training in lanes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import (
    collapsed_without,
    counts_of,
    flow_of,
    initial,
    shapes_of,
    trained_in_lanes,
)
from running import run, spec_of

import nfp_jax as nfp
from nfp_jax import masks, models, pruners
from nfp_jax.fields import SpecError
from nfp_jax.masks.prunable import prunable_paths
from nfp_jax.pruners.contract import Network

SMALL = (8, 8, 3)


@pytest.mark.parametrize(
    ("classes", "settings", "expected"),
    [
        (10, {}, (272_474, 270_896)),
        (10, {"shortcut": "pad"}, (269_722, 268_336)),
        (10, {"norm": "none"}, (270_906, 270_896)),
        (100, {}, (278_324, 276_656)),
        (10, {"depth": 32}, (466_906, 464_432)),
        (10, {"depth": 8}, (78_042, 77_360)),
    ],
)
def test_parameters_in_all_and_prunable_are_as_published(classes, settings, expected):
    """He et al. 2015, table 6: 0.27 million and 0.46 million with "pad"."""
    assert counts_of(models.build("resnet", classes, **settings)) == expected


def test_all_convolutions_and_the_classifier_may_be_pruned_and_nothing_else():
    shapes = shapes_of(models.build("resnet", 10, depth=8), (32, 32, 3))
    paths = prunable_paths(shapes, masks.prunable_kernels(shapes))
    blocks = [f"block_{i}/conv{j}" for i in range(3) for j in (1, 2)]
    layers = ["stem", "head", "block_1/shortcut", "block_2/shortcut", *blocks]
    assert sorted(paths) == sorted(f"params/{layer}/kernel" for layer in layers)


@pytest.mark.parametrize("shortcut", ["conv", "pad"])
def test_the_network_is_the_composition_that_it_says(shortcut):
    """Against lax convolutions, padded by 1 on each side as PyTorch's are."""
    model = models.build("resnet", 5, depth=8, width=8, norm="none", shortcut=shortcut)
    params = initial(model, SMALL)["params"]
    x = jax.random.normal(jax.random.key(1), (2, *SMALL))

    def conv(x, layer, stride=1):
        kernel = layer["kernel"]
        side = kernel.shape[0] // 2
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), [(side, side)] * 2, dimension_numbers=numbers
        )

    @jax.jit
    def composed(params, x):
        out = jax.nn.relu(conv(x, params["stem"]))
        for i in range(3):
            block, stride = params[f"block_{i}"], 1 + (i > 0)
            hidden = jax.nn.relu(conv(out, block["conv1"], stride))
            branch = conv(hidden, block["conv2"])
            if "shortcut" in block:
                out = conv(out, block["shortcut"], stride)
            elif i > 0:
                more = out.shape[-1] // 2
                out = jnp.pad(out[:, ::2, ::2], [(0, 0)] * 3 + [(more, more)])
            out = jax.nn.relu(out + branch)
        return out.mean((1, 2)) @ params["head"]["kernel"]

    expected = composed(params, x)
    given = jax.jit(model.apply)({"params": params}, x)
    # 1e-4: nine layers of sums in another order, of logits of about 10.
    np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-4)


def test_group_norm_sees_one_example_at_a_time():
    model = models.build("resnet", 3, depth=8, width=8)
    params = initial(model, SMALL)
    x = jax.random.normal(jax.random.key(1), (3, *SMALL))
    apply_fn = jax.jit(model.apply)
    alone = jnp.concatenate([apply_fn(params, x[i : i + 1]) for i in range(3)])
    # 1e-5: sums in another order.
    np.testing.assert_allclose(apply_fn(params, x), alone, rtol=1e-5, atol=1e-5)


def test_the_flow_is_conserved_without_the_norm_and_0_with_it():
    model = models.build("resnet", 3, depth=8, width=8)
    params = initial(model, SMALL)
    sums, flow = flow_of(model.without_norm(), params, SMALL)
    flows = {
        path.removeprefix("params/").removesuffix("/kernel"): total
        for path, total in sums.items()
        if path.endswith("kernel")
    }
    # Everything passes through the ends, and through a branch or around it. 1e-4:
    # float32 sums.
    assert flows["stem"] == pytest.approx(flow, rel=1e-4)
    assert flows["head"] == pytest.approx(flow, rel=1e-4)
    for i in range(3):
        branch = flows[f"block_{i}/conv1"]
        assert flows[f"block_{i}/conv2"] == pytest.approx(branch, rel=1e-4)
        if i > 0:
            around = flows[f"block_{i}/shortcut"]
            assert branch + around == pytest.approx(flow, rel=1e-4)
        else:
            assert 0 < branch < flow
    with_norm, flow = flow_of(model, params, SMALL)
    # Of each layer before a norm; float32 sums of terms as large as the flow.
    for layer in set(flows) - {"head"}:
        assert abs(with_norm[f"params/{layer}/kernel"]) < 1e-3 * flow, layer


@pytest.mark.parametrize("depth", [20, 32])
def test_the_flow_of_the_deep_ones_does_not_overflow(depth):
    """At He normal's mean absolute weight, on images of 32 x 32."""
    model = models.build("resnet", 10, depth=depth)

    def typical(leaf):
        if leaf.ndim < 2:
            return jnp.zeros(leaf.shape)
        fan_in = leaf.size // leaf.shape[-1]
        return jnp.full(leaf.shape, 0.8 * (2 / fan_in) ** 0.5)

    params = jax.tree.map(typical, shapes_of(model, (32, 32, 3)))
    ones = jnp.ones((1, 32, 32, 3))
    flow = jax.jit(model.without_norm().apply)(params, ones)
    assert np.isfinite(flow).all() and (flow > 0).all()
    plain = jax.jit(model.clone(norm="none").apply)(params, ones)
    if depth == 20:  # in range as it is
        np.testing.assert_array_equal(flow, plain)
    else:
        assert np.isinf(plain).all()


def test_the_lab_scores_synflow_without_the_norm():
    """No layer of the mask is empty, and it is the library's on ``without_norm``."""
    model = models.build("resnet", 3, depth=8, width=8)
    params = initial(model, SMALL)
    plain, total = model.without_norm().apply, masks.prunable_size(params)
    net = Network(model.apply, nfp.classification_loss(model.apply), SMALL, None, plain)
    by = pruners.card("synflow").build(net)
    given = by(params, keep=by.counts(total, 0.97))
    score = nfp.synflow(plain, SMALL)
    expected = nfp.prune(score, params, sparsity=0.97, rounds=100)
    np.testing.assert_array_equal(masks.ravel_mask(given), masks.ravel_mask(expected))
    assert masks.empty_layers(given) == []


def test_it_is_collapsed_without_its_first_layer_and_not_with_it():
    """Normalization does not hide a path, and positions are none."""
    model = models.build("resnet", 3, depth=8, width=8)
    assert collapsed_without(model, SMALL, "stem") == (False, True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 18}, r"model\.depth is 18, expected 8, 14, 20"),
        ({"depth": 2}, r"model\.depth is 2, expected 8, 14, 20"),
        ({"norm": "layer"}, r"model\.norm is 'layer', expected one of \('group', 'b"),
        ({"shortcut": "b"}, r"model\.shortcut is 'b', expected one of \('conv', 'pad"),
        ({"width": 12}, r"model\.width is 12, expected width >= 1, a multiple of gr"),
        ({"norm": "none", "width": 0}, r"model\.width is 0, expected width >= 1$"),
        ({"groups": 0}, r"model\.groups is 0, expected groups >= 1"),
        ({"init": "he"}, r"init is 'he', expected one of"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        models.build("resnet", 10, **settings)


def test_inputs_that_are_no_images_are_refused():
    with pytest.raises(ValueError, match=r"ResNet got inputs of shape \(1, 50\)"):
        models.initialize(models.ResNet(10), jax.random.key(0), (50,))


def test_smoke_resnet_20_is_pruned_and_trained_in_lanes():
    model = models.build("resnet", 3, depth=20, width=8)
    before, after = trained_in_lanes(
        model, (4, 4, 3), score=lambda model, loss_fn: nfp.snip(loss_fn), epochs=8
    )
    assert after < before / 2


@pytest.mark.usefixtures("one_device")
def test_smoke_the_lab_runs_a_resnet_on_digits():
    spec = spec_of(
        {
            "data": {"name": "digits"},
            "model": {"name": "resnet", "depth": 8, "width": 8},
            "train": {"max_epochs": 2, "stop": "still"},
            "grid": {
                "pruner": ("dense", "snip", "synflow"),
                "sparsity": (0.9,),
                "n": (32,),
            },
        }
    )
    rows, failures, _ = run(spec)
    assert failures == [] and len(rows) == 3
    total = counts_of(models.build("resnet", 10, depth=8, width=8), (8, 8, 1))[1]
    for row in rows.values():
        kept = total if row["pruner"] == "dense" else masks.keep_count(total, 0.9)
        assert row["kept"] == sum(row["kept_by_layer"]) == kept


def test_a_resnet_of_a_bad_width_is_named_by_its_field():
    with pytest.raises(SpecError, match=r"model\.width is 3, expected width >= 1, a "):
        spec_of({"model": {"name": "resnet", "width": 3}})
