"""Scores that are trained at fixed weights: what edge-popup and GEM-miner share.

Each weight has a number that SGD trains, and the numbers decide the mask. The mask is
a step function of them. Its slope is passed *straight through*: 1 where it is 0. The
weights never move, so all that training learned is in the mask.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp

from nfp_jax.losses import example_count
from nfp_jax.masks import (
    Mask,
    Params,
    Prunable,
    Scores,
    apply_mask,
    keep_count,
    prunable_size,
)
from nfp_jax.pruners.contract import MaskFn, ScoreFn
from nfp_jax.pruners.selects import SelectFn
from nfp_jax.types import Batch, LossFn


def mask_slopes(loss_fn: LossFn, params: Params, mask: Mask, batch: Batch) -> Scores:
    """Returns the slope of the loss in each entry of the mask, ``∂L/∂m``.

    ``w ⊙ ∂L/∂(w⊙m)``, the gradient taken at the masked weights. Removed weights have a
    slope, too: what the loss would gain by their return.

    Args:
      loss_fn: ``loss_fn(params, batch)``, the mean loss over a batch, a scalar.
      params: the weights, a pytree of arrays.
      mask: bool pytree of the same structure and shapes.
      batch: what the loss takes.

    Returns:
      A pytree like ``params``.

    >>> loss = lambda w, x: jnp.sum(w * x) ** 2 / 2
    >>> w, mask = jnp.array([[3.0, -1.0]]), jnp.array([[True, False]])
    >>> mask_slopes(loss, w, mask, jnp.array([[1.0, 1.0]])).tolist()
    [[9.0, -3.0]]

    Reference: Bengio et al. 2013, https://arxiv.org/abs/1308.3432, section 4.
    """
    gradient = jax.grad(loss_fn)(apply_mask(params, mask), batch)
    return jax.tree.map(jnp.multiply, params, gradient)


def minibatch_rows(
    key: jax.Array, examples: int, steps: int, batch_size: int
) -> jax.Array:
    """Returns which examples each step sees, int32 ``[steps, size]``.

    ``size`` is ``batch_size``, or all examples where they are fewer. One random order
    of all examples follows another, so each has been seen as often as any other, up to
    once. The last batch of an order may take its rest from the next.

    >>> rows = minibatch_rows(jax.random.key(0), 4, steps=4, batch_size=2)
    >>> sorted(rows[:2].ravel().tolist()), sorted(rows[2:].ravel().tolist())
    ([0, 1, 2, 3], [0, 1, 2, 3])
    """
    size = min(batch_size, examples)
    orders = jax.vmap(
        lambda i: jax.random.permutation(jax.random.fold_in(key, i), examples)
    )(jnp.arange(-(-steps * size // examples)))
    return orders.ravel()[: steps * size].reshape(steps, size).astype(jnp.int32)


def minibatches(
    key: jax.Array | None, batch: Batch, *, steps: int, batch_size: int
) -> tuple[jax.Array, jax.Array, Callable[[jax.Array], Batch]]:
    """Returns a key to draw the first scores with, the rows of all steps, and
    ``take(rows) -> batch``.

    Raises:
      ValueError: no key, or a batch without examples (names the path).
    """
    if key is None:
        raise ValueError("key is None, expected one: trained scores start at random")
    start, order = jax.random.split(key)
    rows = minibatch_rows(order, example_count(batch), steps, batch_size)
    return start, rows, lambda rows: jax.tree.map(lambda leaf: leaf[rows], batch)


def uniform_like(
    params: Params,
    key: jax.Array,
    prunable: Prunable,
    bounds: Callable[[Any], tuple[float, float]],
    rest: float,
) -> Scores:
    """Returns uniform draws between the ``bounds`` of each leaf that may be pruned.

    Leaf ``i`` is drawn with ``fold_in(key, i)``; other leaves are ``rest``.
    """
    leaves, treedef = jax.tree.flatten(params)
    drawn = []
    flags = jax.tree.leaves(prunable)
    for i, (leaf, flag) in enumerate(zip(leaves, flags, strict=True)):
        shape, dtype = jnp.shape(leaf), jnp.result_type(leaf)
        if flag:
            low, high = bounds(leaf)
            at = jax.random.fold_in(key, i)
            drawn.append(jax.random.uniform(at, shape, dtype, low, high))
        else:
            drawn.append(jnp.full(shape, rest, dtype))
    return jax.tree.unflatten(treedef, drawn)


def fan_in(kernel: Any) -> int:
    """Returns how many inputs a unit of a kernel has: the product of all axes but the
    last, as in Flax.

    >>> fan_in(jnp.ones((3, 3, 8, 16)))
    72
    """
    return math.prod(jnp.shape(kernel)[:-1])


def kept_while_trained(
    params: Params, prunable: Prunable, sparsity: float | Fraction | None, keep: Any
) -> Any:
    """Returns how many weights masks keep while their scores are trained."""
    if keep is not None:
        return keep
    assert sparsity is not None  # one of them is given
    return keep_count(prunable_size(params, prunable), sparsity)


def check_settings(
    sparsity: float | Fraction | None, keep: Any, **settings: tuple[Any, str, bool]
) -> None:
    """Raises for a setting of a trained score that is out of range, naming it.

    Args:
      sparsity: given, or ``keep`` is.
      keep: likewise.
      **settings: by name the value, what is expected, and whether it is so.
    """
    if (sparsity is None) == (keep is None):
        raise ValueError(
            f"sparsity is {sparsity} and keep is {keep}, expected exactly one of them"
        )
    if sparsity is not None:
        keep_count(1, sparsity)  # refuses it here
    for name, (value, expected, is_so) in settings.items():
        if not is_so:
            raise ValueError(f"{name} is {value}, expected {expected}")


def by_trained_scores(make: Callable[[Any], ScoreFn], select: SelectFn) -> MaskFn:
    """Returns the pruner whose scores are trained under masks of the final count.

    Args:
      make: ``make(keep) -> score_fn`` with the number of weights kept, which may be
        traced.
      select: what selects by these scores.
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
        scores = make(keep)(params, batch, key, mask=mask, prunable=prunable)
        return select(scores, keep, prunable=prunable, mask=mask)

    return mask_fn
