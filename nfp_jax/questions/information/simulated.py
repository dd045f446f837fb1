"""Trainings on other labels than those that were drawn, for the decoder that asks.

The same programs train and cut them as train and cut the masks of the cell: on the
labels that a mask was made from, they give that mask bit by bit.
"""

import copy
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax import decoding, masks
from nfp_jax.decoding.drift import Passed
from nfp_jax.engine.jobs import Networks
from nfp_jax.grid import Cell
from nfp_jax.lab.chains import Chains, Found, count_trainings, rounds_of
from nfp_jax.lab.draws import Draw
from nfp_jax.lab.each import parts
from nfp_jax.lab.jobs import Failures
from nfp_jax.lab.setup import Setup
from nfp_jax.lab.stacked import Stacks
from nfp_jax.lab.training import train_stacks
from nfp_jax.masks.prunable import prunable_leaves
from nfp_jax.models.dense import dense_layers
from nfp_jax.questions.information.family import Family

_LOG = logging.getLogger(__name__)

# Of a mask that takes one training, and of one that takes many, as IMP's: trainings on
# labels drawn, how many of them calibrate, and rounds of trainings on labels found.
FEW = {"made": 128, "calibrated": 16, "rounds": 1}
MANY = {"made": 32, "calibrated": 12, "rounds": 1}


def reader_of_trained(
    stacks: Stacks, family: Family, cell: Cell, most: int
) -> tuple[decoding.Decoder, decoding.MaskLaw] | None:
    """Returns what reads masks from training, and predicts them; None: nothing can.

    It reads networks of dense layers and two classes whose inputs are given.
    """
    setup, passed = stacks.setup, passed_of(stacks.setup, family.draw)
    if family.resampled or setup.classes != 2 or not most:
        return None
    shown = jax.ShapeDtypeStruct((setup.total,), jnp.float32)
    try:
        jax.eval_shape(passed, shown, family.x)
    except ValueError:  # not a network of dense layers
        return None
    size = FEW if count_trainings(setup, [cell]) == 1 else MANY
    simulate = simulator(stacks, family, cell)
    return decoding.trained(simulate, passed, most=most, **size)


def passed_of(setup: Setup, draw: Draw) -> Passed:
    """Returns what examples pass through the layers; of the second class's lead."""

    def lead(params: Any, batch: Any) -> jax.Array:
        logits = setup.model.apply(params, batch[0])
        return jnp.mean(logits[:, 1] - logits[:, 0])

    def passed(weights: jax.Array, x: Any) -> list[tuple[jax.Array, jax.Array]]:
        flags = jax.tree.leaves(setup.prunable)
        kept = masks.unravel_mask(weights, draw.params, prunable=setup.prunable)
        leaves = zip(
            jax.tree.leaves(kept), jax.tree.leaves(draw.params), flags, strict=True
        )
        whole = [ours if flag else initial for ours, initial, flag in leaves]
        params = jax.tree.unflatten(jax.tree.structure(draw.params), whole)
        q = jnp.zeros((len(x), setup.classes))
        return [(one.inputs, one.slopes) for one in dense_layers(lead, params)(q, x)]

    return passed


def simulator(
    stacks: Stacks, family: Family, cell: Cell
) -> Callable[[np.ndarray], decoding.Simulated]:
    """Returns ``simulate(labels [k, n])``: the masks of a cell on these labels.

    A weight's margin is its size over the threshold, less 1: of all rounds up to the
    one that removes it the least. Gradients are taken in the middle between initial
    and trained weights. Where a training fails, margins are NaN; the first error is
    logged.
    """
    setup = dataclasses.replace(stacks.setup, failures=Failures())
    stacks = copy.copy(stacks)
    stacks.setup = setup
    sparsities = passed_by(setup, cell)
    # Fine-tuned networks go on from the weights that a mask was cut from.
    cells = [{**cell, "sparsity": one, "resume": "finetune"} for one in sparsities]
    initial = flat_weights(setup, jax.tree.map(lambda x: x[None], family.draw.params))
    ravel = functools.partial(masks.ravel_mask, prunable=setup.prunable)
    raveled = jax.jit(jax.vmap(ravel))

    def simulate(labels: np.ndarray) -> decoding.Simulated:
        setup.failures.kept.clear()
        shape = len(cells), len(labels), setup.total
        kept, weights = np.zeros(shape, bool), np.zeros(shape, np.float32)
        ended = np.zeros(shape[:2], bool)
        ours = family.on(labels)

        def keep(found: Found) -> list[Networks]:
            bits = np.asarray(raveled(found.mask))
            ends = flat_weights(setup, found.start)
            for i, (one, place) in enumerate(
                zip(found.cells, found.wheres, strict=True)
            ):
                which = sparsities.index(one["sparsity"])
                kept[which, place], weights[which, place] = bits[i], ends[i]
                ended[which, place] = True
            return []

        chains = Chains(stacks, functools.partial(ours.draws, stacks), keep)

        def makers() -> Iterator[Callable[[], list[Networks]]]:
            for places in parts(ours.order, stacks.size):
                begun = [(cells, place) for place in places]
                yield functools.partial(chains.begin, begun)

        total = len(labels) * count_trainings(setup, cells)
        train_stacks(setup, stacks.ahead(makers()), total, progress=False)
        if setup.failures.kept:
            first = setup.failures.kept[0].error
            _LOG.warning("a simulated training failed: %s", first)
        groups = [setup.total]
        if cell["select"] != "global" or setup.pruner(cell).select is not None:
            groups = [x.size for x in prunable_leaves(setup.shapes, setup.prunable)]
        margins = margins_of(kept, weights, groups)
        margins[~ended.all(axis=0)] = np.nan
        return decoding.Simulated(kept[-1], margins, (initial + weights[-1]) / 2)

    return simulate


def passed_by(setup: Setup, cell: Cell) -> list[float]:
    """Returns the sparsities of the masks on the way to that of a cell, and its own.

    Only where the trajectory cuts, at these sparsities, the masks that it trains next.
    """
    rounds = rounds_of(setup, [cell])
    keeps = [now.keep for now in rounds if now.keep is not None]
    # A half more: no rounding moves the count.
    sparsities = [1 - (keep - 0.5) / setup.total for keep in keeps]
    whole = [*sparsities, cell["sparsity"]]
    cells = [{**cell, "sparsity": one} for one in whole]
    planned = rounds_of(setup, cells)
    same = len(planned) == len(rounds) and all(
        now.keep == keep and now.cuts.get(one) == keep
        for now, one, keep in zip(planned, sparsities, keeps, strict=False)
    )
    return whole if same else [cell["sparsity"]]


def margins_of(kept: np.ndarray, weights: np.ndarray, groups: list[int]) -> np.ndarray:
    """Returns the least margins over rounds, float32 ``[k, P]``.

    Args:
      kept: masks cut in each round, ``bool[rounds, k, P]``.
      weights: that they were cut from; 0 where a weight was removed before.
      groups: how many weights share a threshold, in order.

    >>> kept, weights = np.array([[[True, False]]]), np.array([[[-2.0, 1.0]]])
    >>> margins_of(kept, weights, [2]).tolist()
    [[0.0, -0.5]]
    """
    least = np.full(kept.shape[1:], np.inf, np.float32)
    alive = np.ones(kept.shape[1:], bool)
    tiny = np.finfo(np.float32).tiny
    for mask, ends in zip(kept, np.abs(weights), strict=True):
        start = 0
        for size in groups:
            part = slice(start, start + size)
            inside = np.where(mask[:, part], ends[:, part], np.inf)
            level = np.maximum(inside.min(axis=1, keepdims=True), tiny)
            margin = ends[:, part] / level - 1
            # Ties lie on both sides of a threshold, and a weight that is kept may be 0.
            removed = np.minimum(margin, -1e-6)
            margin = np.where(mask[:, part], np.maximum(margin, 0.0), removed)
            now = np.where(alive[:, part], margin, np.inf)
            least[:, part] = np.minimum(least[:, part], now)
            start += size
        alive = mask
    return least


def flat_weights(setup: Setup, params: Any) -> np.ndarray:
    """Returns the prunable weights of a stack, float32 ``[k, P]``."""
    leaves = prunable_leaves(jax.device_get(params), setup.prunable)
    return np.concatenate([x.reshape(len(x), -1) for x in leaves], axis=1)
