"""One network at a time on a device: its whole training is one program."""

import functools
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from nfp_jax.engine import programs
from nfp_jax.engine.alone import run_training
from nfp_jax.engine.examples import is_same, pad
from nfp_jax.engine.jobs import (
    Job,
    Row,
    ShrinkJob,
    as_asked,
    limit_of,
    shrunk_job,
)
from nfp_jax.engine.queue import Queue
from nfp_jax.engine.shapes import abstract, shapes_of
from nfp_jax.engine.stacks import job_of
from nfp_jax.engine.training import Summary, Training, TrainResult
from nfp_jax.types import Params


class Alone(NamedTuple):
    """The result of a network that ended by itself, on the host."""

    result: TrainResult

    def at(self, i: int) -> TrainResult:
        """Returns it."""
        return self.result

    def stacked(self) -> TrainResult:
        """Returns it along a leading axis of one network."""
        found: TrainResult = jax.tree.map(lambda x: np.asarray(x)[None], self.result)
        return found


class OneLane:
    """Trains the networks of a queue on a device with one lane."""

    def __init__(
        self,
        training: Training,
        device: jax.Device,
        inputs: Any,
        shrink: ShrinkJob | None,
        *,
        summary: Summary | None = None,
        measured_on: Any = None,
    ) -> None:
        self.training, self.device, self.shrink = training, device, shrink
        self.inputs = jax.device_put(inputs, device)
        self.measured_on = jax.device_put(measured_on, device)
        self.summary = None if summary is None else _jitted(summary)
        self.placed: tuple[Any, Any] = (None, None)

    def work(self, queue: Queue) -> None:
        """Trains job after job until there are none."""
        while (taken := queue.take()) is not None:
            queue.finish([taken], functools.partial(self.train, queue, taken[1]))

    def train(self, queue: Queue, asked: Job | Row) -> Alone:
        """The trained network."""
        network, data, restore = self.prepared(asked)
        params, mask, key = jax.device_put(network, self.device)
        arguments = (params, mask, data, key, limit_of(asked))
        start = time.perf_counter()
        program = _whole_program(self.training, self.device, shapes_of(arguments))
        compiled = time.perf_counter()
        # Moved to the host, since a further job made from it may run on another device.
        result = jax.device_get(program(*arguments))
        seconds = time.perf_counter() - compiled
        queue.count(compiling=compiled - start, training=seconds)
        result = restore(result)._replace(seconds=seconds)
        if self.summary is not None:
            found = self.summary(result, data, self.measured_on)
            result = result._replace(summary=jax.device_get(found))
        return Alone(result)

    def prepared(
        self, asked: Job | Row
    ) -> tuple[tuple[Any, Any, Any], Any, Callable[[TrainResult], TrainResult]]:
        """Weights, mask and key to train with; the data, on the device; and what gives
        the result the shapes that were asked for.
        """
        inputs, size = self.inputs, self.training.batch_size
        whole = job_of(asked, size, inputs) if isinstance(asked, Row) else asked
        job, expand = shrunk_job(self.shrink, whole)
        if not is_same(self.placed[0], job.data):
            data = pad(job.data, self.training.batch_size, inputs=self.inputs)
            self.placed = (job.data, jax.device_put(data, self.device))
        restore = functools.partial(_restored, self.training, whole, expand)
        return (job.params, job.mask, job.key), self.placed[1], restore


def _restored(
    training: Training,
    job: Job,
    expand: Callable[[Params], Params],
    result: TrainResult,
) -> TrainResult:
    return as_asked(training, job, result, expand)


@functools.lru_cache(maxsize=64)
def _jitted(summary: Summary) -> Any:
    return jax.jit(summary)


def _whole_program(training: Training, device: jax.Device, shapes: Any) -> Any:
    """``run_training``, compiled once for these arguments on this device."""
    with _locks_lock:
        lock = _locks.setdefault((training, device, shapes), threading.Lock())
    with lock:  # of those who want the same program one compiles it
        return _compiled(training, device, shapes)


_locks_lock = threading.Lock()
_locks: dict[Any, threading.Lock] = {}


@functools.lru_cache(maxsize=256)
def _compiled(training: Training, device: jax.Device, shapes: Any) -> Any:
    with jax.default_device(device):
        return run_training.lower(training, *abstract(shapes)).compile()


for _clear in (_compiled.cache_clear, _jitted.cache_clear, _locks.clear):
    programs.also_free(_clear)
