import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from channels import all_signs, drawn, entropy, gaussian, masks_of, network, signs

import nfp_jax as nfp
from nfp_jax.decoding import factor_law
from nfp_jax.decoding.bits import Signed
from nfp_jax.decoding.factor_law import counts_of, log_uniform
from nfp_jax.decoding.factor_map import (
    Problem,
    maximum,
    on_device,
    read,
)
from nfp_jax.decoding.factors import factors, log_conditional
from nfp_jax.measures.betting import betting_upper_bound

KEY = jax.random.key(7)
DIM, WIDTHS, N = 20, (32,), 100


@pytest.fixture(scope="module", autouse=True)
def few_sets():
    """Fewer sets than for real networks, which small ones do not need."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factor_law, "SETS", 512)
        yield


@pytest.fixture(scope="module")
def code():
    return factors(network(DIM, WIDTHS, 0.5)[2], gaussian(DIM), KEY)


@pytest.fixture(scope="module")
def stack():
    return drawn(network(DIM, WIDTHS, 0.5)[2], gaussian(DIM), N, 32)


def test_a_code_of_common_factors_is_shorter_than_one_of_single_bits(code, stack):
    lengths = -code.log_prob(stack, 0, 32)
    law = code.coder(stack).law
    alone = -np.where(stack.masks, law.log_one, law.log_zero).sum(axis=1)
    gain = alone - lengths
    assert gain.mean() > 4 * gain.std() / np.sqrt(len(gain))
    most = code.longest(stack)
    assert lengths.max() < most
    bound = betting_upper_bound(lengths, most, 0.025)
    assert lengths.mean() < bound < 1.5 * alone.mean()


def test_no_code_is_shorter_on_average_than_the_entropy(monkeypatch):
    """Two examples of ±1 and a layer of 12 weights: the entropy is counted."""
    _, _, signed = network(6, (), 0.75)
    truth = entropy(masks_of(signed, *all_signs(6, 2)))
    stack = drawn(signed, signs(6), 2, 400)
    monkeypatch.setitem(factors.__globals__, "SHARES", (1,))
    code = factors(signed, signs(6), KEY)
    lengths = -code.log_prob(stack, 0, 400)
    assert lengths.mean() > truth
    assert betting_upper_bound(lengths, code.longest(stack), 0.025) > truth
    assert lengths.mean() < np.log(math.comb(12, 3))  # a code of all masks


def test_probabilities_sum_to_one_over_all_masks(monkeypatch):
    """Over all 2^8 masks, those of another number of weights too."""
    _, _, signed = network(4, (), 0.5)
    masks = np.array(list(itertools.product((False, True), repeat=8)))
    stack = drawn(signed, gaussian(4), 20, 1)._replace(masks=masks)
    # Many draws, since few of them matter for masks that are all but impossible.
    monkeypatch.setitem(factors.__globals__, "DRAWS", 500)
    monkeypatch.setitem(factors.__globals__, "SHARES", (1,))
    code = factors(signed, gaussian(4), KEY)
    law = code.coder(stack).law
    assert np.exp(log_uniform(law, masks)).sum() == pytest.approx(1)
    device = on_device(law)
    scale = jnp.float32(20**-0.5)
    h = jax.random.normal(KEY, (law.factors.shape[1],))
    certain = np.where(masks, law.log_one, law.log_zero)
    certain[:, law.index] = 0

    def given(bit):
        return log_conditional(
            Problem(device, bit, device.mean, scale, device.kept, True), h
        )

    inside = jax.vmap(given)(jnp.asarray(masks[:, law.index]))
    total = np.exp(np.asarray(inside, np.float64) + certain.sum(axis=1)).sum()
    assert total == pytest.approx(1, abs=1e-4)  # single precision
    assert np.exp(code.log_prob(stack, 0, 256)).sum() == pytest.approx(1, abs=0.1)


def test_a_score_that_knows_no_data_costs_the_least_share_that_is_certain():
    params, _, _ = network(DIM, WIDTHS, 0.5)
    mask = nfp.prune(nfp.magnitude(), params, sparsity=0.5)
    one = Signed(lambda q, x: params, lambda y, x: mask)
    stack = drawn(one, gaussian(DIM), 5, 2)
    code = factors(one, gaussian(DIM), KEY)
    assert code.data_free(stack)
    # 1e-6 for each of 704 weights, and the mixture: log 0.99.
    assert 0 < -code.log_prob(stack, 0, 2).max() < 0.0111


def test_the_factors_found_are_a_maximum(code, stack):
    law = on_device(code.coder(stack).law)
    bit = jnp.asarray(stack.masks[0][code.coder(stack).law.index])
    problem = Problem(law, bit, law.mean, jnp.float32(N**-0.5), law.kept, True)
    found, _ = maximum(problem, 4, 3)
    value = jax.jit(lambda h: read(problem, h, found.level).value)
    for key in jax.random.split(KEY, 8):
        step = jax.random.normal(key, found.h.shape)
        moved = found.h + 0.5 * step / jnp.linalg.norm(step)
        assert value(moved) < found.value
    start = jnp.zeros_like(found.h)
    assert found.value > value(start) + 1


def test_the_law_has_the_mean_and_the_covariance_of_scores(code, stack):
    """Of sets that it did not see."""
    _, _, signed = network(DIM, WIDTHS, 0.5)
    law = code.coder(stack).law
    keys = jax.random.split(jax.random.key(3), 2000)

    @jax.jit
    def each(key):
        x, y = gaussian(DIM)(key, N)
        return signed.flat(jax.nn.one_hot(y, 2), x)[law.index]

    u = np.asarray(jax.lax.map(each, keys), np.float64)
    variance = np.sum(law.factors**2, axis=1) + law.rest
    error = (u.mean(axis=0) - law.mean) * np.sqrt(len(u) * N / variance)
    # Five standard errors; the law's mean is that of 512 sets, these are 2,000.
    assert np.abs(error).max() < 5 * np.sqrt(1 + 2000 / 512)
    # Relative errors of 6 and 3 %, five of them.
    assert N * u.var(axis=0) == pytest.approx(variance, rel=0.4)
    common = law.factors @ law.factors.T + np.diag(law.rest)
    scale = np.sqrt(np.outer(variance, variance))
    off = (N * np.cov(u.T) - common) / scale
    plain = (N * np.cov(u.T) - np.diag(variance)) / scale
    assert np.mean(off**2) < 0.5 * np.mean(plain**2)


def test_masks_are_counted_by_threshold():
    masks = np.array([[True, False, True, True], [True, True, False, True]])
    assert counts_of(masks, np.array([1, 3])).tolist() == [[1, 2], [1, 2]]
