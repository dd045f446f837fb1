"""What ``prune`` and ``prune_many`` are given, checked before anything compiles."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.losses import ClassificationLoss
from nfp_jax.pruners.contract import Score
from nfp_jax.trees import check_arrays, named_leaves
from nfp_jax.types import Batch, Params, Prunable


def check_score(score_fn: Any) -> None:
    """Raises for what is no score: a builder that was not called, or a loss.

    Raises:
      ValueError: says what a score takes.
    """
    if isinstance(score_fn, Score):
        return
    name = getattr(score_fn, "__name__", type(score_fn).__name__)
    expected = (
        f"score_fn is {name}, expected score(params, batch, key, *, mask, prunable), "
        "as snip(loss_fn) returns"
    )
    try:
        signature = inspect.signature(score_fn)
        signature.bind(None, None, None, mask=None, prunable=None)
    except TypeError as error:
        raise ValueError(f"{expected}: {error}") from error


def check_weights(params: Params, prunable: Prunable) -> None:
    """Raises where a leaf that may be pruned is no floating array, or is empty.

    Raises:
      ValueError: names the path.
    """
    check_arrays(params)
    flags = jax.tree.leaves(prunable)
    for (path, leaf), flag in zip(named_leaves(params), flags, strict=True):
        dtype = jnp.result_type(leaf)
        if flag and not jnp.issubdtype(dtype, jnp.inexact):
            raise ValueError(
                f"params at {path!r} have dtype {dtype}, expected floating ones"
            )
        if flag and 0 in jnp.shape(leaf):
            raise ValueError(
                f"params at {path!r} have shape {jnp.shape(leaf)}, expected weights; "
                "leave it out by prunable="
            )


def check_batch(score_fn: Any, params: Params, batch: Batch) -> None:
    """Raises for a batch that the loss of a score can't take.

    Of scores of a ``ClassificationLoss`` alone: what another loss takes is not known.

    Raises:
      ValueError: no pair ``(x, y)``, no examples, x and y of different lengths, or
        labels outside the classes (where their values are known).
    """
    loss_fn = getattr(score_fn, "loss_fn", None)
    if not isinstance(loss_fn, ClassificationLoss):
        return
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        got = "None" if batch is None else type(batch).__name__
        raise ValueError(f"batch is {got}, expected a pair (x, y)")
    x, y = batch
    sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves((x, y))}
    if sizes == {(0,)}:
        raise ValueError("batch has no examples, expected at least one")
    if len(sizes) != 1 or sizes == {()}:
        raise ValueError(
            f"batch has leading sizes {sorted(sizes)}, expected the same of x and y"
        )
    if jnp.ndim(y) == 1 and not isinstance(y, jax.core.Tracer):
        classes = jax.eval_shape(loss_fn.apply_fn, params, x).shape[-1]
        values = np.asarray(y)  # on the host, also where something else is traced
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= classes:
            raise ValueError(
                f"labels go from {low} to {high}, expected 0 to {classes - 1}: the "
                f"network has {classes} outputs"
            )
