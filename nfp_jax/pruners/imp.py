"""Iterative magnitude pruning (IMP) with rewinding: the lottery ticket's trajectory."""

import math
from collections.abc import Iterable
from fractions import Fraction
from functools import partial
from typing import Any

import jax

from nfp_jax.masks import (
    Mask,
    Params,
    Prunable,
    keep_count,
    prunable_kernels,
    prunable_size,
    top_k,
)
from nfp_jax.pruners.contract import Network, Pruner, Round, ScoreFn, Trajectory
from nfp_jax.pruners.magnitude import magnitude
from nfp_jax.pruners.selects import SelectFn
from nfp_jax.pruners.tickets import Ticket, TrainFn, tickets_of

# More rounds of training are taken for a slip.
MOST_ROUNDS = 1000


def imp_rounds(
    total: int, sparsities: Iterable[float], *, keep_per_round: float = 0.8
) -> list[Round]:
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
    [Round(cuts={0.1: 90}, keep=80), Round(cuts={0.3: 70}, keep=None)]

    Reference: Frankle and Carbin 2019, https://arxiv.org/abs/1803.03635, section 2.
    """
    if not 0 < keep_per_round < 1:
        raise ValueError(
            f"keep_per_round is {keep_per_round}, expected 0 < keep_per_round < 1"
        )
    most = max(sparsities, default=0.0)
    count = math.log(1 - most) / math.log(keep_per_round) if most < 1 else 0.0
    if count > MOST_ROUNDS:
        raise ValueError(
            f"keep_per_round is {keep_per_round}, with which {most:g} takes "
            f"{count:,.0f} rounds, expected at most {MOST_ROUNDS}"
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
        rounds.append(Round(cuts, keep if left else None))
    return rounds


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
    tickets = tickets_of(
        rounds, train_fn, params, data, key, rewind_step, score_fn, select, prunable
    )
    return {sparsity: tickets[sparsity] for sparsity in sparsities}


def _build(net: Network, *, keep_per_round: float = 0.8) -> Trajectory:
    imp_rounds(1, [0.5], keep_per_round=keep_per_round)  # refuses it here
    return Trajectory(partial(imp_rounds, keep_per_round=keep_per_round), magnitude())


CARD = Pruner(
    "imp",
    label="IMP",
    sees="training",
    when="through",
    build=_build,
    gradients=lambda *, keep_per_round: 0,  # beside the trainings
)
