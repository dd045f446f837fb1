"""Masks through training: what is cut from a draw's dense network and its successors.

In a draw the dense training serves the dense row and the first round of every
trajectory, at every sparsity; cells of one pruner, selection and ablation share the
whole of a trajectory.
"""

import functools
import itertools
from collections.abc import Callable

from nfp_jax import masks, pruning
from nfp_jax.engine.jobs import Job
from nfp_jax.engine.training import TrainResult
from nfp_jax.grid import DENSE, Cell
from nfp_jax.lab.draws import Draw
from nfp_jax.lab.jobs import Task
from nfp_jax.lab.names import SELECTS
from nfp_jax.lab.setup import Setup
from nfp_jax.pruners.contract import Round
from nfp_jax.types import Mask, Params

# What is done with the mask of a cell: its draw, the cell, the mask, the weights that
# training goes on from. It returns further jobs.
OnMask = Callable[[Draw, Cell, Mask, Params], list[Job]]
# What is done with a dense network: its draw, the cells that come from it, the result.
OnDense = Callable[[Draw, list[Cell], TrainResult], list[Job]]


def count_trainings(setup: Setup, through: list[Cell]) -> int:
    """Returns how many networks are trained until a draw's cells have their masks."""
    count = bool(through) + bool(through and setup.spec.prune.rewind_step)
    rounds = [rounds_of(setup, branch) for branch in branches(through)]
    return count + sum(len(found) - 1 for found in rounds)


def dense_job(
    setup: Setup,
    draw: Draw,
    through: list[Cell],
    on_mask: OnMask,
    on_dense: OnDense | None = None,
) -> list[Job]:
    """Returns the training of a draw's dense network, from which all else follows.

    Args:
      setup: of the run.
      draw: the data set and the initial weights.
      through: cells of it that come through training.
      on_mask: called with each cell's mask as soon as it is cut.
      on_dense: likewise with the dense network, after what is cut from it.
    """
    mask = masks.dense_mask(draw.params)

    def dense(rewound: Params) -> Job:
        def then(result: TrainResult) -> list[Job]:
            jobs: list[Job] = []
            after = draw.after(job, result)
            for branch in branches(through):
                cut = functools.partial(_cut, setup, after, branch, on_mask)
                rounds = rounds_of(setup, branch)
                jobs += setup.failures.guarded(
                    branch, cut, rounds, mask, rewound, result.params
                )
            if on_dense:
                jobs += on_dense(draw, through, result)
            return jobs

        job = _round_job(setup, draw, mask, draw.params, Task(through, then))
        return job

    steps = setup.spec.prune.rewind_step
    if not steps:
        return [dense(draw.params)]
    task = Task(through, lambda result: [dense(result.params)])
    return [Job(draw.params, mask, draw.examples, draw.train_key, steps, task)]


def rounds_of(setup: Setup, branch: list[Cell]) -> list[Round]:
    """Returns the trainings of a trajectory, and what is cut from each."""
    sparsities = [cell["sparsity"] for cell in branch]
    rounds: list[Round] = setup.pruner(branch[0]).plan(setup.total, sparsities)
    return rounds


def branches(through: list[Cell]) -> list[list[Cell]]:
    """Returns the cells that share a trajectory beyond the dense training."""

    def trajectory(cell: Cell) -> tuple[str, str, bool]:
        return cell["pruner"], cell["select"], cell["ablation"] == "invert"

    pruned = [cell for cell in through if cell["pruner"] != DENSE]
    ordered = sorted(pruned, key=trajectory)
    return [list(group) for _, group in itertools.groupby(ordered, key=trajectory)]


def _round_job(setup: Setup, draw: Draw, mask: Mask, start: Params, task: Task) -> Job:
    """A training on the way to a mask: of ``round_epochs``, or to its own end."""
    epochs = setup.spec.prune.round_epochs
    an_epoch = -(-draw.n // min(setup.training.batch_size, draw.n))
    steps = epochs * an_epoch if epochs else None
    return Job(start, mask, draw.examples, draw.train_key, steps, task)


def _cut(
    setup: Setup,
    draw: Draw,
    branch: list[Cell],
    on_mask: OnMask,
    rounds: list[Round],
    mask: Mask,
    rewound: Params,
    trained: Params,
) -> list[Job]:
    """The jobs that follow from one training: the trajectory's next one first."""
    within = functools.partial(
        pruning.prune,
        setup.pruner(branch[0]).score_fn,
        trained,
        select=SELECTS[branch[0]["select"]],
        prunable=setup.prunable,
        mask=mask,
    )
    now, later = rounds[0], rounds[1:]
    jobs: list[Job] = []
    if later:
        smaller = within(keep=now.keep)
        rest = [c for c in branch if c["sparsity"] not in now.cuts]
        start = masks.apply_mask(rewound, smaller)

        def then(result: TrainResult) -> list[Job]:
            after = draw.after(job, result)
            following = functools.partial(_cut, setup, after, rest, on_mask)
            return following(later, smaller, rewound, result.params)

        job = _round_job(setup, draw, smaller, start, Task(rest, then))
        jobs.append(job)
    for cell in branch:
        if cell["sparsity"] in now.cuts:
            start = trained if cell["resume"] == "finetune" else rewound
            found = within(keep=now.cuts[cell["sparsity"]])
            jobs += setup.failures.guarded([cell], on_mask, draw, cell, found, start)
    return jobs
