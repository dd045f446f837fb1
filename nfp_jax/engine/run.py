"""Many trainings, one after the other on every device."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from nfp_jax import cores
from nfp_jax.engine.bars import NoBar, bar_of
from nfp_jax.engine.devices import most_lanes
from nfp_jax.engine.jobs import Job, Networks, ShrinkJob, Stats
from nfp_jax.engine.many_lanes import ManyLanes
from nfp_jax.engine.one_lane import OneLane
from nfp_jax.engine.queue import Queue
from nfp_jax.engine.training import Summary, Training, TrainResult

# Networks that follow from others.
Further = Iterable[Job | Networks] | None

_LOG = logging.getLogger(__name__)


def run(
    training: Training,
    jobs: Iterable[Job | Networks],
    *,
    on_finish: Callable[[Any, TrainResult], Further] | None = None,
    on_ended: Callable[[list[Any], TrainResult], Further] | None = None,
    on_error: Callable[[Any, Exception], None] | None = None,
    lanes: int | None = None,
    shrink: ShrinkJob | None = None,
    inputs: Any = None,
    devices: Sequence[jax.Device] | None = None,
    summary: Summary | None = None,
    measured_on: Any = None,
    weights: bool = True,
    collect: bool = True,
    total: int | None = None,
    progress: bool = False,
) -> tuple[list[TrainResult], Stats]:
    """Returns the trained networks, in the order of ``jobs``, and what the run took.

    A network's result depends on its job alone: not on its lane, its place in the
    queue, the other jobs or the number of devices. For one number of lanes on one kind
    of device it is the same bit for bit. With another number of lanes, or with
    ``shrink``, sums are taken in another order: this changes the weights by about 1e-7
    of their size a step.

    Args:
      training: from ``make_training``, the same for all jobs.
      jobs: of a sequence, the longest job comes first, by a guess from its examples and
        kept weights. Any other iterable is read lazily and in order, so a generator may
        make each job (score, mask) when a lane is free for it.
        A stack of ``Networks`` counts as its networks, one after the other; where there
        are some, the order stays.
      on_finish: called with each job and its result, in the thread that trained it. It
        may return further jobs, which go to the front of the queue in their order. Of
        a stack it is given no job, but what has its ``tag``.
      on_ended: in place of ``on_finish`` and of results: called with the tags of the
        networks that ended together, and with their results along a leading axis, which
        may be longer. What was measured is on the host, weights and masks are on the
        device. It may return further jobs, too.
      on_error: called with a job that raised, in training or in a callback, and the
        error; the run goes on. ``None``: the first error ends the run and is raised.
      lanes: networks trained at once on each device. ``None``: one on a CPU; else what
        ``MEMORY_SHARE`` of its memory holds, up to ``MOST_LANES`` and its share of the
        jobs. Halved, with a warning, when a device runs out of memory.
      shrink: ``shrink(job)``: a smaller network to train in its place, whose result is
        then that of the job again, or ``None``; of the job alone. As in ``lambda job:
        small(job.params, job.mask)`` with ``small`` from ``compaction.make_shrink``,
        and a ``training`` that takes smaller weights. With one lane also of a stack's
        networks; in lanes these are trained as they are.
      inputs: arrays shared by all jobs whose data are ``Examples`` without inputs; kept
        once on each device.
      devices: ``None``: all local devices of JAX's default backend.
      summary: ``summary(result, data, measured_on)``: what to measure of each network
        at its end, on the device, of its ``TrainResult`` and its ``Padded`` data: a
        pytree of small arrays, which the result then has.
      measured_on: other arrays that ``summary`` is given; kept on the devices.
      weights: whether results of stacks have weights and masks; with ``False`` they
        stay on the device, and only what was measured comes to the host.
      collect: whether to keep the results; ``False`` bounds the memory where
        ``on_finish`` takes what it needs.
      total: number of networks expected, for the progress bar.
      progress: whether to show a bar with networks done, rate and time left.

    Returns:
      The results of ``jobs`` in their order, as host arrays, and ``Stats``. The list
      leaves out further jobs, whose results went to ``on_finish``, and jobs that ended
      in ``on_error``. Without ``collect`` it is empty.

    Raises:
      ValueError: ``lanes`` below 1; a job whose data leaves differ in leading size, or
        whose mask does not fit (names the path), if there is no ``on_error``.

    >>> from nfp_jax.training import make_training
    >>> import jax.numpy as jnp, optax
    >>> loss_fn = lambda w, batch: jnp.mean((batch @ w - 1.0) ** 2)
    >>> metrics_fn = lambda w, data: {"loss": loss_fn(w, data), "accuracy": 0.0}
    >>> training = make_training(loss_fn, optax.sgd(0.5), metrics_fn=metrics_fn)
    >>> w = jnp.zeros((1, 1))
    >>> jobs = [Job(w, w == 0, jnp.ones((4, 1)), jax.random.key(i)) for i in range(3)]
    >>> results, stats = run(training, jobs)
    >>> len(results), stats.networks
    (3, 3)
    """
    if lanes is not None and lanes < 1:
        raise ValueError(f"lanes is {lanes}, expected at least 1")
    devices = list(jax.local_devices() if devices is None else devices)
    known = len(jobs) if isinstance(jobs, Sequence) else total
    most = lanes or most_lanes(devices[0], known, len(devices))
    number = "one lane" if most == 1 else f"up to {most} lanes"
    platform = devices[0].platform
    _LOG.info("%s on each of %d devices (%s)", number, len(devices), platform)
    start = time.perf_counter()
    with bar_of(total, "network") if progress else NoBar() as bar:
        queue = Queue(jobs, on_finish, on_ended, on_error, collect, bar)
        shown = {"summary": summary, "measured_on": measured_on}
        workers: list[OneLane] | list[ManyLanes]
        if most == 1:
            places = cores.workers(devices)
            workers = [OneLane(training, x, inputs, shrink, **shown) for x in places]
        else:
            width, fit = most * len(devices), lanes is None
            many = ManyLanes(
                training, devices, inputs, shrink, width, weights, fit=fit, **shown
            )
            workers = [many]
        queue.working = len(workers)
        threads = [
            threading.Thread(target=_work, args=(queue, worker), daemon=True)
            for worker in workers
        ]
        for thread in threads:
            thread.start()
        try:
            queue.wait()
        except BaseException:  # an interrupt: the networks under way are abandoned
            queue.stop()
            raise
        # A thread frees its programs as it ends. That must be before the process ends.
        for thread in threads:
            thread.join()
    if queue.error is not None:
        raise queue.error
    seconds = time.perf_counter() - start
    results = [queue.results[i] for i in sorted(queue.results)]
    wasted = 1 - queue.useful / queue.lane_steps if queue.lane_steps else 0.0
    return results, Stats(
        seconds, queue.compiling, queue.training_time, queue.networks, wasted
    )


def _work(queue: Queue, worker: OneLane | ManyLanes) -> None:
    """Trains jobs on one device until there are none; an error ends the run."""
    try:
        worker.work(queue)
    except BaseException as error:
        queue.fail(error)
    finally:
        queue.leave()
