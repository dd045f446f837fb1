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
    """The state of a search for a memorization capacity, between two steps.

    ``next_n`` says which n to try; ``told`` returns the search after that was tried.

    Attributes:
      most: the largest n that may be tried.
      precision: the search ends where ``unfitted / fitted - 1`` is at most this.
      fitted: the largest n whose labels were fitted; 0 for none.
      unfitted: the smallest n whose labels were not fitted; None for none.

    >>> search = Search(most=100)
    >>> search.next_n(), search.told(10, True).next_n()
    (10, 32)
    """

    most: int
    precision: float = 0.05
    fitted: int = 0
    unfitted: int | None = None

    def next_n(self) -> int | None:
        """Returns the n to try next, or None if the search has ended."""
        low, high = self.fitted, self.unfitted
        if low >= self.most or (high is not None and self._close(high)):
            return None
        if high is None and self._close(self.most + 1):
            return self.most
        middle = round(math.sqrt(max(low, 1) * (high or self.most + 1)))
        return min(max(middle, low + 1), (high or self.most + 1) - 1)

    def told(self, n: int, fits: bool) -> "Search":
        """Returns the search after n was tried, and its labels fitted or not."""
        if fits:
            return self._replace(fitted=max(n, self.fitted))
        least = n if self.unfitted is None else min(n, self.unfitted)
        return self._replace(unfitted=least)

    @property
    def at_least(self) -> bool:
        """Whether ``most`` was fitted, so that the capacity may be larger."""
        return self.fitted >= self.most

    def _close(self, high: int) -> bool:
        return high - self.fitted <= max(1, self.precision * self.fitted)


def fits(accuracy: float, n: int, share: float) -> bool:
    """Returns whether a network predicts at least ``share`` of n labels.

    Whole labels are counted, so that 0.99 of 100 is 99 whatever the rounding of a mean.

    Args:
      accuracy: share of the n labels that are predicted.
      n: number of labels.
      share: share that is needed, in (0, 1].

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
      share: share of the labels to fit, in (0, 1].
      precision: the search ends where ``unfitted / fitted - 1`` is at most this, or
        where ``unfitted`` is the next integer.

    Returns:
      The ended search. The capacity is at least ``fitted`` and below ``unfitted``.
      Where ``at_least``, ``most`` was fitted and the capacity may be larger. Even a
      network of constant output fits the first point, and the next ones while they have
      its label.

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
