"""Pruning through training: IMP and magnitude after training, with rewinding.

They are given the function that trains, so nothing here knows how. Depends on masks
and the scores.
"""

import functools
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

import jax

from nfp_jax.masks import (
    Mask,
    Params,
    Prunable,
    apply_mask,
    check_like,
    dense_mask,
    keep_count,
    prunable_kernels,
    prunable_size,
    top_k,
)
from nfp_jax.pruners.contract import ScoreFn
from nfp_jax.pruners.magnitude import magnitude
from nfp_jax.pruners.rounds import SelectFn, prune


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

    >>> import jax.numpy as jnp
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

    >>> import jax.numpy as jnp
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

    >>> import jax.numpy as jnp
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

    >>> import jax.numpy as jnp
    >>> init_fn = lambda key: jnp.ones((1, 2))
    >>> mask = jnp.array([[True, False]])
    >>> reinitialize(init_fn, mask, jax.random.key(0)).tolist()
    [[1.0, 0.0]]

    Reference: Frankle et al. 2021, https://arxiv.org/abs/2009.08576, section 5.
    """
    return apply_mask(init_fn(key), mask)
