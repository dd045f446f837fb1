import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from channels import drawn, gaussian, network, pool
from scipy import special, stats

import nfp_jax as nfp
from nfp_jax.decoding import choosing, factor_law
from nfp_jax.decoding.bits import NotAdditive, Signed
from nfp_jax.decoding.choosing import BLOCK, Lists, block_sizes
from nfp_jax.decoding.contract import Stack
from nfp_jax.decoding.examples import examples
from nfp_jax.decoding.readouts import (
    dense_readout,
    example_scores,
    readout_for,
    readout_of,
)
from nfp_jax.information.reading import LEAST_GAIN, mixed_with_uniform
from nfp_jax.measures.betting import betting_lower_bound
from nfp_jax.models.dense import dense_layers


@pytest.fixture(scope="module", autouse=True)
def few_sets():
    """Fewer sets than for real networks, which small ones do not need."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factor_law, "SETS", 512)
        yield


KEY = jax.random.key(7)
DIM, TYPES, N, COUNT = 20, 16, 20, 64  # 16 examples are possible, drawn 20 times
DRAW = pool(DIM, TYPES // 2)


@pytest.fixture(scope="module")
def decoder():
    params, loss_fn, signed = network(DIM, (32,), 0.9)
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
    readout = dense_readout(dense_layers(loss_fn, params), kernels)
    return examples(signed, DRAW, KEY, readout=readout, candidates=64, at_once=8)


@pytest.fixture(scope="module")
def stack():
    return drawn(network(DIM, (32,), 0.9)[2], DRAW, N, COUNT)


@pytest.fixture(scope="module")
def told(decoder, stack):
    return decoder.gains(stack, 0, COUNT)


def test_masks_tell_of_their_data_and_no_more_than_there_is(told):
    """A mask does not change with the order: it knows at most which types there are."""
    count = np.arange(N + 1)
    share = stats.binom.pmf(count, N, 1 / TYPES) @ special.gammaln(count + 1)
    most = N * np.log(TYPES) - special.gammaln(N + 1) + TYPES * share
    assert told.mean() > 2 * told.std() / np.sqrt(COUNT)
    lower = betting_lower_bound(mixed_with_uniform(told), LEAST_GAIN, 0.025)
    assert 0 < lower < told.mean() < most


def test_masks_of_other_data_certify_nothing(decoder, stack):
    other = stack._replace(masks=np.roll(stack.masks, 1, axis=0))
    told = decoder.gains(other, 0, COUNT)
    assert told.mean() < 2 * told.std() / np.sqrt(COUNT)
    assert betting_lower_bound(mixed_with_uniform(told), LEAST_GAIN, 0.025) <= 0


def test_gains_do_not_depend_on_other_masks(decoder, stack, told):
    masks = stack.masks.copy()
    masks[4:] = ~masks[4:]
    found = decoder.gains(stack._replace(masks=masks), 2, 4)
    assert found == pytest.approx(told[2:4], abs=1e-6)


def test_each_mask_has_a_list_of_its_own(decoder, stack):
    """Equal masks of equal data are given other candidates."""
    first = stack._replace(
        masks=np.repeat(stack.masks[:1], 2, axis=0),
        labels=np.repeat(stack.labels[:1], 2, axis=0),
        x=np.repeat(stack.x[:1], 2, axis=0),
    )
    keys = jax.random.split(KEY, 2)
    given = first.masks, first.x, first.labels, keys
    one, two = decoder.features(decoder.chain(stack), *given)
    sizes = block_sizes(N)
    for block, size in enumerate(sizes):
        true = np.s_[block, :, :size]
        assert one[true] == pytest.approx(two[true], rel=1e-3, abs=1e-3)
        others = np.s_[block, 0, BLOCK:]
        assert not np.allclose(one[others], two[others])
    gains = decoder.gains(first, 0, 2)
    assert gains[0] != gains[1]


@pytest.mark.parametrize(("slots", "size"), [(2, 2), (3, 2), (3, 1)])
def test_a_list_is_a_distribution_over_ordered_choices(slots, size):
    """Of the ``size`` true ones among all ``size + others`` candidates."""
    others, weights = 3, np.array([1.5, -0.7])
    features = np.random.default_rng(0).standard_normal((2, size + others))
    total, orders = 0.0, list(itertools.permutations(range(size + others), size))
    for order in orders:
        rest = [i for i in range(size + others) if i not in order]
        empty = np.full((2, slots - size), 1e3)  # what stands there must not count
        listed = [features[:, list(order)], empty, features[:, rest]]
        lists = Lists(np.concatenate(listed, axis=1)[None], np.array([size]), slots)
        total += np.exp(choosing.gains(lists, weights[None])[0]) / len(orders)
    assert total == pytest.approx(1, abs=1e-12)


def test_weights_are_found_again_from_lists_that_they_made():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((2000, 2, 30))
    scores = 1.5 * features[:, 0] - 0.5 * features[:, 1]
    best = np.argmax(scores + rng.gumbel(size=scores.shape), axis=1)
    for row, place in zip(features, best, strict=True):
        row[:, [0, place]] = row[:, [place, 0]]
    found = choosing.fitted(Lists(features, np.ones(2000, int), 1))
    # Five standard errors, about 1 / sqrt(2000) each.
    assert found == pytest.approx([1.5, -0.5], abs=0.15)


def test_a_score_that_knows_no_data_gets_exactly_nothing():
    params, _, signed = network(DIM, (32,), 0.9)

    def score(q, x):
        return params

    decoder = examples(Signed(score, signed.mask_fn), gaussian(DIM), KEY)
    stack = drawn(signed, gaussian(DIM), 5, 3)
    assert decoder.data_free(stack)
    assert decoder.gains(stack, 1, 3).tolist() == [0.0, 0.0]


def test_a_score_that_is_no_mean_over_examples_is_refused():
    params, loss_fn, signed = network(DIM, (32,), 0.9)

    def score(q, x):
        gradient = jax.grad(loss_fn)(params, (x, q))
        return jax.tree.map(lambda g, w: g**2 * w, gradient, params)

    decoder = examples(Signed(score, signed.mask_fn), gaussian(DIM), KEY)
    with pytest.raises(NotAdditive, match="off the mean over its examples by"):
        decoder.gains(drawn(signed, gaussian(DIM), 5, 1), 0, 1)


def test_inputs_that_data_sets_share_are_refused(decoder, stack):
    shared = Stack(stack.masks, stack.labels, stack.prior, stack.x[0])
    with pytest.raises(ValueError, match=r"stack\.resampled is False"):
        decoder.gains(shared, 0, 1)
    with pytest.raises(ValueError, match="candidates is 19, expected at least 20"):
        examples(decoder.signed, decoder.draw, KEY, candidates=19)


def test_dense_layers_read_out_what_each_example_says():
    params, loss_fn, signed = network(DIM, (16, 12), 0.5)
    x, y = gaussian(DIM)(KEY, 40)
    q = jax.nn.one_hot(y, 2)
    each = jax.jit(lambda q, x: example_scores(signed, q, x))
    g = np.asarray(each(q, x), np.float64)
    rng = np.random.default_rng(0)
    weights, squares = rng.standard_normal((2, g.shape[1])).astype(np.float32)
    cuts = np.cumsum([DIM * 16, 16 * 12])
    parts = [np.split(part, cuts, axis=-1) for part in (g, weights, squares)]
    expected = [g @ w for g, w, _ in zip(*parts, strict=True)]
    expected += [g**2 @ s for g, _, s in zip(*parts, strict=True)]
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
    dense = dense_readout(dense_layers(loss_fn, params), kernels)
    for readout in (readout_of(signed), dense):
        found = jax.jit(readout)(q, x, jnp.asarray(weights), jnp.asarray(squares))
        # Single precision, sums of up to 320 terms.
        assert np.asarray(found) == pytest.approx(np.stack(expected), abs=1e-4)


def test_the_fast_readout_is_taken_where_it_says_the_same():
    params, loss_fn, signed = network(DIM, (16, 12), 0.5)
    x, y = gaussian(DIM)(KEY, 16)
    q = jax.nn.one_hot(y, 2)
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1]

    def chosen(passed, kernels=kernels):
        return readout_for(signed, passed, kernels, q, x).__qualname__

    assert chosen(dense_layers(loss_fn, params)).startswith("dense_readout")
    general = readout_of(signed).__qualname__
    cold = nfp.classification_loss(loss_fn.apply_fn, temperature=2.0)
    assert chosen(dense_layers(cold, params)) == general
    assert chosen(dense_layers(loss_fn, params), kernels[1:]) == general

    def convolutions(q, x):
        raise ValueError("no dense layers alone")

    assert chosen(convolutions) == general


@pytest.mark.parametrize("n", [1, 9, 60, 1000])
def test_blocks_have_all_examples_and_at_most_a_tenth_of_those_left(n):
    sizes = block_sizes(n)
    left = n - (np.cumsum(sizes) - sizes)
    assert sizes.sum() == n
    assert np.all(sizes == np.clip(left // 10, 1, BLOCK))
