"""The masks of cells that are pruned before training, one by one or many at once."""

import contextlib
import functools
from typing import Any

import jax
import jax.numpy as jnp

from nfp_jax import masks
from nfp_jax.grid import Cell
from nfp_jax.lab.draws import Draw
from nfp_jax.lab.names import SELECTS
from nfp_jax.lab.setup import Setup
from nfp_jax.masks import has_x64
from nfp_jax.pruners.by_score import ByScore
from nfp_jax.pruners.contract import MaskFn, MaskUpdate, Trajectory
from nfp_jax.pruners.rounds import Score, prune_traced, refuse_nans
from nfp_jax.types import Batch, Mask


def mask_fn_of(setup: Setup, cell: Cell) -> MaskFn:
    """Returns what makes the mask of a cell that is not found through training."""
    pruner: Any = setup.pruner(cell)
    mask_fn: MaskFn = pruner.start if isinstance(pruner, MaskUpdate) else pruner
    return mask_fn


def counts_of(setup: Setup, cell: Cell) -> Any:
    """Returns how many weights a cell keeps, int32 ``[rounds]`` after each round.

    By quota ``[rounds, layers]``.
    """
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


def make_group(
    setup: Setup,
    cell: Cell,
    params: Any,
    batch: Batch,
    key: Any,
    *,
    in_axes: tuple[Any, Any, Any],
    keep: Any,
) -> tuple[Mask, Any]:
    """Returns the masks of a group of data sets, made in one call and not waited for.

    A call with another number of sets sums in another order, so the caller keeps to one
    number and fills the last group up. ``Stacks`` can't take this call's place: there
    each network has initial weights and a padded set of its own, which sums in another
    order, too, and scores once a set what here all sets share.

    Args:
      setup: of the run.
      cell: the coordinates, of all of them.
      params: as in ``pruning.prune_many``, and so ``batch``, ``key`` and ``in_axes``.
      batch: inputs and labels; one of its leaves has an axis of sets.
      key: of scores.
      in_axes: which of these have an axis of sets.
      keep: counts ``[rounds]``.

    Returns:
      The masks, each leaf ``[sets, ...]``, and what ``refuse`` reads, int ``[sets,
      leaves]``.
    """
    mask_fn: Any = mask_fn_of(setup, cell)
    leaves = tuple(jax.tree.leaves(setup.prunable))
    select = None
    if isinstance(mask_fn, ByScore):
        select = mask_fn.select or SELECTS[cell["select"]]
    with wide_for(getattr(mask_fn, "score_fn", None)):
        found: tuple[Mask, Any] = _group(
            mask_fn, select, leaves, in_axes, params, batch, key, keep
        )
    return found


def too_many(mask: Mask, keep: Any, prunable: Any) -> jax.Array:
    """Returns how many weights more than ``keep`` a mask has, for each of its leaves.

    Of a pruner that selects by itself, in the place of NaN scores; ``refuse`` reads it.
    """
    kept = jnp.sum(masks.ravel_mask(mask, prunable=prunable), dtype=jnp.int32)
    return jnp.full(len(jax.tree.leaves(mask)), kept - keep, jnp.int32)


def takes_score(setup: Setup, cell: Cell) -> bool:
    """Returns whether the masks of a cell are selected by a score."""
    pruner: Any = setup.pruner(cell)
    pruner = pruner.start if isinstance(pruner, MaskUpdate) else pruner
    return isinstance(pruner, ByScore | Trajectory)


def refuse(setup: Setup, cell: Cell, counts: Any) -> None:
    """Raises for a mask with NaN among its scores, or with another number of weights.

    Args:
      setup: of the run.
      cell: of the mask.
      counts: NaN scores by leaf, ``[leaves]``; of a pruner that selects by itself what
        ``too_many`` returns.

    Raises:
      ValueError: names the layer of the NaN, or the pruner.
    """
    if takes_score(setup, cell):
        refuse_nans(setup.shapes, counts)
    elif counts[0]:
        raise ValueError(
            f"pruner {cell['pruner']!r} keeps {abs(int(counts[0]))} weights "
            f"{'more' if counts[0] > 0 else 'fewer'} than it is asked for, among "
            f"{list(setup.layers)}"
        )


def wide_for(score_fn: Any) -> contextlib.AbstractContextManager[Any]:
    """JAX's 64-bit mode, where a score needs it; else the mode that there is."""
    needed = isinstance(score_fn, Score) and score_fn.needs_x64
    wide: contextlib.AbstractContextManager[Any] = jax.enable_x64(needed or has_x64())
    return wide


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _group(
    mask_fn: Any,
    select: Any,
    prunable_leaves: tuple[bool, ...],
    in_axes: tuple[Any, Any, Any],
    params: Any,
    batch: Batch,
    key: jax.Array,
    keep: jax.Array,
) -> tuple[Mask, Any]:
    """The masks of a group; ``select`` is of masks that are made by a score."""

    def one(params: Any, batch: Batch, key: jax.Array) -> tuple[Mask, Any]:
        prunable = jax.tree.unflatten(jax.tree.structure(params), prunable_leaves)
        if isinstance(mask_fn, ByScore):
            return prune_traced(
                mask_fn.score_fn,
                params,
                batch,
                key,
                keep=keep,
                select=select,
                prunable=prunable,
                **mask_fn.options,
            )
        found = mask_fn(params, batch, key, keep=keep[-1], prunable=prunable)
        return found, too_many(found, keep[-1], prunable)

    return jax.vmap(one, in_axes=in_axes)(params, batch, key)


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
