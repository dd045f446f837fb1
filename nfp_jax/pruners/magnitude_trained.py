"""One-shot magnitude pruning after training."""

from collections.abc import Iterable
from typing import Any

import jax

from nfp_jax.masks import (
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


def one_shot_round(total: int, sparsities: Iterable[float]) -> list[Round]:
    """Returns the one training of magnitude pruning after training, and what it yields.

    >>> one_shot_round(100, [0.1, 0.9])
    [Round(cuts={0.1: 90, 0.9: 10}, keep=None)]
    """
    cuts = {sparsity: keep_count(total, sparsity) for sparsity in sparsities}
    if not cuts:
        raise ValueError("sparsities is empty, expected at least one")
    return [Round(cuts, None)]


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
    return tickets_of(
        rounds, train_fn, params, data, key, rewind_step, score_fn, select, prunable
    )


def _build(net: Network) -> Trajectory:
    return Trajectory(one_shot_round, magnitude())


CARD = Pruner(
    "magnitude_trained",
    label="magnitude after training",
    sees="training",
    when="through",
    build=_build,
    gradients=lambda: 0,  # beside the training
)
