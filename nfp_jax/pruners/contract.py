"""What every pruner is: its card, and the three contracts for when its mask comes.

A mask comes *before* training from a ``MaskFn``, most often made of a score by
``rounds.by_score``; *through* training from a ``Trajectory``, cut from weights that
were trained; or it moves *during* training by a ``MaskUpdate``. A ``Pruner`` is the
card that says which, what the pruner is called and what it sees.
"""

import dataclasses
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from nfp_jax.cards import settings_of
from nfp_jax.masks import Mask, Params, Prunable, Scores, apply_mask
from nfp_jax.types import ApplyFn, Batch, LossFn

# What a pruner may see of the data before its mask is found.
SEES = ("nothing", "inputs", "labels", "training")
WHEN = ("before", "through", "during")
InitFn = Callable[[jax.Array], Params]


class ScoreFn(Protocol):
    """What every score is: parameters in, a pytree of the same shape out.

    The higher is kept. ``mask`` is what earlier rounds left: the score is that of the
    masked network. A ``ScoreFn`` is pure, for any params pytree of any framework, and
    goes through ``jit``, ``vmap`` and ``grad``.
    """

    def __call__(
        self,
        params: Params,
        batch: Batch = None,
        key: jax.Array | None = None,
        *,
        mask: Mask = None,
        prunable: Prunable = None,
    ) -> Scores:
        """Returns scores like ``params``; the higher is kept."""
        ...


class Polynomial(NamedTuple):
    """A score before its absolute value, as a polynomial in the labels' probabilities.

    Decoders read masks by it (``decoding.additive``); they test what it says.

    Attributes:
      fn: ``fn(params, (x, q), key, mask, prunable)``, like ``params``, with ``q [n,
        classes]`` in place of labels.
      degree: 1: a mean over examples of what is linear in each one's q. 2: as GraSP's.
      absolute: whether the score is ``|fn|``, and not ``fn``.
    """

    fn: Callable[[Params, Batch, jax.Array | None, Mask, Prunable], Scores]
    degree: int
    absolute: bool


@dataclasses.dataclass(frozen=True)
class Score:
    """A score, and what ``prune`` must know of it.

    Attributes:
      fn: ``fn(params, batch, key, mask, prunable) -> scores``.
      needs_x64: whether it computes in float64, so that the outermost ``jit`` must be
        called in JAX's 64-bit mode.
      one_shot_warning: what to warn of where it is used in one round.
      polynomial: what it is in the labels, where that is known.
      loss_fn: the loss that it is of, by which a batch is checked; ``None``: not known.
    """

    fn: Callable[[Params, Batch, jax.Array | None, Mask, Prunable], Scores]
    needs_x64: bool = False
    one_shot_warning: str = ""
    polynomial: Polynomial | None = None
    loss_fn: LossFn | None = None

    def __call__(
        self,
        params: Params,
        batch: Batch = None,
        key: jax.Array | None = None,
        *,
        mask: Mask = None,
        prunable: Prunable = None,
    ) -> Scores:
        """Returns scores like ``params``, as every ``ScoreFn``."""
        return self.fn(params, batch, key, mask, prunable)


def warn_of_one_shot(score_fn: ScoreFn, rounds: int) -> None:
    """Warns where a score is used in one round that says not to; of a caller's call."""
    if rounds == 1 and isinstance(score_fn, Score) and score_fn.one_shot_warning:
        warnings.warn(score_fn.one_shot_warning, stacklevel=3)


def invert(score_fn: ScoreFn) -> ScoreFn:
    """Returns the score in reversed order, ``-score``: keeps what would be removed.

    Right for signed scores (GraSP) and for zeros, where a reciprocal is not.

    >>> from nfp_jax.pruners.magnitude import magnitude
    >>> invert(magnitude())(jnp.array([[-2.0, 0.0]])).tolist()
    [[-2.0, -0.0]]

    Reference: Frankle et al. 2021, https://arxiv.org/abs/2009.08576, section 5.
    """

    def inverted(
        params: Params,
        batch: Batch,
        key: jax.Array | None,
        mask: Mask,
        prunable: Prunable,
    ) -> Scores:
        scores = score_fn(params, batch, key, mask=mask, prunable=prunable)
        return jax.tree.map(jnp.negative, scores)

    if isinstance(score_fn, Score):  # with what is declared of it
        return dataclasses.replace(score_fn, fn=inverted, polynomial=None)
    return Score(inverted)


def mask_params(params: Params, mask: Mask) -> Params:
    """Returns the weights of the masked network; ``None``: nothing is removed."""
    return params if mask is None else apply_mask(params, mask)


class MaskFn(Protocol):
    """A mask before training: of initial weights, and of what of the data it sees."""

    def __call__(
        self,
        params: Params,
        batch: Batch = None,
        key: jax.Array | None = None,
        *,
        keep: Any,
        prunable: Prunable = None,
        mask: Mask = None,
    ) -> Mask:
        """Returns a mask within ``mask`` that keeps ``keep`` of the prunable weights.

        ``keep`` is an integer, which may be traced.
        """
        ...


class Round(NamedTuple):
    """One training of a trajectory: what is cut from its weights.

    ``cuts`` maps a sparsity asked for to the number of weights that it keeps, or to
    those of the layers, ``[layers]``, where the trajectory selects by quota; ``keep``
    is what the next round trains, ``None`` after the last.
    """

    cuts: dict[float, Any]
    keep: int | None


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """Masks through training: cut from trained weights, in one round or several.

    Attributes:
      plan: ``plan(total, sparsities) -> rounds``, of ``total`` prunable weights.
      score_fn: the score of trained weights by which they are cut.
      select: its own selection, a ``SelectFn``; ``None``: whoever trains chooses.
    """

    plan: Callable[[int, Iterable[float]], list[Round]]
    score_fn: ScoreFn
    select: Callable[..., Mask] | None = None


@dataclasses.dataclass(frozen=True)
class MaskUpdate:
    """A mask that moves during training: a hook at the end of each epoch.

    Attributes:
      start: the mask that training begins with.
      init: ``init(params, mask, key) -> state``, any pytree of arrays.
      update: ``update(state, params, mask, gradient_fn, epoch) -> (state, mask)`` with
        ``gradient_fn(params) -> gradient``, of the mean loss over the epoch's first
        batch, over all weights. It must keep the number of weights, and all of what may
        not be pruned, which ``Network.prunable`` says. Weights that it
        brings back start at 0, with the optimizer's moments at 0.
    """

    start: MaskFn
    init: Callable[[Params, Mask, jax.Array], Any]
    update: Callable[..., tuple[Any, Mask]]


class Network(NamedTuple):
    """What a pruner may be built from.

    Attributes:
      apply_fn: ``apply_fn(params, x) -> logits``. With batch normalization those of a
        whole batch, by its statistics; a single example is refused.
      loss_fn: ``loss_fn(params, (x, y))``, the mean loss that it is trained on.
      input_shape: one example's shape, without the batch.
      init_fn: ``init_fn(key) -> params``, fresh weights.
      plain_fn: ``apply_fn`` of the same parameters without normalization, for pruners
        that go by the flow through the network; ``None``: it has no normalization.
      layers: the paths of its kernels from input to output, where each layer feeds the
        next alone; ``None``: they form no such chain.
      prunable: which leaves may be pruned, for pruners that are not told later, as a
        ``MaskUpdate``; ``None``: ``prunable_kernels(params)``.
    """

    apply_fn: ApplyFn
    loss_fn: LossFn
    input_shape: tuple[int, ...]
    init_fn: InitFn
    plain_fn: ApplyFn | None = None
    layers: tuple[str, ...] | None = None
    prunable: Prunable = None


@dataclasses.dataclass(frozen=True)
class Pruner:
    """The card of a pruner.

    Its name, settings and version are in every row, so that one that has changed is
    never given rows of before.

    Attributes:
      name: what configurations and rows call it.
      label: what figures and claims call it.
      sees: what it sees of the data: ``"nothing"``, ``"inputs"``, ``"labels"``, or
        ``"training"``, which is all of it and longer.
      build: ``build(net, *, …)`` with a ``Network`` and its settings, keyword-only and
        with defaults. It returns a ``MaskFn``, a ``Trajectory`` or a ``MaskUpdate``.
      when: which of these: ``"before"``, ``"through"`` or ``"during"`` training.
      version: to be changed whenever its masks change. A user's file also counts by
        its content.
      padded: whether it may be given a batch that is padded, ``losses.Counted``, so
        that sets of many sizes share a program. Its score must then hand the batch to
        ``losses.mean_loss``, as SNIP's does.
      per_example: whether it takes examples one by one, or needs outputs that depend on
        their own input alone. Networks with batch normalization are refused to it.
      gradients: ``gradients(**settings)``, how many gradient evaluations a mask costs
        with these settings, beside trainings on the way. One is a forward and a
        backward pass over the batch that is scored on, or over one of the batches that
        scores are trained on; a Hessian-vector product counts as two. ``None``: the
        card does not say.

    Raises:
      ValueError: an unknown ``sees`` or ``when``, a setting without a default, or
        ``gradients`` that does not take the settings.

    >>> from nfp_jax.pruners.magnitude_init import CARD
    >>> CARD.label, CARD.sees
    ('magnitude at init', 'nothing')
    """

    name: str
    label: str
    sees: str
    build: Callable[..., Any]
    when: str = "before"
    version: str = "1"
    padded: bool = False
    per_example: bool = False
    gradients: Callable[..., int] | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("sees", self.sees, SEES),
            ("when", self.when, WHEN),
        ):
            if value not in known:
                listed = ", ".join(map(repr, known))
                raise ValueError(
                    f"{name} of pruner {self.name!r} is {value!r}, expected {listed}"
                )
        taken = settings_of(self.build)  # refuses one without a default
        if self.gradients is not None:
            try:
                inspect.signature(self.gradients).bind(**taken)
            except TypeError as error:
                raise ValueError(
                    f"gradients of pruner {self.name!r} must take the settings of its "
                    f"build, {sorted(taken)}: {error}"
                ) from error

    def cost(self, settings: Mapping[str, Any]) -> int | None:
        """Returns the gradient evaluations of a mask; ``None``: the card does not say.

        >>> from nfp_jax.pruners.synflow import CARD
        >>> CARD.cost({"rounds": 100, "schedule": "exponential"})
        100
        """
        return None if self.gradients is None else self.gradients(**settings)
