"""A stack on the devices that becomes smaller while its networks end.

A lane has a copy of its network. The stack is kept for networks that wait for a lane,
and for those that must start anew where memory runs out.
"""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from nfp_jax.engine.stacks import Stack

# A stack is copied to one so many times smaller that still holds what is left.
SMALLER = 4


class Held:
    """A stack, and where in it the networks lie that have not ended.

    Attributes:
      stack: on the devices.
      places: of each network that was added and has not ended, by its first place.
      is_whole: whether networks still lie in their first places.
    """

    def __init__(self, stack: Stack, everywhere: Any) -> None:
        self.stack: Stack = jax.device_put(stack, everywhere)
        self.everywhere = everywhere
        self.places: dict[int, int] = {}
        self.unbegun: set[int] = set()
        self.is_whole = True

    def add(self, row: int) -> None:
        """Counts a network in; the stack must be whole."""
        self.places[row] = row
        self.unbegun.add(row)

    def begin(self, rows: Iterable[int]) -> None:
        """Says that these networks are in lanes."""
        self.unbegun.difference_update(rows)

    def end(self, row: int) -> None:
        """Counts a network out; lets go of those that ended where that pays."""
        del self.places[row]
        size = len(self.stack.key)
        needed = max(len(self.places), 1)
        if self.unbegun or needed * SMALLER > size:
            return  # what waits is put into lanes by a program for the whole stack
        while needed * SMALLER <= size:
            size //= SMALLER
        left = list(self.places)
        chosen = np.zeros(size, np.int32)
        chosen[: len(left)] = [self.places[row] for row in left]
        self.stack = jax.device_put(_taken(self.stack, chosen), self.everywhere)
        self.places = {row: place for place, row in enumerate(left)}
        self.is_whole = False


@jax.jit
def _taken(stack: Stack, rows: Any) -> Stack:
    taken: Stack = jax.tree.map(lambda leaf: leaf[rows], stack)
    return taken
