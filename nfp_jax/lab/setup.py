"""The set-up of a run: what all of its cells share, made once and never changed."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nfp_jax import data, ensemble, masks, models, training
from nfp_jax.cards import CardError
from nfp_jax.fields import SpecError
from nfp_jax.grid import DENSE, Cell
from nfp_jax.lab.jobs import Failures
from nfp_jax.lab.limits import check_sizes
from nfp_jax.lab.names import cards_of, prunings_of
from nfp_jax.lab.source import HALF, seen_of, source_name, source_of, split
from nfp_jax.lab.trainer import EVALUATED_AT_ONCE, Budget, training_of
from nfp_jax.losses import classification_loss
from nfp_jax.masks.prunable import (
    prunable_leaves,
    prunable_paths,
    resolve_prunable,
)
from nfp_jax.pruners.by_score import ByScore
from nfp_jax.pruners.contract import MaskUpdate, Network, ScoreFn, Trajectory, invert
from nfp_jax.spec import Spec
from nfp_jax.types import Params

Engine = Callable[..., Any]  # ensemble.run, or what stands in its place


@dataclasses.dataclass(frozen=True)
class Setup:
    """What all cells of a run share.

    Attributes:
      spec: the specification.
      todo: the cells to do.
      engine: what trains networks, ``ensemble.run``.
      failures: where cells that raised are kept.
      pool: an image set, whose inputs all draws share; ``None``: the set is synthetic.
      card: the card of a synthetic set; ``None``: the set is one of images.
      inputs: the pool's inputs ``[pool, ...]``, on the device, or ``None``.
      input_shape: one example's shape.
      classes: the number of classes.
      model: a Flax module.
      shapes: its parameters' shapes.
      prunable: which of them may be pruned.
      total: how many prunable weights there are.
      training: of one network.
      shrink: what removes dead neurons from jobs where that pays, or ``None``.
      pruners: the pruners of the cells, by name: a ``MaskFn``, a ``Trajectory``, or a
        ``MaskUpdate``, and then of this one alone.
      inverted: those of them that are made of a score, inverted.
      sees: what each sees of the data, by name.
      init_sees: what the initial weights saw of it, in the same words.
      padded: the names of those that take padded batches.
      gradients: how many gradient evaluations a mask of each costs, beside trainings,
        by name; ``None``: its card does not say.
      layers: how many weights each prunable layer has, by its path.
      init: ``init(key) -> params``.
      make: ``make(key, n=n) -> Dataset``, where the set is synthetic.
      redraw: ``redraw(clean, key, rate) -> Labels``.
      logits: ``logits(params, x)``, in chunks.
    """

    spec: Spec
    todo: list[Cell]
    engine: Engine
    failures: Failures
    pool: data.Dataset | None
    card: data.Synthetic | None
    inputs: Any
    input_shape: tuple[int, ...]
    classes: int
    model: Any
    shapes: Params
    prunable: Any
    total: int
    training: training.Training
    shrink: ensemble.ShrinkJob | None
    pruners: Mapping[str, Any]
    inverted: Mapping[str, Any]
    sees: Mapping[str, str]
    init_sees: str
    padded: frozenset[str]
    gradients: Mapping[str, int | None]
    layers: Mapping[str, int]
    init: Callable[[jax.Array], Params]
    make: Callable[..., data.Dataset] | None
    redraw: Callable[..., data.Labels]
    logits: Callable[[Params, Any], jax.Array]

    def pruner(self, cell: Cell) -> Any:
        """Returns the pruner of a cell; inverted, where its ablation says so."""
        table = self.inverted if cell["ablation"] == "invert" else self.pruners
        return table[cell["pruner"]]


def set_up(
    spec: Spec,
    todo: list[Cell],
    *,
    budget: Budget | None = None,
    engine: Engine = ensemble.run,
) -> Setup:
    """Returns the set-up of a run.

    Args:
      spec: the specification.
      todo: the cells to do; of a pruner that moves masks during training, all.
      budget: another rule that ends trainings than the specification's.
      engine: what trains networks.

    Raises:
      SpecError: an ``n`` larger than the set, a network that does not fit its inputs,
        a setting that a pruner or an optimizer does not take.
      data.DataError: a set that can't be read or downloaded.
    """
    card = data.synthetic(spec.data.name)
    make = card and functools.partial(card, **spec.data.settings)
    pool, other = split(spec, None if card else _load(spec), make)
    if pool is not None:
        _check_n(spec, pool, todo)
    input_shape, classes = _shape_of(spec, pool, card)
    model = models.build(spec.model.name, classes, **spec.model.settings)

    # Without cells nothing is trained, and shapes alone are checked.
    source = None if other is None else source_of(spec, other, train=bool(todo))

    def initial(key: jax.Array) -> Params:
        return models.initialize(model, key, input_shape, source)

    try:
        shapes = jax.eval_shape(lambda: initial(jax.random.key(0)))
    except ValueError as error:
        raise SpecError(f"model.name is {spec.model.name!r}: {error}") from error
    check_sizes(shapes, input_shape, max((cell["n"] for cell in todo), default=1))
    coupled = models.has_statistics(shapes)
    apply_fn = models.BatchApply(model) if coupled else model.apply
    loss_fn = classification_loss(apply_fn)
    plain = model.without_norm().apply if hasattr(model, "without_norm") else None
    prunable = _prunable_of(spec, shapes)
    chain = _chain_of(model)
    net = Network(apply_fn, loss_fn, input_shape, initial, plain, chain, prunable)
    if coupled:
        _check_coupled(spec, shapes)
    made = _pruners(spec, todo, net)
    moving = [pruner for pruner in made.values() if isinstance(pruner, MaskUpdate)]
    trained, shrink = training_of(
        spec,
        model,
        input_shape,
        budget,
        moving[0] if moving else None,
        has_statistics=coupled,
    )
    return Setup(
        spec=spec,
        todo=todo,
        engine=engine,
        failures=Failures(),
        pool=pool,
        card=card,
        inputs=None if pool is None else jnp.asarray(pool.x),
        input_shape=input_shape,
        classes=classes,
        model=model,
        shapes=shapes,
        prunable=prunable,
        total=masks.prunable_size(shapes, prunable),
        training=trained,
        shrink=shrink,
        pruners=made,
        inverted={name: _inverted(pruner) for name, pruner in made.items()},
        sees={cell["pruner"]: cell["sees"] for cell in todo},
        init_sees="nothing" if other is None else seen_of(spec, pool, other),
        # Padding would be in the statistics of a batch.
        padded=frozenset(
            x.name for x in cards_of(spec).values() if x.padded and not coupled
        ),
        gradients=_gradients(spec),
        layers=dict(
            zip(
                prunable_paths(shapes, prunable),
                [leaf.size for leaf in prunable_leaves(shapes, prunable)],
                strict=True,
            )
        ),
        # Small functions are jitted whole: op by op, each op would compile alone.
        init=jax.jit(initial),
        make=make and jax.jit(make, static_argnames="n"),
        redraw=jax.jit(functools.partial(data.redraw, classes=classes)),
        logits=jax.jit(
            lambda params, x: training.logits_in_chunks(
                model.apply, params, x, EVALUATED_AT_ONCE
            )
        ),
    )


def is_through(setup: Setup, cell: Cell) -> bool:
    """Returns whether a cell needs the dense training of its draw."""
    pruner = setup.pruners.get(cell["pruner"])
    return cell["pruner"] == DENSE or isinstance(pruner, Trajectory)


def is_moving(setup: Setup, cell: Cell) -> bool:
    """Returns whether the mask of a cell moves during its training."""
    return isinstance(setup.pruners.get(cell["pruner"]), MaskUpdate)


def score_of(setup: Setup, cell: Cell) -> ScoreFn | None:
    """Returns the score that a cell's mask is made by, where it is made by one."""
    score_fn: ScoreFn | None = getattr(setup.pruner(cell), "score_fn", None)
    return score_fn


def _pruners(spec: Spec, todo: list[Cell], net: Network) -> dict[str, Any]:
    """The pruners of the cells, built with their settings, by name."""
    cards = cards_of(spec)
    asked = {
        pruning.name: (cards[entry], pruning.settings)
        for entry, pruning in prunings_of(spec).items()
    }
    found: dict[str, Any] = {}
    for cell in todo:
        name = cell["pruner"]
        if name != DENSE and name not in found:
            if name not in asked:
                raise SpecError(f"grid.pruner has no {name!r}, and a cell asks for it")
            card, settings = asked[name]
            try:
                found[name] = card.build(net, **settings)
            except (ValueError, CardError) as error:
                raise SpecError(f"pruners.{name}.{error}") from error
            except Exception as error:  # a user's card may raise anything
                what = f"{type(error).__name__}: {error}"
                raise SpecError(f"pruners.{name}: build raises {what}") from error
        if cell["ablation"] == "invert" and not hasattr(found[name], "score_fn"):
            raise SpecError(
                f"grid.ablation is 'invert', and pruner {name!r} has no score to invert"
            )
        if cell["select"] not in ("", "global") and not _selects(found[name]):
            raise SpecError(
                f"grid.select is {cell['select']!r}, and pruner {name!r} selects by "
                "itself, expected 'global'"
            )
    return found


def _check_coupled(spec: Spec, shapes: Params) -> None:
    """Raises for a pruner that takes examples one by one, where a norm couples them."""
    for card in cards_of(spec).values():
        if card.per_example:
            raise SpecError(
                f"pruners.{card.name} takes examples one by one, and the layer "
                f"{models.layer_of(shapes)} of {spec.model.name!r} normalizes by the "
                "statistics of a batch, expected a network without batch normalization"
            )


def _prunable_of(spec: Spec, shapes: Params) -> Any:
    """Which parameters may be pruned, as the card of the network says."""
    rule = models.card(spec.model.name).prunable
    try:
        return resolve_prunable(rule and rule(shapes), shapes)
    except ValueError as error:
        raise SpecError(f"model.name is {spec.model.name!r}: {error}") from error


def _chain_of(model: Any) -> tuple[str, ...] | None:
    """The paths of a network's kernels in order; None: its layers form no chain."""
    if not hasattr(model, "layers"):
        return None
    return tuple(f"{path}/kernel" for path in models.layer_chain(model))


def _gradients(spec: Spec) -> dict[str, int | None]:
    """The gradient evaluations of a mask of each pruner of the grid, by name."""
    cards, asked = cards_of(spec), prunings_of(spec)
    return {
        pruning.name: cards[entry].cost(pruning.settings)
        for entry, pruning in asked.items()
    }


def _selects(pruner: Any) -> bool:
    """Whether it leaves the selection to others."""
    return isinstance(pruner, ByScore | Trajectory) and pruner.select is None


def _inverted(pruner: Any) -> Any:
    """The pruner with its score inverted; what has no score is as it was."""
    if isinstance(pruner, ByScore | Trajectory):
        return dataclasses.replace(pruner, score_fn=invert(pruner.score_fn))
    return pruner


def _shape_of(
    spec: Spec, pool: data.Dataset | None, card: data.Synthetic | None
) -> tuple[tuple[int, ...], int]:
    """One example's shape, and the number of classes."""
    if pool is not None:
        return tuple(pool.x.shape[1:]), pool.classes
    assert card is not None  # the set is one or the other
    return card.shape(**spec.data.settings)


def _load(spec: Spec) -> data.Dataset:
    """The image set."""
    return data.load(
        spec.data.name, directory=spec.data.dir, download=spec.data.download
    )


def _check_n(spec: Spec, pool: data.Dataset, todo: list[Cell]) -> None:
    """Raises unless the set has the points that the cells ask for."""
    size = len(pool.y)
    for n in sorted({cell["n"] for cell in todo}):
        if n > size:
            raise SpecError(
                f"grid.n holds {n}, expected at most {size}, the training points of "
                f"{spec.data.name}" + " that are left" * (source_name(spec) == HALF)
            )
