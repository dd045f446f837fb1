"""What the paper claims, held against rows: a number, its interval and a verdict.

``claims(parts)`` goes through the runs of a collection and returns a line for each
claim that their rows can speak to, every sparsity for itself. A claim is put as an
inequality or as an equivalence; it *holds* or *does not hold* where its p-value says
so, corrected by Holm over all claims of the page, and is *undecided* else, and wherever
a training that it compares used up its budget. The claims of a question are in its
folder, ``claims(part)``; where they need runs of other questions too,
``together(parts)``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from types import ModuleType

from nfp_jax import questions
from nfp_jax.pages.claim import SHOWN, Claim, judge
from nfp_jax.pages.joined import Part, check_rules
from nfp_jax.report.together import claims as together


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
        said = claims_of(part)
        drafts += said if name in judged else (x._replace(verdict=SHOWN) for x in said)
    return judge([*drafts, *_together(judged)])


def claims_of(part: Part) -> Iterator[Claim]:
    """The claims that a run's question makes, not judged yet; it may make none."""
    if module := module_of(part.question):
        yield from module.claims(part)


def _together(parts: Mapping[str, Part]) -> Iterator[Claim]:
    """What runs say together, and what questions add to it."""
    yield from together.claims(parts)
    for module in map(module_of, questions.names()):
        more = getattr(module, "together", None)
        if more:
            yield from more(parts)


def module_of(question: str) -> ModuleType | None:
    """Returns the claims of a question, a module; None where it makes none."""
    name = f"{questions.__name__}.{question}.claims"
    known = importlib.util.find_spec(name)
    return questions.module(question, "claims") if known else None
