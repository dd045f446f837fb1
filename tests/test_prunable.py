"""Which leaves may be pruned: by axes and names, or as a network's card says."""

import jax
import jax.numpy as jnp
import pytest
from running import model_entry, run, setup_of, spec_of

from nfp_jax import masks, models
from nfp_jax.fields import SpecError

TWO = jnp.ones((2, 3))
BASE = {
    "data": {"dim": 4},
    "model": {"widths": (6,)},
    "train": {"max_epochs": 2, "stop": "still"},
    "grid": {"pruner": ("random",), "sparsity": (0.5,), "n": (16,)},
}


def flag(*path):
    """Whether a leaf of two axes with this path may be pruned, beside a kernel."""
    tree = TWO
    for name in reversed(path):
        tree = {name: tree}
    prunable = masks.prunable_kernels({"other": {"kernel": TWO}, **tree})
    return dict(masks.named_leaves(prunable))["/".join(path)]


@pytest.mark.parametrize(
    "path",
    [
        ("query", "bias"),
        ("norm", "scale"),
        ("batch_norm", "offset"),
        ("layer_norm", "gamma"),
        ("cls",),
        ("vit", "cls_token"),
        ("embeddings", "class_embedding"),
        ("embeddings", "mask_token"),
        ("pos_embedding",),
        ("pos_embed",),
        ("Transformer", "posembed_input", "pos_embedding"),
        ("embeddings", "position_embeddings", "embedding"),
        ("positional_embedding",),
        ("vit.encoder.layer.0.query.bias",),
        ("vit.embeddings.position_embeddings",),
        ("ClassEmbed", "CLS"),
    ],
    ids="/".join,
)
def test_biases_scales_tokens_and_positions_of_two_axes_are_kept(path):
    assert not flag(*path)


@pytest.mark.parametrize(
    "path",
    [
        ("dense", "kernel"),
        ("w",),
        ("b",),
        ("linear", "weight"),
        ("embeddings", "word_embeddings", "embedding"),
        ("vit.encoder.layer.0.query.weight",),
        ("compose", "kernel"),
        ("expose_embedding", "kernel"),
        ("bias_net", "kernel"),
        ("scales", "kernel"),
        ("classifier", "kernel"),
        ("position_wise", "kernel"),
        ("pos_ffn", "kernel"),
    ],
    ids="/".join,
)
def test_other_leaves_of_two_axes_may_be_pruned(path):
    assert flag(*path)


def test_attributes_have_names_too():
    """As those of Equinox modules: a convolution's bias is [channels, 1, 1]."""

    class Layer:
        def __init__(self, weight, bias):
            self.weight, self.bias = weight, bias

    jax.tree_util.register_dataclass(Layer, ["weight", "bias"], [])
    tree = Layer(weight=jnp.ones((2, 3, 3, 3)), bias=jnp.ones((2, 1, 1)))
    found = masks.prunable_kernels(tree)
    assert found.weight is True and found.bias is False


@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_of_plain_networks_it_is_all_leaves_of_two_axes(name):
    model = models.build(name, 10)
    x = jnp.zeros((1, 8, 8, 1))
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    by_axes = jax.tree.map(lambda leaf: leaf.ndim > 1, shapes)
    assert masks.prunable_kernels(shapes) == by_axes


def test_where_only_biases_and_tokens_have_two_axes_nothing_is_left():
    with pytest.raises(ValueError, match=r"nothing to prune: .*'bias': \(2, 3\)"):
        masks.prunable_kernels({"bias": TWO, "cls": TWO, "w": jnp.ones(3)})


def build(classes, *, widths=(6,)):
    return models.MLP(classes, widths)


@pytest.mark.usefixtures("one_device")
def test_the_card_of_a_network_says_what_may_be_pruned(monkeypatch):
    def first_alone(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "Dense_0" in str(path) and "kernel" in str(path), params
        )

    entry = model_entry(monkeypatch, "ruled", build, prunable=first_alone)
    spec = spec_of(BASE, model={"name": entry})
    assert setup_of(spec).total == 24
    rows, failures, _ = run(spec)
    assert failures == []
    assert [row["kept_by_layer"] for row in rows.values()] == [[12]]


def test_a_rule_that_is_none_is_an_error_that_names_the_network(monkeypatch):
    for rule, message in (
        (lambda params: {"w": True}, "model_ruled:CARD.*prunable has the leaves"),
        (
            lambda params: jax.tree.map(lambda _: False, params),
            "model_ruled:CARD.*prunable is False everywhere",
        ),
    ):
        entry = model_entry(monkeypatch, "ruled", build, prunable=rule)
        with pytest.raises(SpecError, match=message):
            setup_of(spec_of(BASE, model={"name": entry}))
