"""The names of a configuration and what each stands for: one table a kind.

A pruner of your own is registered in ``PRUNERS``, a network in ``MODELS``, and so on;
then a configuration may name it. Pruning through training (``TRAINED``)
has no entry here; it is made of the dense training in ``lab``.
"""

import inspect
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import optax

from nfp_jax import masks, models, pruning, scores, training
from nfp_jax.scores import ScoreFn
from nfp_jax.spec import Cell, Spec, SpecError


class Network(NamedTuple):
    """What a pruner may be built from.

    Attributes:
      apply_fn: ``apply_fn(params, x) -> logits``.
      input_shape: one example's shape, without the batch.
      spec: the whole specification.
    """

    apply_fn: masks.ApplyFn
    input_shape: tuple[int, ...]
    spec: Spec


def _grasp(net: Network) -> ScoreFn:
    loss_fn = scores.classification_loss(
        net.apply_fn, temperature=net.spec.prune.grasp_temperature
    )
    return scores.grasp(loss_fn, chunk_size=net.spec.prune.score_chunk)


def _snip(net: Network) -> ScoreFn:
    loss_fn = scores.classification_loss(net.apply_fn)
    return scores.snip(loss_fn, chunk_size=net.spec.prune.score_chunk)


# Pruning at initialization: each entry builds a ScoreFn. Register your own here.
PRUNERS: dict[str, Callable[[Network], ScoreFn]] = {
    "random": lambda net: scores.random(),
    "magnitude_init": lambda net: scores.magnitude(),
    "snip": _snip,
    "grasp": _grasp,
    "synflow": lambda net: scores.synflow(net.apply_fn, net.input_shape),
}
# Those that get no batch where masks are made one by one: one program serves every n.
DATA_FREE = {"random", "magnitude_init", "synflow"}
# Pruning through training: what lab makes of a draw's dense training.
TRAINED = ("magnitude_trained", "imp")
SELECTS: dict[str, pruning.SelectFn] = {
    "global": masks.top_k,
    "per_layer": masks.top_k_per_layer,
    "erk": masks.top_k_erk,
}
SCHEDULES: dict[str, masks.Schedule] = {
    "exponential": pruning.exponential,
    "linear": pruning.linear,
}
RESUMES = ("rewind", "finetune")
ABLATIONS = ("", "shuffle", "reinitialize", "invert")
MODELS: dict[str, Callable[[Any, int], Any]] = {
    "mlp": lambda model, classes: models.MLP(classes, model.widths, model.init),
    "convnet": lambda model, classes: models.ConvNet(
        classes, model.channels, model.widths, model.init
    ),
}


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
    """Raises for a name in the specification that no table here knows.

    Raises:
      SpecError: names the field and lists the known names.
    """
    optimizers = {
        name
        for name, value in vars(optax).items()
        if not name.startswith(("_", "scale_by"))
        and inspect.isfunction(value)
        and "learning_rate" in inspect.signature(value).parameters
    }
    known = {
        "grid.pruner": (spec.grid.pruner, ("dense", *PRUNERS, *TRAINED)),
        "grid.select": (spec.grid.select, SELECTS),
        "grid.resume": (spec.grid.resume, RESUMES),
        "grid.ablation": (spec.grid.ablation, ABLATIONS),
        "model.name": ((spec.model.name,), MODELS),
        "model.init": ((spec.model.init,), models.INITIALIZERS),
        "train.stop": ((spec.train.stop,), STOPS),
        "train.optimizer": ((spec.train.optimizer,), sorted(optimizers)),
        "prune.schedule": ((spec.prune.schedule,), SCHEDULES),
        "prune.rounds": (tuple(spec.prune.rounds), PRUNERS),
    }
    for field, (names, table) in known.items():
        for name in names:
            check_name(field, name, table)


def check_name(field: str, name: str, table: Collection[str]) -> None:
    """Raises for a name that is not in a table.

    Raises:
      SpecError: names the field and lists the known names.
    """
    if name not in table:
        listed = ", ".join(repr(entry) for entry in table)
        raise SpecError(f"{field} names {name!r}, expected one of {listed}")


def comes_through_training(cell: Cell) -> bool:
    """Whether a cell needs the dense training of its draw."""
    return cell["pruner"] == "dense" or cell["pruner"] in TRAINED
