"""Many networks at a time on a device: lanes refilled from the queue."""

import collections
import functools
import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from nfp_jax.engine.examples import pad
from nfp_jax.engine.jobs import (
    Job,
    ShrinkJob,
    Taken,
    as_asked,
    limit_of,
    raise_error,
    shrunk_job,
    steps_taken,
)
from nfp_jax.engine.lanes import Lanes
from nfp_jax.engine.queue import Queue
from nfp_jax.engine.shapes import shapes_of
from nfp_jax.engine.training import Training, TrainResult
from nfp_jax.masks import Params

_LOG = logging.getLogger(__name__)


class _Waiting(NamedTuple):
    """A job that waits for a lane, as it is trained, and the way back."""

    taken: Taken
    job: Job
    expand: Callable[[Params], Params]


class _Ended(NamedTuple):
    """A network that is done, read from its lane but not yet on the host."""

    lane: _Waiting
    fetch: Callable[[], TrainResult]
    seconds: float


class ManyLanes:
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

    def work(self, queue: Queue) -> None:
        """Trains job after job, as long as there are any."""
        while self.waiting or self.put_aside(queue, queue.take()):
            if queue.stopped:
                return
            if self.waiting:
                shape = max(self.waiting, key=lambda shape: len(self.waiting[shape]))
                self.work_on(queue, shape)

    def put_aside(self, queue: Queue, taken: Taken | None) -> bool:
        """Whether there was a job; one that can't be trained is finished already."""
        if taken is None:
            return False
        try:
            job, expand = shrunk_job(self.shrink, taken[1])
            data = pad(job.data, self.training.batch_size, inputs=self.inputs)
            arguments = (job.params, job.mask, data, job.key, limit_of(job))
            shape = shapes_of(arguments)
            if shape not in self.accepted:
                jax.eval_shape(self.training.init, *arguments)  # refuses a wrong mask
                self.accepted.add(shape)
        except Exception as error:
            queue.finish(taken, functools.partial(raise_error, error))
            return True
        place = self.waiting.setdefault(shape, collections.deque())
        place.append(_Waiting(taken, job, expand))
        return True

    def work_on(self, queue: Queue, shape: Any) -> None:
        """Trains the jobs of one shape, as long as there are any."""
        width, place = self.width, self.waiting[shape]
        running: dict[int, _Waiting] = {}
        ended: list[_Ended] = []
        try:
            start = time.perf_counter()
            lanes = Lanes(
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
                    queue.finish(waiting.taken, functools.partial(raise_error, error))
                return
            # Those under way start anew, with the same outcome; the others are done.
            again = [*running.values(), *(one.lane for one in ended)]
            place.extendleft(reversed(again))
            self.width = max(width // 2, 1)
            _LOG.warning("%s is out of memory: %d lanes", self.device, self.width)

    def finish(self, queue: Queue, ended: _Ended) -> None:
        """Hands over the result of a network that is done."""
        result = ended.fetch()
        with queue.lock:
            queue.useful += steps_taken(self.training, ended.lane.job, result)
        queue.finish(
            ended.lane.taken,
            lambda: as_asked(
                self.training, ended.lane.taken[1], result, ended.lane.expand
            )._replace(seconds=ended.seconds),
        )

    def look_for(self, queue: Queue, shape: Any, wanted: int, *, wait: bool) -> None:
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
