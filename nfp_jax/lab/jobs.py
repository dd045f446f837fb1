"""What the engine trains for cells, and what becomes of cells that raise."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from nfp_jax.engine.jobs import Networks
from nfp_jax.engine.training import TrainResult
from nfp_jax.grid import Cell

Row = dict[str, Any]
AddRow = Callable[[Row], None]


class Failure(NamedTuple):
    """A cell that raised, and what."""

    cell: Cell
    error: str


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
