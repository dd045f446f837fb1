"""What decoders share that know the pruner: they read the labels off one mask each."""

import math
import threading
from typing import Any

import numpy as np

from nfp_jax import cores
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
        self.fallbacks, self.lock = 0, threading.Lock()
        self.readers = Last(lambda stack: {})

    def __call__(self, stack: Stack, start: int, stop: int) -> np.ndarray:
        """Returns ``log q(y_k | m_k)``, as every ``LogProb``."""

        def one(k: int) -> float:
            reader = self.reader(stack, k)
            return self.log_prob(reader, stack.masks[k], stack.labels[k])

        first = [one(k) for k in range(start, min(start + 1, stop))]  # it compiles
        rest = range(start + 1, stop)
        # Readers of inputs of their own are made one after the other.
        found = [one(k) for k in rest] if stack.resampled else cores.each(one, rest)
        return np.array(first + found)

    def reader(self, stack: Stack, k: int) -> Any:
        """What masks of these inputs are read with: one reader where all share them."""
        name = k if stack.resampled else 0
        readers = self.readers(stack)
        if name not in readers:
            readers.clear()
            readers[name] = self.made(stack.inputs(k), stack.prior)
        return readers[name]

    def fell_back(self, blocks: int) -> None:
        """Counts blocks that were given the labels' law."""
        with self.lock:
            self.fallbacks += blocks

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
