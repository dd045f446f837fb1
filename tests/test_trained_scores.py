"""Edge-popup and GEM-miner: their slopes and counts, and what training them finds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nfp_jax as nfp
from nfp_jax import masks, models, pruners
from nfp_jax.pruners import edge_popup as popup
from nfp_jax.pruners import gem_miner as gem
from nfp_jax.pruners.contract import Network
from nfp_jax.pruners.trained_scores import (
    mask_slopes,
    minibatch_rows,
    minibatches,
    uniform_like,
)

MODEL = models.MLP(2, (24, 24))
LOSS = nfp.classification_loss(MODEL.apply)
PARAMS = models.initialize(MODEL, jax.random.key(0), (6,))
X = jax.random.normal(jax.random.key(1), (40, 6))
Y = jax.random.bernoulli(jax.random.key(2), 0.5, (40,)).astype(jnp.int32)
KEY = jax.random.key(3)
PRUNABLE = masks.prunable_kernels(PARAMS)
NET = Network(MODEL.apply, LOSS, (6,), lambda key: PARAMS)
FEW = {"edge_popup": {"steps": 30}, "gem_miner": {"steps": 30, "every": 7}}
BOTH = {"edge_popup": nfp.edge_popup, "gem_miner": nfp.gem_miner}
# The selection that each of them prunes with.
SELECTS = {"edge_popup": nfp.top_k_per_layer, "gem_miner": nfp.top_k}

pytestmark = pytest.mark.usefixtures("one_device")


def mask_of(name, params=PARAMS, batch=(X, Y), key=KEY, sparsity=0.8, **settings):
    score = BOTH[name](LOSS, sparsity=sparsity, **{**FEW[name], **settings})
    return nfp.prune(score, params, batch, key, sparsity=sparsity, select=SELECTS[name])


def kernels(tree):
    """The prunable leaves, as arrays."""
    return [np.asarray(leaf) for leaf in masks.prunable.prunable_leaves(tree, PRUNABLE)]


def test_slopes_are_those_of_a_mask_of_numbers():
    """Against the gradient with respect to a float mask; 1e-6: float32."""
    mask = nfp.prune(nfp.random(), PARAMS, None, KEY, sparsity=0.5)
    floats = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), mask)

    def loss(floats):
        logits = nfp.masked_apply(MODEL.apply)(PARAMS, floats, X)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), Y[:, None], axis=1)
        return -jnp.mean(chosen)

    expected = jax.grad(loss)(floats)
    found = mask_slopes(LOSS, PARAMS, mask, (X, Y))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected
    )
    removed = [np.abs(s)[~m] for s, m in zip(*map(kernels, (found, mask)), strict=True)]
    assert all(slopes.max() > 0 for slopes in removed)


def test_steps_of_edge_popup_by_hand():
    """Slopes ``sign(s) w ∂L/∂(w⊙m)``, decay, momentum and rates as written down."""
    steps, rate, momentum, decay = 3, 0.1, 0.9, 0.05
    start, rows, take = minibatches(KEY, (X, Y), steps=steps, batch_size=16)
    scores = uniform_like(PARAMS, start, PRUNABLE, popup._bounds, rest=0.0)
    keep = masks.keep_count(masks.prunable_size(PARAMS), 0.8)
    velocity = jax.tree.map(jnp.zeros_like, scores)
    for t in range(steps):
        mask = nfp.top_k_per_layer(jax.tree.map(jnp.abs, scores), keep)
        gradient = jax.grad(LOSS)(nfp.apply_mask(PARAMS, mask), take(rows[t]))
        at = rate * 0.5 * (1 + np.cos(np.pi * t / steps))
        velocity = jax.tree.map(
            lambda v, s, w, g: momentum * v + jnp.sign(s) * w * g + decay * s,
            *(velocity, scores, PARAMS, gradient),
        )
        scores = jax.tree.map(lambda s, v, at=at: s - at * v, scores, velocity)
    score = nfp.edge_popup(
        LOSS, sparsity=0.8, steps=steps, batch_size=16, weight_decay=decay
    )
    found = score(PARAMS, (X, Y), KEY)
    # 1e-6: float32, in another order.
    for ours, by_hand in zip(*map(kernels, (found, scores)), strict=True):
        np.testing.assert_allclose(ours, np.abs(by_hand), atol=1e-6)
    rest = jax.tree.map(lambda leaf, p: not p and np.any(leaf), found, PRUNABLE)
    assert not any(jax.tree.leaves(rest))


def test_gem_miner_by_hand_only_ever_removes():
    steps, every, rate, penalty = 12, 3, 0.5, 0.01
    start, rows, take = minibatches(KEY, (X, Y), steps=steps, batch_size=16)
    p = uniform_like(PARAMS, start, PRUNABLE, lambda _: (0.0, 1.0), rest=1.0)
    flags, velocity = masks.dense_mask(PARAMS), jax.tree.map(jnp.zeros_like, p)
    total = masks.prunable_size(PARAMS)
    keep = masks.keep_count(total, 0.8)
    share = 1 - (keep / total) ** (1 / 3)
    for t in range(steps):
        kept = jax.tree.map(lambda p, flag: (p > 0.5) & flag, p, flags)
        gradient = jax.grad(LOSS)(nfp.apply_mask(PARAMS, kept), take(rows[t]))
        at = rate * 0.5 * (1 + np.cos(np.pi * t / steps))
        velocity = jax.tree.map(
            lambda v, p, flag, w, g: 0.9 * v + flag * w * g + 2 * penalty * p,
            *(velocity, p, flags, PARAMS, gradient),
        )
        velocity = jax.tree.map(lambda v, prune: v * prune, velocity, PRUNABLE)
        p = jax.tree.map(lambda p, v, at=at: jnp.clip(p - at * v, 0, 1), p, velocity)
        if (t + 1) % every == 0 and t + 1 < steps:
            active = int(masks.ravel_mask(flags).sum())
            left = max(active - int(np.ceil(share * active)), keep)
            left = keep if t + 1 == 9 else left
            flat = np.where(masks.ravel_mask(flags), masks.ravel_mask(p), -1.0)
            highest = np.zeros(total, bool)
            highest[np.argsort(-flat, kind="stable")[:left]] = True
            flags = masks.unravel_mask(jnp.asarray(highest), PARAMS)
    score = nfp.gem_miner(
        LOSS,
        sparsity=0.8,
        steps=steps,
        every=every,
        batch_size=16,
        learning_rate=rate,
        penalty=penalty,
    )
    found = score(PARAMS, (X, Y), KEY)
    for ours, flag, by_hand in zip(*map(kernels, (found, flags, p)), strict=True):
        np.testing.assert_array_equal(ours >= 2, flag)
        np.testing.assert_allclose(ours - 2 * flag, by_hand, atol=1e-5)  # float32
    mask = nfp.prune(score, PARAMS, (X, Y), KEY, sparsity=0.8)
    for kept, flag in zip(*map(kernels, (mask, flags)), strict=True):
        np.testing.assert_array_equal(kept, flag)


def test_flags_go_down_to_the_count_and_no_further():
    for start, keep, removals in (
        (840, 84, 18),
        (840, 839, 5),
        (100, 1, 40),
        (7, 7, 3),
    ):
        counts = gem.flag_counts(start, keep, removals).tolist()
        assert len(counts) == removals and counts[-1] == keep
        assert np.all(np.diff([start, *counts]) <= 0) and min(counts) == keep
    # Double precision agrees to one weight in rounds before the last.
    share, active, exact = 1 - 0.1 ** (1 / 18), 50_400, []
    for _ in range(18):
        active -= int(np.ceil(share * active))
        exact.append(active)
    found = gem.flag_counts(50_400, 5_040, 18)
    np.testing.assert_allclose(found[:-1], np.maximum(exact, 5_040)[:-1], atol=18)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.97])
def test_counts_are_exact(name, sparsity):
    mask = mask_of(name, sparsity=sparsity)
    total = masks.prunable_size(PARAMS)
    assert int(masks.ravel_mask(mask).sum()) == masks.keep_count(total, sparsity)
    if name == "edge_popup":  # each layer has its share, up to what rounding left over
        for leaf in kernels(mask):
            share = leaf.size * masks.keep_count(total, sparsity) / total
            assert int(share) <= leaf.sum() <= int(share) + 3


def test_slopes_and_masks_of_edge_popup_do_not_change_with_the_scale_of_scores():
    start, _, _ = minibatches(KEY, (X, Y), steps=1, batch_size=40)
    scores = uniform_like(PARAMS, start, PRUNABLE, popup._bounds, rest=0.0)

    def both(factor):
        scaled = jax.tree.map(lambda s: factor * s, scores)
        mask = nfp.top_k_per_layer(jax.tree.map(jnp.abs, scaled), 80)
        return mask, popup.score_slopes(LOSS, PARAMS, scaled, mask, (X, Y))

    for factor in (0.125, 8.0, -2.0):
        mask, slopes = both(factor)
        first, expected = both(1.0)
        jax.tree.map(np.testing.assert_array_equal, mask, first)
        signed = jax.tree.map(lambda s, f=factor: np.sign(f) * s, expected)
        jax.tree.map(np.testing.assert_array_equal, slopes, signed)


@pytest.mark.parametrize("name", BOTH)
def test_masks_of_many_are_those_of_each(name):
    """And one program serves all labels and keys: nothing is drawn outside it."""
    labels = jnp.stack([Y, 1 - Y, Y[::-1]])
    keys = jax.random.split(KEY, 3)
    score = BOTH[name](LOSS, sparsity=0.8, **FEW[name])
    many = nfp.prune_many(
        score,
        PARAMS,
        (X, labels),
        keys,
        in_axes=(None, (None, 0), 0),
        sparsity=0.8,
        select=SELECTS[name],
    )
    differ = 0
    for i in range(3):
        one = mask_of(name, batch=(X, labels[i]), key=keys[i])
        alike = jax.tree.map(lambda a, b, i=i: a[i] == b, many, one)
        differ += sum(np.sum(~np.asarray(leaf)) for leaf in jax.tree.leaves(alike))
    assert differ == 0
    assert np.any(kernels(many)[1][0] != kernels(many)[1][1])


@pytest.mark.parametrize("name", BOTH)
def test_a_card_takes_a_traced_count_and_makes_the_mask_of_its_score(name):
    mask_fn = pruners.card(name).build(NET, **FEW[name], batch_size=16)
    traced = jax.jit(functools.partial(mask_fn, prunable=PRUNABLE))
    for sparsity in (0.5, 0.8):
        keep = masks.keep_count(masks.prunable_size(PARAMS), sparsity)
        found = traced(PARAMS, (X, Y), KEY, keep=jnp.int32(keep))
        expected = mask_of(name, sparsity=sparsity, batch_size=16)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert traced._cache_size() == 1


@pytest.mark.parametrize("name", BOTH)
def test_an_earlier_mask_is_never_left(name):
    earlier = nfp.prune(nfp.random(), PARAMS, None, KEY, sparsity=0.5)
    mask_fn = pruners.card(name).build(NET, **FEW[name])
    found = mask_fn(PARAMS, (X, Y), KEY, keep=100, mask=earlier)
    assert int(masks.ravel_mask(found).sum()) == 100
    for leaf, before in zip(*map(kernels, (found, earlier)), strict=True):
        assert not np.any(leaf & ~before)


def test_labels_are_fitted_better_than_under_the_mask_that_training_began_with():
    """The weights never move: only the masks differ."""
    start, _, _ = minibatches(KEY, (X, Y), steps=1, batch_size=64)
    first = uniform_like(PARAMS, start, PRUNABLE, popup._bounds, rest=0.0)
    keep = masks.keep_count(masks.prunable_size(PARAMS), 0.5)
    random = nfp.top_k_per_layer(jax.tree.map(jnp.abs, first), keep)

    def measured(mask):
        logits = MODEL.apply(nfp.apply_mask(PARAMS, mask), X)
        return float(jnp.mean(logits.argmax(1) == Y))

    # 0.25 of 40 labels: far outside the noise of a guess, whose deviation is 0.08.
    fitted = mask_of("edge_popup", sparsity=0.5, steps=400)
    assert measured(fitted) > measured(random) + 0.25
    mined = mask_of("gem_miner", sparsity=0.5, steps=400, every=40, learning_rate=1.0)
    assert measured(mined) > measured(random) + 0.15


def test_every_example_is_seen_as_often_as_any_other():
    for examples, steps, size in ((10, 7, 4), (5, 3, 8), (12, 6, 4)):
        rows = minibatch_rows(KEY, examples, steps, size)
        assert rows.shape == (steps, min(size, examples))
        times = np.bincount(np.ravel(rows), minlength=examples)
        assert times.max() - times.min() <= 1
    assert np.any(minibatch_rows(KEY, 9, 2, 9)[0] != minibatch_rows(KEY, 9, 2, 9)[1])


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": 3}, "sparsity is 0.5 and keep is 3, expected exactly one"),
        ({"sparsity": None}, "sparsity is None and keep is None, expected exactly one"),
        ({"sparsity": 1.5}, "sparsity is 1.5, expected 0 <= sparsity < 1"),
        ({"steps": 0}, "steps is 0, expected"),
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0, expected a positive number"),
        ({"momentum": 1.0}, "momentum is 1.0, expected 0 <= momentum < 1"),
    ],
)
def test_settings_out_of_range_are_named(name, settings, message):
    with pytest.raises(ValueError, match=message):
        BOTH[name](LOSS, **{"sparsity": 0.5, **settings})


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="steps is 5, expected more than every, 5"):
        nfp.gem_miner(LOSS, sparsity=0.5, steps=5, every=5)
    with pytest.raises(ValueError, match="every is 0, expected at least 1"):
        nfp.gem_miner(LOSS, sparsity=0.5, every=0)
    with pytest.raises(ValueError, match="penalty is -1, expected at least 0"):
        nfp.gem_miner(LOSS, sparsity=0.5, penalty=-1)
    with pytest.raises(ValueError, match="weight_decay is -1, expected at least 0"):
        nfp.edge_popup(LOSS, sparsity=0.5, weight_decay=-1)
    with pytest.raises(ValueError, match="momentum is 2, expected"):
        pruners.card("gem_miner").build(NET, momentum=2)
    score = nfp.edge_popup(LOSS, sparsity=0.5, steps=2)
    with pytest.raises(ValueError, match="key is None, expected one"):
        score(PARAMS, (X, Y))
    with pytest.raises(ValueError, match="batch has no leaves, expected examples"):
        score(PARAMS, None, KEY)
    with pytest.raises(ValueError, match="batch at '1' has shape"):
        score(PARAMS, (X, Y[:3]), KEY)
