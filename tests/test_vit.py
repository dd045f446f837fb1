"""Vision transformers: counts, what may be pruned, flows, training in lanes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
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
from nfp_jax import masks, models
from nfp_jax.masks.prunable import prunable_paths
from nfp_jax.models.attention import flow_attention
from nfp_jax.models.flow import in_range

SMALL = {"depth": 4, "width": 64, "heads": 4, "mlp": 128}
TINY = {"depth": 2, "width": 8, "heads": 2, "mlp": 16, "patch": 4}
SHAPE = (8, 8, 3)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (5_362_762, 5_319_552)),
        ({"depth": 6, "mlp": 384}, (1_806_538, 1_780_608)),
        (SMALL, (142_026, 134_784)),
    ],
)
def test_parameters_in_all_and_prunable_are_as_published(settings, expected):
    assert counts_of(models.build("vit", 10, **settings)) == expected


def test_kernels_may_be_pruned_and_no_bias_token_or_position():
    shapes = shapes_of(models.build("vit", 10), (32, 32, 3))
    paths = prunable_paths(shapes, masks.prunable_kernels(shapes))
    parts = ["attention/key", "attention/out", "attention/query", "attention/value"]
    layers = [f"block_{i}/{x}" for i in range(12) for x in (*parts, "mlp1", "mlp2")]
    layers += ["embedding", "head"]
    assert sorted(paths) == sorted(f"params/{layer}/kernel" for layer in layers)
    by_axes = sum(leaf.size for leaf in jax.tree.leaves(shapes) if leaf.ndim > 1)
    assert by_axes == 5_339_136  # what the rule of two axes alone takes


def test_the_network_is_the_composition_that_it_says():
    model = models.build("vit", 3, **TINY, norm="none")
    params = initial(model, SHAPE)["params"]
    x = jax.random.normal(jax.random.key(1), (2, *SHAPE))

    def dense(x, layer, axes=1):
        out = jnp.tensordot(x, layer["kernel"], axes)
        return out + jnp.broadcast_to(layer["bias"], out.shape)

    @jax.jit
    def composed(params, x):
        kernel = params["embedding"]["kernel"]
        patches = [
            jnp.tensordot(x[:, i : i + 4, j : j + 4], kernel, 3)
            for i in (0, 4)
            for j in (0, 4)
        ]
        tokens = [jnp.tile(params["cls"][0], (2, 1)), *patches]
        out = jnp.stack(tokens, axis=1) + params["pos_embedding"]
        for i in range(2):
            block = params[f"block_{i}"]
            q, k, v = (
                dense(out, block["attention"][name])
                for name in ("query", "key", "value")
            )
            products = jnp.einsum("bihd,bjhd->bhij", q, k) / np.sqrt(4)
            mixed = jnp.einsum("bhij,bjhd->bihd", jax.nn.softmax(products), v)
            out = out + dense(mixed, block["attention"]["out"], 2)
            hidden = jax.nn.gelu(dense(out, block["mlp1"]))
            out = out + dense(hidden, block["mlp2"])
        return dense(out[:, 0], params["head"])

    given = jax.jit(model.apply)({"params": params}, x)
    # 1e-4: some layers of sums in another order.
    np.testing.assert_allclose(given, composed(params, x), rtol=1e-4, atol=1e-4)


def test_the_patch_embedding_is_the_convolution_of_lax():
    x = jax.random.normal(jax.random.key(0), (2, 6, 8, 3))
    kernel = jax.random.normal(jax.random.key(1), (2, 4, 3, 5))
    expected = jax.lax.conv_general_dilated(
        x, kernel, (2, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    given = models.patches_as_matmul(x, kernel, (2, 4), "VALID")
    # 1e-5: 24 products in another order.
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"strides \(1, 1\).*expected the kernel's s"):
        models.patches_as_matmul(x, kernel, (1, 1), "VALID")


def test_the_flow_is_conserved_without_norms_and_softmax():
    """Queries, keys, values and the output pass on the same flow, and so do the dense
    layers of a block; all of it passes through the head.
    """
    model = models.build("vit", 3, **TINY)
    params = initial(model, SHAPE)
    sums, flow = flow_of(model.without_norm(), params, SHAPE)
    assert sums["params/head/kernel"] == pytest.approx(flow, rel=1e-4)
    for i in range(2):
        block = f"params/block_{i}"
        for part, first, others in (
            ("/attention", "query", ("key", "value", "out")),
            ("", "mlp1", ("mlp2",)),
        ):
            branch = sums[f"{block}{part}/{first}/kernel"]
            assert 0 < branch < flow
            for name in others:  # 1e-4: float32 sums
                given = sums[f"{block}{part}/{name}/kernel"]
                assert given == pytest.approx(branch, rel=1e-4), name
    # What enters is the patches and the positions.
    entering = sums["params/embedding/kernel"] + sums["params/pos_embedding"]
    assert entering == pytest.approx(flow, rel=1e-4)


def test_what_is_kept_in_range_has_scores_of_the_same_ratios():
    """They are those of the network as it is, times a power of two."""
    model = models.build("vit", 3, **TINY)
    params = initial(model, SHAPE)
    plain = nfp.synflow(model.without_norm().apply, SHAPE)(params)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nfp_jax.models.attention.in_range", lambda x, _: in_range(x, 1))
        scaled = nfp.synflow(model.without_norm().apply, SHAPE)(params)
    scaled, plain = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
        for tree in (scaled, plain)
    )
    factor = scaled.max() / plain.max()
    assert factor < 1 and np.log2(factor) == pytest.approx(round(np.log2(factor)))
    # 1e-6 of the largest: powers of two are exact, sums may be fused otherwise.
    np.testing.assert_allclose(
        scaled / factor, plain, rtol=1e-5, atol=1e-6 * plain.max()
    )


def test_synflow_of_vit_ti_does_not_overflow():
    model = models.build("vit", 10)
    shapes = shapes_of(model, SHAPE)
    # He normal's mean absolute weight for all of a kernel: no draw of 5 million.
    params = jax.tree.map(
        lambda leaf: jnp.full(leaf.shape, 0.8 * (2 / leaf.shape[0]) ** 0.5), shapes
    )
    ones = jnp.ones((1, *SHAPE))
    flow = jax.jit(model.without_norm().apply)(params, ones)
    assert np.isfinite(flow).all() and (flow > 0).all()


def test_attention_by_products_is_an_average_of_the_values():
    q, k, v = jax.random.uniform(jax.random.key(0), (3, 2, 5, 2, 4))
    given = np.asarray(flow_attention(q, k, v))
    for b in range(2):
        for h in range(2):
            products = np.asarray(q[b, :, h] @ k[b, :, h].T)
            weights = products / products.sum(axis=1, keepdims=True)
            expected = weights @ np.asarray(v[b, :, h])
            # 1e-5: some sums in another order.
            np.testing.assert_allclose(given[b, :, h], expected, rtol=1e-5)
    assert (flow_attention(0 * q, k, v) == 0).all()


def test_a_plain_flax_transformer_has_the_right_prunable_set():
    """Of a user's own module: the biases of its attention have two axes."""

    class Own(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = x + self.param("pos_emb", nn.initializers.ones, (1, 5, 8))
            return nn.Dense(3)(nn.MultiHeadDotProductAttention(num_heads=2)(x))

    shapes = shapes_of(Own(), (5, 8))
    paths = prunable_paths(shapes, masks.prunable_kernels(shapes))
    assert len(paths) == 5 and all(path.endswith("kernel") for path in paths)


def test_it_is_collapsed_without_its_first_layer_and_not_with_it():
    """Normalization does not hide a path, and positions are none."""
    model = models.build("vit", 3, **TINY)
    assert collapsed_without(model, SHAPE, "embedding") == (False, True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 0}, r"model\.depth is 0, expected depth >= 1"),
        ({"width": 64}, r"model\.width is 64, expected a multiple of heads = 3"),
        ({"norm": "group"}, r"model\.norm is 'group', expected one of \('layer', 'n"),
        ({"init": "he"}, r"init is 'he', expected one of"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        models.build("vit", 10, **settings)


def test_images_that_are_no_multiple_of_the_patch_are_refused():
    with pytest.raises(ValueError, match=r"shape \(1, 10, 8, 3\).*patch = 4"):
        shapes_of(models.ViT(10), (10, 8, 3))


@pytest.mark.parametrize(
    "settings",
    [
        {"depth": 6, "width": 12, "heads": 3, "mlp": 48},
        {**SMALL, "width": 16, "mlp": 32},
    ],
    ids=["Ti", "small"],
)
def test_smoke_a_vit_is_pruned_and_trained_in_lanes(settings):
    """Heads are those of the two, and tokens narrower; Ti has half its blocks."""
    before, after = trained_in_lanes(
        models.build("vit", 3, **settings),
        SHAPE,
        score=lambda model, loss_fn: nfp.snip(loss_fn),
        epochs=20,
    )
    assert after < before / 2


@pytest.mark.usefixtures("one_device")
def test_smoke_the_lab_runs_a_vit_on_digits():
    spec = spec_of(
        {
            "data": {"name": "digits"},
            "model": {"name": "vit", **TINY},
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
    total = counts_of(models.build("vit", 10, **TINY), (8, 8, 1))[1]
    for row in rows.values():
        kept = total if row["pruner"] == "dense" else masks.keep_count(total, 0.9)
        assert row["kept"] == sum(row["kept_by_layer"]) == kept
