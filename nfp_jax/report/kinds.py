"""Which question rows answer, and the figures of their page.

A question's page is in its folder: ``KIND`` of its ``figures``. Rows are known by the
column that its card names.
"""

import matplotlib.style
import pandas as pd

from nfp_jax import questions
from nfp_jax.pages.common import Drawing
from nfp_jax.pages.kind import Kind
from nfp_jax.pages.looks import RC

FALLBACK = "memorization"  # what rows of no question are taken for


def question_of(rows: pd.DataFrame) -> str:
    """The question whose rows these are: its card's column is there, and not null.

    A question that extends another has that one's column too, and comes first.
    """
    found = [name for name in questions.names() if _has(rows, name)]
    extended = {questions.card(name).extends for name in found}
    return next((name for name in found if name not in extended), FALLBACK)


def _has(rows: pd.DataFrame, question: str) -> bool:
    column = questions.card(question).column
    return column in rows and bool(rows[column].notna().any())


def kind_of(rows: pd.DataFrame) -> Kind:
    """What the page of these rows has to know of them."""
    kind: Kind = questions.module(question_of(rows), "figures").KIND
    return kind


def draw(rows: pd.DataFrame) -> dict[str, Drawing]:
    """The figures of the page by name, each with its caption."""
    with matplotlib.style.context(["default", RC]):
        return kind_of(rows).draw(rows)
