"""Prune JAX networks, and measure what their masks know about the data.

The names here are the library: masks, scores and pruning, for the params pytree of any
framework. They need jax, optax and chex alone. ``run`` runs an experiment and ``read``
reads its rows. A name loads what it needs when it is called for. What they are made of
is in modules to import by name: ``nfp_jax.training``, ``ensemble``, ``models``,
``data``, ``capacity``, ``experiments``.

>>> import jax.numpy as jnp
>>> import nfp_jax as nfp
>>> params = {"kernel": jnp.array([[1.0, -3.0], [2.0, 0.5]]), "bias": jnp.zeros(2)}
>>> mask = nfp.prune(nfp.magnitude(), params, sparsity=0.5)
>>> mask["kernel"].tolist()
[[False, True], [True, False]]
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what is here to import; loaded when it is called for
    from nfp_jax.masks import (
        apply_mask,
        check_mask,
        collapsed,
        dense_mask,
        empty_layers,
        erk_densities,
        keep_count,
        keep_counts,
        masked_apply,
        overlap,
        prunable_kernels,
        ravel_mask,
        shuffle_within_layers,
        sparsity_by_layer,
        sparsity_of,
        top_k,
        top_k_by_quota,
        top_k_erk,
        top_k_per_layer,
        unravel_mask,
    )
    from nfp_jax.pruning import (
        exponential,
        freeze_pruned,
        imp,
        imp_tickets,
        linear,
        magnitude_after_training,
        prune,
        prune_many,
        reinitialize,
        replace_mask,
        rigl,
        sparse_evolution,
    )
    from nfp_jax.running import read, run
    from nfp_jax.scores import (
        ScoreFn,
        classification_loss,
        edge_popup,
        gem_miner,
        grasp,
        invert,
        magnitude,
        random,
        snip,
        synflow,
    )

__version__ = "0.2.0"

__all__ = [
    "ScoreFn",
    "apply_mask",
    "check_mask",
    "classification_loss",
    "collapsed",
    "dense_mask",
    "edge_popup",
    "empty_layers",
    "erk_densities",
    "exponential",
    "freeze_pruned",
    "gem_miner",
    "grasp",
    "imp",
    "imp_tickets",
    "invert",
    "keep_count",
    "keep_counts",
    "linear",
    "magnitude",
    "magnitude_after_training",
    "masked_apply",
    "overlap",
    "prunable_kernels",
    "prune",
    "prune_many",
    "random",
    "ravel_mask",
    "read",
    "reinitialize",
    "replace_mask",
    "rigl",
    "run",
    "shuffle_within_layers",
    "snip",
    "sparse_evolution",
    "sparsity_by_layer",
    "sparsity_of",
    "synflow",
    "top_k",
    "top_k_by_quota",
    "top_k_erk",
    "top_k_per_layer",
    "unravel_mask",
]


# Where the names above come from; a name of the first is not looked for in the last.
_FACES = ("masks", "scores", "pruning", "running")


def __getattr__(name: str) -> Any:
    """A public name, or one of its modules, loaded when it is called for (PEP 562).

    So what reads rows alone, a page or a claim, loads no JAX.
    """
    if name in _FACES:
        return importlib.import_module(f"nfp_jax.{name}")
    if name in __all__:
        for face in _FACES:
            module = importlib.import_module(f"nfp_jax.{face}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module 'nfp_jax' has no attribute {name!r}")
