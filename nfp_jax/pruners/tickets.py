"""Masks cut from trained weights, round after round, and the weights to go on from.

What trains is handed in, so nothing here knows how.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

from nfp_jax.masks import Mask, Params, Prunable, apply_mask, check_like, dense_mask
from nfp_jax.pruners.contract import Round, ScoreFn
from nfp_jax.pruners.magnitude import magnitude
from nfp_jax.pruners.rounds import prune
from nfp_jax.pruners.selects import SelectFn


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


def tickets_of(
    rounds: list[Round],
    train_fn: TrainFn,
    params: Params,
    data: Any,
    key: jax.Array,
    rewind_step: int,
    score_fn: ScoreFn | None,
    select: SelectFn,
    prunable: Prunable,
) -> dict[float, Ticket]:
    """Trains round after round; returns the masks that each one yields, by sparsity.

    Arguments are those of ``imp``, after the rounds of its plan.

    Raises:
      ValueError: a negative ``rewind_step``, or trained weights of another structure
        than ``params`` (names the path).
    """
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
