"""Networks to train, one by one or stacked, and what a run of many took."""

from collections.abc import Callable, Sequence
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


class Networks(NamedTuple):
    """Networks to train, stacked: every array has a leading axis of ``k`` networks.

    What a jitted ``vmap`` makes of seeds, say. In lanes it stays on the device, and
    none of its arrays is copied to the host.

    Attributes:
      params: initial weights, ``[k, ...]``.
      mask: bool pytree like ``params``.
      data: as of a ``Job``, stacked; ``inputs`` of ``Examples`` stay ``None`` where the
        run has them for all. Inputs of its own that are as many as ``index`` must lie
        in its order: only the first ones are kept.
      key: keys ``[k]``, each of which decides an order of batches.
      steps: as of a ``Job``, or int32 ``[k]`` with ``NO_LIMIT`` for convergence.
      n: int32 ``[k]``: the first so many examples of each count; ``None``: all.
      most: no network has more examples than so many; ``None``: the arrays' size.
      tags: what the caller knows the networks by. If there are fewer than ``k``, then
        the others only fill up the stack. ``None``: ``k`` networks without tags.
    """

    params: Params
    mask: Mask
    data: Data
    key: jax.Array
    steps: Any = None
    n: Any = None
    most: int | None = None
    tags: Sequence[Any] | None = None


class Row(NamedTuple):
    """One network of a stack."""

    networks: Networks
    row: int

    @property
    def tag(self) -> Any:
        """What the caller knows it by."""
        tags = self.networks.tags
        return None if tags is None else tags[self.row]

    @property
    def steps(self) -> int | None:
        """As of a job."""
        steps = self.networks.steps
        if steps is None or isinstance(steps, int):
            return steps
        found = int(np.asarray(steps)[self.row])
        return None if found == NO_LIMIT else found


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


Taken = tuple[int | None, Job | Row]


def rows_of(what: Job | Networks) -> list[Job | Row]:
    """Returns the networks of a stack one by one, or a job alone."""
    if isinstance(what, Job):
        return [what]
    size = jnp.shape(jax.tree.leaves(what.params)[0])[0]
    count = size if what.tags is None else len(what.tags)
    if count > size:
        raise ValueError(f"{count} tags, expected at most {size}, as many as networks")
    return [Row(what, row) for row in range(count)]


def limit_of(job: Job | Row) -> Any:
    """Returns after how many steps it ends, at the latest."""
    return np.int32(NO_LIMIT if job.steps is None else job.steps)


def size_of(job: Job) -> int:
    """Returns the number of its examples; 1 where its data say none."""
    if isinstance(job.data, Examples):
        return len(job.data.index)
    return max(
        ((*jnp.shape(leaf), 1)[0] for leaf in jax.tree.leaves(job.data)), default=1
    )


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
        return job, identity
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


def identity(same: Any) -> Any:
    """Returns what it is given."""
    return same
