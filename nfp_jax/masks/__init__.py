"""Mask pytrees: make, apply, select by score, measure, compare.

A mask has the structure and shapes of ``params`` and bool leaves, ``True`` where a
weight is kept. Leaves that may not be pruned (biases, scales) are all ``True``.
``prunable`` says what may be pruned, ``counts`` how much is kept. ``selection`` keeps
the highest scores. ``values`` makes and applies masks, ``measures`` compares them.
Depends on jax and numpy only.
"""

from nfp_jax.masks.counts import floor_counts, keep_count, keep_counts
from nfp_jax.masks.fan_in import sparse_aware
from nfp_jax.masks.measures import (
    collapsed,
    empty_layers,
    overlap,
    sparsity_by_layer,
    sparsity_of,
)
from nfp_jax.masks.prunable import prunable_kernels, prunable_size
from nfp_jax.masks.selection import (
    erk_densities,
    refuse_nan,
    top_k,
    top_k_by_quota,
    top_k_erk,
    top_k_per_layer,
)
from nfp_jax.masks.values import (
    apply_mask,
    check_mask,
    dense_mask,
    masked_apply,
    ravel_mask,
    shuffle_within_layers,
    unravel_mask,
)
from nfp_jax.trees import (
    check_like,
    has_x64,
    is_concrete,
    named_leaves,
    same_structure,
)
from nfp_jax.types import ApplyFn, Mask, Params, Prunable, Schedule, Scores

__all__ = [
    "ApplyFn",
    "Mask",
    "Params",
    "Prunable",
    "Schedule",
    "Scores",
    "apply_mask",
    "check_like",
    "check_mask",
    "collapsed",
    "dense_mask",
    "empty_layers",
    "erk_densities",
    "floor_counts",
    "has_x64",
    "is_concrete",
    "keep_count",
    "keep_counts",
    "masked_apply",
    "named_leaves",
    "overlap",
    "prunable_kernels",
    "prunable_size",
    "ravel_mask",
    "refuse_nan",
    "same_structure",
    "shuffle_within_layers",
    "sparse_aware",
    "sparsity_by_layer",
    "sparsity_of",
    "top_k",
    "top_k_by_quota",
    "top_k_erk",
    "top_k_per_layer",
    "unravel_mask",
]
