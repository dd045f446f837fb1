"""What a decoder is: fitted on some masks, asked for the labels of others."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np


class Stack(NamedTuple):
    """Masks of many data sets, and what is known of these.

    Attributes:
      masks: ``bool[K, weights]``.
      labels: ``int[K, n]``.
      prior: ``[n, classes]``, the distribution that labels were drawn from.
      x: the inputs ``[n, ...]``; ``resampled``, ``[K, n, ...]``; or ``None``.
      resampled: whether each data set has inputs of its own (``"data"``).
    """

    masks: np.ndarray
    labels: np.ndarray
    prior: np.ndarray
    x: Any = None
    resampled: bool = False

    def inputs(self, k: int) -> Any:
        """Returns the inputs of data set k."""
        return self.x[k] if self.resampled else self.x


class LogProb(Protocol):
    """What decodes: labels of masks, told all masks and labels before them."""

    def __call__(self, stack: Stack, start: int, stop: int) -> np.ndarray:
        """Returns ``log q(y_k | m_k)`` for ``start <= k < stop``, nats.

        q may be fitted to masks, inputs and ``labels[:start]``, and to nothing else
        that depends on the labels from ``start`` on; it sums to 1 over all labelings.
        """
        ...


class Decoder(NamedTuple):
    """A decoder and what to call it.

    Attributes:
      name: stands in ``Interval.lower_by``.
      log_prob: a ``LogProb``.
      most: how many masks are decoded at most, the last ones; ``None``: half.
      blocks: in how many parts: before each it is fitted anew.
    """

    name: str
    log_prob: LogProb
    most: int | None = None
    blocks: int = 4

    def start(self, count: int) -> int:
        """Returns the first of so many masks that is decoded."""
        return max(count // 2, count - (count if self.most is None else self.most))


class Last:
    """A function of a stack that keeps its last value: decoders go block by block."""

    def __init__(self, fn: Callable[[Stack], Any]) -> None:
        self.fn, self.stack, self.value = fn, None, None  # type: Any, Any, Any

    def __call__(self, stack: Stack) -> Any:
        """Returns the value at a stack, made anew where it is another."""
        if self.stack is not stack:
            self.stack, self.value = stack, self.fn(stack)
        return self.value
