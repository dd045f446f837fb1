"""What the paper claims, held against rows: a number, its interval and a verdict.

``claims(parts)`` goes through the runs of a collection and returns a line for each
claim that their rows can speak to. A claim is put as an inequality; it *holds* where
all of the interval is on its side, *does not hold* where all is on the other, and is
*undecided* else. A file a question, and ``together`` for runs read together, over
``claim``, ``paired`` and ``bootstrap``. Depends on `nfp_jax.joined`, `estimates` and
`figures`. The surprise: where a run has several sparsities, a claim about pruners is
judged at the one where their means differ most, in whatever direction, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from nfp_jax.claims import (
    capacity,
    information,
    memorization,
    robustness,
    swap,
    together,
)
from nfp_jax.claims.claim import HOLDS, NOT, UNDECIDED, Claim
from nfp_jax.joined import Part

OF_QUESTION: dict[str, Callable[[Part], Iterator[Claim]]] = {
    "memorization": memorization.claims,
    "information": information.claims,
    "swap": swap.claims,
    "capacity": capacity.claims,
    "robustness": robustness.claims,
}

__all__ = ["HOLDS", "NOT", "UNDECIDED", "Claim", "claims"]


def claims(parts: Mapping[str, Part]) -> list[Claim]:
    """Returns the claims that the rows of these runs speak to, judged."""
    found: list[Claim] = []
    for part in parts.values():
        if not part.rows.empty:
            found += OF_QUESTION[part.question](part)
    return found + list(together.claims(parts))
