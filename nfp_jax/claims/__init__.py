"""What the paper claims, held against rows: a number, its interval and a verdict.

``claims(parts)`` goes through the runs of a collection and returns a line for each
claim that their rows can speak to, every sparsity for itself. A claim is put as an
inequality or as an equivalence; it *holds* or *does not hold* where its p-value says
so, corrected by Holm over all claims of the page, and is *undecided* else, and wherever
a training that it compares used up its budget. A file a question, and ``together`` for
runs read together, over ``claim``, ``paired`` and ``bootstrap``. Depends on
`nfp_jax.joined`, `estimates` and `figures`.
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
from nfp_jax.claims.claim import HOLDS, LEVEL, NOT, SHOWN, UNDECIDED, Claim, judge
from nfp_jax.joined import Part, check_rules

OF_QUESTION: dict[str, Callable[[Part], Iterator[Claim]]] = {
    "memorization": memorization.claims,
    "information": information.claims,
    "swap": swap.claims,
    "capacity": capacity.claims,
    "robustness": robustness.claims,
}

__all__ = ["HOLDS", "LEVEL", "NOT", "SHOWN", "UNDECIDED", "Claim", "claims"]


def claims(parts: Mapping[str, Part]) -> list[Claim]:
    """Returns the claims that the rows of these runs speak to, judged together.

    Those of a part that is not ``judged``, a sensitivity run, are shown: they take no
    part in the correction, and the run may end its trainings by another rule.

    Raises:
      ResultsError: two runs ended their trainings by different rules; names both.
    """
    with_rows = {name: part for name, part in parts.items() if not part.rows.empty}
    judged = {name: part for name, part in with_rows.items() if part.judged}
    check_rules(judged)
    drafts: list[Claim] = []
    for name, part in with_rows.items():
        own = OF_QUESTION[part.question](part)
        drafts += own if name in judged else (x._replace(verdict=SHOWN) for x in own)
    return judge([*drafts, *together.claims(judged)])
