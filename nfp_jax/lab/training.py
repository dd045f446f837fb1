"""Trainings of cells: the last one under a mask, and the run of them all."""

from collections.abc import Callable, Iterable
from typing import Any

import jax

from nfp_jax import masks, pruning
from nfp_jax.engine.jobs import Job, Networks, Stats
from nfp_jax.engine.training import Summary, TrainResult
from nfp_jax.grid import Cell
from nfp_jax.lab.draws import REINITIALIZE, SHUFFLE, Draw, key_of
from nfp_jax.lab.jobs import Step, Task
from nfp_jax.lab.setup import Setup
from nfp_jax.types import Mask, Params

# What is done with the network trained last under a mask. It returns further jobs.
OnTrained = Callable[[TrainResult], list[Job]]


def train_all(
    setup: Setup, jobs: Iterable[Job], total: int | None, *, progress: bool
) -> Stats:
    """Trains the jobs and those that follow; each job's tag is its ``Task``.

    Args:
      setup: of the run.
      jobs: made as the engine asks for them.
      total: how many there will be with those that follow, where that is known.
      progress: whether to show a bar.
    """
    return _train(
        setup,
        jobs,
        on_finish=lambda job, result: job.tag.then(result),
        total=total,
        progress=progress,
    )


def train_stacks(
    setup: Setup,
    networks: Iterable[Networks],
    total: int | None,
    *,
    summary: Summary | None = None,
    measured_on: Any = None,
    progress: bool,
) -> Stats:
    """Trains stacks of networks and those that follow; each one's tag is its ``Step``.

    Args:
      setup: of the run.
      networks: made as the engine asks for them.
      total: how many there will be with those that follow, where that is known.
      summary: what is measured of each at its end, on the device; ``None``: nothing.
      measured_on: what it is measured on.
      progress: whether to show a bar.
    """

    def ended(steps: list[Step], results: TrainResult) -> list[Networks]:
        further: list[Networks] = []
        for then, places in groupby_then(steps).items():
            same = [steps[place] for place in places]
            with setup.failures.reporting([cell for x in same for cell in x.cells]):
                further += then(same, places, results)
        return further

    return _train(
        setup,
        networks,
        on_ended=ended,
        summary=summary,
        measured_on=measured_on,
        total=total,
        progress=progress,
    )


def _train(
    setup: Setup, jobs: Iterable[Job] | Iterable[Networks], **options: Any
) -> Stats:
    """Hands networks to the engine as the specification says; errors fail cells."""
    _, stats = setup.engine(
        setup.training,
        jobs,
        on_error=lambda job, error: setup.failures.add(job.tag.cells, error),
        lanes=setup.spec.engine.lanes or None,
        shrink=setup.shrink,
        inputs=setup.inputs,
        collect=False,
        **options,
    )
    found: Stats = stats
    return found


def groupby_then(steps: list[Step]) -> dict[Any, list[int]]:
    """Returns the places of steps by what is to be done with them."""
    found: dict[Any, list[int]] = {}
    for place, step in enumerate(steps):
        found.setdefault(step.then, []).append(place)
    return found


def last_job(
    setup: Setup,
    draw: Draw,
    cell: Cell,
    mask: Mask,
    start: Params,
    then: OnTrained,
    *,
    key: jax.Array | None = None,
) -> Job:
    """Returns the last training of a cell, its ablation applied.

    Args:
      setup: of the run.
      draw: the data set, and the keys.
      cell: the coordinates.
      mask: of the pruner.
      start: the weights to train from, masked or not.
      then: what is done with the result.
      key: the order of batches; ``None``: that of the draw.
    """
    mask, start = ablated(setup, draw, cell, mask, start)
    order = draw.train_key if key is None else key
    return Job(start, mask, draw.examples, order, tag=Task([cell], then))


def ablated(
    setup: Setup, draw: Draw, cell: Cell, mask: Mask, start: Params
) -> tuple[Mask, Params]:
    """Returns the mask, and the weights to train from, after the ablation of a cell."""
    if cell["ablation"] == "shuffle":
        key = key_of(setup, SHUFFLE, cell["train_seed"], draw.repeat)
        mask = masks.shuffle_within_layers(mask, key, prunable=setup.prunable)
    if cell["ablation"] == "reinitialize":
        key = key_of(setup, REINITIALIZE, cell["init_seed"], draw.repeat)
        start = pruning.reinitialize(setup.init, mask, key)
    return mask, masks.apply_mask(start, mask)
