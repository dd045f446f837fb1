"""Cells to rows: each to the run of its question."""

from nfp_jax import ensemble, questions
from nfp_jax.engine.jobs import Stats
from nfp_jax.grid import Cell, grouped
from nfp_jax.lab.jobs import AddRow, Failure
from nfp_jax.lab.names import cards_of, check_names
from nfp_jax.lab.setup import Engine
from nfp_jax.results import Results
from nfp_jax.spec import Spec


def run(
    spec: Spec,
    todo: list[Cell],
    add_row: AddRow,
    *,
    progress: bool = False,
    store: Results | None = None,
    engine: Engine = ensemble.run,
) -> tuple[list[Failure], Stats]:
    """Does the cells of the specification's question and hands over a row for each.

    Args:
      spec: the specification.
      todo: the cells to do, from ``all_cells``.
      add_row: called once a cell, from any thread, as soon as the cell is done.
      progress: whether to show a bar.
      store: where what is costly is kept for a resumed run: the masks that information
        is bounded from, the networks of a row that takes many.
      engine: what trains networks: ``ensemble.run``, or what is called as it is.

    Returns:
      The cells that raised (the others went on), and what the run took.

    Raises:
      SpecError: an unknown name, an ``n`` larger than the set, a network that does not
        fit its inputs, options that the optimizer does not take.
      data.DataError: a set that can't be read or downloaded.
    """
    check_names(spec)
    answer = questions.module(spec.question, "run").run
    # A pruner that moves masks during training has a training of its own.
    moving = {c.name for c in cards_of(spec).values() if c.when == "during"}
    groups = grouped(
        todo, lambda cell: cell["pruner"] if cell["pruner"] in moving else ""
    )
    failures, stats = [], []
    for cells in groups or [[]]:  # without cells names and sizes are still checked
        failed, taken = answer(
            spec, cells, add_row, progress=progress, store=store, engine=engine
        )
        failures += failed
        stats.append(taken)
    return failures, summed(stats)


def summed(parts: list[Stats], seconds: float | None = None) -> Stats:
    """Returns what runs of the engine took together.

    Args:
      parts: of each, one after the other.
      seconds: of wall time, where it is more than theirs together.
    """
    training = sum(part.train_seconds for part in parts)
    wasted = sum(part.wasted * part.train_seconds for part in parts)
    return Stats(
        sum(part.seconds for part in parts) if seconds is None else seconds,
        sum(part.compile_seconds for part in parts),
        training,
        sum(part.networks for part in parts),
        wasted / training if training else 0.0,
    )
