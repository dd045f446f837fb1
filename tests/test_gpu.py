"""What only an accelerator shows: ``pytest -n 0 -m gpu tests/test_gpu.py``, with one.

Skipped, and said to be, where JAX's default backend is the CPU; but for what fills its
memory, ``NFP_GPU_TESTS=cpu`` runs them there, in lanes, to try the tests themselves.
"""

import os

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

CPU = jax.default_backend() == "cpu"
TRIED = CPU and os.environ.get("NFP_GPU_TESTS") == "cpu"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(CPU and not TRIED, reason="no accelerator here"),
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


def felt(job):
    """Which weights the loss feels at the start: gradients above all rounding.

    Adam divides a gradient by its own size. One that is nothing but the rounding of a
    sum moves its weight by the full rate, one way on one device and the other way on
    another. 1e-4 of the layer's largest is a thousand times the rounding of float32.
    """
    loss_fn = nfp.classification_loss(MODEL.apply)
    gradient = jax.device_get(jax.grad(loss_fn)(job.params, job.data))
    return jax.tree.map(lambda g: np.abs(g) > 1e-4 * np.abs(g).max(), gradient)


def test_lanes_are_chosen_and_end_as_on_a_cpu():
    """Of the weights that the loss feels 99 in 100 are equal to 1e-3, a step of Adam,
    after up to 60 of them; gradients may fade on the way, so not all are. Losses are
    means over all examples, and equal to 1e-4; a label may lie on the boundary.
    """
    jobs = networks(40)
    results, stats = ensemble.run(TRAINING, jobs, lanes=16 if TRIED else None)
    assert stats.networks == 40 and 0 < stats.wasted < 1
    for job, result in list(zip(jobs, results, strict=True))[::8]:
        one = jax.device_put(job[:4], jax.devices("cpu")[0])
        alone = train(TRAINING, *one)
        for name, atol in (("loss", 1e-4), ("accuracy", 1.01 / len(job.data[1]))):
            np.testing.assert_allclose(
                result.metrics[name], alone.metrics[name], atol=atol
            )
        for leaf, expected, where, keep in zip(
            *map(jax.tree.leaves, (result.params, alone.params, felt(job), job.mask)),
            strict=True,
        ):
            assert np.all(leaf[~np.asarray(keep)] == 0)
            off = np.abs(leaf - expected)[where & np.asarray(keep)]
            assert off.size == 0 or np.mean(off < 1e-3) >= 0.99


def test_a_stack_stays_on_the_device_and_equals_its_jobs_bit_by_bit():
    jobs = [networks(1)[0]._replace(key=jax.random.key(i)) for i in range(6)]
    parts = [job[:4] for job in jobs]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    seen = []

    def ended(tags, results):
        leaves = jax.tree.leaves((results.params, results.mask))
        assert all(isinstance(leaf, jax.Array) for leaf in leaves)
        weights = jax.device_get(results.params)
        for i, tag in enumerate(tags):
            seen.append((tag, jax.tree.map(lambda leaf, i=i: leaf[i], weights)))

    networks_of = ensemble.Networks(*stacked, tags=range(6))
    ensemble.run(TRAINING, [networks_of], lanes=3, on_ended=ended)
    results, _ = ensemble.run(TRAINING, jobs, lanes=3)
    assert sorted(tag for tag, _ in seen) == list(range(6))
    for tag, params in seen:
        jax.tree.map(np.testing.assert_array_equal, params, results[tag].params)


def test_a_result_depends_bit_by_bit_on_its_job_alone():
    jobs = networks(12)
    first, _ = ensemble.run(TRAINING, jobs, lanes=4)
    again, _ = ensemble.run(TRAINING, iter(jobs[::-1]), lanes=4)
    for a, b in zip(first, again[::-1], strict=True):
        jax.tree.map(np.testing.assert_array_equal, a.params, b.params)


@pytest.mark.skipif(CPU, reason="it would fill the machine's memory")
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
