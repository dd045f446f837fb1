"""Rules that end a training; each looks at the progress after every epoch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Progress(NamedTuple):
    """What a stopping rule sees at the end of an epoch; all are scalars.

    Attributes:
      epoch: counted from 1.
      loss: train loss.
      previous_loss: train loss an epoch before, infinite at epoch 1.
      accuracy: train accuracy.
      still: number of consecutive epochs over which the accuracy has not changed.
      half_loss: train loss at the end of epoch ``epoch // 2``, NaN at epoch 1.
      half_accuracy: train accuracy at the end of epoch ``epoch // 2``, NaN at epoch 1.
      step: number of optimizer steps so far.
    """

    epoch: jax.Array
    loss: jax.Array
    previous_loss: jax.Array
    accuracy: jax.Array
    still: jax.Array
    half_loss: Any = float("nan")
    half_accuracy: Any = float("nan")
    step: Any = 0


StopFn = Callable[[Progress], jax.Array]


def stop_when_settled(
    *,
    share: float = 1.0,
    first: int = 50,
    rise: float = 0.005,
    fall: float = 0.05,
    min_steps: int = 1000,
) -> StopFn:
    """Stops when ``share`` of the labels is fitted, or once doubling changes little.

    Doubling is looked at when the number of epochs is ``2T``, with ``T = first``,
    ``2 * first``, ``4 * first``, …. The training has settled if from T to 2T the
    accuracy rose by less than ``rise`` and the loss fell by less than the fraction
    ``fall`` of its value at T. All claims of this project use this rule.
    Rules that look at a few epochs stop sparse networks while these still improve. So
    they measure how fast a network memorizes, and not how much.

    Args:
      share: share of the labels to fit, in (0, 1]; 1: all of them.
      first: the first T, in epochs, at least 1.
      rise: share of the labels, in (0, 1].
      fall: fraction of the loss, in (0, 1].
      min_steps: doublings that end before so many optimizer steps do not count, since
        100 epochs of one step each are little training.

    Raises:
      ValueError: an argument out of its range.

    >>> stop = stop_when_settled()
    >>> slow = Progress(100, 0.58, 0.58, 0.7, 0, 0.6, 0.697, step=1600)
    >>> bool(stop(slow)), bool(stop(slow._replace(epoch=101)))
    (True, False)
    >>> bool(stop(slow._replace(half_accuracy=0.69)))  # it rose by 1 % of the labels
    False
    """
    for name, value in {"share": share, "rise": rise, "fall": fall}.items():
        if not 0 < value <= 1:
            raise ValueError(f"{name} is {value}, expected 0 < {name} <= 1")
    if first < 1:
        raise ValueError(f"first is {first}, expected at least 1")
    fitted = stop_when_fitted(share)

    def stop(progress: Progress) -> jax.Array:
        epoch, halves = progress.epoch, progress.epoch // first
        doubled = (epoch % first == 0) & (halves >= 2) & (halves & (halves - 1) == 0)
        # 1.5e-7: the rounding of two float32, so that 5 labels of 1,000 are 0.5 %.
        rose = progress.accuracy - progress.half_accuracy >= rise - 1.5e-7
        fell = progress.loss <= (1 - fall) * progress.half_loss
        settled = doubled & (progress.step >= min_steps) & ~jnp.asarray(rose | fell)
        return fitted(progress) | settled

    return stop


def stop_when_still(*, patience: int = 3, min_epochs: int = 10) -> StopFn:
    """Stops at train accuracy 1, or when it has not changed for ``patience`` epochs.

    It never stops before epoch ``min_epochs``. It measures speed, since it stops sparse
    networks while these still improve; ``stop_when_settled`` does not.

    >>> stop = stop_when_still(patience=3, min_epochs=10)
    >>> bool(stop(Progress(12, loss=0.7, previous_loss=0.7, accuracy=0.5, still=3)))
    True
    """

    def stop(progress: Progress) -> jax.Array:
        settled = (progress.accuracy >= 1.0) | (progress.still >= patience)
        return settled & (progress.epoch >= min_epochs)

    return stop


def stop_as_paper(*, tolerance: float = 0.01, patience: int = 3) -> StopFn:
    """Stops when the loss changed by less than ``tolerance`` from epoch to epoch.

    It stops, too, when the train accuracy has not changed for ``patience`` epochs.

    >>> stop = stop_as_paper()
    >>> bool(stop(Progress(2, loss=0.69, previous_loss=0.693, accuracy=0.5, still=0)))
    True

    Reference: Kumar et al. 2024, https://arxiv.org/abs/2402.01089, section 5.
    """

    def stop(progress: Progress) -> jax.Array:
        change = jnp.abs(progress.loss - progress.previous_loss)
        return (change < tolerance) | (progress.still >= patience)

    return stop


def stop_when_fitted(share: float) -> StopFn:
    """Stops as soon as a share of the labels is predicted, whatever the loss.

    A search for the memorization capacity asks for this. A network that does not get
    there ends with its budget.

    >>> stop = stop_when_fitted(0.99)
    >>> bool(stop(Progress(1, loss=0.1, previous_loss=0.2, accuracy=0.99, still=0)))
    True
    """

    def stop(progress: Progress) -> jax.Array:
        # 1.5e-7: the rounding of two float32, the share and the mean. With more, one
        # label too few would be enough where share * n is just above an integer.
        return jnp.asarray(progress.accuracy >= share - 1.5e-7)

    return stop
