"""Associative recall: its pairs, and the transformer of one layer that learns them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import counts_of, flow_of, initial, shapes_of
from running import run, spec_of

from nfp_jax import data, masks, models
from nfp_jax.fields import SpecError
from nfp_jax.masks.prunable import prunable_paths

KEY = jax.random.key(0)
TINY = {"width": 8, "heads": 2, "mlp": 16}


def test_keys_and_values_are_uniform_and_independent():
    pairs = data.recall(KEY, 4000, vocabulary=5, length=3, values=4)
    tokens = np.argmax(pairs.x, axis=-1)
    assert pairs.x.shape == (4000, 3, 5) and tokens.shape == (4000, 3)
    np.testing.assert_allclose(np.mean(np.square(pairs.x)), 1, rtol=1e-6)
    assert ((pairs.x > 0).sum(axis=-1) == 1).all()
    table = np.zeros((5, 4))
    np.add.at(table, (tokens[:, 0], np.asarray(pairs.y)), 1)
    # Four deviations of a count of 200.
    assert np.abs(table - 200).max() < 4 * 200**0.5
    assert np.unique(tokens[:, :2], axis=0).shape == (25, 2)


def test_pairs_are_nested_in_n():
    few, many = (data.recall(KEY, n, length=3) for n in (5, 50))
    np.testing.assert_array_equal(few.x, many.x[:5])
    np.testing.assert_array_equal(few.y, many.y[:5])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocabulary": 1}, r"data\.vocabulary is 1, expected vocabulary >= 2"),
        ({"length": 0}, r"data\.length is 0, expected length >= 1"),
        ({"values": 1}, r"data\.values is 1, expected values >= 2"),
    ],
)
def test_numbers_out_of_range_are_named(settings, message):
    with pytest.raises(SpecError, match=message):
        spec_of({"data": {"name": "recall", **settings}})
    with pytest.raises(ValueError, match="expected at least"):
        data.recall(KEY, 3, **settings)


def test_all_kernels_may_be_pruned_and_no_bias_or_position():
    model = models.build("transformer", 7, **TINY)
    shapes = shapes_of(model, (3, 5))
    paths = prunable_paths(shapes, masks.prunable_kernels(shapes))
    parts = ("attention/key", "attention/out", "attention/query", "attention/value")
    layers = ["embedding", "head", *(f"block/{x}" for x in (*parts, "mlp1", "mlp2"))]
    assert sorted(paths) == sorted(f"params/{layer}/kernel" for layer in layers)
    kernels = 5 * 8 + 4 * 64 + 2 * 8 * 16 + 8 * 7
    assert counts_of(model, (3, 5)) == (kernels + 3 * 8 + 4 * 8 + 16 + 8 + 7, kernels)


def test_the_last_token_is_told_apart_from_the_others_and_hears_of_them():
    model = models.build("transformer", 3, **TINY)
    params = initial(model, (4, 5))
    apply_fn = jax.jit(model.apply)
    x = jnp.asarray(data.recall(KEY, 1, vocabulary=5, length=4).x)
    given = apply_fn(params, x)
    for place in range(4):
        other = x.at[0, place].set(jnp.roll(x[0, place], 1))
        assert (apply_fn(params, other) != given).any()


def test_the_flow_is_conserved_without_softmax():
    model = models.build("transformer", 3, **TINY)
    sums, flow = flow_of(model.without_norm(), initial(model, (4, 5)), (4, 5))
    branch = sums["params/block/attention/value/kernel"]
    for name in ("query", "key", "out"):  # 1e-4: float32 sums
        found = sums[f"params/block/attention/{name}/kernel"]
        assert found == pytest.approx(branch, rel=1e-4)
    entering = sums["params/embedding/kernel"] + sums["params/pos_embedding"]
    assert entering == pytest.approx(flow, rel=1e-4) and 0 < branch < flow


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 9}, r"model\.width is 9, expected a multiple of heads = 4"),
        ({"heads": 0}, r"model\.heads is 0, expected heads >= 1"),
        ({"mlp": -1}, r"model\.mlp is -1, expected mlp >= 0"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        models.build("transformer", 3, **settings)


def test_inputs_that_are_no_sequences_are_refused():
    with pytest.raises(ValueError, match=r"Transformer got inputs of shape \(1, 50\)"):
        shapes_of(models.Transformer(3), (50,))


@pytest.mark.usefixtures("one_device")
def test_pairs_are_memorized_and_masks_keep_what_they_should():
    spec = spec_of(
        {
            "data": {"name": "recall", "vocabulary": 8, "length": 3, "values": 4},
            "model": {"name": "transformer", "width": 16, "heads": 2, "mlp": 32},
            "train": {"max_epochs": 200, "stop": "still", "patience": 200},
            "grid": {
                "pruner": ("dense", "snip"),
                "sparsity": (0.5,),
                "n": (48,),
                "noise": (1.0,),
            },
        }
    )
    rows, failures, _ = run(spec)
    assert failures == [] and len(rows) == 2
    total = counts_of(models.build("transformer", 4, width=16, mlp=32), (3, 8))[1]
    for row in rows.values():
        # All but pairs of equal keys; 48² / (2·512), so 2 or 3 are expected.
        assert row["memorized_points"] >= 42
        kept = total if row["pruner"] == "dense" else masks.keep_count(total, 0.5)
        assert row["kept"] == kept
