"""Many trainings at once: a queue of jobs, and on each device the lanes they run in.

A lane is a place that trains one network after the other. A CPU device has one:
each network runs to its own convergence in one jitted call, its weights and moments
in cache (``use_all_cores`` makes a device of every core). An accelerator has hundreds,
under ``vmap``: after a chunk of whole epochs, finished networks are retired and their
lanes refilled from the queue, while the device is at the next chunk already.
Depends on training, masks, compaction (a type) and jax.
"""

import collections
import functools
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from nfp_jax.compaction import Shrunk
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


ShrinkJob = Callable[[Job], Shrunk | None]


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


def use_compilation_cache() -> None:
    """Keeps an accelerator's programs on disk, for the next process not to compile.

    In ``$XDG_CACHE_HOME/nfp_jax``, else ``~/.cache/nfp_jax``; a directory that is set
    (``JAX_COMPILATION_CACHE_DIR``) is left as it is. Not on a CPU, unless one is set:
    there jaxlib 0.10.2 was seen to abort while it wrote a program. Where no directory
    can be made, nothing is kept. Must come before JAX first compiles.
    """
    # JAX's options are attributes that its types do not list.
    if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        return
    if jax.default_backend() == "cpu":
        return
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    directory = os.path.join(root, "nfp_jax")
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        _LOG.warning("compiled programs are not kept: %s", error)
        return
    jax.config.update("jax_compilation_cache_dir", directory)


def run(
    training: Training,
    jobs: Iterable[Job],
    *,
    on_finish: Callable[[Job, TrainResult], Iterable[Job] | None] | None = None,
    on_error: Callable[[Job, Exception], None] | None = None,
    lanes: int | None = None,
    shrink: ShrinkJob | None = None,
    inputs: Any = None,
    devices: Sequence[jax.Device] | None = None,
    collect: bool = True,
    total: int | None = None,
    progress: bool = False,
) -> tuple[list[TrainResult], Stats]:
    """Returns the trained networks, in the order of ``jobs``, and what the run took.

    A network's result depends on its job alone: not on its lane, its place in the
    queue, the other jobs or the number of devices. Bit by bit so for one number of
    lanes on one kind of device; another number of lanes, and ``shrink``, sum in another
    order, which changes the weights by some 1e-7 of their size a step.

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
        ``MEMORY_SHARE`` of its memory holds, up to ``MOST_LANES`` and its share of the
        jobs. Halved, with a warning, when a device runs out of memory.
      shrink: ``shrink(job)``: a smaller network to train in its place, whose result is
        then that of the job again, or ``None``; of the job alone. As in ``lambda job:
        small(job.params, job.mask)`` with ``small`` from ``compaction.make_shrink``,
        and a ``training`` that takes smaller weights.
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
    most = lanes or _most_lanes(devices[0], known, len(devices))
    many = "one lane" if most == 1 else f"up to {most} lanes"
    _LOG.info("%s on each of %d devices (%s)", many, len(devices), devices[0].platform)
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
        threads = []
        for device in devices:
            worker: _Worker | _Lanes
            if most == 1:
                worker = _Worker(training, device, inputs, shrink)
            else:
                worker = _Lanes(training, device, inputs, shrink, most, lanes is None)
            threads.append(
                threading.Thread(target=queue.work, args=(worker,), daemon=True)
            )
            threads[-1].start()
        try:
            queue.wait()
        except BaseException:  # an interrupt: the networks under way are abandoned
            queue.stop()
            raise
        # Their programs are freed as they end, which must not meet the process's end.
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
    """A device with one lane, and its copies of the data."""

    def __init__(
        self,
        training: Training,
        device: jax.Device,
        inputs: Any,
        shrink: ShrinkJob | None,
    ) -> None:
        self.training, self.device, self.shrink = training, device, shrink
        self.inputs = jax.device_put(inputs, device)
        self.placed: tuple[Any, Any] = (None, None)

    def work(self, queue: _Queue) -> None:
        while (taken := queue.take()) is not None:
            queue.finish(taken, functools.partial(self.train, queue, taken[1]))

    def train(self, queue: _Queue, job: Job) -> TrainResult:
        """The trained network."""
        job, expand = _shrunk(self.shrink, job)
        if self.placed[0] is not job.data:
            examples = pad(job.data, self.training.batch_size, inputs=self.inputs)
            self.placed = (job.data, jax.device_put(examples, self.device))
        params, mask, key = jax.device_put((job.params, job.mask, job.key), self.device)
        arguments = (params, mask, self.placed[1], key, _limit(job))
        start = time.perf_counter()
        program = _whole_program(self.training, self.device, _shapes(arguments))
        compiled = time.perf_counter()
        # To the host, where it is bound to no device: its successor may run on another.
        result = jax.device_get(program(*arguments))
        seconds = time.perf_counter() - compiled
        queue.count(compiling=compiled - start, training=seconds)
        return result._replace(params=expand(result.params), seconds=seconds)


class _Waiting(NamedTuple):
    """A job that waits for a lane, as it is trained, and the way back."""

    taken: _Taken
    job: Job
    expand: Callable[[Params], Params]


class _Ended(NamedTuple):
    """A network that is done, read from its lane but not yet on the host."""

    lane: _Waiting
    fetch: Callable[[], TrainResult]
    seconds: float


class _Lanes:
    """A device with several lanes, filled with jobs of one shape at a time."""

    def __init__(
        self,
        training: Training,
        device: jax.Device,
        inputs: Any,
        shrink: ShrinkJob | None,
        width: int,
        fit: bool,
    ) -> None:
        self.training, self.device, self.shrink = training, device, shrink
        self.width, self.fit = width, fit
        self.inputs = jax.device_put(inputs, device)
        self.waiting: dict[Any, collections.deque[_Waiting]] = {}  # by shape
        self.accepted: set[Any] = set()

    def work(self, queue: _Queue) -> None:
        while self.waiting or self.put_aside(queue, queue.take()):
            if queue.stopped:
                return
            if self.waiting:
                shape = max(self.waiting, key=lambda shape: len(self.waiting[shape]))
                self.work_on(queue, shape)

    def put_aside(self, queue: _Queue, taken: _Taken | None) -> bool:
        """Whether there was a job; one that can't be trained is finished already."""
        if taken is None:
            return False
        try:
            job, expand = _shrunk(self.shrink, taken[1])
            examples = pad(job.data, self.training.batch_size, inputs=self.inputs)
            arguments = (job.params, job.mask, examples, job.key, _limit(job))
            shape = _shapes(arguments)
            if shape not in self.accepted:
                jax.eval_shape(self.training.init, *arguments)  # refuses a wrong mask
                self.accepted.add(shape)
        except Exception as error:
            queue.finish(taken, functools.partial(_raise, error))
            return True
        place = self.waiting.setdefault(shape, collections.deque())
        place.append(_Waiting(taken, job, expand))
        return True

    def work_on(self, queue: _Queue, shape: Any) -> None:
        """Trains the jobs of one shape, as long as there are any."""
        width, place = self.width, self.waiting[shape]
        running: dict[int, _Waiting] = {}
        ended: list[_Ended] = []
        try:
            start = time.perf_counter()
            lanes = _Device(
                self.training, self.device, self.inputs, place[0].job, width, self.fit
            )
            width = self.width = lanes.programs.width
            queue.count(compiling=time.perf_counter() - start)
            _LOG.info("%d lanes on %s", width, self.device)
            self.look_for(queue, shape, width, wait=False)
            while (running or place) and not queue.stopped:
                free = [lane for lane in range(width) if lane not in running]
                new = {lane: place.popleft() for lane in free[: len(place)]}
                running |= new
                lanes.refill({lane: waiting.job for lane, waiting in new.items()})
                begin = time.perf_counter()
                turn = lanes.turn()
                # While the device works, the host finishes what ended in the last turn
                # and makes jobs for the lanes that will be free after this one.
                while ended:
                    self.finish(queue, ended[-1])
                    ended.pop()
                self.look_for(queue, shape, max(width // 2, 1), wait=False)
                done = jax.device_get(turn)
                seconds = time.perf_counter() - begin
                for lane in running:
                    lanes.seconds[lane] += seconds / len(running)
                with queue.lock:
                    queue.training_time += seconds
                    queue.lane_steps += (
                        width * lanes.programs.turns * lanes.programs.steps
                    )
                at = [lane for lane in running if done[lane]]
                for lane, fetch in zip(at, lanes.read(at), strict=True):
                    ended.append(_Ended(running.pop(lane), fetch, lanes.seconds[lane]))
                if not running and not place:
                    while ended:
                        self.finish(queue, ended[-1])
                        ended.pop()
                    self.look_for(queue, shape, width, wait=True)
            del self.waiting[shape]
        except Exception as error:
            full = isinstance(error, jax.errors.JaxRuntimeError)
            if not (full and "RESOURCE_EXHAUSTED" in str(error)) or width == 1:
                if running or ended or queue.on_error is None:
                    raise
                del self.waiting[shape]  # can't be compiled: none of them can be run
                for waiting in place:
                    queue.finish(waiting.taken, functools.partial(_raise, error))
                return
            # Those under way start anew, with the same outcome; the others are done.
            again = [*running.values(), *(one.lane for one in ended)]
            place.extendleft(reversed(again))
            self.width = max(width // 2, 1)
            _LOG.warning("%s is out of memory: %d lanes", self.device, self.width)

    def finish(self, queue: _Queue, ended: _Ended) -> None:
        """Hands over the result of a network that is done."""
        result = ended.fetch()
        with queue.lock:
            queue.useful += _steps(self.training, ended.lane.job, result)
        queue.finish(
            ended.lane.taken,
            lambda: result._replace(
                params=ended.lane.expand(result.params), seconds=ended.seconds
            ),
        )

    def look_for(self, queue: _Queue, shape: Any, wanted: int, *, wait: bool) -> None:
        """Takes jobs until enough of this shape wait, there is none to be had now, or
        as many of other shapes do as there are lanes.
        """
        place = self.waiting[shape]
        while len(place) < wanted:
            others = sum(map(len, self.waiting.values())) - len(place)
            if others >= self.width:
                return
            wait = wait and not any(self.waiting.values())
            if not self.put_aside(queue, queue.take(wait=wait)):
                return


class _Programs(NamedTuple):
    """What moves the lanes of one shape, compiled, and what they hold.

    ``turns`` epochs of at most ``steps`` steps make a chunk; ``held`` are the shapes of
    (state, data, n) of all lanes; ``refill`` and ``read`` take ``at_once`` of them.
    """

    width: int
    at_once: int
    steps: int
    turns: int
    held: Any
    turn: Callable[..., Any]
    refill: Callable[..., Any]
    read: Callable[..., Any]


@functools.lru_cache(maxsize=256)
def _whole_program(training: Training, device: jax.Device, shapes: Any) -> Any:
    """``run_training``, compiled for these arguments on this device."""
    with jax.default_device(device):
        return run_training.lower(training, *_abstract(shapes)).compile()


@functools.lru_cache(maxsize=256)
def _lane_programs(
    training: Training, device: jax.Device, shapes: Any, width: int, room: float | None
) -> _Programs:
    """The programs of lanes for these jobs, of fewer where bytes of ``room`` lack.

    ``shapes`` are of a job's ``(params, mask, examples, key, limit)``, each with an
    axis in front, and of the shared inputs.
    """
    sample, inputs = _abstract(shapes)
    padded = jax.tree.leaves(sample[2].data)[0].shape[1]
    steps = -(-padded // min(training.batch_size, padded))
    turns = max(round(CHUNK_STEPS / steps), 1)
    axes = Examples(0, 0, None)

    def begin(new: Any, inputs: Any) -> Any:
        params, mask, examples, key, limit = new
        init = jax.vmap(training.init, in_axes=(0, 0, axes, 0, 0))
        state = init(params, mask, examples._replace(inputs=inputs), key, limit)
        return state, examples.data, examples.n

    def refill(held: Any, lane: Any, new: Any, inputs: Any) -> Any:
        fresh = begin(new, inputs)
        return jax.tree.map(functools.partial(_put, lane), held, fresh)

    def turn(state: Any, data: Any, n: Any, inputs: Any) -> Any:
        one = jax.vmap(training.epoch, in_axes=(0, axes, None))
        examples = Examples(data, n, inputs)
        state = jax.lax.fori_loop(
            0, turns, lambda _, state: one(state, examples, steps), state
        )
        return state, jax.vmap(training.done)(state)

    def read(state: TrainState, lane: jax.Array) -> TrainResult:
        taken = jax.tree.map(lambda leaf: leaf[lane], state)
        return jax.vmap(training.finish)(taken)

    one = jax.eval_shape(begin, sample, inputs)
    # Weights and moments, and as much again for gradients and activations, is a guess
    # that saves compiling for too many; the compiler then knows.
    guess = 2 * sum(_bytes(leaf) for leaf in jax.tree.leaves(one))
    while room is not None and width > 1 and width * guess > room:
        width //= 2
    with jax.default_device(device):
        while True:
            held = _times(one, width)
            turning = jax.jit(turn, donate_argnums=0).lower(*held, inputs).compile()
            if room is None or width == 1 or _footprint(turning) <= room:
                break
            width //= 2
        at_once = min(AT_ONCE, width)
        lane = jax.ShapeDtypeStruct((at_once,), jnp.int32)
        filling = jax.jit(refill, donate_argnums=0)
        return _Programs(
            *(width, at_once, steps, turns, held, turning),
            filling.lower(held, lane, _times(sample, at_once), inputs).compile(),
            jax.jit(read).lower(held[0], lane).compile(),
        )


class _Device:
    """The lanes of one shape on a device: their state and what moves it."""

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
        sample = self._host([job])
        room = MEMORY_SHARE * _memory(device) if fit else None
        self.programs = _lane_programs(
            training, device, _shapes((sample, inputs)), width, room
        )
        self.seconds = np.zeros(self.programs.width)

        def blank(leaf: jax.ShapeDtypeStruct) -> jax.Array:
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                return jnp.broadcast_to(sample[3], leaf.shape)
            return jnp.zeros(leaf.shape, leaf.dtype)

        with jax.default_device(device):
            # A blank lane has a limit of no steps, and so is done; n is a divisor.
            state, data, n = jax.tree.map(blank, self.programs.held)
            self.held = (state, data, jnp.ones_like(n))

    def _host(self, jobs: list[Job]) -> Any:
        """The arguments of ``begin``, stacked over jobs."""
        parts = []
        for job in jobs:
            examples = pad(job.data, self.training.batch_size)
            parts.append((job.params, job.mask, examples, job.key))
        stacked = jax.tree.map(lambda *leaves: _stacked(leaves), *parts)
        limits = np.array([_limit(job) for job in jobs], np.int32)
        return (*stacked, limits)

    def refill(self, new: dict[int, Job]) -> None:
        """Puts a job into each of these lanes."""
        lanes, jobs = list(new), list(new.values())
        width, size = self.programs.width, self.programs.at_once
        for start in range(0, len(lanes), size):
            part = jobs[start : start + size]
            lane = np.full(size, width, np.int32)  # past the end: dropped
            lane[: len(part)] = lanes[start : start + size]
            part += [part[0]] * (size - len(part))
            arguments = jax.device_put((lane, self._host(part)), self.device)
            self.held = self.programs.refill(self.held, *arguments, self.inputs)
        self.seconds[lanes] = 0.0  # of each lane's network, a share of every turn

    def turn(self) -> Any:
        """Starts a chunk of epochs in all lanes; which are done, once it has ended."""
        state, data, n = self.held
        state, done = self.programs.turn(state, data, n, self.inputs)
        self.held = (state, data, n)
        return done

    def read(self, lanes: list[int]) -> list[Callable[[], TrainResult]]:
        """What fetches the results of these lanes; until then they stay there."""
        results: list[Callable[[], TrainResult]] = []
        size = self.programs.at_once
        for start in range(0, len(lanes), size):
            part = lanes[start : start + size]
            lane = np.full(size, part[0], np.int32)
            lane[: len(part)] = part
            read = self.programs.read(self.held[0], jax.device_put(lane, self.device))
            fetch = functools.cache(functools.partial(jax.device_get, read))
            results += [functools.partial(_at, fetch, i) for i in range(len(part))]
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


def _most_lanes(device: jax.Device, known: int | None, devices: int) -> int:
    """How many lanes a device is given, before its memory is looked at."""
    if device.platform == "cpu":
        return 1  # one network's weights and moments stay in cache, many do not
    return min(MOST_LANES, -(-known // devices) if known else MOST_LANES)


def _shrunk(
    shrink: ShrinkJob | None, job: Job
) -> tuple[Job, Callable[[Params], Params]]:
    """The job as it is trained, and the way back to weights of its shapes."""
    small = shrink and shrink(job)
    if not small:
        return job, _identity
    return job._replace(params=small.params, mask=small.mask), small.expand


def _footprint(program: Any) -> int:
    """The bytes that a compiled program needs, by the compiler's own account."""
    used = program.memory_analysis()
    if used is None:  # a backend that keeps none
        return 0
    sizes = used.argument_size_in_bytes + used.output_size_in_bytes
    return int(sizes + used.temp_size_in_bytes - used.alias_size_in_bytes)


def _bytes(leaf: jax.ShapeDtypeStruct) -> int:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return 0
    return math.prod(leaf.shape) * leaf.dtype.itemsize


def _memory(device: jax.Device) -> int:
    """The bytes of a device; a CPU's are those of the machine."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _shapes(arguments: Any) -> Any:
    """What a program is compiled for: structure, shapes and types."""
    leaves, treedef = jax.tree.flatten(arguments)
    return treedef, tuple(map(_shape, leaves))


def _shape(leaf: Any) -> Any:
    is_jax = isinstance(leaf, jax.Array)  # whose type is its own, and found faster
    return jnp.shape(leaf), leaf.dtype if is_jax else jnp.result_type(leaf)


def _abstract(shapes: Any) -> Any:
    """The arguments of these shapes, for lowering."""
    treedef, leaves = shapes
    return jax.tree.unflatten(treedef, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves])


def _times(one: Any, count: int) -> Any:
    """The shapes of so many of what has an axis of 1 in front."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype), one
    )


def _stacked(leaves: Sequence[Any]) -> Any:
    if jnp.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):
        return jnp.stack(leaves)
    return np.stack([np.asarray(leaf) for leaf in leaves])


def _put(lane: jax.Array, old: jax.Array, new: jax.Array) -> jax.Array:
    return old.at[lane].set(new, mode="drop")


def _at(fetch: Callable[[], TrainResult], i: int) -> TrainResult:
    """One of the results, a copy, so that it keeps no other one alive."""
    results = fetch()
    return TrainResult(*jax.tree.map(lambda leaf: np.array(leaf[i]), results[:-1]))


def _identity(same: Any) -> Any:
    return same


def _raise(error: Exception) -> TrainResult:
    raise error
