"""What the engine trains for cells, and what becomes of cells that raise."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from nfp_jax.engine.jobs import Job, Networks
from nfp_jax.engine.training import TrainResult
from nfp_jax.grid import Cell

Row = dict[str, Any]
AddRow = Callable[[Row], None]


class Failure(NamedTuple):
    """A cell that raised, and what."""

    cell: Cell
    error: str


class Task(NamedTuple):
    """What a job is for: the cells that need it, and what to do with its result."""

    cells: list[Cell]
    then: Callable[[TrainResult], list[Job]]


class Step(NamedTuple):
    """What a network of a stack is for.

    Attributes:
      cells: that need it.
      then: what to do with networks that ended together: ``then(steps, rows, results)``
        with the row of each among the stacked results. It returns further networks.
      of: what ``then`` must know of this one.
    """

    cells: list[Cell]
    then: Callable[[list[Any], list[int], TrainResult], list[Networks]]
    of: Any


class Failures:
    """The cells of a run that raised: kept, not raised, so that the others go on."""

    def __init__(self) -> None:
        self.kept: list[Failure] = []

    def add(self, cells: Iterable[Cell], error: Exception) -> None:
        """Keeps what cells raised; of several times the first."""
        text = f"{type(error).__name__}: {error}"
        failed = self.cells()
        self.kept += [Failure(cell, text) for cell in cells if cell not in failed]

    def cells(self) -> list[Cell]:
        """Returns the cells that failed."""
        return [failure.cell for failure in self.kept]

    @contextlib.contextmanager
    def reporting(self, cells: list[Cell]) -> Iterator[None]:
        """Keeps an error raised within as the failure of these cells."""
        try:
            yield
        except Exception as error:
            self.add(cells, error)

    def guarded(
        self, cells: list[Cell], make: Callable[..., list[Job]], *args: Any
    ) -> list[Job]:
        """Returns the jobs made, or none and a failure of these cells."""
        jobs: list[Job] = []
        with self.reporting(cells):
            jobs = make(*args)
        return jobs
