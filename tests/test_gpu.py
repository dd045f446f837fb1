"""What only an accelerator shows: ``pytest -n 0 -m gpu tests/test_gpu.py``, with one.

Skipped, and said to be, where JAX's default backend is the CPU.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nfp_jax as nfp
from nfp_jax import ensemble, models
from nfp_jax.training import (
    classification_metrics,
    make_training,
    stop_when_still,
    train,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(jax.default_backend() == "cpu", reason="no accelerator here"),
]


def setting(width):
    """A network with two hidden layers, and its training."""
    model = models.MLP(2, (width, width))
    training = make_training(
        nfp.classification_loss(model.apply),
        optax.adam(1e-3),
        metrics_fn=classification_metrics(model.apply),
        max_epochs=15,
        stop=stop_when_still(),
    )
    return model, training


MODEL, TRAINING = setting(64)


@pytest.fixture(autouse=True)
def whole_products():
    """Products in float32: by default a GPU rounds their factors to 10 bits."""
    with jax.default_matmul_precision("highest"):
        yield


def networks(count, model=MODEL):
    """Jobs of mixed sizes and sparsities."""
    jobs = []
    for seed in range(count):
        key, n = jax.random.key(seed), (100, 200, 256)[seed % 3]
        params = models.initialize(model, key, (20,))
        mask = nfp.prune(nfp.random(), params, key=key, sparsity=0.3 * (seed % 4))
        x = jax.random.normal(key, (n, 20))
        y = jax.random.bernoulli(key, shape=(n,)).astype(jnp.int32)
        jobs.append(ensemble.Job(nfp.apply_mask(params, mask), mask, (x, y), key))
    return jobs


def test_lanes_are_chosen_and_end_as_on_a_cpu():
    """1e-3: sums in another order, over up to 60 steps of Adam at rate 1e-3."""
    jobs = networks(40)
    results, stats = ensemble.run(TRAINING, jobs)
    assert stats.networks == 40 and 0 < stats.wasted < 1
    for job, result in list(zip(jobs, results, strict=True))[::8]:
        one = jax.device_put(job[:4], jax.devices("cpu")[0])
        alone = train(TRAINING, *one)
        pairs = zip(*map(jax.tree.leaves, (result.params, alone.params)), strict=True)
        for leaf, expected in pairs:
            np.testing.assert_allclose(leaf, expected, atol=1e-3)


def test_a_result_depends_bit_by_bit_on_its_job_alone():
    jobs = networks(12)
    first, _ = ensemble.run(TRAINING, jobs, lanes=4)
    again, _ = ensemble.run(TRAINING, iter(jobs[::-1]), lanes=4)
    for a, b in zip(first, again[::-1], strict=True):
        jax.tree.map(np.testing.assert_array_equal, a.params, b.params)


def test_a_full_device_goes_on_with_fewer_lanes(caplog):
    """16,384 lanes of 4 million weights, 67 GB a copy and three copies of them, asked
    for by hand, so that nothing estimates them first."""
    model, training = setting(2048)
    results, _ = ensemble.run(training, networks(3, model), lanes=16_384)
    assert len(results) == 3 and "out of memory" in caplog.text


def test_masks_made_at_once_are_those_of_a_cpu():
    """But for scores within rounding of the threshold: 1 in 1,000 entries."""
    jobs = networks(9)[::3]  # of one size
    stacked = [
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
        for parts in zip(*((job.params, job.data) for job in jobs), strict=True)
    ]
    loss_fn = nfp.classification_loss(MODEL.apply)
    found = nfp.prune_many(nfp.snip(loss_fn), *stacked, sparsity=0.8)
    for i, job in enumerate(jobs):
        there = jax.device_put((job.params, job.data), jax.devices("cpu")[0])
        mask = nfp.prune(nfp.snip(loss_fn), *there, sparsity=0.8)
        own = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), found)
        assert nfp.overlap(own, jax.device_get(mask)) > 0.999
