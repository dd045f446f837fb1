"""The names of a configuration and what each stands for.

Pruners, networks, sets and questions have cards, found by their names; the few other
names are in the tables here.
"""

import inspect
from collections.abc import Callable, Collection
from typing import Any

import optax

from nfp_jax import masks, pruners, pruning, questions, training
from nfp_jax.cards import CardError, settings_of
from nfp_jax.fields import SpecError, settings
from nfp_jax.grid import DENSE, Cell, Pruning, cells
from nfp_jax.pruners.contract import Pruner
from nfp_jax.spec import Spec

SELECTS: dict[str, pruning.SelectFn] = {
    "global": masks.top_k,
    "per_layer": masks.top_k_per_layer,
    "erk": masks.top_k_erk,
}
RESUMES = ("rewind", "finetune")
ABLATIONS = ("", "shuffle", "reinitialize", "rescale", "invert")


def settled(train: Any, share: float = 1.0) -> training.StopFn:
    """The rule "settled under doubling" with the settings of a specification."""
    return training.stop_when_settled(
        share=share,
        first=train.settle_from,
        rise=train.settle_rise,
        fall=train.settle_fall,
        min_steps=train.settle_steps,
    )


STOPS: dict[str, Callable[[Any], training.StopFn]] = {
    "settled": settled,
    "still": lambda train: training.stop_when_still(
        patience=train.patience, min_epochs=train.min_epochs
    ),
    "paper": lambda train: training.stop_as_paper(patience=train.patience),
}


def check_names(spec: Spec) -> None:
    """Raises for a name in the specification that stands for nothing.

    Raises:
      SpecError: names the field and lists the known names; a setting that a pruner
        does not take.
    """
    optimizers = {
        name
        for name, value in vars(optax).items()
        if not name.startswith(("_", "scale_by"))
        and inspect.isfunction(value)
        and "learning_rate" in inspect.signature(value).parameters
    }
    known = {
        "question": ((spec.question,), questions.names()),
        "grid.select": (spec.grid.select, SELECTS),
        "grid.resume": (spec.grid.resume, RESUMES),
        "grid.ablation": (spec.grid.ablation, ABLATIONS),
        "train.stop": ((spec.train.stop,), STOPS),
        "train.optimizer": ((spec.train.optimizer,), sorted(optimizers)),
    }
    for field, (names, table) in known.items():
        for name in names:
            check_name(field, name, table)
    prunings_of(spec)


def check_name(field: str, name: str, table: Collection[str]) -> None:
    """Raises for a name that is not in a table.

    Raises:
      SpecError: names the field and lists the known names.
    """
    if name not in table:
        listed = ", ".join(repr(entry) for entry in table)
        raise SpecError(f"{field} names {name!r}, expected one of {listed}")


def cards_of(spec: Spec) -> dict[str, Pruner]:
    """Returns the cards of the grid's pruners, by what the grid calls them.

    Raises:
      SpecError: one that can't be had; two of one name.
    """
    found: dict[str, Pruner] = {}
    for entry in dict.fromkeys(spec.grid.pruner):
        if entry == DENSE:
            continue
        try:
            found[entry] = pruners.card(entry)
        except CardError as error:
            expected = str(error).replace("one of ", f"one of {DENSE!r}, ", 1)
            raise SpecError(f"grid.pruner names {entry!r}, {expected}") from error
    names = [card.name for card in found.values()]
    for name in names:
        if names.count(name) > 1:
            raise SpecError(f"grid.pruner has two cards that are named {name!r}")
    return found


def prunings_of(spec: Spec) -> dict[str, Pruning]:
    """Returns what a grid must know of its pruners, by what the grid calls them.

    Raises:
      SpecError: as ``cards_of``; settings of a pruner that there is not, or that it
        does not take.
    """
    cards = cards_of(spec)
    names = {card.name for card in cards.values()}
    for name in spec.pruners:
        if name not in names:  # of others only those of ours are known
            check_name("pruners", name, (*pruners.names(), *sorted(names)))
            settings(
                spec.pruners[name],
                settings_of(pruners.card(name).build),
                f"pruners.{name}",
            )
    trains = questions.card(spec.question).trains
    return {
        entry: Pruning(
            card.name,
            card.label,
            card.sees,
            settings(
                spec.pruners.get(card.name, {}),
                settings_of(card.build),
                f"pruners.{card.name}",
            ),
            card.version,
            resumed=trains and card.when == "through",
        )
        for entry, card in cards.items()
    }


def all_cells(spec: Spec) -> list[Cell]:
    """Returns the cells of the grid, each once.

    ``resume`` is blank where no network is trained on under its mask.

    Raises:
      SpecError: a pruner that can't be had, or settings that it does not take.
    """
    return cells(spec.grid, prunings_of(spec))


def through_training(spec: Spec) -> set[str]:
    """Returns the names of the grid's pruners whose masks come through training."""
    return {card.name for card in cards_of(spec).values() if card.when == "through"}
