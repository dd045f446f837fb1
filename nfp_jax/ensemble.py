"""Many trainings at once: a queue of jobs, and one network at a time on each device.

Each network runs to its own convergence in one jitted call, and all devices are kept
busy; on a CPU ``use_all_cores`` makes a device of every core, which beats one device
of many threads and beats ``vmap`` over networks, since one network's weights and
moments stay in cache.
Depends on training and jax.
"""

import collections
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from nfp_jax.masks import Mask, Params
from nfp_jax.training import (
    NO_LIMIT,
    Data,
    Training,
    TrainResult,
    pad,
    run_training,
)


class Job(NamedTuple):
    """One network to train.

    Attributes:
      params: initial weights.
      mask: bool pytree like ``params``.
      data: pytree of arrays with a common leading axis of examples. Jobs that share
        one object share its copy on each device.
      key: decides the order of batches.
      steps: ``None`` to train to convergence, else the number of optimizer steps.
      tag: whatever the caller knows the job by; never looked at.
    """

    params: Params
    mask: Mask
    data: Data
    key: jax.Array
    steps: int | None = None
    tag: Any = None


class Stats(NamedTuple):
    """What a run took: wall seconds of it all, of compiling (summed over devices), of
    training (likewise), and the number of networks.
    """

    seconds: float
    compile_seconds: float
    train_seconds: float
    networks: int


def use_all_cores(count: int | None = None) -> None:
    """Makes one single-threaded CPU device of every core, for ``run`` to fill.

    Sets ``XLA_FLAGS`` and must come before JAX is first used (importing it is no use).
    Flags that are already set are left as they are; accelerators are not affected.

    Args:
      count: number of devices; ``None``: the cores this process may run on.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" in flags:
        return
    if count is None:
        affinity = getattr(os, "sched_getaffinity", None)
        count = len(affinity(0)) if affinity else os.cpu_count() or 1
    os.environ["XLA_FLAGS"] = (
        f"{flags} --xla_cpu_multi_thread_eigen=false "
        f"--xla_force_host_platform_device_count={count}"
    ).strip()


def run(
    training: Training,
    jobs: Iterable[Job],
    *,
    on_finish: Callable[[Job, TrainResult], Iterable[Job] | None] | None = None,
    on_error: Callable[[Job, Exception], None] | None = None,
    devices: Sequence[jax.Device] | None = None,
    collect: bool = True,
    total: int | None = None,
    progress: bool = False,
) -> tuple[list[TrainResult], Stats]:
    """Returns the trained networks, in the order of ``jobs``, and what the run took.

    A network's result depends on its job alone, not on its place in the queue, the
    other jobs or the number of devices of one kind.

    Args:
      training: from ``make_training``, the same for all jobs.
      jobs: taken lazily, one at a time, so a generator may make each one (score, mask)
        when a device is free for it.
      on_finish: called with each job and its result, in the thread that trained it;
        may return further jobs, which go to the front of the queue in their order.
      on_error: called with a job that raised, in training or in ``on_finish``; the
        others go on. ``None``: the first error ends the run and is raised.
      devices: ``None``: all local devices of JAX's default backend.
      collect: whether to keep the results; ``False`` bounds the memory where
        ``on_finish`` takes what it needs.
      total: number of networks expected, for the progress bar.
      progress: whether to show a bar with networks done, rate and time left.

    Returns:
      The results of ``jobs`` in their order, as host arrays, and ``Stats``. Those of
      further jobs went to ``on_finish``; a job that ended in ``on_error`` is left out;
      without ``collect`` the list is empty.

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
    devices = list(jax.local_devices() if devices is None else devices)
    start = time.perf_counter()
    bar = tqdm(
        total=total,
        unit="network",
        disable=not progress,
        mininterval=0.5,
        dynamic_ncols=True,
    )
    with bar:
        queue = _Queue(training, jobs, on_finish, on_error, collect, bar)
        queue.working = len(devices)
        for device in devices:
            threading.Thread(target=queue.work, args=(device,), daemon=True).start()
        try:
            queue.wait()
        except BaseException:  # an interrupt: the networks under way are abandoned
            queue.stop()
            raise
    if queue.error is not None:
        raise queue.error
    seconds = time.perf_counter() - start
    results = [queue.results[i] for i in sorted(queue.results)]
    return results, Stats(seconds, queue.compiling, queue.training_time, queue.networks)


class _Queue:
    """What the workers share: ``source`` under ``making``, all else under ``lock``."""

    def __init__(
        self,
        training: Training,
        jobs: Iterable[Job],
        on_finish: Any,
        on_error: Any,
        collect: bool,
        bar: Any,
    ) -> None:
        self.training, self.on_finish, self.on_error = training, on_finish, on_error
        self.collect, self.bar = collect, bar
        self.lock = threading.Condition()
        self.making = threading.Lock()  # jobs are made one at a time, others train on
        self.source = enumerate(iter(jobs))
        self.exhausted = False
        self.further: collections.deque[Job] = collections.deque()
        self.working = self.running = 0  # devices, jobs
        self.stopped = False
        self.error: BaseException | None = None
        self.results: dict[int, TrainResult] = {}
        self.compiling = self.training_time = 0.0
        self.networks = 0

    def wait(self) -> None:
        """Returns when every device has ended its work."""
        with self.lock:
            while self.working:
                self.lock.wait(timeout=0.2)  # so that an interrupt is seen at once

    def stop(self) -> None:
        with self.lock:
            self.stopped = True
            self.lock.notify_all()

    def take(self) -> tuple[int | None, Job] | None:
        """The next job and its place in the results; None when all is done."""
        while True:
            with self.lock:
                if self.stopped:
                    return None
                if self.further:
                    self.running += 1
                    return None, self.further.popleft()
                if self.exhausted:
                    if not self.running:
                        self.lock.notify_all()
                        return None
                    self.lock.wait()  # a running job may bring further ones
                    continue
                self.running += 1  # making a job counts: it may bring further ones
            with self.making:
                following = next(self.source, None)
            if following is not None:
                return following
            with self.lock:
                self.running -= 1
                self.exhausted = True
                self.lock.notify_all()

    def work(self, device: jax.Device) -> None:
        """Trains job after job on one device."""
        worker = _Worker(self.training, device)
        try:
            while (taken := self.take()) is not None:
                self.do(worker, *taken)
        except BaseException as error:
            with self.lock:
                self.error = self.error or error
            self.stop()
        finally:
            with self.lock:
                self.working -= 1
                self.lock.notify_all()

    def do(self, worker: "_Worker", place: int | None, job: Job) -> None:
        further: list[Job] = []
        try:
            result, compiling = worker.train(job)
            with self.lock:
                self.networks += 1
                self.compiling += compiling
                self.training_time += result.seconds
                if self.collect and place is not None:
                    self.results[place] = result
            if self.on_finish is not None:
                further = list(self.on_finish(job, result) or ())
        except Exception as error:
            if self.on_error is None:
                raise
            self.on_error(job, error)
        finally:
            with self.lock:
                self.running -= 1
                self.further.extendleft(reversed(further))
                self.bar.update()
                self.lock.notify_all()


class _Worker:
    """One device: its compiled programs and its copies of the data."""

    def __init__(self, training: Training, device: jax.Device) -> None:
        self.training, self.device = training, device
        self.programs: dict[Any, Any] = {}
        self.placed: tuple[Any, Any] = (None, None)

    def train(self, job: Job) -> tuple[TrainResult, float]:
        """The trained network, and the seconds that compiling for it took."""
        if self.placed[0] is not job.data:
            examples = pad(job.data, self.training.batch_size)
            self.placed = (job.data, jax.device_put(examples, self.device))
        params, mask, key = jax.device_put((job.params, job.mask, job.key), self.device)
        limit = np.int32(NO_LIMIT if job.steps is None else job.steps)
        arguments = (params, mask, self.placed[1], key, limit)
        start = time.perf_counter()
        program = self.program(arguments)
        compiled = time.perf_counter()
        # To the host, where it is bound to no device: its successor may run on another.
        result = jax.device_get(program(*arguments))
        seconds = time.perf_counter() - compiled
        return result._replace(seconds=seconds), compiled - start

    def program(self, arguments: Any) -> Any:
        """The training, compiled for these shapes on this device."""
        leaves, treedef = jax.tree.flatten(arguments)
        shapes = (treedef, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        if shapes not in self.programs:
            lowered = run_training.lower(self.training, *arguments)
            self.programs[shapes] = lowered.compile()
        return self.programs[shapes]
