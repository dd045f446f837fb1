"""Pruning: from a score to a mask, before training or through it.

``prune`` scores and selects, in one round or many, inside one ``jit``. ``imp`` and
``magnitude_after_training`` prune trained weights; they are given the function that
trains, so nothing here knows how. ``freeze_pruned`` keeps pruned weights at zero in any
optax chain.
Depends on masks, scores, jax and optax.
"""

import functools
import operator
import warnings
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nfp_jax.masks import (
    Mask,
    Params,
    Prunable,
    Schedule,
    Scores,
    apply_mask,
    check_like,
    check_mask,
    dense_mask,
    has_x64,
    is_concrete,
    keep_count,
    keep_counts,
    named_leaves,
    prunable_kernels,
    prunable_size,
    ravel_mask,
    refuse_nan,
    top_k,
)
from nfp_jax.scores import Batch, ScoreFn, magnitude


class SelectFn(Protocol):
    """What every selection is: scores and a number to keep in, a mask out."""

    def __call__(
        self, scores: Scores, keep: Any, *, prunable: Prunable = None, mask: Mask = None
    ) -> Mask:
        """Returns the mask of the weights kept; within ``mask`` if it is given."""
        ...


class TrainFn(Protocol):
    """What pruning through training is given: masked weights in, trained ones out."""

    def __call__(
        self,
        params: Params,
        mask: Mask,
        data: Any,
        key: jax.Array,
        *,
        steps: int | None = None,
    ) -> Params:
        """Returns the trained weights, after ``steps`` steps or at convergence."""
        ...


def exponential(density: float, fraction: float) -> float:
    """Returns the density after a fraction of the rounds: ``density ** fraction``.

    >>> exponential(0.01, 0.5)
    0.1

    Reference: Tanaka et al. 2020, https://arxiv.org/abs/2006.05467, algorithm 1.
    """
    return density**fraction


def linear(density: float, fraction: float) -> float:
    """Returns the density after a fraction of the rounds: ``1 - (1-density)·fraction``.

    >>> linear(0.5, 0.5)
    0.75
    """
    return 1.0 - (1.0 - density) * fraction


def prune(
    score_fn: ScoreFn,
    params: Params,
    batch: Batch = None,
    key: jax.Array | None = None,
    *,
    sparsity: float | Fraction | None = None,
    keep: Any = None,
    rounds: int = 1,
    select: SelectFn = top_k,
    schedule: Schedule = exponential,
    prunable: Prunable = None,
    mask: Mask = None,
) -> Mask:
    """Returns the mask of a pruner, found in one round or many.

    Every round scores the masked network, with the same batch and key, and selects
    within the mask of the round before: masks are nested, the last one keeps exactly
    ``keep_count(P, sparsity)``. All rounds run in one ``jit``, compiled anew for
    another ``score_fn``, ``select``, shape or number of rounds, not for another
    sparsity, batch or key. Call it under ``vmap`` to prune many networks.

    Args:
      score_fn: from ``nfp_jax.scores``, or your own. Keep it and call ``prune`` again
        with it: a new closure compiles again.
      params: pytree of arrays.
      batch: what the score takes as data, often ``(x, y)``.
      key: what the score takes as its randomness.
      sparsity: share of prunable weights removed, a Python number in [0, 1).
      keep: instead of ``sparsity`` and ``schedule``: an integer array ``[rounds]`` (for
        ``top_k_by_quota`` a pytree of them), which may be traced, so that one program
        serves many sparsities.
      rounds: number of rounds; taken from ``keep`` where that is given.
      select: ``top_k`` (global), ``top_k_per_layer``, ``top_k_erk`` or
        ``top_k_by_quota``.
      schedule: ``exponential`` or ``linear``: ``(density, fraction) -> density``.
      prunable: static pytree of bools; ``None``: ``prunable_kernels(params)``.
      mask: an earlier mask to start from; ``None``: the dense one. Sparsity still
        counts all prunable weights.

    Returns:
      A bool pytree like ``params``; ``True`` on leaves that may not be pruned.

    Raises:
      ValueError: a NaN score (names the layer; under a transform NaN ranks lowest), a
        sparsity out of range, both or neither of ``sparsity`` and ``keep``, an earlier
        mask that does not fit (names the path) or has fewer weights left than are
        to be kept.

    >>> params = {"w": jnp.array([[1.0, -3.0, 2.0, 0.5]])}
    >>> prune(magnitude(), params, sparsity=0.5)["w"].tolist()
    [[False, True, True, False]]

    Reference: Tanaka et al. 2020, https://arxiv.org/abs/2006.05467, algorithm 1.
    """
    prunable = prunable_kernels(params) if prunable is None else prunable
    total = prunable_size(params, prunable)
    keep = _counts(total, sparsity, keep, rounds, schedule)
    if is_concrete(keep):
        _check_keep(keep, total)
    _warn_of_one_shot(score_fn, jax.tree.leaves(keep)[0].shape[0])
    if mask is None:
        mask = dense_mask(params)
    else:
        check_mask(params, mask)
        _check_left(mask, keep, prunable)
    leaves = tuple(jax.tree.leaves(prunable))
    inputs = (params, batch, key, keep, mask)
    turn_on = getattr(score_fn, "needs_x64", False) and is_concrete(inputs)
    with jax.enable_x64(turn_on or has_x64()):
        mask, nans = _rounds(score_fn, select, leaves, params, batch, key, keep, mask)
    if is_concrete(nans):
        for (path, leaf), count in zip(named_leaves(params), nans, strict=True):
            refuse_nan(path, int(count), jnp.size(leaf))
    return mask


def prune_many(
    score_fn: ScoreFn,
    params: Params,
    batch: Batch = None,
    key: jax.Array | None = None,
    *,
    in_axes: tuple[Any, Any, Any] = (0, 0, 0),
    sparsity: float | Fraction | None = None,
    keep: Any = None,
    rounds: int = 1,
    select: SelectFn = top_k,
    schedule: Schedule = exponential,
    prunable: Prunable = None,
    at_once: int | None = None,
) -> Mask:
    """Returns the masks of many networks or data sets, ``prune`` under ``vmap``.

    Networks are taken ``at_once`` in one call of one program, the last of them filled
    up, so that a mask does not depend on how many others are made; it is that of
    ``prune`` up to the order of sums.

    Args:
      score_fn: as in ``prune``.
      params: as in ``prune``, along a leading axis where ``in_axes`` says 0.
      batch: likewise.
      key: likewise.
      in_axes: of ``params``, ``batch`` and ``key``, as in ``jax.vmap``: 0 or ``None``,
        or for ``batch`` a tuple of them. ``(None, 0, None)``: many data sets at one
        initialization.
      sparsity: share of prunable weights removed.
      keep: instead of ``sparsity``: integers ``[rounds]``, or ``[networks, rounds]``
        for a count of each network's own.
      rounds: number of rounds.
      select: the selection.
      schedule: the densities after each round.
      prunable: static pytree of bools, of the parameters of one network.
      at_once: networks in one call, which bounds the memory; ``None``: all.

    Returns:
      A bool pytree like the parameters of one network, each leaf ``[networks, ...]``.

    Raises:
      NanScores: a NaN score (names networks and layer).
      ValueError: as ``prune``; leading axes that differ, or none; ``at_once`` below 1.

    >>> params = {"w": jnp.array([[[1.0, -3.0]], [[2.0, 0.5]]])}
    >>> prune_many(magnitude(), params, sparsity=0.5)["w"].tolist()
    [[[False, True]], [[True, False]]]

    Reference: as ``prune``.
    """
    if at_once is not None and at_once < 1:
        raise ValueError(f"at_once is {at_once}, expected at least 1 or None")
    absent = [arg is None for arg in (params, batch, key)]
    axes: Any = tuple(
        None if no else axis for no, axis in zip(absent, in_axes, strict=True)
    )
    one = params if axes[0] is None else jax.tree.map(lambda leaf: leaf[0], params)
    prunable = prunable_kernels(one) if prunable is None else prunable
    total = prunable_size(one, prunable)
    keep = _counts(total, sparsity, keep, rounds, schedule)
    each = jax.tree.leaves(keep)[0].ndim == 2
    _check_keep(jax.tree.map(jnp.ravel, keep) if each else keep, total)
    args = (params, batch, key, keep)
    axes = (*axes, 0 if each else None)
    count = _networks(args, axes)
    _warn_of_one_shot(score_fn, jax.tree.leaves(keep)[0].shape[-1])
    leaves = tuple(jax.tree.leaves(prunable))
    size = at_once or count
    masks, nans = [], []
    with jax.enable_x64(getattr(score_fn, "needs_x64", False) or has_x64()):
        for start in range(0, count, size):
            index = np.minimum(np.arange(start, start + size), count - 1)
            part = _along(axes, args, operator.itemgetter(index))
            found = _many_rounds(score_fn, select, leaves, axes, *part)
            own = operator.itemgetter(slice(count - start))
            mask, nan = jax.tree.map(own, found)
            masks.append(mask)
            nans.append(nan)
    _refuse_nans(one, np.concatenate(jax.device_get(nans), axis=1))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *masks)


class NanScores(ValueError):
    """Scores that are NaN; ``networks`` has the places of the networks."""

    def __init__(self, message: str, networks: list[int]) -> None:
        super().__init__(message)
        self.networks = networks


def _refuse_nans(params: Params, nans: np.ndarray) -> None:
    """Raises for networks with NaN scores: their number ``[leaves, networks]``."""
    networks = np.flatnonzero(nans.any(axis=0)).tolist()
    if networks:
        for (path, leaf), count in zip(named_leaves(params), nans, strict=True):
            try:
                refuse_nan(path, int(count[networks[0]]), jnp.size(leaf))
            except ValueError as error:
                raise NanScores(f"networks {networks}: {error}", networks) from None


def _along(axes: Any, args: Any, fn: Callable[[Any], Any]) -> Any:
    """The arguments, with ``fn`` of every leaf that has an axis of networks."""

    def at(axis: Any, arg: Any) -> Any:
        return arg if axis is None else jax.tree.map(fn, arg)

    return jax.tree.map(at, axes, args, is_leaf=lambda axis: axis is None)


def _networks(args: Any, axes: Any) -> int:
    """The number of networks, the common leading size of what has their axis."""
    sizes: set[int] = set()

    def see(leaf: Any) -> None:
        sizes.add((*jnp.shape(leaf), 0)[0])

    _along(axes, args, see)
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            f"params, batch, key and keep have leading sizes {sorted(sizes)} where "
            "in_axes is 0, expected one common size of at least 1"
        )
    return sizes.pop()


def _counts(
    total: int, sparsity: Any, keep: Any, rounds: int, schedule: Schedule
) -> Any:
    """The counts to keep, integers ``[..., rounds]``."""
    if (sparsity is None) == (keep is None):
        raise ValueError(
            f"sparsity is {sparsity} and keep is {keep}, expected exactly one of them"
        )
    if sparsity is not None:
        keep = keep_counts(total, sparsity, rounds=rounds, schedule=schedule)
    return jax.tree.map(jnp.atleast_1d, keep)


def _warn_of_one_shot(score_fn: ScoreFn, rounds: int) -> None:
    if rounds == 1 and (warning := getattr(score_fn, "one_shot_warning", None)):
        warnings.warn(warning, stacklevel=3)


def _check_keep(keep: Any, total: int) -> None:
    """Raises unless every leaf holds integers in [0, total], one a round."""
    for path, leaf in named_leaves(keep):
        name = f"keep at {path!r}" if path else "keep"
        if leaf.ndim != 1 or not jnp.issubdtype(leaf.dtype, jnp.integer):
            raise ValueError(
                f"{name} is {leaf.dtype}{list(leaf.shape)}, expected integers [rounds]"
            )
        if leaf.min() < 0 or leaf.max() > total:
            raise ValueError(
                f"{name} is {leaf.tolist()}, expected 0 <= keep <= {total}"
            )


def _check_left(mask: Mask, keep: Any, prunable: Prunable) -> None:
    """Raises where an earlier mask has fewer weights left than are to be kept."""
    if isinstance(keep, jax.Array) and is_concrete((mask, keep)):
        left = int(jnp.sum(ravel_mask(mask, prunable=prunable)))
        if keep[-1] > left:
            raise ValueError(
                f"keep is {int(keep[-1])}, expected at most {left}, the weights that "
                "mask has left"
            )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _rounds(
    score_fn: ScoreFn,
    select: SelectFn,
    prunable_leaves: tuple[bool, ...],
    params: Params,
    batch: Batch,
    key: jax.Array | None,
    keep: Any,
    mask: Mask,
) -> tuple[Mask, list[jax.Array]]:
    """The mask after every round, and how many NaN each leaf's scores had."""
    prunable = jax.tree.unflatten(jax.tree.structure(params), prunable_leaves)

    def one_round(mask: Mask, keep: Any) -> tuple[Mask, list[jax.Array]]:
        weights = apply_mask(params, mask)
        scores = score_fn(weights, batch, key, mask=mask, prunable=prunable)
        nans = [
            jnp.sum(jnp.isnan(score) & kept) if flag else jnp.zeros((), int)
            for score, kept, flag in zip(
                jax.tree.leaves(scores),
                jax.tree.leaves(mask),
                prunable_leaves,
                strict=True,
            )
        ]
        return select(scores, keep, prunable=prunable, mask=mask), nans

    mask, nans = jax.lax.scan(one_round, mask, keep)
    return mask, [jnp.max(count) for count in nans]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _many_rounds(
    score_fn: ScoreFn,
    select: SelectFn,
    prunable_leaves: tuple[bool, ...],
    in_axes: Any,
    params: Params,
    batch: Batch,
    key: jax.Array | None,
    keep: Any,
) -> tuple[Mask, list[jax.Array]]:
    """``_rounds`` of many networks, from dense masks."""

    def rounds(params: Params, batch: Batch, key: Any, keep: Any) -> Any:
        mask = dense_mask(params)
        return _rounds(
            score_fn, select, prunable_leaves, params, batch, key, keep, mask
        )

    return jax.vmap(rounds, in_axes=in_axes)(params, batch, key, keep)


# Pruning through training


class Ticket(NamedTuple):
    """A mask found through training, and the weights to go on from.

    ``apply_mask(ticket.rewound, ticket.mask)`` rewinds, ``apply_mask(ticket.trained,
    ticket.mask)`` fine-tunes.
    """

    mask: Mask
    rewound: Params
    trained: Params


class ImpRound(NamedTuple):
    """One training of IMP's trajectory: what is cut from its weights.

    ``cuts`` maps a sparsity asked for to the number of weights that it keeps;
    ``keep`` is what the next round trains, ``None`` after the last.
    """

    cuts: dict[float, int]
    keep: int | None


def imp_rounds(
    total: int, sparsities: Iterable[float], *, keep_per_round: float = 0.8
) -> list[ImpRound]:
    """Returns the trainings of iterative magnitude pruning and what each one yields.

    Round ``t`` trains ``keep_count(P, 1 - keep_per_round^t)`` weights. The mask of a
    sparsity is cut, with its exact count, from the weights of the last round that is
    not yet sparser, so more sparsities never change the trajectory.

    Args:
      total: number of prunable weights ``P``.
      sparsities: those asked for, each in [0, 1).
      keep_per_round: share kept from one round to the next, in (0, 1).

    Raises:
      ValueError: no sparsity, one out of range, or ``keep_per_round`` outside (0, 1).

    >>> imp_rounds(100, [0.1, 0.3])
    [ImpRound(cuts={0.1: 90}, keep=80), ImpRound(cuts={0.3: 70}, keep=None)]

    Reference: Frankle and Carbin 2019, https://arxiv.org/abs/1803.03635, section 2.
    """
    if not 0 < keep_per_round < 1:
        raise ValueError(
            f"keep_per_round is {keep_per_round}, expected 0 < keep_per_round < 1"
        )
    left = {sparsity: keep_count(total, sparsity) for sparsity in sparsities}
    if not left:
        raise ValueError("sparsities is empty, expected at least one")
    density, rounds = Fraction(1), []
    while left:
        density *= Fraction(str(keep_per_round))
        keep = keep_count(total, 1 - density)
        cuts = {sparsity: count for sparsity, count in left.items() if count >= keep}
        left = {sparsity: count for sparsity, count in left.items() if count < keep}
        rounds.append(ImpRound(cuts, keep if left else None))
    return rounds


def one_shot_round(total: int, sparsities: Iterable[float]) -> list[ImpRound]:
    """Returns the one training of magnitude pruning after training, and what it yields.

    >>> one_shot_round(100, [0.1, 0.9])
    [ImpRound(cuts={0.1: 90, 0.9: 10}, keep=None)]
    """
    cuts = {sparsity: keep_count(total, sparsity) for sparsity in sparsities}
    if not cuts:
        raise ValueError("sparsities is empty, expected at least one")
    return [ImpRound(cuts, None)]


def imp(
    train_fn: TrainFn,
    params: Params,
    data: Any,
    key: jax.Array,
    *,
    sparsities: Iterable[float],
    keep_per_round: float = 0.8,
    rewind_step: int = 0,
    score_fn: ScoreFn | None = None,
    select: SelectFn = top_k,
    prunable: Prunable = None,
) -> dict[float, Mask]:
    """Returns the masks of iterative magnitude pruning with rewinding, by sparsity.

    Train, remove the smallest weights left, rewind the others to their values at
    ``rewind_step``, and again: one trajectory that passes every sparsity on its way.

    Args:
      train_fn: ``train_fn(params, mask, data, key)`` returns trained weights;
        ``train_fn(..., steps=k)``, asked for only where ``rewind_step`` is not 0,
        those after ``k`` steps.
      params: the initial weights.
      data: handed to ``train_fn``.
      key: handed to ``train_fn``, the same in every round: the order of batches stays.
      sparsities: shares removed, each in [0, 1).
      keep_per_round: share kept from one round to the next.
      rewind_step: optimizer steps of the dense training after which the weights that
        are rewound to are taken; 0: the initial ones.
      score_fn: score of the trained weights; ``None``: ``magnitude()``.
      select: ``top_k`` (global), ``top_k_per_layer``, ``top_k_erk``.
      prunable: static pytree of bools; ``None``: ``prunable_kernels(params)``.

    Returns:
      ``{sparsity: mask}`` in the order asked for. ``imp_tickets`` also returns the
      weights, for fine-tuning and late rewinding.

    Raises:
      ValueError: a sparsity out of range, a negative ``rewind_step``, or trained
        weights of another structure than ``params`` (names the path).

    >>> train_fn = lambda params, mask, data, key: params * data    # learns nothing
    >>> masks = imp(train_fn, jnp.array([[1.0, 3.0, 2.0, 4.0]]), 2.0,
    ...             jax.random.key(0), sparsities=[0.5, 0.75])
    >>> {sparsity: mask.tolist() for sparsity, mask in masks.items()}
    {0.5: [[False, True, False, True]], 0.75: [[False, False, False, True]]}

    Reference: Frankle and Carbin 2019, https://arxiv.org/abs/1803.03635; rewinding to
    a step: Frankle et al. 2020, https://arxiv.org/abs/1912.05671.
    """
    tickets = imp_tickets(
        train_fn,
        params,
        data,
        key,
        sparsities=sparsities,
        keep_per_round=keep_per_round,
        rewind_step=rewind_step,
        score_fn=score_fn,
        select=select,
        prunable=prunable,
    )
    return {sparsity: ticket.mask for sparsity, ticket in tickets.items()}


def imp_tickets(
    train_fn: TrainFn,
    params: Params,
    data: Any,
    key: jax.Array,
    *,
    sparsities: Iterable[float],
    keep_per_round: float = 0.8,
    rewind_step: int = 0,
    score_fn: ScoreFn | None = None,
    select: SelectFn = top_k,
    prunable: Prunable = None,
) -> dict[float, Ticket]:
    """Returns what ``imp`` finds, with the weights to rewind to or fine-tune from.

    Arguments and errors are those of ``imp``. The trained weights of a ticket are those
    its mask was cut from.

    >>> train_fn = lambda params, mask, data, key: params * data
    >>> tickets = imp_tickets(train_fn, jnp.array([[1.0, 3.0]]), 2.0,
    ...                       jax.random.key(0), sparsities=[0.5])
    >>> tickets[0.5].trained.tolist(), tickets[0.5].rewound.tolist()
    ([[2.0, 6.0]], [[1.0, 3.0]])
    """
    sparsities = list(sparsities)
    prunable = prunable_kernels(params) if prunable is None else prunable
    total = prunable_size(params, prunable)
    rounds = imp_rounds(total, sparsities, keep_per_round=keep_per_round)
    tickets = _tickets(
        rounds, train_fn, params, data, key, rewind_step, score_fn, select, prunable
    )
    return {sparsity: tickets[sparsity] for sparsity in sparsities}


def magnitude_after_training(
    train_fn: TrainFn,
    params: Params,
    data: Any,
    key: jax.Array,
    *,
    sparsities: Iterable[float],
    rewind_step: int = 0,
    score_fn: ScoreFn | None = None,
    select: SelectFn = top_k,
    prunable: Prunable = None,
) -> dict[float, Ticket]:
    """Returns the masks of one-shot magnitude pruning after one dense training.

    Arguments and errors are those of ``imp``; all sparsities are cut from the one
    training.

    Returns:
      ``{sparsity: ticket}``, with the mask and the weights to rewind to or fine-tune
      from.

    >>> train_fn = lambda params, mask, data, key: params * data
    >>> tickets = magnitude_after_training(train_fn, jnp.array([[1.0, 3.0]]), 2.0,
    ...                                    jax.random.key(0), sparsities=[0.5])
    >>> tickets[0.5].mask.tolist()
    [[False, True]]

    Reference: Han et al. 2015, https://arxiv.org/abs/1506.02626, section 3.
    """
    prunable = prunable_kernels(params) if prunable is None else prunable
    total = prunable_size(params, prunable)
    rounds = one_shot_round(total, sparsities)
    return _tickets(
        rounds, train_fn, params, data, key, rewind_step, score_fn, select, prunable
    )


def _tickets(
    rounds: list[ImpRound],
    train_fn: TrainFn,
    params: Params,
    data: Any,
    key: jax.Array,
    rewind_step: int,
    score_fn: ScoreFn | None,
    select: SelectFn,
    prunable: Prunable,
) -> dict[float, Ticket]:
    """Trains round after round and cuts the masks that each one yields."""
    if rewind_step < 0:
        raise ValueError(f"rewind_step is {rewind_step}, expected at least 0")
    score_fn = magnitude() if score_fn is None else score_fn
    mask, rewound = dense_mask(params), params
    if rewind_step:
        rewound = train_fn(params, mask, data, key, steps=rewind_step)
    tickets, start = {}, params
    for round_ in rounds:
        trained = train_fn(start, mask, data, key)
        check_like(params, trained, "what train_fn returned")
        cut = functools.partial(
            prune, score_fn, trained, select=select, prunable=prunable, mask=mask
        )
        for sparsity, keep in round_.cuts.items():
            tickets[sparsity] = Ticket(cut(keep=keep), rewound, trained)
        if round_.keep is not None:
            mask = cut(keep=round_.keep)
            start = apply_mask(rewound, mask)
    return tickets


def reinitialize(
    init_fn: Callable[[jax.Array], Params], mask: Mask, key: jax.Array
) -> Params:
    """Returns fresh initial weights under an old mask: ``init_fn(key)``, masked.

    The ablation that asks whether a mask needs the weights it was found on.

    Raises:
      ValueError: weights of another structure than the mask (names the path).

    >>> init_fn = lambda key: jnp.ones((1, 2))
    >>> mask = jnp.array([[True, False]])
    >>> reinitialize(init_fn, mask, jax.random.key(0)).tolist()
    [[1.0, 0.0]]

    Reference: Frankle et al. 2021, https://arxiv.org/abs/2009.08576, section 5.
    """
    return apply_mask(init_fn(key), mask)


# Pruned weights stay pruned


class FreezePrunedState(NamedTuple):
    """The mask that ``freeze_pruned`` holds weights to."""

    mask: Mask


def freeze_pruned(mask: Mask) -> optax.GradientTransformation:
    """Returns the optax transformation that keeps pruned weights at exactly 0.

    The update of a pruned weight is ``-w``, whatever the optimizer made of it. Last in
    the chain::

        optimizer = optax.chain(optax.adam(1e-3), nfp_jax.freeze_pruned(mask))
        params = nfp_jax.apply_mask(params, mask)

    The mask lives in the optimizer's state (so it goes through ``jit``, ``vmap`` and
    checkpoints); ``replace_mask`` changes it during training.

    Args:
      mask: bool pytree of the structure and shapes of the parameters.

    Returns:
      An ``optax.GradientTransformation`` whose ``update`` needs ``params``.

    Raises:
      ValueError: parameters that the mask does not fit (names the path), or an update
        without ``params``.

    >>> freeze = freeze_pruned({"w": jnp.array([True, False])})
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> updates, _ = freeze.update({"w": jnp.array([0.5, 0.5])}, freeze.init(params),
    ...                            params)
    >>> optax.apply_updates(params, updates)["w"].tolist()
    [1.5, 0.0]
    """

    def init(params: Params) -> FreezePrunedState:
        check_mask(params, mask)
        return FreezePrunedState(mask)

    def update(
        updates: Params, state: Any, params: Params | None = None
    ) -> tuple[Params, Any]:
        if params is None:
            raise ValueError(
                "freeze_pruned needs params: update(updates, state, params)"
            )
        frozen = jax.tree.map(
            lambda keep, u, p: jnp.where(keep, u, -p), state.mask, updates, params
        )
        return frozen, state

    return optax.GradientTransformation(init, update)


def replace_mask(state: Any, mask: Mask) -> Any:
    """Returns an optimizer state with another mask in its ``freeze_pruned``.

    Weights that the new mask removes become 0 at the next update; those it brings back
    start from 0.

    Args:
      state: the state of ``freeze_pruned`` or of any chain around it.
      mask: bool pytree like the mask it replaces.

    Raises:
      ValueError: no ``freeze_pruned`` in the state, or a mask that does not fit (names
        the path).

    >>> state = freeze_pruned(jnp.array([True, False])).init(jnp.ones(2))
    >>> replace_mask(state, jnp.array([False, True])).mask.tolist()
    [False, True]
    """

    def is_frozen(node: Any) -> bool:
        return isinstance(node, FreezePrunedState)

    if not any(is_frozen(node) for node in jax.tree.leaves(state, is_leaf=is_frozen)):
        raise ValueError("state has no freeze_pruned in it, expected one to replace")

    def replace(node: Any) -> Any:
        if not is_frozen(node):
            return node
        check_mask(node.mask, mask)
        return FreezePrunedState(mask)

    return jax.tree.map(replace, state, is_leaf=is_frozen)
