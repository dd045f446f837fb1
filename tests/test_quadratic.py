import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfp_jax import masks, models
from nfp_jax.decoding import relu_slopes, slopes
from nfp_jax.decoding.bits import Signed
from nfp_jax.decoding.contract import CannotDecode, Stack
from nfp_jax.decoding.quadratic import quadratic
from nfp_jax.decoding.relinearized import NotQuadratic
from nfp_jax.losses import classification_loss
from nfp_jax.pruners.grasp import grasp


def network(n, widths, *, sparsity=0.9, dim=16, power=1):
    """GraSP as decoders see it, its closed forms and its inputs."""
    model = models.MLP(classes=2, widths=widths)
    x = jax.random.normal(jax.random.key(1), (n, dim))
    params = model.init(jax.random.key(0), x)
    score_fn = grasp(classification_loss(model.apply, temperature=200))
    keep = masks.keep_count(masks.prunable_size(params), sparsity)

    def score(q, x):
        # Cubed, the ranking is the same.
        return jax.tree.map(lambda s: s**power, score_fn(params, (x, q)))

    def mask(y, x):
        return masks.top_k(score_fn(params, (x, y)), keep)

    chain = relu_slopes.relu_chain(params, models.layer_chain(model), temperature=200)
    return Signed(score, mask, absolute=False), chain, x


def stack_of(signed, x, count, *, first=0, prior=None):
    n = len(x)
    one = np.full(n, 0.5) if prior is None else np.asarray(prior)
    draws = np.random.default_rng(first).random((count, n))
    y = (draws < one).astype(np.int32)
    made = np.stack([np.asarray(signed.mask(jnp.asarray(row), x)) for row in y])
    return Stack(made, y, np.stack([1 - one, one], axis=1), np.asarray(x))


@pytest.fixture(scope="module")
def small():
    """60 labels, 32-32, 90 % removed; its decoder with closed forms."""
    signed, chain, x = network(60, (32, 32))
    return signed, quadratic(signed, slopes=chain), x


def test_all_labels_are_read_off_masks_and_no_mask_is_needed_first(small):
    signed, decoder, x = small
    stack = stack_of(signed, x, 4)
    found = decoder.log_prob(stack, 0, 4)
    assert found == pytest.approx(np.full(4, math.log(0.99)), abs=1e-9)
    assert decoder.log_prob.fallbacks == 0


def test_masks_of_other_labels_tell_nothing(small):
    """Each mask with the labels of the next: at most what the labels' law says."""
    signed, decoder, x = small
    stack = stack_of(signed, x, 4, first=1)
    wrong = stack._replace(labels=np.roll(stack.labels, 1, axis=0))
    gain = decoder.log_prob(wrong, 0, 4) + 60 * math.log(2)
    assert gain.mean() <= 0
    assert gain.min() == pytest.approx(math.log(0.01), abs=1e-9)  # and never less


def test_labels_of_one_mask_change_nothing_for_the_next(small):
    signed, decoder, x = small
    stack = stack_of(signed, x, 2, first=2)
    expected = decoder.log_prob(stack, 1, 2)
    changed = stack._replace(labels=np.stack([1 - stack.labels[0], stack.labels[1]]))
    assert decoder.log_prob(changed, 1, 2) == expected


@pytest.fixture(scope="module")
def four():
    """4 labels, one of them all but known."""
    signed, chain, x = network(4, (8,), dim=4)
    stack = stack_of(signed, x, 1, prior=[0.5, 0.3, 0.9, 0.5])
    return quadratic(signed, slopes=chain), stack


@pytest.mark.parametrize("chained", [False, True], ids=["as it is", "in blocks"])
@pytest.mark.parametrize("kept", ["made", "other"])
def test_q_is_a_distribution_over_labelings(monkeypatch, four, chained, kept):
    """Of masks of labels, and of random weights."""
    decoder, stack = four
    if kept == "other":
        rng = np.random.default_rng(0)
        stack = stack._replace(masks=rng.permuted(stack.masks, axis=1))
    if chained:  # no mask is ever found
        made = decoder.log_prob.programs
        monkeypatch.setattr(made, "overlap", lambda y, x, mask: jnp.float32(0.5))
        monkeypatch.setattr(made, "overlaps", lambda y, x, mask: jnp.full(len(y), 0.5))
    total = 0.0
    for labeling in itertools.product(range(2), repeat=4):
        stack.labels[0] = labeling  # in place: its reader is kept
        total += math.exp(decoder.log_prob(stack, 0, 1)[0])
    assert total == pytest.approx(1, abs=1e-6)  # float64, but for float32 prior


@pytest.mark.parametrize("widths", [(8,), (8, 12)])
def test_closed_forms_are_the_derivatives_of_the_score(widths):
    """By autodiff; float32 rounds sums of 30 examples."""
    signed, chain, x = network(30, widths)
    assert slopes.check(chain, signed, x, 30) < 1e-5
    auto = slopes.Autodiff(signed, 30, chain.total)
    assert slopes.check(auto, signed, x, 30) < 1e-5
    variance = jnp.linspace(0.1, 1, 30)
    weights = jax.random.normal(jax.random.key(3), (chain.total,))
    factors = chain.factors(x)
    np.testing.assert_allclose(
        chain.diagonal(factors, variance), auto.diagonal(x, variance), atol=1e-12
    )
    expected = np.asarray(auto.curvature(x, weights))
    found = np.asarray(chain.curvature(factors, weights))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_closed_forms_of_another_temperature_are_found_out():
    signed, _, x = network(30, (8, 8))
    model = models.MLP(classes=2, widths=(8, 8))
    params = model.init(jax.random.key(0), x)
    wrong = relu_slopes.relu_chain(params, models.layer_chain(model), temperature=1)
    assert slopes.check(wrong, signed, x, 30) > 0.1


def test_without_closed_forms_few_labels_are_read_by_autodiff():
    signed, _, x = network(20, (32,))
    decoder = quadratic(signed)
    stack = stack_of(signed, x, 1)
    assert decoder.log_prob(stack, 0, 1) == pytest.approx(math.log(0.99), abs=1e-7)


def test_without_closed_forms_many_labels_are_refused(monkeypatch):
    signed, _, x = network(20, (16, 16))
    monkeypatch.setattr(slopes, "MOST_WORK", 1e4)
    stack = stack_of(signed, x, 1)
    with pytest.raises(slopes.NoSlopes, match="of closed forms there are none"):
        quadratic(signed).log_prob(stack, 0, 1)


def test_a_score_of_higher_degree_is_refused():
    signed, chain, x = network(20, (16, 16), power=3)
    stack = stack_of(signed, x, 1)
    with pytest.raises(NotQuadratic, match="third differences are"):
        quadratic(signed, slopes=chain).log_prob(stack, 0, 1)


def test_what_cannot_be_read_is_refused():
    signed, _, x = network(20, (16, 16))
    with pytest.raises(ValueError, match="the score is absolute"):
        quadratic(Signed(signed.score_fn, signed.mask_fn))
    with pytest.raises(CannotDecode, match="labels have 3 classes"):
        stack = stack_of(signed, x, 1)._replace(prior=np.full((20, 3), 1 / 3))
        quadratic(signed).log_prob(stack, 0, 1)
    model = models.MLP(classes=2, widths=(8, 8, 8))
    params = model.init(jax.random.key(0), x)
    with pytest.raises(slopes.NoSlopes, match="4 layers, expected 2 or 3"):
        relu_slopes.relu_chain(params, models.layer_chain(model))
