"""Scores of degree two under ``"data"``: what is linearized tells, and no more."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from channels import drawn, gaussian

import nfp_jax as nfp
from nfp_jax import decoding
from nfp_jax.decoding import Signed, examples_around, rest
from nfp_jax.information.reading import LEAST_GAIN, mixed_with_uniform
from nfp_jax.measures.betting import betting_lower_bound
from nfp_jax.models import MLP

KEY = jax.random.key(7)
DIM, N, COUNT = 8, 40, 24
DRAW = gaussian(DIM)


def grasp(power=1, absolute=False):
    """GraSP of a small network, or a power of its score, as decoders see it."""
    model = MLP(classes=2, widths=(24,))
    params = model.init(jax.random.key(0), jnp.zeros((1, DIM)))
    score_fn = nfp.grasp(nfp.classification_loss(model.apply, temperature=200))

    def score(q, x):
        found = score_fn.polynomial.fn(params, (x, q), None, None, None)
        return jax.tree.map(lambda u: u**power, found)

    def mask(y, x):
        return nfp.prune(score_fn, params, (x, y), sparsity=0.5)

    return Signed(score, mask, absolute=absolute)


@pytest.fixture(scope="module", autouse=True)
def small():
    """Fewer sets and inputs than for real networks, which a small one needs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rest, "INPUTS", 32)
        patch.setattr(rest, "WHOLE", 64)
        patch.setattr(rest, "ALONE", 1024)
        listing = importlib.import_module("nfp_jax.decoding.examples")
        patch.setattr(listing, "LEARNED", 200)
        yield


@pytest.fixture(scope="module")
def signed():
    return grasp()


@pytest.fixture(scope="module")
def decoder(signed):
    return examples_around(signed, DRAW, KEY, candidates=64, at_once=8)


@pytest.fixture(scope="module")
def stack(signed):
    return drawn(signed, DRAW, N, COUNT)


@pytest.fixture(scope="module")
def told(decoder, stack):
    return decoder.gains(stack, 0, COUNT)


def test_masks_tell_of_their_examples(told):
    assert told.mean() > 4 * told.std() / np.sqrt(COUNT)
    assert betting_lower_bound(mixed_with_uniform(told), LEAST_GAIN, 0.025) > 0


def test_masks_of_other_data_certify_nothing(decoder, stack):
    other = stack._replace(masks=np.roll(stack.masks, 1, axis=0))
    wrong = decoder.gains(other, 0, COUNT)
    assert wrong.mean() < 2 * wrong.std() / np.sqrt(COUNT)
    assert betting_lower_bound(mixed_with_uniform(wrong), LEAST_GAIN, 0.025) <= 0


def test_gains_do_not_depend_on_other_masks(decoder, stack, told):
    masks = stack.masks.copy()
    masks[4:] = ~masks[4:]
    found = decoder.gains(stack._replace(masks=masks), 2, 4)
    assert found == pytest.approx(told[2:4], abs=1e-3)


def test_an_example_that_does_not_count_changes_nothing(signed):
    x, y = DRAW(KEY, 12)
    q = jax.nn.one_hot(y, 2)
    counts = jnp.where(jnp.arange(12) < 9, 1 / 9, 0.0)
    expected = np.asarray(signed.flat(q[:9], x[:9]))
    found = np.asarray(rest.score_of(signed, counts, q, x))
    assert np.abs(found - expected).max() < 1e-5 * expected.std()


def test_the_mean_score_is_that_of_the_references_and_of_examples_alone(signed):
    found = rest.rest_of(signed, DRAW, KEY, N, 2)
    assert found.law == pytest.approx([0.5, 0.5], abs=0.05)
    keys = jax.random.split(jax.random.key(1), 512)

    def score(key):
        x, y = DRAW(key, N)
        return signed.flat(jax.nn.one_hot(y, 2), x)

    u = np.asarray(jax.lax.map(score, keys), np.float64) / float(found.unit)
    q, x = rest.references(found.x, 2)
    middle = rest.score_of(signed, jnp.full(len(q), 1 / len(q)), q, x) / found.unit
    mean = np.asarray(middle + found.own / N)
    # 32 inputs stand for all: this share of the spread is left.
    assert np.sqrt(np.mean((mean - u.mean(axis=0)) ** 2)) < 0.3
    assert np.mean(u.var(axis=0)) == pytest.approx(1, abs=0.3)


def test_what_is_not_of_degree_two_is_refused(stack):
    decoder = examples_around(grasp(power=3), DRAW, KEY, candidates=64)
    with pytest.raises(decoding.NotQuadratic, match="in how much examples count are"):
        decoder.gains(stack, 0, 1)
    with pytest.raises(ValueError, match="the score is absolute"):
        examples_around(grasp(absolute=True), DRAW, KEY)
    with pytest.raises(ValueError, match="candidates is 19, expected at least 20"):
        examples_around(grasp(), DRAW, KEY, candidates=19)


def test_what_takes_too_long_is_refused(signed, stack):
    decoder = examples_around(signed, DRAW, KEY, candidates=64, most_work=1e5)
    with pytest.raises(decoding.CannotDecode, match=r"takes [0-9.e+]+ products a mask"):
        decoder.gains(stack, 0, 1)
