"""The masks of cells that are pruned before training, one by one or many at once."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from nfp_jax import masks, pruning
from nfp_jax.grid import Cell
from nfp_jax.lab.draws import Draw
from nfp_jax.lab.names import SELECTS
from nfp_jax.lab.setup import Setup
from nfp_jax.pruners.by_score import ByScore
from nfp_jax.pruners.contract import MaskFn, MaskUpdate
from nfp_jax.types import Batch, Mask


def mask_fn_of(setup: Setup, cell: Cell) -> MaskFn:
    """Returns what makes the mask of a cell that is not found through training."""
    pruner: Any = setup.pruner(cell)
    mask_fn: MaskFn = pruner.start if isinstance(pruner, MaskUpdate) else pruner
    return mask_fn


def counts_of(setup: Setup, cell: Cell) -> Any:
    """Returns how many weights a cell keeps, int32 ``[rounds]`` after each round."""
    mask_fn = mask_fn_of(setup, cell)
    if isinstance(mask_fn, ByScore):
        return mask_fn.counts(setup.total, cell["sparsity"])
    return jnp.array([masks.keep_count(setup.total, cell["sparsity"])], jnp.int32)


def mask_on(
    setup: Setup, draw: Draw, cell: Cell, batch: Batch, *, keep: Any = None
) -> Mask:
    """Returns the mask of a cell on a batch, whatever its pruner sees."""
    mask_fn: Any = mask_fn_of(setup, cell)
    keep = counts_of(setup, cell) if keep is None else keep
    if isinstance(mask_fn, ByScore):
        return mask_fn(
            draw.params,
            batch,
            draw.score_key,
            keep=keep,
            select=SELECTS[cell["select"]],
            prunable=setup.prunable,
        )
    leaves = tuple(jax.tree.leaves(setup.prunable))
    return _one(mask_fn, leaves, draw.params, batch, draw.score_key, keep[-1])


def make_masks(
    setup: Setup,
    cell: Cell,
    params: Any,
    batch: Batch,
    key: Any,
    *,
    in_axes: tuple[Any, Any, Any],
    keep: Any,
    at_once: int,
) -> Mask:
    """Returns the masks of many networks or data sets, as ``pruning.prune_many``.

    Args:
      setup: of the run.
      cell: of which all of them have the pruner, the selection and the ablation.
      params: as in ``prune_many``, and so the rest.
      batch: inputs and labels.
      key: of scores.
      in_axes: which of these have an axis of networks.
      keep: counts ``[rounds]``, or ``[networks, rounds]``.
      at_once: networks in one call.
    """
    mask_fn: Any = mask_fn_of(setup, cell)
    if isinstance(mask_fn, ByScore):
        return pruning.prune_many(
            mask_fn.score_fn,
            params,
            batch,
            key,
            in_axes=in_axes,
            keep=keep,
            select=SELECTS[cell["select"]],
            prunable=setup.prunable,
            at_once=at_once,
            **mask_fn.options,
        )
    leaves = tuple(jax.tree.leaves(setup.prunable))
    last = keep[..., -1]
    axes = (*in_axes, 0 if jnp.ndim(last) else None)
    one = functools.partial(_one, mask_fn, leaves)
    return jax.vmap(one, in_axes=axes)(params, batch, key, last)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _one(
    mask_fn: MaskFn,
    prunable_leaves: tuple[bool, ...],
    params: Any,
    batch: Batch,
    key: jax.Array,
    keep: jax.Array,
) -> Mask:
    """The mask of a pruner that is made of no score."""
    prunable = jax.tree.unflatten(jax.tree.structure(params), prunable_leaves)
    return mask_fn(params, batch, key, keep=keep, prunable=prunable)
