"""What a question is: one folder, whose card says what the rest of the house needs.

In the folder of a question are ``card.py`` (``CARD``: settings, checks, columns),
``run.py`` (cells to rows), ``figures.py`` (``KIND``) and, where it makes claims,
``claims.py``. The card, the figures and the claims load no JAX.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


def no_check(spec: Any) -> None:
    """Finds nothing wrong."""


@dataclasses.dataclass(frozen=True)
class Question:
    """The card of a question.

    Attributes:
      name: what ``config.question`` and the folder are called.
      column: a column that is never null in its rows, and by which they are known.
      columns: the types of its columns, beside the coordinates: ``"int"``, ``"float"``,
        ``"str"``, ``"bool"``, ``"bytes"`` or a list of one, ``"list[int]"``.
      settings: a frozen dataclass, whose defaults are those of ``config.<name>``;
        ``None``: it has no settings.
      check_settings: ``check_settings(spec)`` raises a ``SpecError`` for settings out
        of range; it is called whatever the question.
      check: ``check(spec)`` raises one for what means nothing where this is the
        question.
      extends: the question whose rows and columns this one has, and more.
      trains: whether a network is trained under each cell's mask, so that it matters
        where its weights resume.
    """

    name: str
    column: str
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    settings: type | None = None
    check_settings: Callable[[Any], None] = no_check
    check: Callable[[Any], None] = no_check
    extends: str | None = None
    trains: bool = True
