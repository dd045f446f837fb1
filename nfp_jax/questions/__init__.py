"""The questions that rows answer: one folder each, found by its name.

``card(name)`` is the card of one, ``module(name, "figures")`` another of its files.
Nothing here loads JAX; a question's ``run`` does.
"""

import functools
import importlib
import pkgutil
from types import ModuleType
from typing import cast

from nfp_jax.questions.contract import Question


@functools.cache
def names() -> tuple[str, ...]:
    """Returns the names of all questions, sorted."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.ispkg))


def card(name: str) -> Question:
    """Returns the card of a question.

    >>> card("capacity").column
    'capacity'
    """
    return cast(Question, module(name, "card").CARD)


def module(name: str, file: str) -> ModuleType:
    """Returns a file of a question's folder: ``run``, ``figures`` or ``claims``.

    Raises:
      ModuleNotFoundError: there is no such question, or it has no such file.
    """
    return importlib.import_module(f"{__name__}.{name}.{file}")
