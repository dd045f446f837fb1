"""What selects the weights that a round keeps, by their scores."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax

from nfp_jax.masks import Mask, Prunable, Scores


class SelectFn(Protocol):
    """What every selection is: scores and a number to keep in, a mask out."""

    def __call__(
        self,
        scores: Scores,
        keep: Any,
        /,
        *,
        prunable: Prunable = None,
        mask: Mask = None,
    ) -> Mask:
        """Returns the mask of the weights kept; within ``mask`` if it is given."""
        ...


@dataclasses.dataclass(frozen=True)
class Among:
    """A ``SelectFn`` that is one of several, by number: they share a program.

    ``keep`` is a pair: what the selection takes, and which of them it is, an integer
    that may be traced.
    """

    selects: tuple[SelectFn, ...]

    def __call__(
        self, scores: Scores, keep: Any, *, prunable: Prunable = None, mask: Mask = None
    ) -> Mask:
        """Returns the mask, as every ``SelectFn``."""
        count, which = keep

        def chosen(select: SelectFn) -> Callable[[Any], Mask]:
            return lambda count: select(scores, count, prunable=prunable, mask=mask)

        return jax.lax.switch(which, [chosen(select) for select in self.selects], count)
