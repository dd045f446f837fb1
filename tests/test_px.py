"""PX against sums over paths, one by one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import nfp_jax as nfp
from nfp_jax import masks, models, pruners
from nfp_jax.pruners.contract import Network
from nfp_jax.pruners.px import px

MODEL = models.MLP(2, widths=(4, 3))
PARAMS = MODEL.init(jax.random.key(0), jnp.zeros((1, 3)))
# Biases move gates.
PARAMS = jax.tree.map(lambda w: w if w.ndim > 1 else w - 0.3, PARAMS)
X = np.asarray(jax.random.normal(jax.random.key(1), (5, 3)))
LAYERS = tuple(f"{layer}/kernel" for layer in models.layer_chain(MODEL))


def net_of(model, input_shape):
    layers = None
    if hasattr(model, "layers"):
        layers = tuple(f"{layer}/kernel" for layer in models.layer_chain(model))
    return Network(
        model.apply,
        None,
        input_shape,
        lambda key: models.initialize(model, key, input_shape),
        layers=layers,
    )


def by_paths(mask):
    """For each weight the sum of ``ΣJ_c · Πθ²`` over the paths through it, by loops."""
    of_params, kept = dict(masks.named_leaves(PARAMS)), dict(masks.named_leaves(mask))
    w = [np.asarray(of_params[path] * kept[path], np.float64) for path in LAYERS]
    m = [np.asarray(kept[path], np.float64) for path in LAYERS]
    b = [np.asarray(of_params[path.replace("kernel", "bias")]) for path in LAYERS]
    first = X @ w[0] + b[0] > 0
    second = np.maximum(X @ w[0] + b[0], 0) @ w[1] + b[1] > 0
    paths = list(itertools.product(range(3), range(4), range(3), range(2)))
    j = np.zeros(2)
    for i, h, k, c in paths:
        present = m[0][i, h] * m[1][h, k] * m[2][k, c]
        j[c] += np.sum(X[:, i] ** 2 * first[:, h] * second[:, k]) * present
    scores = [np.zeros(kernel.shape) for kernel in w]
    for i, h, k, c in paths:
        value = j[c] * (w[0][i, h] * w[1][h, k] * w[2][k, c]) ** 2
        for layer, edge in enumerate(((i, h), (h, k), (k, c))):
            scores[layer][edge] += value
    return scores


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_scores_are_sums_over_paths_and_every_layer_has_the_same_sum(share):
    mask = nfp.prune(nfp.random(), PARAMS, None, jax.random.key(2), sparsity=share)
    found = dict(masks.named_leaves(jax.jit(px(LAYERS))(PARAMS, (X, None), mask=mask)))
    expected = by_paths(mask)
    for path, scores in zip(LAYERS, expected, strict=True):
        # 1e-5: float32 sums of positive numbers.
        np.testing.assert_allclose(found[path], scores, rtol=1e-5, atol=1e-6)
        assert scores.sum() == pytest.approx(expected[0].sum()) and scores.sum() > 0
    assert not any(np.any(found[path]) for path in set(found) - set(LAYERS))


class Tanh(models.MLP):
    activation: object = nn.tanh


def test_other_networks_are_refused_and_a_chain_is_pruned():
    card = pruners.card("px")
    by = card.build(net_of(MODEL, (3,)), rounds=5)
    total = masks.prunable_size(PARAMS)
    mask = by(PARAMS, (X, None), keep=by.counts(total, 0.5))
    flat = masks.ravel_mask(mask)
    assert int(flat.sum()) == masks.keep_count(total, 0.5)
    assert masks.empty_layers(mask) == []
    for model, shape, message in (
        (Tanh(2, widths=(4,)), (3,), "chain: px .* computes something else"),
        (models.ResNet(2, depth=8, width=8), (4, 4, 1), "this one declares none"),
        (models.ConvNet(2, channels=(2,)), (4, 4, 1), "'params/Conv_0/kernel' is no "),
    ):
        with pytest.raises(ValueError, match=message):
            card.build(net_of(model, shape))
    with pytest.raises(ValueError, match="px needs a batch of inputs, got None"):
        px(LAYERS)(PARAMS)
