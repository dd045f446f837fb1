import itertools
import math
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfp_jax import decoding, information
from nfp_jax.decoding import Decoder, Stack, linear, overlaps, ridge, search, searching
from nfp_jax.decoding.overlaps import pair_overlaps


def linear_masks(labels, *, weights=12, keep=4, classes=2, seed=0):
    """The highest of random linear scores of one-hot labels."""
    rng = np.random.default_rng(seed)
    sums = rng.standard_normal((labels.shape[1] * classes, weights))
    scores = np.eye(classes)[labels].reshape(len(labels), -1) @ sums
    return scores >= np.sort(scores, axis=1)[:, [-keep]]


def make_stack(count=24, n=4, prior=None, **options):
    prior = np.full((n, 2), 0.5) if prior is None else np.asarray(prior)
    steps = np.cumsum(prior, axis=1)[:, :-1]
    draws = np.random.default_rng(1).random((count, len(prior), 1))
    labels = (draws > steps).sum(axis=2)
    masks = linear_masks(labels, classes=prior.shape[1], **options)
    return Stack(masks, labels, prior)


def totals(decoder, stack, start, stop):
    """Of each mask, what the probabilities of all labelings sum to."""
    n, classes = stack.prior.shape
    found = np.zeros(stop - start)
    for labeling in itertools.product(range(classes), repeat=n):
        stack.labels[start:stop] = (
            labeling  # in place: what was found for masks is kept
        )
        found += np.exp(decoder.log_prob(stack, start, stop))
    return found


def features(mask, x):
    """Two kinds of evidence for each label and class, from mask and inputs."""
    seen = mask[:4, None] * x  # [n, 2]
    return np.stack([seen, np.cos(3 * seen)], axis=-1)


THREE = np.full((3, 3), 1 / 3)
UNEQUAL = np.array([[0.9, 0.1], [0.3, 0.7], [0.5, 0.5], [1.0, 0.0]])


@pytest.mark.parametrize(
    ("decoder", "prior"),
    [
        (ridge(), None),
        (ridge(pairs=0), None),
        (ridge(pairs=2, features=features), None),
        (ridge(), THREE),
        (ridge(features=features), UNEQUAL),
    ],
    ids=["pairs", "no pairs", "features", "three classes", "unequal labels"],
)
def test_ridge_is_a_distribution_over_labelings(decoder, prior):
    stack = make_stack(prior=prior)
    x = np.random.default_rng(0).standard_normal((len(stack.prior), 2))
    assert totals(decoder, stack._replace(x=x), 16, 20) == pytest.approx(1, abs=1e-9)


def test_ridge_of_resampled_inputs_is_a_distribution_too():
    stack = make_stack()
    x = np.random.default_rng(0).standard_normal((24, 4, 2))
    found = totals(
        ridge(features=features), stack._replace(x=x, resampled=True), 16, 20
    )
    assert found == pytest.approx(1, abs=1e-9)


def changed(stack, labels_from, masks_from, flip=1):
    """The stack with other labels and masks from some place on."""
    classes = stack.prior.shape[1]
    labels, masks = stack.labels.copy(), stack.masks.copy()
    labels[labels_from:] = (labels[labels_from:] + flip) % classes
    masks[masks_from:] = True
    return stack._replace(labels=labels, masks=masks)


@pytest.mark.parametrize(
    ("decoder", "prior"),
    [(ridge(), None), (ridge(), THREE), (ridge(features=features), None)],
    ids=["two classes", "three", "features"],
)
def test_ridge_looks_at_no_later_mask_or_label(decoder, prior):
    """Of mask 16 nothing changes with those after it, in the same call or not."""
    stack = make_stack(prior=prior, count=40)
    x = np.random.default_rng(0).standard_normal((len(stack.prior), 2))
    stack = stack._replace(x=x)
    expected = decoder.log_prob(stack, 16, 20)
    found = decoder.log_prob(changed(stack, 17, 17), 16, 20)
    assert found[0] == pytest.approx(expected[0], rel=1e-12)
    assert np.abs(found[1:] - expected[1:]).min() > 1e-3
    found = decoder.log_prob(changed(stack, 20, 20), 16, 20)
    assert found == pytest.approx(expected, rel=1e-12)
    before = changed(stack, 99, 99)
    before.labels[:8] = 0
    assert np.abs(decoder.log_prob(before, 16, 20) - expected).min() > 1e-3


def test_ridge_learns_to_read_labels_off_the_mask_and_in_chains():
    """Weight i keeps label i; then whether labels i and i - 1 are the same."""
    stack = make_stack(count=128, n=6)
    copied = stack._replace(masks=stack.labels == 1)
    assert ridge(pairs=0).log_prob(copied, 64, 128).mean() > -0.3
    chained = stack._replace(masks=stack.labels[:, 1:] == stack.labels[:, :-1])
    alone = ridge(pairs=0).log_prob(chained, 64, 128).mean()
    assert alone == pytest.approx(6 * math.log(0.5), abs=0.3)
    # Of 6 labels 5 are told, and log 2 is missing.
    assert -1.5 < ridge().log_prob(chained, 64, 128).mean() < -0.5
    assert -1.5 < ridge(pairs=1).log_prob(chained, 64, 128).mean() < -0.5


def test_features_tell_what_no_regression_can():
    """Weight i keeps label i where the input i is positive, of inputs that change."""
    rng = np.random.default_rng(0)
    stack = make_stack(count=64, n=6)
    x = rng.choice([-1.0, 1.0], (64, 6))
    masks = (stack.labels == 1) == (x > 0)
    stack = stack._replace(masks=masks, x=x, resampled=True)

    def agreement(mask, x):
        sign = np.where(mask, x, -x)
        return np.stack([-sign, sign], axis=1)[..., None]

    told = ridge(features=agreement).log_prob(stack, 32, 64)
    assert told.mean() > -0.3


def test_ridge_needs_features_where_inputs_are_resampled():
    stack = make_stack()._replace(x=np.zeros((24, 4, 2)), resampled=True)
    with pytest.raises(ValueError, match="inputs are resampled and the decoder has no"):
        ridge().log_prob(stack, 16, 20)


def test_decoders_that_are_fitted_need_a_mask_to_fit_to():
    with pytest.raises(decoding.CannotDecode, match="has 0 masks before those that"):
        ridge().log_prob(make_stack(), 0, 4)
    one = stack_of_inputs(count=16)
    one = one._replace(masks=one.masks[:1], labels=one.labels[:1], x=one.x[:1])
    with pytest.raises(decoding.CannotDecode, match="has 1 masks, expected at least 2"):
        decoding.class_means(one)


def test_ridge_in_its_dual_form_is_ridge_and_leaves_one_out():
    """Against the normal equations, one for each penalty and each mask left out."""
    rng = np.random.default_rng(0)
    masks, targets = rng.random((30, 7)) < 0.4, rng.standard_normal((30, 2))
    x = masks - masks[:20].mean(axis=0)
    x /= math.sqrt(np.sum(x[:20] ** 2) / 20)

    def predict(train, penalty):
        fitted = x[train]
        weights = np.linalg.solve(
            fitted.T @ fitted + penalty * np.eye(7), fitted.T @ targets[train]
        )
        return x @ weights

    def left_out(penalty):
        without = [np.delete(np.arange(20), i) for i in range(20)]
        return np.stack([predict(w, penalty)[i] for i, w in enumerate(without)])

    tried = [left_out(penalty) for penalty in linear.PENALTIES]
    best = int(np.argmin([np.mean((one - targets[:20]) ** 2) for one in tried]))
    expected = predict(np.arange(20), linear.PENALTIES[best])[20:]
    found = linear._Ridge(pair_overlaps(masks), 20, 30).predict(targets)
    np.testing.assert_allclose(found, np.concatenate([tried[best], expected]))


def test_many_targets_are_fitted_in_parts(monkeypatch):
    """At one penalty each column is fitted alone; to double precision."""
    rng = np.random.default_rng(0)
    masks, targets = rng.random((30, 9)) < 0.4, rng.standard_normal((30, 5, 120))
    monkeypatch.setattr(linear, "PENALTIES", [0.1])
    fitted = linear._Ridge(pair_overlaps(masks), 20, 30)
    alone = [fitted.predict(targets[:, i]) for i in range(5)]
    found = fitted.predict(targets)
    np.testing.assert_allclose(found, np.stack(alone, axis=1), rtol=1e-10)


@pytest.mark.parametrize(
    ("count", "weights"), [(1, 1), (2, 8), (3, 13), (8, 16), (13, 100)]
)
def test_overlaps_are_those_of_each_pair_whatever_the_blocks(
    monkeypatch, count, weights
):
    """Counts below 2^24, so float32 products of 0s and 1s are exact."""
    monkeypatch.setattr(overlaps, "MOST_ROWS", 4)
    monkeypatch.setattr(overlaps, "CHUNK", 24)
    masks = np.random.default_rng(count).random((count, weights)) < 0.5
    found = pair_overlaps(masks)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, masks.astype(int) @ masks.T.astype(int))


def test_overlaps_never_hold_the_masks_as_floats():
    """What numpy allocates: packed bits, 1/8 a weight, and the result."""
    masks = np.random.default_rng(0).random((600, 20_000)) < 0.1
    tracemalloc.start()
    found = pair_overlaps(masks)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(np.diag(found), masks.sum(axis=1))
    assert peak < 0.6 * masks.nbytes


@pytest.mark.parametrize("traced", [True, False])
def test_features_of_more_masks_than_are_under_way_are_in_their_order(traced):
    def features(mask, x):
        values = x[:, None] * mask[:2]
        return jnp.asarray(values) if traced else values

    masks = np.random.default_rng(0).random((linear.AHEAD * 2 + 3, 5)) < 0.5
    x = np.arange(3.0, dtype=np.float32)
    stack = Stack(masks, np.zeros((len(masks), 3), int), np.full((3, 2), 0.5), x)
    found = linear._features(features, stack)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, x[:, None] * masks[:, None, :2])


def stack_of_inputs(count=256, n=10, d=2):
    rng = np.random.default_rng(4)
    x, labels = rng.standard_normal((count, n, d)), rng.integers(0, 2, (count, n))
    member = np.eye(2)[labels]
    sums = np.einsum("knc,knd->kcd", member, x)
    masks = (sums > 0).reshape(count, -1)
    return Stack(masks, labels, np.full((n, 2), 0.5), x, resampled=True)


def test_class_means_are_read_off_their_signs_as_far_as_a_normal_law_can():
    """A sign leaves a variance of 1 - 2/π: half the log of it, of log 2, is told."""
    stack = stack_of_inputs()
    gains = decoding.class_means(stack)
    told = 4 * -math.log(1 - 2 / math.pi) / 2  # 2.03 of 2.77 nats
    assert len(gains) == 128
    assert gains.mean() == pytest.approx(told, abs=4 * gains.std() / math.sqrt(128))
    others = stack._replace(masks=np.roll(stack.masks, 1, axis=0))
    assert -0.5 < decoding.class_means(others).mean() < 0.05


def test_class_means_look_at_no_later_mask_and_count_no_class_without_members():
    stack = stack_of_inputs(count=64)
    later = changed(stack, 33, 33)
    found, expected = decoding.class_means(later), decoding.class_means(stack)
    assert found[0] == pytest.approx(expected[0], rel=1e-12)
    assert np.abs(found[1:] - expected[1:]).min() > 1e-3
    one = stack._replace(labels=np.zeros_like(stack.labels))
    signs = np.concatenate([one.x.sum(axis=1) > 0, stack.masks[:, :2]], axis=1)
    gains = decoding.class_means(one._replace(masks=signs))
    assert gains.mean() == pytest.approx(-math.log(1 - 2 / math.pi), abs=0.4)


def test_class_means_need_inputs_of_each_data_set():
    stack = stack_of_inputs(count=16)
    for wrong in (stack._replace(x=None), stack._replace(resampled=False)):
        with pytest.raises(ValueError, match="class_means needs resampled inputs"):
            decoding.class_means(wrong)


# Search: |A (2q - 1)|, of which every single label tells nothing.
N, WEIGHTS, KEEP = 8, 48, 10
SIZES = np.random.default_rng(3).standard_normal((WEIGHTS, N)).astype(np.float32)


def even_scores(q, x):
    return {"kernel": jnp.abs(SIZES[:, : len(q)] @ (q[:, -1] - q[:, 0]))[None]}


def even_mask(y, x):
    scores = even_scores(jax.nn.one_hot(y, 2), x)["kernel"]
    return {"kernel": scores >= jnp.sort(scores[0])[-KEEP]}


def even_stack(count, n=N):
    labels = np.random.default_rng(2).integers(0, 2, (count, n))
    masks = information.make_masks(
        lambda y: even_mask(y, None), jnp.asarray(labels), at_once=count
    )
    return Stack(masks, labels, np.full((n, 2), 0.5))


def finder(**options):
    return search(even_scores, even_mask, **options)


@pytest.fixture
def one_device(monkeypatch):
    """Search spreads over all devices, and compiles on each."""
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])


def test_search_finds_labels_up_to_the_sign_that_no_mask_tells(one_device):
    exact = information.exact_information(lambda y: even_mask(y, None), N)
    assert exact == pytest.approx((N - 1) * math.log(2), abs=0.1)
    gains = information.decoded(
        finder(most=24, calibrated=12, steps=30), even_stack(64)
    )
    assert len(gains) == 24
    assert exact / 2 < gains.mean() < exact + 0.1


def test_search_is_a_distribution_over_labelings_and_looks_at_nothing_later(one_device):
    """Of 16 masks all are decoded or calibrate: none is left for a mean of them."""
    decoder = finder(most=12, calibrated=8, steps=10)
    stack = even_stack(16, n=3)
    labels = stack.labels.copy()
    expected = decoder.log_prob(stack, 10, 13)
    assert totals(decoder, stack, 10, 13) == pytest.approx(1, abs=1e-9)
    later = changed(stack, 10, 13)
    decoder.log_prob(later, 10, 13)  # other labels are there while it searches
    later.labels[:] = labels
    assert decoder.log_prob(later, 10, 13) == pytest.approx(expected, rel=1e-9)


def test_what_search_believes_is_a_distribution_of_three_classes_too():
    found = searching._Found(
        labels=np.array([[0, 1, 2], [2, 2, 2]]),
        overlaps=np.array([0.9, 0.895]),
        margins=np.array([0.5, 3.0, 20.0]),
        classes=3,
    )
    belief = searching._believe(found, np.array([-1.0, 2.0, 0.5]))
    each = [belief.log_prob(y) for y in itertools.product(range(3), repeat=3)]
    assert np.exp(each).sum() == pytest.approx(1, abs=1e-9)
    assert max(each) == belief.log_prob((0, 1, 2)) > math.log(0.1)


def test_a_decoder_of_ones_own_is_bounded_as_any_other():
    """One that knows the code: masks are labels, and it is sure of them at 0.9."""
    stack = make_stack(count=32)
    stack = stack._replace(masks=stack.labels == 1)

    def log_prob(stack, start, stop):
        right = stack.masks[start:stop] == stack.labels[start:stop]
        return np.log(np.where(right, 0.9, 0.1)).sum(axis=1)

    gains = information.decoded(Decoder("known", log_prob, most=12), stack)
    expected = math.log(0.99 * 0.9**4 / 0.5**4 + 0.01)
    np.testing.assert_allclose(gains, np.full(12, expected))


def test_network_features_are_the_masked_logits_and_their_linear_part():
    rng = np.random.default_rng(3)
    params = {"kernel": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)}
    x = jnp.asarray(rng.normal(size=(5, 4)), jnp.float32)

    def squared(params, x):  # of degree 2 in the weights: the two parts differ
        return (x @ params["kernel"]) ** 2

    row = rng.random(12) < 0.5
    masked = np.where(row.reshape(4, 3), params["kernel"], 0)
    whole, part = np.asarray(x @ params["kernel"]), np.asarray(x) @ masked
    expected = np.stack([part**2, 2 * whole * part], axis=-1)
    expected -= expected.mean(axis=1, keepdims=True)
    found = decoding.network_features(squared, params)(row, x)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-5)


def test_what_the_masked_network_says_decodes_more_from_few_masks():
    """Magnitude after a step of gradient descent, of a network of one layer."""
    rng = np.random.default_rng(4)
    n, dim, count = 24, 200, 40
    x = rng.normal(size=(n, dim)).astype(np.float32)
    weights = rng.normal(size=(dim, 2)).astype(np.float32)
    labels = rng.integers(0, 2, (count, n))
    pull = np.einsum("knc,nd->kdc", np.eye(2)[labels] - 0.5, x)
    sizes = np.abs(weights + 0.1 * pull).reshape(count, -1)
    masks = sizes >= np.sort(sizes, axis=1)[:, [-80]]
    stack = Stack(masks, labels, np.full((n, 2), 0.5), x)
    features = decoding.network_features(
        lambda params, x: x @ params["kernel"], {"kernel": jnp.asarray(weights)}
    )
    plain = information.decoded(ridge(), stack).mean()
    helped = information.decoded(ridge(features=features), stack).mean()
    assert helped > 1.3 * plain
