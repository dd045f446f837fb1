"""Masks of scores that are sums over examples, read by expectation propagation."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nfp_jax as nfp
from nfp_jax import decoding, information, models, scores
from nfp_jax.decoding import bits, propagation
from nfp_jax.decoding.additive import Additive
from nfp_jax.decoding.mask_law import log_law
from nfp_jax.information.reading import decoded
from nfp_jax.measures.betting import betting_lower_bound
from nfp_jax.pruners.fisher_taylor import fisher_taylor

DIM = 8


def network(widths, seed=0):
    model = models.MLP(2, widths)
    return model, models.initialize(model, jax.random.key(seed), (DIM,))


def snip_of(widths, sparsity, *, by_layer=False, seed=0):
    """SNIP as decoders see it, from its card's own polynomial."""
    model, params = network(widths, seed)
    score_fn = nfp.snip(scores.classification_loss(model.apply))
    select = nfp.top_k_per_layer if by_layer else nfp.top_k

    def signed(q, x):
        return score_fn.polynomial.fn(params, (x, q), None, None, None)

    def mask(y, x):
        return nfp.prune(score_fn, params, (x, y), sparsity=sparsity, select=select)

    assert score_fn.polynomial.degree == 1 and score_fn.polynomial.absolute
    return decoding.Signed(signed, mask, by_layer=by_layer)


@functools.cache
def stack_of(widths, sparsity, n, count, *, by_layer=False, noise=1.0):
    """The pruner and a stack of its masks, of labels that are drawn."""
    signed = snip_of(widths, sparsity, by_layer=by_layer)
    x = jax.random.normal(jax.random.key(1), (n, DIM))
    clean = np.arange(n) % 2
    prior = information.noisy_label_probabilities(clean, noise, 2)
    rng = np.random.default_rng(0)
    y = (rng.random((count, n)) < prior[:, 1]).astype(np.int32)
    masks = np.asarray(jax.lax.map(lambda one: signed.mask(one, x), jnp.asarray(y)))
    return signed, decoding.Stack(masks, y, prior, np.asarray(x))


def gains_of(signed, stack):
    return decoded(decoding.additive(signed), stack)


@pytest.mark.parametrize("score", [nfp.snip, fisher_taylor])
def test_the_score_is_the_size_of_its_polynomial(score):
    model, params = network((6,))
    score_fn = score(scores.classification_loss(model.apply), chunk_size=2)
    x, y = jax.random.normal(jax.random.key(1), (3, DIM)), jnp.array([0, 1, 1])

    def signed(q):
        return score_fn.polynomial.fn(params, (x, q), None, None, None)

    def close(found, expected):
        for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)

    close(jax.tree.map(jnp.abs, signed(jax.nn.one_hot(y, 2))), score_fn(params, (x, y)))
    ends = jax.random.dirichlet(jax.random.key(2), jnp.ones(2), (2, 3))
    middle = jax.tree.map(lambda a, b: 0.3 * a + 0.7 * b, *map(signed, ends))
    close(signed(0.3 * ends[0] + 0.7 * ends[1]), middle)
    assert nfp.invert(score_fn).polynomial is None


@pytest.mark.parametrize("noise", [1.0, 0.4])
def test_readings_are_linear_in_the_signs_and_say_what_is_uncertain(noise):
    signed, stack = stack_of((12,), 0.7, 20, 8, noise=noise)
    found = bits.bits_of(signed, stack.x, stack.prior)
    for y, mask in zip(stack.labels, stack.masks, strict=True):
        u = np.asarray(signed.flat(jax.nn.one_hot(y, 2), stack.x))
        linear = found.offset + found.slope.T @ (2.0 * y - 1)
        np.testing.assert_allclose(linear, u[found.at], atol=1e-6)
        level = np.abs(u)[mask].min()
        assert np.all(np.abs(level - found.level) < 5 * found.level_sd)
        certain = np.where(mask, found.log_one, found.log_zero)
        certain[found.at] = 0
        assert certain.min() > math.log(1e-4)
    np.testing.assert_allclose(np.exp(found.log_one) + np.exp(found.log_zero), 1)
    # The law of u, as its labels are drawn.
    y = np.random.default_rng(1).random((4000, 20)) < stack.prior[:, 1]
    drawn = found.offset + (2.0 * y - 1) @ found.slope
    np.testing.assert_allclose(drawn.std(axis=0), found.spread, rtol=0.1)


def test_thresholds_by_layer_are_those_of_layers():
    signed, stack = stack_of((12,), 0.7, 20, 8, by_layer=True)
    found = bits.bits_of(signed, stack.x, stack.prior)
    assert found.level.shape == (2,) and found.level[1] > found.level[0]
    assert set(found.group[found.at < 96]) == {0}
    assert set(found.group[found.at >= 96]) == {1}
    gains = gains_of(signed, stack)
    assert betting_lower_bound(gains, math.log(0.01), 0.1) > 0


def test_at_most_so_many_bits_those_nearest_to_the_threshold():
    signed, stack = stack_of((12,), 0.7, 20, 8)
    whole = bits.bits_of(signed, stack.x, stack.prior)
    few = bits.bits_of(signed, stack.x, stack.prior, most=30)
    assert len(few.at) == 30 < len(whole.at) and set(few.at) <= set(whole.at)


def test_a_score_that_is_no_sum_over_examples_is_refused_with_its_deviation():
    signed, stack = stack_of((12,), 0.7, 20, 8)

    def squared(q, x):
        return jax.tree.map(lambda u: 100 * u**2, signed.score_fn(q, x))

    other = decoding.Signed(squared, signed.mask_fn)
    with pytest.raises(decoding.NotAdditive, match=r"off the sum .* by [0-9.e+]+ of"):
        bits.bits_of(other, stack.x, stack.prior)
    three = np.full((20, 3), 1 / 3)
    with pytest.raises(decoding.CannotDecode, match="labels have 3 classes, expect"):
        bits.bits_of(signed, stack.x, three)


@pytest.mark.parametrize("absolute", [True, False])
def test_a_reading_is_a_probability_and_its_derivatives_are_right(absolute):
    with jax.enable_x64(True):
        mean = jnp.linspace(-4.0, 4.0, 41)
        read = functools.partial(propagation.reading, absolute=absolute)
        one = read(mean, 0.5, 1.3, True)[0]
        zero = read(mean, 0.5, 1.3, False)[0]
        np.testing.assert_allclose(jnp.exp(one) + jnp.exp(zero), 1, atol=1e-12)
        for bit in (True, False):
            _, first, second = read(mean, 0.5, 1.3, bit)

            def alone(m, bit=bit):
                return read(m, 0.5, 1.3, bit)[0]

            slope = jax.vmap(jax.grad(alone))(mean)
            curve = jax.vmap(jax.grad(jax.grad(alone)))(mean)
            np.testing.assert_allclose(first, slope, atol=1e-8)
            np.testing.assert_allclose(second, curve, atol=1e-6)


def test_masks_that_fix_their_labels_are_decoded_exactly():
    signed, stack = stack_of((32, 32), 0.8, 60, 8)
    gains = gains_of(signed, stack)
    assert len(gains) == 8  # all of them: none is needed to fit to
    np.testing.assert_allclose(gains, 60 * math.log(2), atol=0.05)


@pytest.mark.parametrize("noise", [1.0, 0.4])
def test_what_does_not_fix_its_labels_is_decoded_block_by_block(noise):
    """More than by the odds before any label is told, and less than there is."""
    signed, stack = stack_of((16,), 0.9, 60, 16, noise=noise)
    log_prob = Additive(signed)
    reader = log_prob.reader(stack, 0)
    told, alone = [], []
    for mask, y in zip(stack.masks, stack.labels, strict=True):
        found = reader.read(mask)
        assert found.labels is None and found.diverged == 0
        law = reader.law(y)
        told.append(reader.chain(found.sites, mask, y, law)[0] - law.sum())
        odds = np.asarray(found.sites.odds) * (2.0 * y - 1)
        alone.append(-np.logaddexp(0, -odds).sum() - law.sum())
    entropy = information.label_entropy(stack.prior, conditioning="labels")
    assert 0.1 * entropy < np.mean(told) < entropy
    assert np.mean(told) > np.mean(alone)


@pytest.mark.parametrize(("sparsity", "exact"), [(0.5, True), (0.95, False)])
def test_q_sums_to_one_over_all_labelings(sparsity, exact):
    signed, stack = stack_of((12,), sparsity, 5, 8)
    log_prob = Additive(signed)
    reader = log_prob.reader(stack, 0)
    every = np.array(list(itertools.product((0, 1), repeat=5)))
    found = []
    for mask in stack.masks[:4]:
        found.append(reader.read(mask).labels is not None)
        q = [math.exp(log_prob.log_prob(reader, mask, y)) for y in every]
        assert sum(q) == pytest.approx(1, abs=1e-9)
    assert any(found) if exact else not all(found)


def test_masks_of_other_labels_certify_nothing():
    signed, stack = stack_of((32, 32), 0.8, 60, 8)
    other = stack._replace(masks=stack.masks[::-1].copy())
    gains = gains_of(signed, other)
    assert gains.max() < 0
    assert betting_lower_bound(gains, math.log(0.01), 0.025) <= 0
    signed, stack = stack_of((16,), 0.9, 60, 16)
    assert gains_of(signed, stack._replace(masks=stack.masks[::-1].copy())).mean() < 0


def test_a_block_in_which_propagation_diverges_has_the_law_and_is_counted(monkeypatch):
    signed, stack = stack_of((16,), 0.9, 60, 16)
    sweeps = propagation.sweeps
    calls = []

    def diverging(model, sites, *arguments, **options):
        found, bad = sweeps(model, sites, *arguments, **options)
        calls.append(1)
        bad = bad | (len(calls) % 5 == 0)
        return jax.tree.map(lambda x, y: jnp.where(bad, y, x), found, sites), bad

    whole = gains_of(signed, stack)
    monkeypatch.setattr(propagation, "sweeps", diverging)
    decoder = decoding.additive(signed)
    gains = decoded(decoder, stack)
    assert decoder.log_prob.fallbacks > 0
    assert np.isfinite(gains).all() and 0 < gains.mean() < whole.mean() + 1


def test_sites_that_are_not_finite_begin_anew():
    signed, stack = stack_of((12,), 0.7, 20, 8)
    found = bits.bits_of(signed, stack.x, stack.prior)
    with jax.enable_x64(True):
        model = propagation.model_of(found, 0.02)
        start = propagation.begin(model)
        broken = start._replace(label_precision=start.label_precision * jnp.nan)
        bit = jnp.asarray(stack.masks[0][found.at])
        arguments = (bit, jnp.zeros(20), jnp.arange(20))
        after, bad = propagation.sweeps(
            model, broken, *arguments, absolute=True, sweeps=1
        )
        assert bad and all(jnp.isfinite(leaf).all() for leaf in after)


@pytest.mark.parametrize("by_layer", [False, True])
def test_the_law_of_masks_sums_to_one(by_layer):
    """Over all 2^P masks of a network of few weights, in blocks of several bits."""
    signed = snip_of((1,), 0.5, by_layer=by_layer)
    x = jax.random.normal(jax.random.key(1), (3, DIM))
    found = bits.bits_of(signed, x, np.full((3, 2), 0.5), far=1e9)
    total = len(found.log_one)
    assert total == 10 and len(found.at) > 4
    every = np.array(list(itertools.product((False, True), repeat=total)))
    log_q = log_law(found, every)
    assert np.exp(log_q).sum() == pytest.approx(1, abs=1e-6)


def test_the_law_of_masks_is_shorter_than_independent_bits_and_may_beat_the_labels():
    signed, stack = stack_of((16,), 0.9, 60, 16)
    found = bits.bits_of(signed, stack.x, stack.prior)
    length = -log_law(found, stack.masks)
    independent = -np.where(stack.masks, found.log_one, found.log_zero).sum(axis=1)
    assert length.mean() < independent.mean()
    # Not shorter than what is known to be in the masks.
    assert length.mean() > gains_of(signed, stack).mean()


def test_the_interval_of_a_known_channel_holds_its_information():
    """All labelings are tried, so the information is known; many samples of it."""
    signed, _ = stack_of((12,), 0.9, 8, 8)
    x = jax.random.normal(jax.random.key(1), (8, DIM))
    every = np.array(list(itertools.product((0, 1), repeat=8)), np.int32)
    masks = np.asarray(jax.lax.map(lambda y: signed.mask(y, x), jnp.asarray(every)))
    known = information.entropy(masks)
    rng = np.random.default_rng(0)
    held = []
    for _ in range(6):
        chosen = rng.integers(0, len(every), 64)
        interval = information.mask_information(
            masks[chosen],
            every[chosen],
            x=np.asarray(x),
            keep=int(masks[0].sum()),
            decoders=[decoding.additive(signed)],
            laws=[decoding.mask_law(signed)],
        )
        held.append(interval.lower <= known <= interval.upper)
    assert all(held)
