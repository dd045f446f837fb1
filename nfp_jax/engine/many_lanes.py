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
    """A job that waits for a lane.

    Attributes:
      taken: the job as it was taken, and its place in the results.
      job: the job as it is trained, perhaps of a smaller network.
      expand: from the trained weights to those of the job as it was taken.
    """

    taken: Taken
    job: Job
    expand: Callable[[Params], Params]


class _Ended(NamedTuple):
    """A network that is done, read from its lane but not yet on the host."""

    waiting: _Waiting
    fetch: Callable[[], TrainResult]
    seconds: float


class ManyLanes:
    """Trains the jobs of a queue on a device with several lanes, shape after shape."""

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
        """Trains job after job until there are none."""
        while self.waiting or self.put_aside(queue, queue.take()):
            if queue.stopped:
                return
            if self.waiting:
                shape = max(self.waiting, key=lambda shape: len(self.waiting[shape]))
                self.work_on(queue, shape)

    def put_aside(self, queue: Queue, taken: Taken | None) -> bool:
        """Puts a job with those of its shape; returns whether there was one.

        A job that can't be trained is finished at once, with its error.
        """
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
        """Trains the jobs of one shape until there are none."""
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
                self.finish_all(queue, ended)
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
                at_end = [lane for lane in running if done[lane]]
                for lane, fetch in zip(at_end, lanes.read(at_end), strict=True):
                    ended.append(_Ended(running.pop(lane), fetch, lanes.seconds[lane]))
                if not running and not place:
                    self.finish_all(queue, ended)
                    self.look_for(queue, shape, width, wait=True)
            del self.waiting[shape]
        except Exception as error:
            if _is_out_of_memory(error) and width > 1:
                # The networks that were not finished start anew, with the same outcome.
                begun = [*running.values(), *(network.waiting for network in ended)]
                place.extendleft(reversed(begun))
                self.width = width // 2
                _LOG.warning("%s is out of memory: %d lanes", self.device, self.width)
            elif running or ended or queue.on_error is None:
                raise
            else:  # it can't be compiled, so none of these jobs can be trained
                del self.waiting[shape]
                for waiting in place:
                    queue.finish(waiting.taken, functools.partial(raise_error, error))

    def finish_all(self, queue: Queue, ended: list[_Ended]) -> None:
        """Hands over the results of networks that are done, and empties the list."""
        while ended:
            self.finish(queue, ended[-1])
            ended.pop()  # after it is finished: what raises leaves it to start anew

    def finish(self, queue: Queue, ended: _Ended) -> None:
        """Hands over the result of a network that is done."""
        result = ended.fetch()
        taken, job, expand = ended.waiting
        with queue.lock:
            queue.useful += steps_taken(self.training, job, result)
        queue.finish(
            taken,
            lambda: as_asked(self.training, taken[1], result, expand)._replace(
                seconds=ended.seconds
            ),
        )

    def look_for(self, queue: Queue, shape: Any, wanted: int, *, wait: bool) -> None:
        """Takes jobs until enough of this shape wait.

        It stops earlier if the queue has no job now, or if as many jobs of other shapes
        wait as there are lanes. With ``wait`` it waits for a job if none is at hand.
        """
        place = self.waiting[shape]
        while len(place) < wanted:
            other_shapes = sum(map(len, self.waiting.values())) - len(place)
            if other_shapes >= self.width:
                return
            wait = wait and not any(self.waiting.values())
            if not self.put_aside(queue, queue.take(wait=wait)):
                return


def _is_out_of_memory(error: Exception) -> bool:
    is_runtime_error = isinstance(error, jax.errors.JaxRuntimeError)
    return is_runtime_error and "RESOURCE_EXHAUSTED" in str(error)
