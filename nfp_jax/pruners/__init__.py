"""Pruners: one file each, its formula first and its card last.

``contract`` says what a pruner is; ``rounds``, ``by_score`` and ``tickets`` are what
they are made of: scores in rounds at initialization, and trajectories through training.
Depends on masks, losses, cards, jax and optax.
"""

import dataclasses

from nfp_jax import cards
from nfp_jax.pruners.contract import Pruner


def names() -> tuple[str, ...]:
    """Returns the names of the pruners that have a card here, sorted."""
    return cards.names_in(__name__)


def card(name: str) -> Pruner:
    """Returns the card of a pruner, by name, file or ``module:CARD``.

    The version of a user's file has a fingerprint of its text.

    Raises:
      CardError: there is none; or a user's card has the name of one of ours.

    >>> card("snip").label
    'SNIP'
    """
    found: Pruner = cards.find(name, __name__, Pruner)
    if not cards.is_path(name):
        return found
    if found.name in ("dense", *names()):
        raise cards.CardError(
            f"{name} is a card named {found.name!r}, which is the name of one of ours"
        )
    version = f"{found.version}-{cards.fingerprint(name)}"
    return dataclasses.replace(found, version=version)
