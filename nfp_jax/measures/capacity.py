"""Memorization capacity: the largest n whose labels a pruned network fits.

``memorization_capacity`` searches for it with the function that prunes and trains,
which is given. ``Search`` is the same search one step at a time, for a queue. A search
assumes that a network that does not fit n points does not fit more. Depends on the
standard library.
"""

import math
from collections.abc import Callable
from typing import NamedTuple


class Search(NamedTuple):
    """The search for a memorization capacity, between two steps.

    ``next_n`` is what to try; ``told`` returns the search that knows how it went.

    Attributes:
      most: the largest n that may be tried.
      precision: the search ends where the ends are so close, as a ratio less 1.
      fitted: the largest n that was fitted, 0 for none.
      unfitted: the smallest n that was not, or None.

    >>> search = Search(most=100)
    >>> search.next_n(), search.told(10, True).next_n()
    (10, 32)
    """

    most: int
    precision: float = 0.05
    fitted: int = 0
    unfitted: int | None = None

    def next_n(self) -> int | None:
        """The n to try, or None where the search has ended."""
        low, high = self.fitted, self.unfitted
        if low >= self.most or (high is not None and self._close(high)):
            return None
        if high is None and self._close(self.most + 1):
            return self.most
        middle = round(math.sqrt(max(low, 1) * (high or self.most + 1)))
        return min(max(middle, low + 1), (high or self.most + 1) - 1)

    def told(self, n: int, fits: bool) -> "Search":
        """The search after n points were fitted, or not."""
        if fits:
            return self._replace(fitted=max(n, self.fitted))
        least = n if self.unfitted is None else min(n, self.unfitted)
        return self._replace(unfitted=least)

    @property
    def at_least(self) -> bool:
        """Whether the end of the search was fitted: the capacity may be larger."""
        return self.fitted >= self.most

    def _close(self, high: int) -> bool:
        return high - self.fitted <= max(1, self.precision * self.fitted)


def fits(accuracy: float, n: int, share: float) -> bool:
    """Returns whether so many of n labels are predicted: at least ``share`` of them.

    Counted in labels, so that 0.99 of 100 is 99 whatever the rounding of a mean.

    >>> fits(0.98999995, 100, 0.99), fits(0.98, 100, 0.99)
    (True, False)
    """
    return round(float(accuracy) * n) >= math.ceil(share * n - 1e-9)


def memorization_capacity(
    accuracy_fn: Callable[[int], float],
    *,
    most: int,
    share: float = 0.99,
    precision: float = 0.05,
) -> Search:
    """Returns the largest n whose labels are fitted, by bisection on a log scale.

    Args:
      accuracy_fn: ``accuracy_fn(n)`` finds the mask on the first n points of one set,
        trains, and returns the accuracy on them.
      most: the largest n that may be tried.
      share: of the labels to fit, in (0, 1].
      precision: the ratio less 1 of the ends that is close enough.

    Returns:
      The ended search: the capacity is ``fitted``, below ``unfitted``; where
      ``at_least``, the end of the search was fitted and the capacity may be larger. A
      network of constant output fits one point and those after it of the same label.

    Raises:
      ValueError: ``share`` out of (0, 1], ``most`` below 1, ``precision`` not positive.

    >>> table = lambda n: min(1.0, 300 / n)  # a look-up table of 300 entries
    >>> memorization_capacity(table, most=10_000, share=1.0, precision=0.001).fitted
    300

    Reference: Kumar et al. 2024, https://arxiv.org/abs/2402.01089, section 5.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}, expected 0 < share <= 1")
    if most < 1:
        raise ValueError(f"most is {most}, expected at least 1")
    if not precision > 0:
        raise ValueError(f"precision is {precision}, expected precision > 0")
    search = Search(most, precision)
    while (n := search.next_n()) is not None:
        search = search.told(n, fits(accuracy_fn(n), n, share))
    return search
