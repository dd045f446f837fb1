"""Many networks at a time: lanes over all devices, refilled from the queue."""

import collections
import concurrent.futures
import contextlib
import functools
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nfp_jax.engine.devices import MEMORY_SHARE, is_out_of_memory, memory_of
from nfp_jax.engine.ended import Ended, Together, Waiting
from nfp_jax.engine.examples import as_examples, pad
from nfp_jax.engine.held import Held
from nfp_jax.engine.jobs import (
    Networks,
    Row,
    ShrinkJob,
    Taken,
    identity,
    limit_of,
    rows_of,
    shrunk_job,
)
from nfp_jax.engine.lanes import READ_AT_ONCE, LanePrograms, Lanes, lane_programs
from nfp_jax.engine.queue import Queue
from nfp_jax.engine.shapes import abstract, shapes_of
from nfp_jax.engine.stacks import Stack, of_networks, shape_of, stack_of_jobs
from nfp_jax.engine.training import Summary, Training

_LOG = logging.getLogger(__name__)

# Jobs that are stacked on the host at a time: one program serves any number of them.
JOBS_AT_ONCE = 16
# Threads that compile, beside the training that goes on.
COMPILED_AT_ONCE = 4
# Fewer lanes are compiled after so many turns in which they would have done and nothing
# came: a short tail, or one of short trainings, is not worth that.
PATIENCE = 4


class _Whole(NamedTuple):
    """A stack of which networks are put aside.

    Attributes:
      networks: it as it was handed in.
      known: what its networks are known by, without arrays.
      size: how many networks it has.
      shape: of its networks.
      held: it on the devices.
    """

    networks: Networks
    known: Networks
    size: int
    shape: Any
    held: Held


class ManyLanes:
    """Trains the networks of a queue in lanes over all devices, shape after shape."""

    def __init__(
        self,
        training: Training,
        devices: Sequence[jax.Device],
        inputs: Any,
        shrink: ShrinkJob | None,
        width: int,
        weights: bool,
        *,
        fit: bool,
        summary: Summary | None = None,
        measured_on: Any = None,
    ) -> None:
        self.training, self.devices, self.shrink = training, tuple(devices), shrink
        self.width, self.weights, self.summary = width, weights, summary
        self.room = MEMORY_SHARE * memory_of(devices[0]) if fit else None
        mesh = Mesh(np.array(devices), ("lanes",))
        self.everywhere = NamedSharding(mesh, PartitionSpec())
        self.inputs = jax.device_put(inputs, self.everywhere)
        self.measured_on = jax.device_put(measured_on, self.everywhere)
        self.lock = threading.Lock()
        self.waiting: dict[Any, collections.deque[Waiting]] = {}  # by shape
        self.shapes: dict[Any, Any] = {}  # of stacks, by theirs
        self.last: Any = None  # the stack put aside last
        self.compiler = concurrent.futures.ThreadPoolExecutor(COMPILED_AT_ONCE)
        self.coming: dict[Any, concurrent.futures.Future[LanePrograms]] = {}

    def work(self, queue: Queue) -> None:
        """Trains network after network until there are none."""
        try:
            while self.waiting or self.put_aside(queue, queue.take()):
                if queue.stopped:
                    return
                if self.waiting:
                    self.work_on(queue, max(self.waiting, key=self.how_many))
        finally:
            self.compiler.shutdown(wait=False, cancel_futures=True)

    def how_many(self, shape: Any) -> int:
        """How many networks of a shape wait."""
        return len(self.waiting[shape])

    # ---- From the queue to the networks that wait

    def put_aside(self, queue: Queue, taken: Taken | None) -> bool:
        """Puts a network with those of its shape; returns whether there was one.

        One that can't be trained is finished at once, with its error.
        """
        if taken is None:
            return False
        try:
            shape, waiting = self.placed(taken)
        except Exception as error:
            queue.finish([taken], functools.partial(_raise, error))
            return True
        self.waiting.setdefault(shape, collections.deque()).append(waiting)
        return True

    def placed(self, taken: Taken) -> tuple[Any, Waiting]:
        """The shape of a network, and it as it waits."""
        asked = taken[1]
        if isinstance(asked, Row):
            return self.row_placed(taken[0], asked)
        job, expand = shrunk_job(self.shrink, asked)
        data = pad(job.data, self.training.batch_size, inputs=self.inputs)
        if as_examples(job.data).inputs is None:
            data = data._replace(examples=data.examples._replace(inputs=None))
        arguments = (job.params, job.mask, data, job.key, limit_of(job))
        shape = shapes_of(arguments)
        self.accept(shape)
        return shape, Waiting(taken, arguments, expand, None)

    def row_placed(self, place: int | None, asked: Row) -> tuple[Any, Waiting]:
        """The shape of a network of a stack, and it as it waits.

        It keeps nothing of the stack that was handed in, but what it is known by.
        """
        whole = self.last
        networks = asked.networks
        if not (whole and whole.networks is networks and whole.held.is_whole):
            none: Any = None
            known = networks._replace(params=none, mask=none, data=none, key=none)
            size = len(rows_of(networks))
            whole = _Whole(networks, known, size, *self.stack_of(networks))
        held, row = whole.held, Row(whole.known, asked.row)
        held.add(row.row)
        self.last = None if row.row == whole.size - 1 else whole
        return whole.shape, Waiting((place, row), None, identity, held)

    def stack_of(self, networks: Networks) -> tuple[Any, Held]:
        """The shape of its networks, and the stack on the devices."""
        stack, size = of_networks(networks, self.training.batch_size, self.inputs)
        kind = (shapes_of(stack), size)
        if kind not in self.shapes:
            self.shapes[kind] = shape = shape_of(stack, size)
            self.accept(shape)
            # Compiled while networks of other shapes are trained.
            fill = functools.partial(_compile_fill, shapes_of(stack))
            self.programs(shape, self.width).add_done_callback(fill)
        return self.shapes[kind], Held(stack, self.everywhere)

    def accept(self, shape: Any) -> None:
        """Refuses networks that the training does not take."""
        if shape not in self.shapes:
            params, mask, data, key, limit = abstract(shape)
            if data.examples.inputs is None:
                data = data._replace(
                    examples=data.examples._replace(inputs=self.inputs)
                )
            jax.eval_shape(self.training.init, params, mask, data, key, limit)
            self.shapes[shape] = shape

    def look_for(self, queue: Queue, shape: Any, wanted: int, *, wait: bool) -> None:
        """Takes networks until enough of this shape wait.

        It stops earlier if the queue has none now, or if as many of other shapes wait
        as there are lanes. With ``wait`` it waits for one if none is at hand.
        """
        place = self.waiting[shape]
        while len(place) < wanted:
            other_shapes = sum(map(len, self.waiting.values())) - len(place)
            if other_shapes >= self.width:
                return
            wait = wait and not any(self.waiting.values())
            if not self.put_aside(queue, queue.take(wait=wait)):
                return

    # ---- Lanes

    def fitting(self, needed: int) -> int:
        """The least number of lanes that does: all, a half, a quarter and so on."""
        width, least = self.width, len(self.devices)
        while (fewer := width // least // 2 * least) >= max(needed, least):
            width = fewer
        return width

    def ready(self, shape: Any, needed: int) -> LanePrograms | None:
        """The programs for the fewest lanes that do, of those that are compiled."""
        with self.lock:
            known = [key for key in self.coming if key[0] == shape]
            found = [self.coming[key] for key in sorted(known, key=lambda key: key[1])]
        for one in found:
            if one.done() and one.exception() is None and one.result().width >= needed:
                return one.result()
        return None

    def programs(
        self, shape: Any, width: int
    ) -> concurrent.futures.Future[LanePrograms]:
        """The programs for lanes of a shape, when they are compiled."""
        with self.lock:
            if (shape, width) not in self.coming:
                shapes = shapes_of((abstract(shape), self.inputs, self.measured_on))
                self.coming[shape, width] = self.compiler.submit(
                    lane_programs,
                    self.training,
                    self.devices,
                    shapes,
                    width,
                    self.room,
                    self.summary,
                )
            return self.coming[shape, width]

    def work_on(self, queue: Queue, shape: Any) -> None:
        """Trains the networks of one shape until there are none."""
        running: dict[int, Waiting] = {}
        ended: list[Ended] = []
        lanes: Lanes | None = None
        try:
            start = time.perf_counter()
            programs = self.programs(shape, self.width).result()
            lanes = Lanes(programs, self.inputs, self.measured_on)
            self.width = programs.width
            queue.count(compiling=time.perf_counter() - start)
            _LOG.info("%d lanes on %d devices", self.width, len(self.devices))
            self.train(queue, shape, lanes, running, ended)
        except Exception as error:
            place = self.waiting[shape]
            if is_out_of_memory(error) and self.width > len(self.devices):
                # The networks that were not finished start anew, with the same outcome.
                begun = [*running.values(), *(one for e in ended for one in e.waiting)]
                place.extendleft(reversed(begun))
                self.width = self.width // len(self.devices) // 2 * len(self.devices)
                name = self.devices[0]
                _LOG.warning("%s is out of memory: %d lanes", name, self.width)
                return
            if lanes is not None or queue.on_error is None:
                raise
            # It can't be compiled, so none of these networks can be trained.
            for waiting in place:
                queue.finish([waiting.taken], functools.partial(_raise, error))
        del self.waiting[shape]

    def train(
        self,
        queue: Queue,
        shape: Any,
        lanes: Lanes,
        running: dict[int, Waiting],
        ended: list[Ended],
    ) -> None:
        """Trains in these lanes until no network of their shape is left.

        ``running`` and ``ended`` always say which networks are not finished yet.
        """
        place, width = self.waiting[shape], _Width(self, shape)
        self.look_for(queue, shape, self.width, wait=False)
        while (running or place) and not queue.stopped:
            width.fit(lanes, running, len(place), dry=queue.exhausted)
            free = [i for i in range(lanes.programs.width) if i not in running]
            new = {lane: place.popleft() for lane in free[: len(place)]}
            running |= new
            self.fill(lanes, new)
            begin = time.perf_counter()
            turn = lanes.turn()
            # While the device works, the host finishes what ended in the last turn and
            # makes networks for the lanes that will be free after this one.
            self.finish_all(queue, ended)
            self.look_for(queue, shape, self.width, wait=False)
            done, epochs = jax.device_get(turn)
            seconds = time.perf_counter() - begin
            lanes.seconds[list(running)] += seconds / len(running)
            with queue.lock:
                queue.training_time += seconds
                queue.lane_steps += len(done) * int(epochs) * lanes.programs.steps
            at_end = [lane for lane in running if done[lane]]
            for start in range(0, len(at_end), READ_AT_ONCE):
                part = at_end[start : start + READ_AT_ONCE]
                read = lanes.read(part), lanes.seconds[part]
                ended.append(Ended([running.pop(lane) for lane in part], *read))
            if not running and not place:
                self.finish_all(queue, ended)
                self.look_for(queue, shape, self.width, wait=True)

    def fill(self, lanes: Lanes, new: dict[int, Waiting]) -> None:
        """Puts networks into lanes: those of one stack in one call."""
        singles: dict[int, Any] = {}
        rows: dict[Held, dict[int, int]] = {}
        for lane, waiting in new.items():
            if waiting.held is None:
                singles[lane] = waiting.network
            else:
                rows.setdefault(waiting.held, {})[lane] = waiting.row
        for stack, found in self.stacked(singles):
            lanes.fill(stack, found)
        for held, found in rows.items():
            lanes.fill(held.stack, {i: held.places[row] for i, row in found.items()})
            held.begin(found.values())

    def stacked(self, jobs: dict[int, Any]) -> Iterator[tuple[Stack, dict[int, int]]]:
        """Jobs by lane as stacks, each filled up, and the row for each lane."""
        lanes = list(jobs)
        for start in range(0, len(lanes), JOBS_AT_ONCE):
            part = lanes[start : start + JOBS_AT_ONCE]
            chosen = [jobs[lane] for lane in part]
            chosen += [chosen[0]] * (JOBS_AT_ONCE - len(part))
            stack = stack_of_jobs(chosen)
            rows = dict(zip(part, range(len(part)), strict=True))
            yield jax.device_put(stack, self.everywhere), rows

    # ---- Results

    def finish_all(self, queue: Queue, ended: list[Ended]) -> None:
        """Hands over the results of networks that are done, and empties the list."""
        while ended:
            self.finish(queue, ended[0])
            # After it is finished: what raises leaves it to start anew.
            for waiting in ended.pop(0).waiting:
                if waiting.held is not None:
                    waiting.held.end(waiting.row)

    def finish(self, queue: Queue, ended: Ended) -> None:
        """Hands over the results of networks that are done."""
        together = Together(self.training, ended, weights=self.weights)
        steps = np.asarray(together.measured.steps)
        with queue.lock:
            queue.useful += int(steps[: len(ended.waiting)].sum())
        queue.finish([waiting.taken for waiting in ended.waiting], lambda: together)


class _Width:
    """How many lanes there are: fewer where the queue has run dry, and more again.

    The programs for another number are compiled beside the training that goes on.
    """

    def __init__(self, owner: ManyLanes, shape: Any) -> None:
        self.owner, self.shape, self.turns = owner, shape, 0

    def fit(
        self, lanes: Lanes, running: dict[int, Waiting], waiting: int, *, dry: bool
    ) -> None:
        """Changes the number of lanes where that pays, and what runs in which.

        Args:
          lanes: as they are.
          running: what runs in which; changed with them.
          waiting: how many networks wait for a lane.
          dry: whether nothing is left to be made, but what follows from others.
        """
        width = lanes.programs.width
        needed = min(len(running) + waiting, self.owner.width)
        tail = dry and not waiting and needed < width
        self.turns = self.turns + 1 if tail else 0
        if needed > width:
            self.owner.programs(self.shape, self.owner.fitting(needed))
        elif self.turns >= PATIENCE:
            # Ahead of their use, so that they are there in time.
            fewer = self.owner.fitting(min(needed, width // 2))
            self.owner.programs(self.shape, fewer)
        ready = self.owner.ready(self.shape, needed)
        if ready is not None and ready.width != width:
            self.resize(lanes, ready, running)

    def resize(
        self, lanes: Lanes, programs: LanePrograms, running: dict[int, Waiting]
    ) -> None:
        """Moves the networks to the first lanes of other programs."""
        lanes.resize(programs, list(running))
        moved = dict(enumerate(running.values()))
        running.clear()
        running |= moved


def _compile_fill(stack: Any, coming: concurrent.futures.Future[LanePrograms]) -> None:
    """Compiles what networks need that come in such stacks; errors are for later."""
    with contextlib.suppress(Exception):
        coming.result().fill(stack)


def _raise(error: Exception) -> Together:
    """Raises what a network raised before its training began."""
    raise error
