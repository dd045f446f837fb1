"""Networks of lanes: those that wait for one, and those that ended together."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from nfp_jax.engine.held import Held
from nfp_jax.engine.jobs import Job, Row, Taken, as_asked, identity
from nfp_jax.engine.training import Training, TrainResult
from nfp_jax.types import Mask, Params


class Waiting(NamedTuple):
    """A network that waits for a lane, or is in one.

    Attributes:
      taken: it as it was taken, and its place in the results; a row has no arrays.
      network: of a job, perhaps without its dead neurons, what lanes take: weights,
        mask, padded data, key and limit; ``None``: it is a row of a stack.
      expand: from the trained weights to those of the job as it was taken.
      held: the stack that it is a row of; ``None``: it is a job, to be stacked.
    """

    taken: Taken
    network: Any
    expand: Callable[[Params], Params]
    held: Held | None

    @property
    def row(self) -> int:
        """Which row of its stack it is."""
        asked = self.taken[1]
        assert isinstance(asked, Row)  # a job has none
        return asked.row


class Ended(NamedTuple):
    """Networks that ended in one turn, read from their lanes, still on the device."""

    waiting: list[Waiting]
    result: TrainResult
    seconds: np.ndarray


class Together:
    """The results of networks that ended together, on the device until asked for."""

    def __init__(self, training: Training, ended: Ended, *, weights: bool) -> None:
        self.training, self.ended, self.weights = training, ended, weights

    @functools.cached_property
    def measured(self) -> TrainResult:
        """All but weights and masks, on the host, by one transfer."""
        result: Any = self.ended.result
        arrays = jax.device_get(result._replace(params=None, mask=None, seconds=None))
        found: TrainResult = arrays._replace(seconds=self.ended.seconds)
        return found

    @functools.cached_property
    def trained(self) -> tuple[Params, Mask]:
        """Weights and masks on the host."""
        result = self.ended.result
        found: tuple[Params, Mask] = jax.device_get((result.params, result.mask))
        return found

    def stacked(self) -> TrainResult:
        """Returns what was measured, on the host, and weights and masks on the device.

        The stack may be longer than the networks are many. Networks that were trained
        without their dead neurons are whole again.
        """
        waiting = self.ended.waiting
        if any(one.expand is not identity for one in waiting):
            whole: Any = [self.at(i) for i in range(len(waiting))]
            found = jax.tree.map(lambda *leaves: np.stack(leaves), *whole)
            params, mask = jax.device_put((found.params, found.mask))
            return self.measured._replace(params=params, mask=mask)
        result = self.ended.result
        return self.measured._replace(params=result.params, mask=result.mask)

    def at(self, i: int) -> TrainResult:
        """Returns the result of network i on the host, of the shapes asked for.

        Copied, so that it does not keep the others in memory.
        """
        (_, asked), _, expand, _ = self.ended.waiting[i]
        arrays: Any = self.measured
        seconds = float(arrays.seconds[i])
        if self.weights or isinstance(asked, Job):
            params, mask = self.trained
            arrays = arrays._replace(params=params, mask=mask)
        arrays = arrays._replace(seconds=None)
        copied: Any = jax.tree.map(lambda leaf: np.array(leaf[i]), arrays)
        result: TrainResult = copied._replace(seconds=seconds)
        if isinstance(asked, Row):
            return result
        return as_asked(self.training, asked, result, expand)
