"""The queue of jobs that the devices of a run share."""

import collections
import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from nfp_jax.engine.jobs import Job, Networks, Row, Taken, length_of, rows_of
from nfp_jax.engine.training import TrainResult


class Results(Protocol):
    """The results of networks that ended together."""

    def at(self, i: int) -> TrainResult:
        """Returns the result of network i, on the host."""
        ...

    def stacked(self) -> TrainResult:
        """Returns all, along a leading axis; weights and masks stay where they are."""
        ...


class Queue:
    """What the workers share.

    ``making`` guards ``source``, and ``lock`` guards everything else.
    """

    def __init__(
        self,
        jobs: Iterable[Job | Networks],
        on_finish: Any,
        on_ended: Any,
        on_error: Any,
        collect: bool,
        bar: Any,
    ) -> None:
        self.on_finish, self.on_ended = on_finish, on_ended
        self.on_error, self.collect, self.bar = on_error, collect, bar
        self.lock = threading.Condition()
        self.making = threading.Lock()  # one worker makes a job while the others train
        source = _numbered(jobs)
        if isinstance(jobs, Sequence) and all(isinstance(x, Job) for x in jobs):
            source = iter(sorted(source, key=lambda place: -_length(place[1])))
        self.source = source
        self.exhausted = False
        # Networks that follow from others, and those of a stack that was begun.
        self.further: collections.deque[Taken] = collections.deque()
        self.working = 0  # devices
        self.running = 0  # jobs
        self.stopped = False
        self.error: BaseException | None = None
        self.results: dict[int, TrainResult] = {}
        self.compiling = self.training_time = 0.0
        self.networks = self.useful = self.lane_steps = 0

    def wait(self) -> None:
        """Waits until every device has ended its work."""
        with self.lock:
            while self.working:
                self.lock.wait(timeout=0.2)  # so that an interrupt is seen at once

    def stop(self) -> None:
        """Makes every device end after the work that it has begun."""
        with self.lock:
            self.stopped = True
            self.lock.notify_all()

    def take(self, *, wait: bool = True) -> Taken | None:
        """Returns the next job and its place in the results.

        Returns None if all jobs are done, or if there is none now and ``wait`` is
        false.
        """
        while True:
            with self.lock:
                if self.stopped:
                    return None
                if self.further:
                    self.running += 1
                    return self.further.popleft()
                if self.exhausted:
                    if not self.running:
                        self.lock.notify_all()
                        return None
                    if not wait:
                        return None
                    self.lock.wait()  # a running job may bring further ones
                    continue
                self.running += 1  # making a job counts: it may bring further ones
            try:
                with self.making:
                    following = next(self.source, None)
            except BaseException:
                with self.lock:  # nobody is to wait for what could not be made
                    self.running -= 1
                    self.exhausted = True
                    self.lock.notify_all()
                raise
            rows = _rows(*following) if following is not None else []
            if rows:
                with self.lock:
                    self.further.extend(rows[1:])
                    self.lock.notify_all()
                return rows[0]
            with self.lock:
                self.running -= 1
                self.exhausted = self.exhausted or following is None
                self.lock.notify_all()

    def count(self, *, compiling: float, training: float = 0.0) -> None:
        """Adds seconds of compiling and of training."""
        with self.lock:
            self.compiling += compiling
            self.training_time += training

    def finish(self, taken: list[Taken], train: Callable[[], Results]) -> None:
        """Records what ``train()`` returns for networks that ended together, and adds
        the networks that follow.

        An error that ``train`` or a callback raises goes to ``on_error``.
        """
        further: list[Job | Networks] = []
        try:
            with self.reporting([job for _, job in taken]):
                results = train()
                with self.lock:
                    self.networks += len(taken)
                if self.on_ended is None:
                    for i, one in enumerate(taken):
                        with self.reporting([one[1]]):
                            further += self.hand_over(one, results.at(i))
                else:
                    tags = [job.tag for _, job in taken]
                    further += self.on_ended(tags, results.stacked()) or ()
        finally:
            following = [(None, row) for job in further for row in rows_of(job)]
            with self.lock:
                self.running -= len(taken)
                self.further.extendleft(reversed(following))
                self.bar.update(len(taken))
                self.lock.notify_all()

    def hand_over(self, taken: Taken, result: TrainResult) -> Iterable[Job | Networks]:
        """Keeps a result, if it is to be collected; returns what follows from it."""
        place, job = taken
        if self.collect and place is not None:
            with self.lock:
                self.results[place] = result
        return () if self.on_finish is None else self.on_finish(job, result) or ()

    @contextlib.contextmanager
    def reporting(self, jobs: list[Job | Row]) -> Iterator[None]:
        """Gives an error raised within to ``on_error``, for each of these networks."""
        try:
            yield
        except Exception as error:
            if self.on_error is None:
                raise
            for job in jobs:
                self.on_error(job, error)


def _numbered(jobs: Iterable[Job | Networks]) -> Iterator[tuple[int, Job | Networks]]:
    """Jobs and stacks, each with the place of its first network in the results."""
    place = 0
    for job in jobs:
        yield place, job
        place += 1 if isinstance(job, Job) else len(rows_of(job))


def _length(what: Job | Networks) -> float:
    return length_of(what) if isinstance(what, Job) else 0.0


def _rows(place: int, what: Job | Networks) -> list[Taken]:
    """The networks of a stack, each with its place."""
    return list(enumerate(rows_of(what), place))
