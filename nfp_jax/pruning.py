"""Pruning: from a score to a mask, before training or through it.

The face of ``pruners`` and ``freeze``: ``prune`` scores and selects, in one round or
many; ``imp`` and ``magnitude_after_training`` prune trained weights; ``freeze_pruned``
keeps pruned weights at zero in any optax chain.
"""

from nfp_jax.freeze import FreezePrunedState, freeze_pruned, replace_mask
from nfp_jax.pruners.by_score import ByScore, by_score
from nfp_jax.pruners.contract import (
    MaskFn,
    MaskUpdate,
    Network,
    Pruner,
    Trajectory,
)
from nfp_jax.pruners.contract import Round as ImpRound
from nfp_jax.pruners.imp import imp, imp_rounds, imp_tickets
from nfp_jax.pruners.magnitude_trained import magnitude_after_training, one_shot_round
from nfp_jax.pruners.many import NanScores, prune_many
from nfp_jax.pruners.regrowth import MoveMaskState, move_mask, regrow
from nfp_jax.pruners.rigl import rigl
from nfp_jax.pruners.rounds import (
    exponential,
    linear,
    prune,
)
from nfp_jax.pruners.selects import SelectFn
from nfp_jax.pruners.set import sparse_evolution
from nfp_jax.pruners.tickets import Ticket, TrainFn, reinitialize

__all__ = [
    "ByScore",
    "FreezePrunedState",
    "ImpRound",
    "MaskFn",
    "MaskUpdate",
    "MoveMaskState",
    "NanScores",
    "Network",
    "Pruner",
    "SelectFn",
    "Ticket",
    "TrainFn",
    "Trajectory",
    "by_score",
    "exponential",
    "freeze_pruned",
    "imp",
    "imp_rounds",
    "imp_tickets",
    "linear",
    "magnitude_after_training",
    "move_mask",
    "one_shot_round",
    "prune",
    "prune_many",
    "regrow",
    "reinitialize",
    "replace_mask",
    "rigl",
    "sparse_evolution",
]
