"""What a decoder is: it is fitted to masks with labels and decodes further masks."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np


class CannotDecode(ValueError):
    """A decoder does not apply to these masks; another may."""


class Stack(NamedTuple):
    """Masks of many data sets, and what is known of the data sets.

    Attributes:
      masks: ``bool[K, weights]``.
      labels: ``int[K, n]``.
      prior: ``[n, classes]``, the distribution that labels were drawn from.
      x: the inputs ``[n, ...]``, or ``[K, n, ...]`` if ``resampled``, or ``None``.
      resampled: whether each data set has its inputs, as under ``"data"``; else all
        share them.
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
    """The log probability of the labels of masks, given all masks and labels before."""

    def __call__(self, stack: Stack, start: int, stop: int) -> np.ndarray:
        """Returns ``log q(y_k | m_k)`` for ``start <= k < stop``, nats.

        q may look at mask k, at the inputs, and at masks and labels before ``start``,
        but at nothing else that depends on the data sets from ``start`` on. It sums to
        1 over all labelings.
        """
        ...


class Decoder(NamedTuple):
    """A decoder and its name.

    Attributes:
      name: stands in ``Interval.lower_by``.
      log_prob: a ``LogProb``; ``None`` where there are ``gains``.
      most: how many masks it decodes at most, the last ones; ``None``: half of them.
      blocks: number of blocks that it decodes; it is fitted anew before each.
      fitted: whether it is fitted to masks before those that it decodes; one that is
        not decodes all of them, up to ``most``.
      gains: in place of ``log_prob``, of more than labels: ``gains(stack, start, stop)
        -> log(q(T | m_k) / p(T))``, nats, of some T that is made of the data and of
        what is independent of the mask; q, and what it looks at, as in ``LogProb``.
    """

    name: str
    log_prob: LogProb | None
    most: int | None = None
    blocks: int = 4
    fitted: bool = True
    gains: Callable[[Stack, int, int], np.ndarray] | None = None

    def start(self, count: int) -> int:
        """Returns the index of the first mask that is decoded, of ``count`` masks."""
        least = count // 2 if self.fitted else 0
        return max(least, count - (count if self.most is None else self.most))


class MaskLaw(NamedTuple):
    """A distribution of masks and its name: ``H(m) <= E[-log q(m)]``.

    Attributes:
      name: stands in ``Interval.upper_by``.
      log_prob: ``log_prob(stack, start, stop) -> [stop - start]``, ``log q(m_k)`` for
        ``start <= k < stop``, nats. q may be fitted to masks and data before
        ``start``, but to nothing of those from there on but inputs that all share. It
        sums to at most 1 over all masks.
    """

    name: str
    log_prob: Callable[[Stack, int, int], np.ndarray]


class Last:
    """A function of a stack that keeps its last value, for decoding block by block."""

    def __init__(self, fn: Callable[[Stack], Any]) -> None:
        self.fn, self.stack, self.value = fn, None, None  # type: Any, Any, Any

    def __call__(self, stack: Stack) -> Any:
        """Returns the value for a stack, computed only if the stack is another."""
        if self.stack is not stack:
            self.stack, self.value = stack, self.fn(stack)
        return self.value
