"""What decoders share that know the pruner: they read the labels off one mask each."""

import math
from typing import Any

import numpy as np

from nfp_jax.decoding.contract import Last, Stack

# What is said of labels that give the mask exactly, and of each block, is mixed with
# this share of the labels' law.
MIXED = 0.01


class ReadsLabels:
    """The log probability of labels, by readers of single masks: a ``LogProb``.

    Attributes:
      fallbacks: blocks of labels in which propagation diverged, so that they were given
        the labels' law.
    """

    def __init__(self) -> None:
        self.fallbacks = 0
        self.readers = Last(lambda stack: {})

    def __call__(self, stack: Stack, start: int, stop: int) -> np.ndarray:
        """Returns ``log q(y_k | m_k)``, as every ``LogProb``."""
        found = []
        for k in range(start, stop):
            reader = self.reader(stack, k)
            found.append(self.log_prob(reader, stack.masks[k], stack.labels[k]))
        return np.array(found)

    def reader(self, stack: Stack, k: int) -> Any:
        """What masks of these inputs are read with: one reader where all share them."""
        name = k if stack.resampled else 0
        readers = self.readers(stack)
        if name not in readers:
            readers.clear()
            readers[name] = self.made(stack.inputs(k), stack.prior)
        return readers[name]

    def made(self, x: Any, prior: np.ndarray) -> Any:
        """Returns the reader of masks of these inputs."""
        raise NotImplementedError

    def log_prob(self, reader: Any, mask: np.ndarray, y: np.ndarray) -> float:
        """Returns ``log q(y | mask)``."""
        raise NotImplementedError


def log_law(one: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the log probability of each label, if 1 has probability ``one``."""
    with np.errstate(divide="ignore"):
        found: np.ndarray = np.log(np.where(y, one, 1 - one))
    return found


def mixed(log_q: float, log_law: float) -> float:
    """Returns ``log(0.99 q + 0.01 p)``."""
    return float(np.logaddexp(math.log1p(-MIXED) + log_q, math.log(MIXED) + log_law))


def room(left: int, n: int) -> int:
    """Returns a size for so many labels; there are five, and so are the programs."""
    share = math.ceil(5 * left / n) / 5
    return min(n, math.ceil(share * n))
