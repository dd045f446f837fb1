"""Of which question rows are."""

import pandas as pd
import pytest
from rows import make_interval_rows, make_rows

from nfp_jax import questions
from nfp_jax.report.kinds import kind_of, question_of

NAMES = questions.names()


def rows_of(question):
    """Rows in which the column of a question, and of what it extends, are not null."""
    filled = {name for name in NAMES if name == question}
    filled |= {questions.card(name).extends for name in filled} - {None}
    rows = make_rows(seeds=1)
    columns = {questions.card(name).column: None for name in NAMES}
    columns |= {questions.card(name).column: 1.0 for name in filled}
    return rows.assign(**columns)


@pytest.mark.parametrize("question", NAMES)
def test_rows_are_of_the_question_whose_column_is_filled(question):
    assert question_of(rows_of(question)) == question
    kind = questions.module(question, "figures").KIND
    assert kind_of(rows_of(question)) is kind


def test_a_question_that_extends_another_wins_over_it():
    rows = rows_of("robustness")
    assert rows["train_accuracy"].notna().all()
    rows["lipschitz_lower"] = None
    assert question_of(rows) == "memorization"


def test_rows_of_no_question_are_those_of_memorization():
    assert question_of(pd.DataFrame({"pruner": ["snip"]})) == "memorization"
    assert question_of(rows_of(None)) == "memorization"


def test_a_column_that_is_null_decides_nothing():
    assert question_of(make_interval_rows().assign(capacity=None)) == "information"


@pytest.mark.parametrize("question", NAMES)
def test_every_trouble_of_a_kind_has_a_column_and_fills_its_words(question):
    rows, kind = make_rows(("imp",), seeds=2), kind_of(rows_of(question))
    cells, flagged = kind.summary(rows), kind.flagged(rows)
    assert (cells["networks"] == 2).all()
    for trouble in kind.troubles:
        assert flagged[trouble].dtype == bool
        assert cells[trouble].sum() == flagged[trouble].sum()
        assert "{" not in kind.words(rows, trouble)
