"""When a training ends: rules that look at the progress after every epoch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Progress(NamedTuple):
    """What a stopping rule sees at the end of an epoch; scalars.

    ``epoch`` counts from 1, ``step`` the optimizer steps so far; ``still`` is the
    number of consecutive epochs over which the train accuracy has not changed;
    ``previous_loss`` is infinite at first. ``half_loss`` and ``half_accuracy`` are
    those at the end of epoch ``epoch // 2``, NaN at epoch 1.
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

    The second is looked at when the number of epochs is ``2T`` with ``T = first``,
    ``2 * first``, ``4 * first``, …: the training has settled if from T to 2T the
    accuracy rose by less than ``rise`` and the loss fell by less than the fraction
    ``fall`` of its value at T. The rule of all claims of this project. Rules that look
    at a few epochs stop sparse networks while they still climb, and so measure how fast
    a network memorizes where how much was asked.

    Args:
      share: of the labels fitted, in (0, 1]; 1: all of them.
      first: the first T, in epochs, at least 1.
      rise: share of the labels, in (0, 1].
      fall: fraction of the loss, in (0, 1].
      min_steps: doublings that end before so many optimizer steps are not looked at:
        with one step an epoch, 100 epochs are few.

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
        # 5 labels of 1,000 are 0.5 % of them, whatever the rounding of two float32.
        rose = progress.accuracy - progress.half_accuracy >= rise - 1.5e-7
        fell = progress.loss <= (1 - fall) * progress.half_loss
        settled = doubled & (progress.step >= min_steps) & ~jnp.asarray(rose | fell)
        return fitted(progress) | settled

    return stop


def stop_when_still(*, patience: int = 3, min_epochs: int = 10) -> StopFn:
    """Stops at train accuracy 1, or when it has not changed for ``patience`` epochs.

    Either one only after ``min_epochs`` epochs. It measures speed: it stops sparse
    networks while they still climb (``stop_when_settled`` does not).

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

    Or when the train accuracy has not changed for ``patience`` consecutive epochs.

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
    """Stops as soon as so many of the labels are predicted, whatever the loss.

    What a search for the memorization capacity asks; others end by their budget.

    >>> stop = stop_when_fitted(0.99)
    >>> bool(stop(Progress(1, loss=0.1, previous_loss=0.2, accuracy=0.99, still=0)))
    True
    """

    def stop(progress: Progress) -> jax.Array:
        # 1.5e-7: the rounding of two float32, the share and the mean. Were it more, a
        # label too few would do where share * n is just above an integer.
        return jnp.asarray(progress.accuracy >= share - 1.5e-7)

    return stop
