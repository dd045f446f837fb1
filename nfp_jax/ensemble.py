"""Many trainings at once: a queue of jobs, and on each device the lanes they run in.

A lane is a place that trains one network after the other. A CPU device has one:
each network runs to its own convergence in one jitted call, its weights and moments
in cache (``use_all_cores`` makes a device of every core). An accelerator has hundreds,
under ``vmap``: after a chunk of whole epochs, finished networks are retired and their
lanes refilled from the queue.
Depends on training and jax.
"""

import collections
import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from nfp_jax.masks import Mask, Params
from nfp_jax.training import (
    NO_LIMIT,
    Data,
    Examples,
    Training,
    TrainResult,
    TrainState,
    pad,
    run_training,
)

_LOG = logging.getLogger(__name__)
# Lanes of an accelerator, at most: beyond, its arithmetic is busy all the time.
MOST_LANES = 512
# Share of a device's memory that lanes may take.
MEMORY_SHARE = 0.8
# Steps between two looks at which lanes are done.
CHUNK_STEPS = 48
# Lanes refilled or read at once; one program serves any number of them.
AT_ONCE = 16


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
    """What a run took.

    Attributes:
      seconds: wall seconds of it all.
      compile_seconds: those of compiling, summed over devices.
      train_seconds: those of training, likewise.
      networks: number of networks trained.
      wasted: share of the lanes' optimizer steps in which they stood still: empty, or
        done, or with a shorter epoch than their neighbors; 0 with one lane a device.
    """

    seconds: float
    compile_seconds: float
    train_seconds: float
    networks: int
    wasted: float


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
    lanes: int | None = None,
    inputs: Any = None,
    devices: Sequence[jax.Device] | None = None,
    collect: bool = True,
    total: int | None = None,
    progress: bool = False,
) -> tuple[list[TrainResult], Stats]:
    """Returns the trained networks, in the order of ``jobs``, and what the run took.

    A network's result depends on its job alone: not on its lane, its place in the
    queue, the other jobs or the number of devices. Bit by bit so for one number of
    lanes on one kind of device; another number of lanes sums in another order, which
    changes the weights by some 1e-7 of their size a step.

    Args:
      training: from ``make_training``, the same for all jobs.
      jobs: a sequence is worked off longest job first, by a guess from its examples
        and kept weights; anything else is taken lazily and in order, so a generator
        may make each job (score, mask) when a lane is free for it.
      on_finish: called with each job and its result, in the thread that trained it;
        may return further jobs, which go to the front of the queue in their order.
      on_error: called with a job that raised, in training or in ``on_finish``; the
        others go on. ``None``: the first error ends the run and is raised.
      lanes: networks trained at once on each device. ``None``: one on a CPU; else what
        its memory holds, up to ``MOST_LANES`` and the number of jobs. Halved, with a
        warning, when a device runs out of memory.
      inputs: arrays shared by all jobs, whose data then begin with rows of them
        (``training.Examples``); kept once on each device.
      devices: ``None``: all local devices of JAX's default backend.
      collect: whether to keep the results; ``False`` bounds the memory where
        ``on_finish`` takes what it needs.
      total: number of networks expected, for the progress bar.
      progress: whether to show a bar with networks done, rate and time left.

    Returns:
      The results of ``jobs`` in their order, as host arrays, and ``Stats``. Those of
      further jobs went to ``on_finish``; a job that ended in ``on_error`` is left out;
      without ``collect`` the list is empty.

    Raises:
      ValueError: ``lanes`` below 1; a job whose data leaves differ in leading size, or
        whose mask does not fit (names the path), unless ``on_error`` takes it.

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
    width = {device: lanes or _most_lanes(device, known) for device in devices}
    start = time.perf_counter()
    bar = tqdm(
        total=total,
        unit="network",
        disable=not progress,
        mininterval=0.5,
        dynamic_ncols=True,
    )
    with bar:
        queue = _Queue(jobs, on_finish, on_error, collect, bar)
        queue.working = len(devices)
        for device in devices:
            worker: _Worker | _Lanes
            if width[device] == 1:
                worker = _Worker(training, device, inputs)
            else:
                worker = _Lanes(training, device, inputs, width[device], lanes is None)
            threading.Thread(target=queue.work, args=(worker,), daemon=True).start()
        try:
            queue.wait()
        except BaseException:  # an interrupt: the networks under way are abandoned
            queue.stop()
            raise
    if queue.error is not None:
        raise queue.error
    seconds = time.perf_counter() - start
    results = [queue.results[i] for i in sorted(queue.results)]
    wasted = 1 - queue.useful / queue.lane_steps if queue.lane_steps else 0.0
    return results, Stats(
        seconds, queue.compiling, queue.training_time, queue.networks, wasted
    )


class _Queue:
    """What the workers share: ``source`` under ``making``, all else under ``lock``."""

    def __init__(
        self,
        jobs: Iterable[Job],
        on_finish: Any,
        on_error: Any,
        collect: bool,
        bar: Any,
    ) -> None:
        self.on_finish, self.on_error = on_finish, on_error
        self.collect, self.bar = collect, bar
        self.lock = threading.Condition()
        self.making = threading.Lock()  # jobs are made one at a time, others train on
        places: Iterator[tuple[int, Job]] = enumerate(jobs)
        if isinstance(jobs, Sequence):
            places = iter(sorted(places, key=lambda place: -_length(place[1])))
        self.source = places
        self.exhausted = False
        self.further: collections.deque[Job] = collections.deque()
        self.working = self.running = 0  # devices, jobs
        self.stopped = False
        self.error: BaseException | None = None
        self.results: dict[int, TrainResult] = {}
        self.compiling = self.training_time = 0.0
        self.networks = self.useful = self.lane_steps = 0

    def wait(self) -> None:
        """Returns when every device has ended its work."""
        with self.lock:
            while self.working:
                self.lock.wait(timeout=0.2)  # so that an interrupt is seen at once

    def stop(self) -> None:
        with self.lock:
            self.stopped = True
            self.lock.notify_all()

    def take(self, *, wait: bool = True) -> "_Taken | None":
        """The next job and its place in the results; None when all is done, or, where
        it may not wait, when there is none at the moment.
        """
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
                    if not wait:
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

    def work(self, worker: "_Worker | _Lanes") -> None:
        """Trains job after job on one device."""
        try:
            worker.work(self)
        except BaseException as error:
            with self.lock:
                self.error = self.error or error
            self.stop()
        finally:
            with self.lock:
                self.working -= 1
                self.lock.notify_all()

    def count(self, *, compiling: float, training: float = 0.0) -> None:
        with self.lock:
            self.compiling += compiling
            self.training_time += training

    def finish(self, taken: "_Taken", train: Callable[[], TrainResult]) -> None:
        """Takes the result of a job that was taken, and the jobs that follow from it;
        what raises, in ``train`` too, goes to ``on_error``.
        """
        place, job = taken
        further: list[Job] = []
        try:
            result = train()
            with self.lock:
                self.networks += 1
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


_Taken = tuple[int | None, Job]


class _Worker:
    """A device with one lane: its compiled programs and its copies of the data."""

    def __init__(self, training: Training, device: jax.Device, inputs: Any) -> None:
        self.training, self.device = training, device
        self.inputs = jax.device_put(inputs, device)
        self.programs: dict[Any, Any] = {}
        self.placed: tuple[Any, Any] = (None, None)

    def work(self, queue: _Queue) -> None:
        while (taken := queue.take()) is not None:
            queue.finish(taken, functools.partial(self.train, queue, taken[1]))

    def train(self, queue: _Queue, job: Job) -> TrainResult:
        """The trained network."""
        if self.placed[0] is not job.data:
            examples = pad(job.data, self.training.batch_size, inputs=self.inputs)
            self.placed = (job.data, jax.device_put(examples, self.device))
        params, mask, key = jax.device_put((job.params, job.mask, job.key), self.device)
        arguments = (params, mask, self.placed[1], key, _limit(job))
        start = time.perf_counter()
        program = self.program(arguments)
        compiled = time.perf_counter()
        # To the host, where it is bound to no device: its successor may run on another.
        result = jax.device_get(program(*arguments))
        seconds = time.perf_counter() - compiled
        queue.count(compiling=compiled - start, training=seconds)
        return result._replace(seconds=seconds)

    def program(self, arguments: Any) -> Any:
        """The training, compiled for these shapes on this device."""
        shapes = _shapes(arguments)
        if shapes not in self.programs:
            lowered = run_training.lower(self.training, *arguments)
            self.programs[shapes] = lowered.compile()
        return self.programs[shapes]


class _Lanes:
    """A device with several lanes, filled with jobs of one shape at a time."""

    def __init__(
        self,
        training: Training,
        device: jax.Device,
        inputs: Any,
        width: int,
        fit: bool,
    ) -> None:
        self.training, self.device, self.width, self.fit = training, device, width, fit
        self.inputs = jax.device_put(inputs, device)
        self.waiting: dict[Any, collections.deque[_Taken]] = {}  # by shape
        self.accepted: set[Any] = set()

    def work(self, queue: _Queue) -> None:
        while self.waiting or self.put_aside(queue, queue.take()):
            if self.waiting:
                shape = max(self.waiting, key=lambda shape: len(self.waiting[shape]))
                self.work_on(queue, shape)

    def put_aside(self, queue: _Queue, taken: _Taken | None) -> bool:
        """Whether there was a job; one that can't be trained is finished already."""
        if taken is None:
            return False
        try:
            job = taken[1]
            examples = pad(job.data, self.training.batch_size, inputs=self.inputs)
            arguments = (job.params, job.mask, examples, job.key, _limit(job))
            shape = _shapes(arguments)
            if shape not in self.accepted:
                jax.eval_shape(self.training.init, *arguments)  # refuses a wrong mask
                self.accepted.add(shape)
        except Exception as error:
            queue.finish(taken, functools.partial(_raise, error))
            return True
        self.waiting.setdefault(shape, collections.deque()).append(taken)
        return True

    def work_on(self, queue: _Queue, shape: Any) -> None:
        """Trains the jobs of one shape, as long as there are any."""
        width, place = self.width, self.waiting[shape]
        running: dict[int, _Taken] = {}
        try:
            start = time.perf_counter()
            lanes = _Program(
                self.training, self.device, self.inputs, place[0][1], width, self.fit
            )
            self.width = lanes.width
            queue.count(compiling=time.perf_counter() - start)
            _LOG.info("%d lanes on %s", lanes.width, self.device)
            while True:
                free = [lane for lane in range(lanes.width) if lane not in running]
                self.look_for(queue, shape, len(free), wait=not running)
                new = {lane: place.popleft() for lane in free[: len(place)]}
                running |= new
                if not running:
                    break
                begin = time.perf_counter()
                lanes.refill({lane: job for lane, (_, job) in new.items()})
                done = lanes.turn()
                ended = [lane for lane in running if done[lane]]
                results = lanes.read(ended)
                seconds = time.perf_counter() - begin
                share = seconds / len(running)
                for lane in running:
                    lanes.seconds[lane] += share
                queue.count(compiling=0.0, training=seconds)
                with queue.lock:
                    queue.lane_steps += lanes.width * lanes.turns * lanes.count
                for lane, result in zip(ended, results, strict=True):
                    result = result._replace(seconds=lanes.seconds[lane])
                    taken = running.pop(lane)
                    with queue.lock:
                        queue.useful += _steps(self.training, taken[1], result)
                    queue.finish(taken, functools.partial(_identity, result))
            del self.waiting[shape]
        except Exception as error:
            full = isinstance(error, jax.errors.JaxRuntimeError)
            if not (full and "RESOURCE_EXHAUSTED" in str(error)) or width == 1:
                if running or queue.on_error is None:
                    raise
                del self.waiting[shape]  # can't be compiled: none of them can be run
                for taken in place:
                    queue.finish(taken, functools.partial(_raise, error))
                return
            # Those under way start anew, with the same outcome; the others are done.
            place.extendleft(reversed(running.values()))
            self.width = max(self.width // 2, 1)
            _LOG.warning("%s is out of memory: %d lanes", self.device, self.width)

    def look_for(self, queue: _Queue, shape: Any, wanted: int, *, wait: bool) -> None:
        """Takes jobs until enough of this shape wait, there is none to be had now, or
        as many of other shapes do as there are lanes.
        """
        place = self.waiting[shape]
        while len(place) < wanted:
            others = sum(map(len, self.waiting.values())) - len(place)
            if others >= self.width:
                return
            wait = wait and not self.waiting_for_any()
            if not self.put_aside(queue, queue.take(wait=wait)):
                return

    def waiting_for_any(self) -> bool:
        return any(self.waiting.values())


class _Program:
    """The lanes of one shape: their state on the device and what moves it."""

    def __init__(
        self,
        training: Training,
        device: jax.Device,
        inputs: Any,
        job: Job,
        width: int,
        fit: bool,
    ) -> None:
        self.training, self.device, self.inputs = training, device, inputs
        with jax.default_device(device):
            self._compile(self._host([job]), width, fit)
        self.seconds = np.zeros(self.width)

    def _compile(self, sample: Any, width: int, fit: bool) -> None:
        training = self.training
        size = min(training.batch_size, _padded(sample[2]))
        self.count = -(-_padded(sample[2]) // size)
        self.turns = max(round(CHUNK_STEPS / self.count), 1)
        axes = Examples(0, 0, None)

        def begin(new: Any, inputs: Any) -> Any:
            params, mask, examples, key, limit = new
            init = jax.vmap(training.init, in_axes=(0, 0, axes, 0, 0))
            return init(params, mask, examples._replace(inputs=inputs), key, limit)

        def refill(held: Any, lane: Any, new: Any, inputs: Any) -> Any:
            state, data, n = held
            fresh = begin(new, inputs)
            put = functools.partial(_put, lane)
            return (
                jax.tree.map(put, state, fresh),
                jax.tree.map(put, data, new[2].data),
                put(n, new[2].n),
            )

        def turn(state: Any, data: Any, n: Any, inputs: Any) -> Any:
            one = jax.vmap(training.epoch, in_axes=(0, axes, None))
            examples = Examples(data, n, inputs)
            state = jax.lax.fori_loop(
                0, self.turns, lambda _, state: one(state, examples, self.count), state
            )
            return state, jax.vmap(training.done)(state)

        def read(state: TrainState, lane: jax.Array) -> TrainResult:
            taken = jax.tree.map(lambda leaf: leaf[lane], state)
            return jax.vmap(training.finish)(taken)

        shapes = jax.eval_shape(begin, sample, self.inputs)
        one = sum(leaf.dtype.itemsize * leaf.size for leaf in jax.tree.leaves(shapes))
        one = one * 2 + sum(leaf.nbytes for leaf in jax.tree.leaves(sample[2].data))
        room = MEMORY_SHARE * _memory(self.device)
        while fit and width > 1 and width * one > room:
            width //= 2
        self.width = width
        self.at_once = min(AT_ONCE, width)
        lane = jnp.full(self.at_once, width)
        new = self._stack([sample] * self.at_once)

        def blank(shape: Any) -> jax.Array:
            if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
                return jnp.stack([sample[3][0]] * width)
            return jnp.zeros((width, *shape.shape[1:]), shape.dtype)

        # A blank lane has a limit of no steps, and so is done.
        self.state = jax.tree.map(blank, shapes)
        self.data = jax.tree.map(
            lambda leaf: jnp.zeros((width, *leaf.shape[1:]), leaf.dtype), sample[2].data
        )
        self.n = jnp.ones(width, jnp.int32)
        held = (self.state, self.data, self.n)
        self._refill = (
            jax.jit(refill, donate_argnums=0)
            .lower(held, lane, new, self.inputs)
            .compile()
        )
        self._turn = jax.jit(turn, donate_argnums=0).lower(*held, self.inputs).compile()
        self._read = jax.jit(read).lower(self.state, lane).compile()

    def _host(self, jobs: list[Job]) -> Any:
        """The arguments of ``begin``, stacked over jobs."""
        parts = []
        for job in jobs:
            examples = pad(job.data, self.training.batch_size)
            parts.append((job.params, job.mask, examples, job.key))
        stacked = jax.tree.map(lambda *leaves: _stacked(leaves), *parts)
        limits = np.array([_limit(job) for job in jobs], np.int32)
        return (*stacked, limits)

    def _stack(self, samples: list[Any]) -> Any:
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *samples)

    def refill(self, new: dict[int, Job]) -> None:
        """Puts a job into each of these lanes."""
        lanes, jobs = list(new), list(new.values())
        for start in range(0, len(lanes), self.at_once):
            part = jobs[start : start + self.at_once]
            lane = np.full(self.at_once, self.width, np.int32)  # past the end: dropped
            lane[: len(part)] = lanes[start : start + self.at_once]
            part += [part[0]] * (self.at_once - len(part))
            with jax.default_device(self.device):
                arguments = jax.device_put((lane, self._host(part)), self.device)
                self.state, self.data, self.n = self._refill(
                    (self.state, self.data, self.n), *arguments, self.inputs
                )
        self.seconds[lanes] = 0.0  # of each lane's network, a share of every turn

    def turn(self) -> Any:
        """Runs a chunk of epochs in all lanes and returns which are done."""
        self.state, done = self._turn(self.state, self.data, self.n, self.inputs)
        return jax.device_get(done)

    def read(self, lanes: list[int]) -> list[TrainResult]:
        """The results of these lanes, on the host."""
        results: list[TrainResult] = []
        for start in range(0, len(lanes), self.at_once):
            part = lanes[start : start + self.at_once]
            lane = np.full(self.at_once, part[0], np.int32)
            lane[: len(part)] = part
            with jax.default_device(self.device):
                read = jax.device_get(self._read(self.state, lane))
            results += [_at(read, i) for i in range(len(part))]
        return results


def _limit(job: Job) -> Any:
    return np.int32(NO_LIMIT if job.steps is None else job.steps)


def _steps(training: Training, job: Job, result: TrainResult) -> int:
    """The optimizer steps that a job took."""
    n = len(jax.tree.leaves(job.data)[0])
    an_epoch = -(-n // min(training.batch_size, n))
    return min(int(result.epochs) * an_epoch, int(_limit(job)))


def _length(job: Job) -> float:
    """How long a job may take, up to a factor: points, by points a kept weight.

    Networks with few weights for their points climb slowly and use up their budget.
    """
    n = max(((*jnp.shape(leaf), 1)[0] for leaf in jax.tree.leaves(job.data)), default=1)
    kept = sum(int(np.sum(leaf)) for leaf in jax.tree.leaves(job.mask))
    return float(n) ** 2 / max(kept, 1)


def _most_lanes(device: jax.Device, known: int | None) -> int:
    """How many lanes a device is given, before its memory is looked at."""
    if device.platform == "cpu":
        return 1
    return min(MOST_LANES, known or MOST_LANES)


def _memory(device: jax.Device) -> int:
    """The bytes of a device; a CPU's are those of the machine."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _shapes(arguments: Any) -> Any:
    """What a program is compiled for: structure, shapes and types."""
    leaves, treedef = jax.tree.flatten(arguments)
    return treedef, tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)


def _padded(examples: Examples) -> int:
    """The padded size, of examples stacked over jobs."""
    return int(jax.tree.leaves(examples.data)[0].shape[1])


def _stacked(leaves: Sequence[Any]) -> Any:
    if jnp.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):
        return jnp.stack(leaves)
    return np.stack([np.asarray(leaf) for leaf in leaves])


def _put(lane: jax.Array, old: jax.Array, new: jax.Array) -> jax.Array:
    return old.at[lane].set(new, mode="drop")


def _at(results: TrainResult, i: int) -> TrainResult:
    """One of the results, a copy, so that it keeps no other one alive."""
    return TrainResult(*jax.tree.map(lambda leaf: np.array(leaf[i]), results[:-1]))


def _identity(result: TrainResult) -> TrainResult:
    return result


def _raise(error: Exception) -> TrainResult:
    raise error
