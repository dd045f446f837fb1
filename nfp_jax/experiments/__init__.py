"""Cells to rows: one file a question over what all share.

``memorization`` trains the masked network of every cell; ``information`` makes a cell's
mask of many data sets and bounds what it knows of them; ``capacity`` searches for the
most points that its network fits; ``swap`` retrains it on data that the mask never saw;
``robustness`` bounds its Lipschitz constant. They share ``tables`` of the names in a
configuration, ``trainer``, one network's training, and ``lab``, which makes draws and
masks. The package knows all others of ours. A pruner of your own is registered in
``PRUNERS``, a question in ``QUESTIONS``.
"""

from collections.abc import Callable
from typing import Any

from nfp_jax.ensemble import Stats
from nfp_jax.experiments import (
    capacity,
    information,
    memorization,
    robustness,
    swap,
    tables,
)
from nfp_jax.experiments.lab import AddRow, Failure
from nfp_jax.experiments.tables import (
    ABLATIONS,
    MODELS,
    PRUNERS,
    RESUMES,
    SCHEDULES,
    SELECTS,
    STOPS,
    TRAINED,
    Network,
)
from nfp_jax.results import Results
from nfp_jax.spec import Cell, Spec, cells

__all__ = [
    "ABLATIONS",
    "MODELS",
    "PRUNERS",
    "QUESTIONS",
    "RESUMES",
    "SCHEDULES",
    "SELECTS",
    "STOPS",
    "TRAINED",
    "Failure",
    "Network",
    "all_cells",
    "check_names",
    "run",
]

# Each is called as run below.
QUESTIONS: dict[str, Callable[..., tuple[list[Failure], Stats]]] = {
    "memorization": memorization.run,
    "information": information.run,
    "capacity": capacity.run,
    "swap": swap.run,
    "robustness": robustness.run,
}


def check_names(spec: Spec) -> None:
    """Raises for a name in the specification that no table here knows.

    Raises:
      SpecError: names the field and lists the known names.
    """
    tables.check_name("question", spec.question, QUESTIONS)
    tables.check_names(spec)


def all_cells(spec: Spec) -> list[Cell]:
    """Returns the cells of the grid, each once.

    ``resume`` is blank where no network is trained on under its mask.
    """
    resumed: Any = () if spec.question == "information" else TRAINED
    return cells(spec, in_training=resumed)


def run(
    spec: Spec,
    todo: list[Cell],
    add_row: AddRow,
    *,
    progress: bool = False,
    store: Results | None = None,
) -> tuple[list[Failure], Stats]:
    """Does the cells of the specification's question and hands over a row for each.

    Args:
      spec: the specification; its grid is not looked at.
      todo: the cells to do, from ``all_cells``.
      add_row: called once a cell, from any thread, as soon as the cell is done.
      progress: whether to show a bar.
      store: where what is costly is kept for a resumed run: the masks that information
        is bounded from, the networks of a row that takes many.

    Returns:
      The cells that raised (the others went on), and what the run took.

    Raises:
      SpecError: an unknown name, an ``n`` larger than the set, a network that does not
        fit its inputs, options that the optimizer does not take.
      data.DataError: a set that can't be read or downloaded.
    """
    check_names(spec)
    return QUESTIONS[spec.question](spec, todo, add_row, progress=progress, store=store)
