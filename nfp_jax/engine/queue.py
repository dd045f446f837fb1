"""The queue of jobs that the devices of a run share."""

import collections
import contextlib
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
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

    ``making`` guards ``source``, and ``lock`` guards everything else. Errors of the
    caller, in a callback or in making a job, end the run here: they are not raised
    where a device's own errors are caught.
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
        self.jobs = jobs
        self.source = _numbered(jobs)
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

    def fail(self, error: BaseException) -> None:
        """Ends the run with an error, where none has ended it before."""
        with self.lock:
            self.error = self.error or error
        self.stop()

    def leave(self) -> None:
        """Counts a device out; with the last one, what makes jobs is closed."""
        with self.lock:
            self.working -= 1
            last = not self.working
        if last and isinstance(self.jobs, Generator):
            self.jobs.close()  # its threads begin nothing more
        with self.lock:
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
                rows = _rows(*following) if following is not None else []
            except Exception as error:
                with self.lock:  # nobody is to wait for what could not be made
                    self.running -= 1
                    self.exhausted = True
                self.fail(error)
                return None
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
        asked = [job for _, job in taken]
        try:
            with self.reporting(asked):
                results = train()
                with self.lock:
                    self.networks += len(taken)
                if self.on_ended is None:
                    for i, one in enumerate(taken):
                        with self.reporting([one[1]]):
                            further += self.hand_over(one, results.at(i))
                else:
                    arguments = [job.tag for job in asked], results.stacked()
                    further += self.call(asked, self.on_ended, *arguments)
        finally:
            following = [(None, row) for job in further for row in rows_of(job)]
            with self.lock:
                self.running -= len(taken)
                self.further.extendleft(reversed(following))
                self.bar.update(len(taken))
                self.lock.notify_all()

    def hand_over(self, taken: Taken, result: TrainResult) -> list[Job | Networks]:
        """Keeps a result, if it is to be collected; returns what follows from it."""
        place, job = taken
        if self.collect and place is not None:
            with self.lock:
                self.results[place] = result
        if self.on_finish is None or self.stopped:
            return []
        return self.call([job], self.on_finish, job, result)

    def call(
        self, jobs: list[Job | Row], callback: Callable[..., Any], *arguments: Any
    ) -> list[Job | Networks]:
        """Returns what a callback for these networks returns; its error is theirs."""
        try:
            return list(callback(*arguments) or ())
        except Exception as error:
            self.report(jobs, error)
            return []

    def report(self, jobs: list[Job | Row], error: Exception) -> None:
        """Gives an error to ``on_error``, for each of these networks; or ends the run,
        where there is none, or where it raises.
        """
        if self.on_error is None:
            self.fail(error)
            return
        try:
            for job in jobs:
                self.on_error(job, error)
        except Exception as further:
            self.fail(further)

    @contextlib.contextmanager
    def reporting(self, jobs: list[Job | Row]) -> Iterator[None]:
        """Reports an error of the device raised within; raises it without
        ``on_error``.
        """
        try:
            yield
        except Exception as error:
            if self.on_error is None:
                raise
            self.report(jobs, error)


def _numbered(
    jobs: Iterable[Job | Networks],
) -> Iterator[tuple[int, Job | Networks]]:
    """Jobs and stacks, each with the place of its first network in the results.

    Of a sequence of jobs the longest come first.
    """
    if isinstance(jobs, Sequence) and all(isinstance(x, Job) for x in jobs):
        lengths = [length_of(job) for job in jobs]
        order = sorted(range(len(jobs)), key=lambda i: -lengths[i])
        yield from ((i, jobs[i]) for i in order)
        return
    place = 0
    for job in jobs:
        yield place, job
        place += 1 if isinstance(job, Job) else len(rows_of(job))


def _rows(place: int, what: Job | Networks) -> list[Taken]:
    """The networks of a stack, each with its place."""
    return list(enumerate(rows_of(what), place))
