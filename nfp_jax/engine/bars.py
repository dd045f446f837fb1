"""Progress bars; tqdm is loaded where one is shown."""

import contextlib
from typing import Any


class NoBar(contextlib.AbstractContextManager["NoBar"]):
    """In the place of a bar: shows nothing."""

    def update(self, count: int) -> None:
        """Does nothing."""

    def __exit__(self, *_: object) -> None:
        """Does nothing."""


def bar_of(total: int | None, unit: str) -> Any:
    """Returns a bar, with what is done, the rate and the time left.

    Args:
      total: how much is expected; ``None``: unknown.
      unit: what is counted.
    """
    from tqdm import tqdm

    return tqdm(total=total, unit=unit, mininterval=0.5, dynamic_ncols=True)
