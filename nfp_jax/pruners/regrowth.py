"""Masks that move while a network trains: what RigL and SET share.

Weights of every layer are removed and as many come in their place, so each layer keeps
its count. ``regrow`` is one such move. ``move_mask`` makes it part of any optax
optimizer; ``update_by`` hands it to the project's engine, as a hook after epochs.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nfp_jax.masks import (
    Mask,
    Params,
    Prunable,
    Scores,
    apply_mask,
    check_mask,
    prunable_kernels,
    top_k_by_quota,
    top_k_erk,
)
from nfp_jax.pruners.contract import MaskFn, MaskUpdate
from nfp_jax.pruners.random import random
from nfp_jax.types import Batch

# What comes: ``grow(gradient_fn, params, key) -> scores``, like params.
GrowFn = Callable[[Callable[[], Params], Params, Any], Scores]


def regrow(
    params: Params,
    mask: Mask,
    scores: Scores,
    fraction: Any,
    *,
    prunable: Prunable = None,
) -> Mask:
    """Returns a mask with the smallest weights of each layer replaced by others.

    Of a layer with ``k`` weights, ``int(fraction · k)`` go: those kept of the smallest
    ``|w|``. As many come, of the highest scores among all that are then removed. So one
    that just went may come back. Each layer keeps its count, and a dense one is left as
    it is.

    Args:
      params: the weights, a pytree of arrays.
      mask: bool pytree of the same structure and shapes; what it removed never counts
        as a small weight.
      scores: pytree like ``params``; the highest come.
      fraction: share of each layer's kept weights that go, in [0, 1]; may be traced.
      prunable: static pytree of bools; ``None``: ``prunable_kernels(params)``.

    Returns:
      A bool pytree like ``params``.

    Raises:
      ValueError: a mask that does not fit (names the path), or a NaN among the scores
        that are ranked (names the layer; under a transform NaN ranks lowest).

    >>> w, mask = jnp.array([[3.0, 1.0, 0.0]]), jnp.array([[True, True, False]])
    >>> regrow(w, mask, jnp.array([[0.0, 1.0, 2.0]]), 0.5).tolist()
    [[True, False, True]]

    Reference: Evci et al. 2020, https://arxiv.org/abs/1911.11134, algorithm 1.
    """
    check_mask(params, mask)
    prunable = prunable_kernels(params) if prunable is None else prunable
    kept = jax.tree.map(lambda leaf: jnp.sum(leaf, dtype=jnp.int32), mask)
    # In single precision, as the authors' code counts.
    share = jnp.float32(fraction)
    gone = jax.tree.map(
        lambda k: (k.astype(jnp.float32) * share).astype(jnp.int32), kept
    )
    stay = jax.tree.map(jnp.subtract, kept, gone)
    size = jax.tree.map(jnp.abs, params)
    stayed = top_k_by_quota(size, stay, prunable=prunable, mask=mask)
    removed = jax.tree.map(jnp.logical_not, stayed)
    come = top_k_by_quota(scores, gone, prunable=prunable, mask=removed)
    return jax.tree.map(lambda flag, a, b: a | b if flag else a, prunable, stayed, come)


def share_moved(time: Any, end: Any, first: float) -> jax.Array:
    """Returns the share of kept weights that move, by a cosine from ``first`` to 0.

    ``first/2 · (1 + cos(π·time/end))``

    >>> float(share_moved(0, 10, 0.25)), round(float(share_moved(5, 10, 0.25)), 3)
    (0.25, 0.125)

    Reference: Evci et al. 2020, https://arxiv.org/abs/1911.11134, section 3.
    """
    return first / 2 * (1 + jnp.cos(math.pi * jnp.asarray(time, jnp.float32) / end))


class MoveMaskState(NamedTuple):
    """The state of ``move_mask``.

    Attributes:
      mask: the mask, as it is now.
      inner: the state of the optimizer within.
      step: int32, how many updates there were.
      key: of draws; ``None``: nothing is drawn.
    """

    mask: Mask
    inner: Any
    step: jax.Array
    key: Any


def move_mask(
    optimizer: optax.GradientTransformation,
    mask: Mask,
    grow: GrowFn,
    *,
    key: jax.Array | None = None,
    until: int,
    every: int = 100,
    fraction: float = 0.3,
    prunable: Prunable = None,
) -> optax.GradientTransformationExtraArgs:
    """Returns an optimizer that trains a masked network and moves its mask.

    ``rigl`` and ``sparse_evolution`` are made of it. After every ``every`` updates, up
    to ``until``, the next one moves the mask by ``regrow`` in place of a training step:
    weights that stay do not change, those that left or came are 0, and so are the
    moments of both. At other steps the optimizer is given the gradient of the weights
    kept, and removed weights are exactly 0.

    Args:
      optimizer: any optax optimizer.
      mask: the first one, a bool pytree like the parameters.
      grow: ``grow(gradient_fn, params, key) -> scores`` of what comes.
      key: of draws.
      until: the last update at which the mask may move.
      every: updates from one move to the next.
      fraction: of the kept weights that move, before the cosine lets it fall.
      prunable: static pytree of bools; ``None``: ``prunable_kernels(params)``.

    Returns:
      A transformation whose ``update`` needs ``params`` and the gradient in all
      weights, of the removed ones too: that of the loss at the masked weights. Its
      state is a ``MoveMaskState``.

    Raises:
      ValueError: a setting out of range; parameters that the mask does not fit (names
        the path); an update without ``params``.
    """
    check_schedule(until, every, fraction)
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Params) -> MoveMaskState:
        check_mask(params, mask)
        return MoveMaskState(mask, inner.init(params), jnp.int32(0), key)

    def update(
        updates: Params, state: Any, params: Params | None = None, **extra: Any
    ) -> tuple[Params, MoveMaskState]:
        if params is None:
            raise ValueError("move_mask needs params: update(updates, state, params)")

        def held(mask: Mask, updates: Params) -> Params:
            return jax.tree.map(
                lambda keep, u, p: jnp.where(keep, u, -p.astype(u.dtype)),
                mask,
                updates,
                params,
            )

        def train(state: MoveMaskState) -> tuple[Params, MoveMaskState]:
            masked = apply_mask(updates, state.mask)
            found, after = inner.update(masked, state.inner, params, **extra)
            return held(state.mask, found), state._replace(inner=after)

        def move(state: MoveMaskState) -> tuple[Params, MoveMaskState]:
            at = None if key is None else jax.random.fold_in(state.key, state.step)
            scores = grow(lambda: updates, params, at)
            share = share_moved(state.step, until, fraction)
            moved = regrow(params, state.mask, scores, share, prunable=prunable)
            stayed = jax.tree.map(jnp.logical_and, state.mask, moved)
            cleared = optax.tree_map_params(
                inner, _cleared, state.inner, stayed, is_leaf=_is_absent
            )
            zeros = jax.tree.map(jnp.zeros_like, updates)
            return held(stayed, zeros), state._replace(mask=moved, inner=cleared)

        found, after = jax.lax.cond(
            is_time(state.step, until, every), move, train, state
        )
        return found, after._replace(step=state.step + 1)

    return optax.GradientTransformationExtraArgs(init, update)


def is_time(time: Any, until: int, every: int) -> Any:
    """Returns whether a mask moves after so many updates, or epochs; not after none."""
    return (time > 0) & (time % every == 0) & (time <= until)


def update_by(
    grow: GrowFn,
    *,
    until: int,
    every: int,
    fraction: float,
    prunable: Prunable = None,
) -> MaskUpdate:
    """Returns what moves the masks of a run, from random ones of ERK densities.

    Args:
      grow: as in ``move_mask``.
      until: the last epoch after which the mask may move.
      every: epochs from one move to the next.
      fraction: as in ``move_mask``.
      prunable: likewise.

    Raises:
      ValueError: a setting out of range (names it).
    """
    check_schedule(until, every, fraction)

    def update(
        key: Any, params: Params, mask: Mask, gradient_fn: Any, epoch: Any
    ) -> tuple[Any, Mask]:
        time = epoch + 1  # epochs that have been trained

        def move(mask: Mask) -> Mask:
            at = jax.random.fold_in(key, time)
            scores = grow(lambda: gradient_fn(params), params, at)
            share = share_moved(time, until, fraction)
            return regrow(params, mask, scores, share, prunable=prunable)

        moved = jax.lax.cond(is_time(time, until, every), move, lambda mask: mask, mask)
        return key, moved

    return MaskUpdate(random_erk(), lambda params, mask, key: key, update)


def random_erk() -> MaskFn:
    """Returns the pruner of random masks whose layers have ERK densities.

    >>> params = {"a": jnp.ones((10, 10)), "b": jnp.ones((2, 5))}
    >>> mask = random_erk()(params, key=jax.random.key(0), keep=55)
    >>> int(mask["a"].sum()), int(mask["b"].sum())
    (45, 10)

    Reference: Evci et al. 2020, https://arxiv.org/abs/1911.11134, section 3.
    """

    def mask_fn(
        params: Params,
        batch: Batch = None,
        key: jax.Array | None = None,
        *,
        keep: Any,
        prunable: Prunable = None,
        mask: Mask = None,
    ) -> Mask:
        scores = random()(params, batch, key)
        return top_k_erk(scores, keep, prunable=prunable, mask=mask)

    return mask_fn


def check_schedule(until: int, every: int, fraction: float) -> None:
    """Raises for a setting that is out of range, naming it."""
    for name, value in (("until", until), ("every", every)):
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction is {fraction}, expected 0 <= fraction <= 1")


def _is_absent(node: Any) -> bool:
    """Whether it stands for weights that a part of the optimizer does not train."""
    return isinstance(node, optax.MaskedNode)


def _cleared(leaf: Any, keep: jax.Array) -> Any:
    return leaf if _is_absent(leaf) else jnp.where(keep, leaf, jnp.zeros_like(leaf))
