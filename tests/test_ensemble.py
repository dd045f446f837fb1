import gc
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nfp_jax as nfp
from nfp_jax import ensemble, models
from nfp_jax.compaction import make_shrink
from nfp_jax.engine import devices, lanes, many_lanes, programs
from nfp_jax.engine import run as engine_run
from nfp_jax.training import (
    Examples,
    classification_metrics,
    make_training,
    pad,
    stop_when_still,
    train,
)


def loss_fn(w, batch):
    return jnp.mean((batch @ w - 1.0) ** 2)


TRAINING = make_training(
    loss_fn,
    optax.sgd(0.1),
    metrics_fn=lambda w, data: {"loss": loss_fn(w, data), "accuracy": 0.0},
    batch_size=2,
    max_epochs=12,
    stop=stop_when_still(),
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


@pytest.mark.parametrize("lanes", [1, 2])
def test_an_error_in_making_a_job_is_raised_and_hangs_nothing(lanes):
    """It is the error of no job."""

    def jobs():
        yield job(0)
        raise RuntimeError("no more")

    failed = []
    with pytest.raises(RuntimeError, match="no more"):
        ensemble.run(
            TRAINING, jobs(), lanes=lanes, on_error=lambda *both: failed.append(both)
        )
    assert failed == []


def test_no_jobs_is_no_work():
    results, stats = ensemble.run(TRAINING, [])
    assert results == [] and stats.networks == 0


def test_seconds_are_measured_without_compiling():
    never_compiled = make_training(
        loss_fn,
        optax.sgd(0.1),
        metrics_fn=lambda w, data: {"loss": loss_fn(w, data), "accuracy": 0.0},
        stop=stop_when_still(),
    )
    one_device = jax.local_devices()[:1]
    results, stats = ensemble.run(never_compiled, [job(0)], devices=one_device)
    # 12 epochs on 5 points take a thousandth of what compiling takes.
    assert 0 < results[0].seconds < stats.compile_seconds < stats.seconds


def test_use_all_cores_trains_a_network_a_core_and_respects_flags():
    code = (
        "import jax; from nfp_jax import ensemble; ensemble.use_all_cores({});"
        "print(len(ensemble.workers(jax.devices())))"
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


def test_an_accelerators_programs_are_kept_for_the_next_process(
    monkeypatch, tmp_path, caplog
):
    set_to = []
    monkeypatch.setattr(jax.config, "update", lambda *args: set_to.append(args))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ensemble.use_compilation_cache()
    assert set_to == []  # a CPU's are not
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    ensemble.use_compilation_cache()
    assert set_to == [("jax_compilation_cache_dir", str(tmp_path / "nfp_jax"))]
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    ensemble.use_compilation_cache()
    assert len(set_to) == 1 and "compiled programs are not kept" in caplog.text


# Lanes: several networks at once on a device

ONE = jax.local_devices()[:1]  # compiles half as much as two, where one will do


def mixed(count=9):
    """Jobs of several sizes, masks and keys, which end at different epochs."""
    jobs = []
    for seed in range(count):
        data = jax.random.normal(jax.random.key(seed), (3 + seed % 3 * 2, 3))
        mask = jnp.arange(3)[:, None] != seed % 4
        jobs.append(ensemble.Job(W, mask, data, jax.random.key(seed)))
    return jobs


ENDING = make_training(
    loss_fn,
    optax.adam(0.1),
    metrics_fn=lambda w, data: {"loss": loss_fn(w, data), "accuracy": 0.0},
    batch_size=2,
    max_epochs=40,
    stop=lambda progress: progress.loss < 0.9,
)


def equal(a, b):
    a, b = (result._replace(seconds=0.0) for result in (a, b))
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("lanes", [2, 4, 20])
def test_lanes_give_the_result_of_a_training_alone(lanes):
    """1e-5: sums in another order over some tens of steps."""
    results, stats = ensemble.run(ENDING, mixed(), lanes=lanes, devices=ONE)
    assert stats.networks == len(results) == 9 and 0 < stats.wasted < 1
    for one, result in zip(mixed(), results, strict=True):
        alone = train(ENDING, one.params, one.mask, one.data, one.key)
        np.testing.assert_allclose(result.params, alone.params, atol=1e-5)
        assert result.epochs == alone.epochs and result.converged == alone.converged
        assert np.isfinite(result.seconds)
    assert len({int(result.epochs) for result in results}) > 2


def test_a_result_depends_bit_by_bit_on_its_job_alone():
    """Not on the lane, the other jobs, their order or the number of devices."""
    one_device = jax.local_devices()[:1]
    first, _ = ensemble.run(ENDING, mixed(), lanes=4, devices=one_device)
    again, _ = ensemble.run(ENDING, iter(mixed()[::-1]), lanes=4)
    few, _ = ensemble.run(ENDING, mixed()[2:5], lanes=4)
    for a, b in zip(first, again[::-1], strict=True):
        equal(a, b)
    for a, b in zip(first[2:5], few, strict=True):
        equal(a, b)


def test_a_lane_that_diverges_leaves_the_others_untouched():
    jobs = mixed()
    good, _ = ensemble.run(ENDING, jobs, lanes=3, devices=ONE)
    jobs[4] = jobs[4]._replace(params=W * jnp.nan)
    results, _ = ensemble.run(ENDING, jobs, lanes=3, devices=ONE)
    assert results[4].diverged and not results[4].converged
    assert results[4].epochs == 1
    for place in set(range(9)) - {4}:
        assert not results[place].diverged
        equal(results[place], good[place])


def test_follow_ups_and_steps_run_in_lanes():
    def follow(job, result):
        if job.tag == "early":
            return [job._replace(params=result.params, steps=None, tag="late")]
        late.append(result)
        return None

    late = []
    jobs = [job._replace(steps=3, tag="early") for job in mixed()]
    results, stats = ensemble.run(ENDING, jobs, lanes=2, on_finish=follow)
    assert len(results) == len(late) == 9 and stats.networks == 18
    for one, result in zip(jobs, results, strict=True):
        early = train(ENDING, one.params, one.mask, one.data, one.key, steps=3)
        np.testing.assert_allclose(result.params, early.params, atol=1e-5)


@pytest.mark.parametrize("lanes", [1, 3])
def test_shared_inputs_are_never_copied_into_a_job(lanes):
    def of_inputs(w, batch):
        return loss_fn(w, batch[0])

    made = make_training(
        of_inputs,
        optax.sgd(0.1),
        metrics_fn=lambda w, data: {"loss": of_inputs(w, data), "accuracy": 0.0},
        batch_size=2,
        max_epochs=5,
        stop=stop_when_still(),
    )
    key, indices = jax.random.key(0), [jnp.array([4, 1, 2]), jnp.array([0, 3, 3, 1, 2])]
    sets = [Examples(None, index, ()) for index in indices]
    jobs = [ensemble.Job(W, W == 1.0, examples, key) for examples in sets]
    results, _ = ensemble.run(made, jobs, lanes=lanes, inputs=DATA)
    for index, result in zip(indices, results, strict=True):
        direct = train(made, W, W == 1.0, (DATA[index],), key)
        np.testing.assert_allclose(result.params, direct.params, atol=1e-6)


def test_out_of_memory_halves_the_lanes_and_says_so(monkeypatch, caplog):
    seen = []
    turn = lanes.Lanes.turn

    def full_above_two(self):
        seen.append(self.programs.width)
        if self.programs.width > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return turn(self)

    monkeypatch.setattr(lanes.Lanes, "turn", full_above_two)
    one_device = jax.local_devices()[:1]
    results, stats = ensemble.run(ENDING, mixed(), lanes=8, devices=one_device)
    assert stats.networks == len(results) == 9
    assert seen[:2] == [8, 4] and set(seen[2:]) == {2}
    assert "out of memory: 4 lanes" in caplog.text
    assert "out of memory: 2 lanes" in caplog.text


@pytest.mark.parametrize("knows", ["guess", "compiler"])
def test_lanes_are_as_many_as_memory_holds(knows, monkeypatch, caplog):
    """Of 100 bytes a lane, by the guess before compiling or the compiler after it."""
    caplog.set_level("INFO")
    monkeypatch.setattr(engine_run, "most_lanes", lambda *_: 8)
    monkeypatch.setattr(lanes, "bytes_of", lambda leaf: 50 * (knows == "guess"))
    if knows == "guess":
        leaves = len(jax.tree.leaves(jax.eval_shape(held_by_a_lane)))
        monkeypatch.setattr(many_lanes, "memory_of", lambda device: leaves * 300 / 0.8)
    else:
        sizes = iter([1000, 500, 299])
        monkeypatch.setattr(lanes, "footprint", lambda program: next(sizes))
        monkeypatch.setattr(many_lanes, "memory_of", lambda device: 300 / 0.8)
    one_device = jax.local_devices()[:1]
    results, stats = ensemble.run(ENDING, mixed()[::3], devices=one_device)
    assert "up to 8 lanes on each of 1 devices (cpu)" in caplog.text
    assert "2 lanes on " in caplog.text and stats.networks == len(results) == 3


def held_by_a_lane():
    one = mixed(1)[0]
    data = pad(one.data, 2)
    return ENDING.init(one.params, one.mask, data, one.key), data


def test_the_compiler_accounts_for_weights_moments_and_data():
    """A program that holds 3 copies of 1,000 floats, one of them in place."""
    program = jax.jit(lambda a, b: (a + b, b * b), donate_argnums=0)
    numbers = jax.ShapeDtypeStruct((1000,), jnp.float32)
    assert 12_000 <= devices.footprint(program.lower(*[numbers] * 2).compile()) < 13e3


def sparse_jobs():
    """Networks with 10 % of their weights: many neurons have no path left."""
    model = models.MLP(2, (24, 24))
    jobs = []
    for seed in range(6):
        key = jax.random.key(seed)
        params = models.initialize(model, key, (4,))
        mask = nfp.prune(nfp.random(), params, key=key, sparsity=0.9)
        x = jax.random.normal(key, (20, 4))
        data = (x, jax.random.bernoulli(key, shape=(20,)).astype(jnp.int32))
        jobs.append(ensemble.Job(nfp.apply_mask(params, mask), mask, data, key))
    return model, jobs


@pytest.mark.parametrize("lanes", [1, 4])
def test_networks_without_dead_neurons_end_as_the_whole_ones(lanes):
    """1e-5: sums in another order over some tens of steps; dead weights stay exactly.

    Follow-up jobs start from the whole network, too.
    """
    model, jobs = sparse_jobs()
    apply_fn = models.apply_at_any_width(model)
    own = make_training(
        nfp.classification_loss(apply_fn),
        optax.adam(0.01),
        metrics_fn=classification_metrics(apply_fn),
        batch_size=8,
        max_epochs=6,
        stop=lambda progress: progress.epoch < 0,
    )
    seen = []

    small_of = make_shrink(models.layer_chain(model), dead_inputs=True)

    def shrink(job):
        small = small_of(job.params, job.mask)
        seen.append(small is not None)
        return small

    def again(job, result):
        shapes = jax.tree.map(jnp.shape, result.params)
        assert shapes == jax.tree.map(jnp.shape, job.params)
        if job.tag is None:
            return [job._replace(params=result.params, tag="again")]
        return None

    whole, _ = ensemble.run(own, jobs, lanes=lanes, devices=ONE)
    results, stats = ensemble.run(
        own, jobs, lanes=lanes, devices=ONE, shrink=shrink, on_finish=again
    )
    assert any(seen) and len(seen) == stats.networks == 12
    for one, result, expected in zip(jobs, results, whole, strict=True):
        for leaf, other, start in zip(
            *map(jax.tree.leaves, (result.params, expected.params, one.params)),
            strict=True,
        ):
            np.testing.assert_allclose(leaf, other, atol=1e-5)
            np.testing.assert_array_equal(leaf == start, other == start)


def test_eight_devices_give_what_one_gives_bit_by_bit():
    code = """
import jax, sys
sys.path.insert(0, {here!r})
from test_ensemble import ENDING, equal, mixed
from nfp_jax import ensemble
assert jax.local_device_count() == 8
for lanes in (1, 2):
    jobs = mixed(30)[::3]  # of one size: one program a device
    one, _ = ensemble.run(ENDING, jobs, lanes=lanes, devices=jax.devices()[:1])
    all, _ = ensemble.run(ENDING, jobs, lanes=lanes)
    for a, b in zip(one, all, strict=True):
        equal(a, b)
print("equal")
"""
    flags = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", code.format(here=str(Path(__file__).parent))],
        env={**os.environ, "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen=false {flags}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "equal", done.stderr


def test_lanes_report_jobs_that_raise_and_go_on():
    failed = []
    jobs = [job(0), job(1, tag="bad", data=jnp.ones((5, 4))), job(2)]
    jobs.append(job(3, tag="uneven", data=(jnp.ones((5, 3)), jnp.ones(4))))
    results, _ = ensemble.run(
        TRAINING,
        jobs,
        lanes=2,
        on_error=lambda job, error: failed.append((job.tag, str(error))),
    )
    assert len(results) == 2
    failed = dict(failed)
    assert set(failed) == {"bad", "uneven"}
    assert "'0': (5,), '1': (4,)" in failed["uneven"]


def test_no_jobs_in_lanes_is_no_work_and_no_lanes_are_refused():
    results, stats = ensemble.run(TRAINING, [], lanes=3)
    assert results == [] and stats.networks == 0
    with pytest.raises(ValueError, match="lanes is 0, expected at least 1"):
        ensemble.run(TRAINING, [], lanes=0)


def test_the_longest_jobs_of_a_sequence_come_first():
    order = []
    small, large = jnp.ones((2, 3)), jnp.ones((9, 3))
    jobs = [job(0, "short", small), job(1, "long", large), job(2, "short", small)]
    ensemble.run(
        TRAINING,
        jobs,
        devices=jax.local_devices()[:1],
        on_finish=lambda job, result: order.append(job.tag),
    )
    assert order == ["long", "short", "short"]


def full(*_):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: of the caller's own program")


@pytest.mark.parametrize("fails", ["on_finish", "on_ended", "on_error", "jobs"])
def test_an_error_of_the_callers_is_never_taken_for_one_of_the_device(fails):
    """It ends the run: no network is trained and handed over again."""
    seen = []

    def note(*arguments):
        seen.append(arguments)
        if len(seen) == 4:
            full()

    def jobs():
        yield from mixed(7)
        if fails == "jobs":
            full()

    callbacks = {
        "on_finish": {"on_finish": note},
        "on_ended": {"on_ended": note},
        "on_error": {"on_finish": lambda *_: 1 / 0, "on_error": note},
        "jobs": {},
    }
    with pytest.raises(jax.errors.JaxRuntimeError, match="of the caller's own"):
        ensemble.run(ENDING, jobs(), lanes=2, devices=ONE, **callbacks[fails])
    assert len(seen) == (0 if fails == "jobs" else 4)


def test_networks_without_dead_neurons_are_handed_over_whole_together():
    """With what was removed in its place, as each one alone is."""
    model, jobs = sparse_jobs()
    apply_fn = models.apply_at_any_width(model)
    own = make_training(
        nfp.classification_loss(apply_fn),
        optax.adam(0.01),
        metrics_fn=classification_metrics(apply_fn),
        batch_size=8,
        max_epochs=2,
    )
    small_of = make_shrink(models.layer_chain(model), dead_inputs=True)
    jobs = [job._replace(tag=i) for i, job in enumerate(jobs)]
    run = {"lanes": 4, "devices": ONE}
    run["shrink"] = lambda job: small_of(job.params, job.mask)
    seen = {}

    def ended(tags, results):
        for leaf in jax.tree.leaves((results.params, results.mask)):
            assert isinstance(leaf, jax.Array)
        for i, tag in enumerate(tags):
            seen[tag] = jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], results)

    alone, _ = ensemble.run(own, jobs, **run)
    ensemble.run(own, jobs, on_ended=ended, **run)
    assert sorted(seen) == list(range(6))
    for i, one in enumerate(alone):
        equal(seen[i], one)
        for leaf, keep in zip(
            *map(jax.tree.leaves, (seen[i].params, jobs[i].mask)), strict=True
        ):
            assert leaf.shape == keep.shape and np.all(leaf[~np.asarray(keep)] == 0)


def test_programs_of_lanes_serve_the_next_run_and_go_with_their_training():
    """Whatever the summary of a run holds; and ``free`` frees those of all."""
    made = make_training(
        loss_fn,
        optax.sgd(0.1),
        metrics_fn=lambda w, data: {"loss": loss_fn(w, data), "accuracy": 0.0},
        batch_size=2,
        max_epochs=3,
    )

    def summary(result, data, _):
        return {"sum": jnp.sum(result.params)}

    def compiled(training, **options):
        before = programs.so_far().programs
        ensemble.run(training, [job(0)], lanes=2, devices=ONE, **options)
        return programs.so_far().programs - before

    assert compiled(made, summary=summary) > 0
    assert compiled(made, summary=summary) == 0
    programs.free()
    assert compiled(made, summary=summary) > 0
    kept = weakref.ref(made.kept)
    del made
    gc.collect()
    assert kept() is None
