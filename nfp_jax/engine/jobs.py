"""A network to train, how long it takes, and what a run of many took."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.compaction import Shrunk
from nfp_jax.engine.examples import Data, Examples
from nfp_jax.engine.training import NO_LIMIT, Training, TrainResult
from nfp_jax.masks import Mask, Params


class Job(NamedTuple):
    """One network to train.

    Attributes:
      params: initial weights.
      mask: bool pytree like ``params``.
      data: ``Examples``, or a pytree of arrays with a common leading axis of examples.
        Jobs of the same arrays, one after the other, share a copy on the device.
      key: decides the order of batches.
      steps: ``None`` to train to convergence, else the number of optimizer steps.
      tag: whatever the caller knows the job by; never looked at.
    """

    params: Params
    mask: Mask
    data: Data
    key: jax.Array
    steps: int | None = None
    tag: Any = None


ShrinkJob = Callable[[Job], Shrunk | None]


class Stats(NamedTuple):
    """What a run took.

    Attributes:
      seconds: wall seconds of it all.
      compile_seconds: those of compiling, summed over devices.
      train_seconds: those of training, likewise.
      networks: number of networks trained.
      wasted: share of the lanes' optimizer steps in which they stood still: empty, or
        done, or with a shorter epoch than their neighbors; 0 with one lane a device.
    """

    seconds: float
    compile_seconds: float
    train_seconds: float
    networks: int
    wasted: float


Taken = tuple[int | None, Job]


def limit_of(job: Job) -> Any:
    """Returns after how many steps it ends, at the latest."""
    return np.int32(NO_LIMIT if job.steps is None else job.steps)


def size_of(job: Job) -> int:
    """Returns the number of its examples; 1 where its data say none."""
    if isinstance(job.data, Examples):
        return len(job.data.index)
    return max(
        ((*jnp.shape(leaf), 1)[0] for leaf in jax.tree.leaves(job.data)), default=1
    )


def steps_taken(training: Training, job: Job, result: TrainResult) -> int:
    """Returns the optimizer steps that a job took."""
    n = size_of(job)
    an_epoch = -(-n // min(training.batch_size, n))
    return min(int(result.epochs) * an_epoch, int(limit_of(job)))


def length_of(job: Job) -> float:
    """Returns how long a job may take, up to a factor: points, by points a kept weight.

    Networks with few weights for their points climb slowly and use up their budget.
    """
    n = size_of(job)
    kept = sum(int(np.sum(leaf)) for leaf in jax.tree.leaves(job.mask))
    return float(n) ** 2 / max(kept, 1)


def shrunk_job(
    shrink: ShrinkJob | None, job: Job
) -> tuple[Job, Callable[[Params], Params]]:
    """Returns the job as it is trained, and the way back to weights of its shapes."""
    small = shrink and shrink(job)
    if not small:
        return job, _identity
    return job._replace(params=small.params, mask=small.mask), small.expand


def as_asked(
    training: Training,
    job: Job,
    result: TrainResult,
    expand: Callable[[Params], Params],
) -> TrainResult:
    """Returns a result of the shapes of the job that was asked for, with its mask."""
    mask = result.mask if training.moves else job.mask
    return result._replace(params=expand(result.params), mask=mask)


def _identity(same: Any) -> Any:
    return same


def raise_error(error: Exception) -> TrainResult:
    """Raises what a job raised before its training began."""
    raise error
