"""The queue of jobs that the devices of a run share."""

import collections
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from nfp_jax.engine.jobs import Job, Taken, length_of
from nfp_jax.engine.training import TrainResult


class Queue:
    """What the workers share.

    ``making`` guards ``source``, and ``lock`` guards everything else.
    """

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
        self.making = threading.Lock()  # one worker makes a job while the others train
        places: Iterator[tuple[int, Job]] = enumerate(jobs)
        if isinstance(jobs, Sequence):
            places = iter(sorted(places, key=lambda place: -length_of(place[1])))
        self.source = places
        self.exhausted = False
        self.further: collections.deque[Job] = collections.deque()
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

    def count(self, *, compiling: float, training: float = 0.0) -> None:
        """Adds seconds of compiling and of training."""
        with self.lock:
            self.compiling += compiling
            self.training_time += training

    def finish(self, taken: Taken, train: Callable[[], TrainResult]) -> None:
        """Records what ``train()`` returns for a job, and adds the jobs that follow.

        An error that ``train`` or ``on_finish`` raises goes to ``on_error``.
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
