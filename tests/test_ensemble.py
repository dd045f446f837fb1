import os
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nfp_jax import ensemble
from nfp_jax.training import make_training, train


def loss_fn(w, batch):
    return jnp.mean((batch @ w - 1.0) ** 2)


TRAINING = make_training(
    loss_fn,
    optax.sgd(0.1),
    metrics_fn=lambda w, data: {"loss": loss_fn(w, data), "accuracy": 0.0},
    batch_size=2,
    max_epochs=12,
)
DATA = jax.random.normal(jax.random.key(0), (5, 3))
W = jnp.ones((3, 1))


def job(seed, tag=None, data=DATA):
    return ensemble.Job(W, W == 1.0, data, jax.random.key(seed), tag=tag)


def test_results_come_in_job_order_and_equal_train_bit_by_bit():
    jobs = [job(seed) for seed in range(7)]
    results, stats = ensemble.run(TRAINING, jobs)
    assert stats.networks == 7
    for one, result in zip(jobs, results, strict=True):
        alone = train(TRAINING, one.params, one.mask, one.data, one.key)
        np.testing.assert_array_equal(result.params, alone.params)


def test_a_result_does_not_depend_on_the_other_jobs_or_the_number_of_devices():
    few, _ = ensemble.run(TRAINING, [job(3)], devices=jax.local_devices()[:1])
    many, _ = ensemble.run(TRAINING, [job(seed) for seed in (5, 3, 1, 4)])
    assert len(jax.local_devices()) > 1
    np.testing.assert_array_equal(few[0].params, many[1].params)


def test_all_devices_work():
    used = set()
    barrier = threading.Barrier(len(jax.local_devices()), timeout=60)

    def meet(job, result):
        used.add(threading.current_thread())
        if job.tag == "first":
            barrier.wait()  # passes only if every device took one of these

    jobs = [job(seed, tag="first") for seed in range(len(jax.local_devices()))]
    ensemble.run(TRAINING, jobs, on_finish=meet)
    assert len(used) == len(jax.local_devices())


def test_jobs_that_follow_from_results_run_too_and_chains_do_not_wait_for_others():
    seen = []

    def follow(job, result):
        seen.append(job.tag)
        if job.tag[1] < 3:
            return [
                job._replace(tag=(job.tag[0], job.tag[1] + 1), params=result.params)
            ]
        return None

    jobs = [job(seed, tag=(seed, 0)) for seed in range(3)]
    results, stats = ensemble.run(TRAINING, jobs, on_finish=follow)
    assert len(results) == 3 and stats.networks == 12
    for seed in range(3):
        assert [step for chain, step in seen if chain == seed] == [0, 1, 2, 3]


def test_a_job_may_ask_for_steps_only():
    results, _ = ensemble.run(TRAINING, [job(1)._replace(steps=4)])
    early = train(TRAINING, W, W == 1.0, DATA, jax.random.key(1), steps=4)
    np.testing.assert_array_equal(results[0].params, early.params)


def test_jobs_are_taken_lazily():
    made = []

    def jobs():
        for seed in range(6):
            made.append(seed)
            yield job(seed)

    def count(job, result):
        finished.append(len(made))

    finished = []
    ensemble.run(TRAINING, jobs(), on_finish=count, collect=False)
    # Every job is made for a device that is free: never more than one ahead each.
    ahead = [m - f - 1 for f, m in enumerate(finished)]
    assert max(ahead) <= len(jax.local_devices())


def test_a_job_that_raises_is_reported_and_the_others_go_on():
    failed = []
    jobs = [job(0), job(1, tag="bad", data=jnp.ones((5, 4))), job(2)]
    results, stats = ensemble.run(
        TRAINING, jobs, on_error=lambda job, error: failed.append((job.tag, error))
    )
    assert [tag for tag, _ in failed] == ["bad"]
    assert isinstance(failed[0][1], TypeError)
    assert len(results) == 2 and stats.networks == 2


def test_without_on_error_the_first_error_is_raised():
    with pytest.raises(TypeError, match="dot_general"):
        ensemble.run(TRAINING, [job(0), job(1, data=jnp.ones((5, 4))), job(2)])


def test_an_error_in_making_a_job_is_raised_and_hangs_nothing():
    def jobs():
        yield job(0)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        ensemble.run(TRAINING, jobs())


def test_no_jobs_is_no_work():
    results, stats = ensemble.run(TRAINING, [])
    assert results == [] and stats.networks == 0


def test_seconds_are_measured_without_compiling():
    never_compiled = make_training(
        loss_fn,
        optax.sgd(0.1),
        metrics_fn=lambda w, data: {"loss": loss_fn(w, data), "accuracy": 0.0},
    )
    one_device = jax.local_devices()[:1]
    results, stats = ensemble.run(never_compiled, [job(0)], devices=one_device)
    # 12 epochs on 5 points take a thousandth of what compiling takes.
    assert 0 < results[0].seconds < stats.compile_seconds < stats.seconds


def test_use_all_cores_makes_a_device_of_every_core_and_respects_flags():
    code = (
        "import jax; from nfp_jax import ensemble; ensemble.use_all_cores({});"
        "print(jax.device_count())"
    )
    for given, flags, expected in [
        ("3", "", "3"),
        ("", "", str(len(os.sched_getaffinity(0)))),
        ("3", "--xla_force_host_platform_device_count=2", "2"),
    ]:
        printed = subprocess.run(
            [sys.executable, "-c", code.format(given)],
            env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert printed.strip() == expected
