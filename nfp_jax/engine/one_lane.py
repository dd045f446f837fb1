"""One network at a time on a device: its whole training is one program."""

import functools
import time
from typing import Any

import jax

from nfp_jax.engine.examples import is_same, pad
from nfp_jax.engine.jobs import Job, ShrinkJob, as_asked, limit_of, shrunk_job
from nfp_jax.engine.queue import Queue
from nfp_jax.engine.shapes import abstract, shapes_of
from nfp_jax.engine.training import Training, TrainResult, run_training


class OneLane:
    """Trains the networks of a queue on a device with one lane."""

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

    def work(self, queue: Queue) -> None:
        """Trains job after job until there are none."""
        while (taken := queue.take()) is not None:
            queue.finish(taken, functools.partial(self.train, queue, taken[1]))

    def train(self, queue: Queue, job: Job) -> TrainResult:
        """The trained network."""
        asked = job
        job, expand = shrunk_job(self.shrink, asked)
        if not is_same(self.placed[0], job.data):
            data = pad(job.data, self.training.batch_size, inputs=self.inputs)
            self.placed = (job.data, jax.device_put(data, self.device))
        params, mask, key = jax.device_put((job.params, job.mask, job.key), self.device)
        arguments = (params, mask, self.placed[1], key, limit_of(job))
        start = time.perf_counter()
        program = _whole_program(self.training, self.device, shapes_of(arguments))
        compiled = time.perf_counter()
        # Moved to the host, since a further job made from it may run on another device.
        result = jax.device_get(program(*arguments))
        seconds = time.perf_counter() - compiled
        queue.count(compiling=compiled - start, training=seconds)
        result = as_asked(self.training, asked, result, expand)
        return result._replace(seconds=seconds)


@functools.lru_cache(maxsize=256)
def _whole_program(training: Training, device: jax.Device, shapes: Any) -> Any:
    """``run_training``, compiled for these arguments on this device."""
    with jax.default_device(device):
        return run_training.lower(training, *abstract(shapes)).compile()
