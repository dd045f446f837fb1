"""Draws, masks, cuts and ablations of one network, as what stacks are traced from.

Pure functions of arrays: ``stacked`` compiles each over the axis of a stack.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax import data, masks, pruning
from nfp_jax.data import Labels
from nfp_jax.engine.examples import Examples
from nfp_jax.lab.draws import DATA, INIT, NOISE, REINITIALIZE, SCORE, SHUFFLE, TRAIN
from nfp_jax.lab.each import Shared
from nfp_jax.lab.masking import too_many
from nfp_jax.lab.setup import Setup
from nfp_jax.losses import first_of
from nfp_jax.pruners.by_score import ByScore
from nfp_jax.pruners.contract import ScoreFn
from nfp_jax.pruners.rounds import prune_traced
from nfp_jax.pruners.selects import SelectFn
from nfp_jax.types import Mask, Params


class Draws(NamedTuple):
    """Data sets, initial weights and keys of several cells, stacked, on the device.

    Attributes:
      params: initial weights, ``[k, ...]``.
      dense: masks that keep all of them.
      examples: sets padded to the room of the run, ``[k, room, ...]``; without inputs,
        where all draws share those of the pool.
      score_key: the randomness of scores, ``[k]``.
      train_key: the order of batches, ``[k]``.
    """

    params: Params
    dense: Mask
    examples: Examples
    score_key: jax.Array
    train_key: jax.Array

    def data(self) -> "Draws":
        """Returns them without weights and masks: what is kept until networks end."""
        return self._replace(params=None, dense=None)


def rows_of(stacked: Any, rows: Any) -> Any:
    """Returns these networks' part of a stack, as a stack."""
    return jax.tree.map(lambda leaf: leaf[rows], stacked)


def _key(setup: Setup, at: dict[str, Any], stream: int, seed: str) -> jax.Array:
    """The key of a stream, or of the one in its place, and a seed; folded once more."""
    root, which = jax.random.key(setup.spec.seed), at.get(f"stream {stream}", stream)
    key = jax.random.fold_in(jax.random.fold_in(root, which), at[seed])
    fold = at.get(f"fold {stream}")
    return key if fold is None else jax.random.fold_in(key, fold)


def draw_one(setup: Setup, room: int, at: dict[str, Any], pool: Shared) -> Draws:
    """The draw of a cell; ``pool`` has the clean labels of an image set."""
    key_of = functools.partial(_key, setup, at)
    params = setup.init(key_of(INIT, "init_seed"))
    data_key = key_of(DATA, "data_seed")
    inputs: Any = None
    if setup.make is not None:
        made = setup.make(data_key, n=room)
        inputs, clean, index = made.x, made.clean, jnp.arange(room)
    else:
        index = jnp.asarray(data.subset_index(len(pool.of), room, data_key))
        clean = jnp.asarray(pool.of)[index]
    if "labels" in at:
        z = jax.nn.one_hot(at["labels"], setup.classes) - np.float32(1 / setup.classes)
        labels = Labels(at["labels"], z, jnp.ones(room, bool))
    else:
        noise_key = key_of(NOISE, "data_seed")
        labels = data.redraw(clean, noise_key, at["noise"], classes=setup.classes)
    return Draws(
        params,
        masks.dense_mask(params),
        Examples(inputs, index.astype(jnp.int32), labels),
        key_of(SCORE, "train_seed"),
        key_of(TRAIN, "train_seed"),
    )


def shown_of(
    sees: str, n: int | None, size: int | None, x: Any, y: Any, counts: Any
) -> Any:
    """What a pruner sees of a padded set: cut to ``n``; or to ``size``, and counted."""
    if sees == "nothing":
        return None
    batch = x, None if sees == "inputs" else y
    batch = jax.tree.map(lambda leaf: leaf[: size if n is None else n], batch)
    return first_of(batch, counts) if n is None else batch


def mask_on(
    find: Callable[..., Any],
    shown: Callable[..., Any],
    draw: Draws,
    inputs: Shared,
    size: Any,
    keep: Any,
) -> tuple[Mask, Any]:
    """The mask of one draw, and whether a score was NaN."""
    own, index, labels = draw.examples
    assert labels is not None  # every draw has some
    x = inputs.of[index] if own is None else own
    found: tuple[Mask, Any] = find(draw, shown(x, labels[0], size), keep)
    return found


def scored_mask(
    select: SelectFn, setup: Setup, by: ByScore, draw: Draws, batch: Any, keep: Any
) -> tuple[Mask, Any]:
    """Returns the mask by a score, and how many NaN the scores of each leaf have."""
    return prune_traced(
        by.score_fn,
        draw.params,
        batch,
        draw.score_key,
        keep=keep,
        select=select,
        prunable=setup.prunable,
        **by.options,
    )


def own_mask(
    setup: Setup, mask_fn: Any, draw: Draws, batch: Any, keep: Any
) -> tuple[Mask, Any]:
    """Returns the mask of a pruner that selects by itself, and what it has too many."""
    found = mask_fn(
        draw.params, batch, draw.score_key, keep=keep[-1], prunable=setup.prunable
    )
    return found, too_many(found, keep[-1], setup.prunable)


def cut_mask(
    select: SelectFn, prunable: Any, score_fn: ScoreFn, trained: Any, keep: Any
) -> tuple[Mask, Params, Any]:
    """Returns the mask cut from trained weights, these, and the number of NaN."""
    params, mask = trained
    found, nan = prune_traced(
        score_fn,
        params,
        None,
        None,
        keep=keep,
        select=select,
        prunable=prunable,
        mask=mask,
    )
    return found, params, nan


def ablated_one(
    setup: Setup,
    kinds: frozenset[str],
    at: dict[str, Any],
    which: dict[str, Any],
    mask: Mask,
    start: Params,
) -> tuple[Mask, Params]:
    """Returns mask and weights after what is so of ``which`` ablation; of ``kinds``."""

    def where(kind: str, changed: Any, same: Any) -> Any:
        pick = functools.partial(jnp.where, which[kind])
        return jax.tree.map(pick, changed, same)

    if "shuffle" in kinds:
        key = _key(setup, at, SHUFFLE, "train_seed")
        moved = masks.shuffle_within_layers(mask, key, prunable=setup.prunable)
        mask = where("shuffle", moved, mask)
    if "reinitialize" in kinds:
        key = _key(setup, at, REINITIALIZE, "init_seed")
        fresh = pruning.reinitialize(setup.init, mask, key)
        start = where("reinitialize", fresh, start)
    if "rescale" in kinds:
        large = masks.sparse_aware(start, mask, prunable=setup.prunable)
        start = where("rescale", large, start)
    return mask, start
