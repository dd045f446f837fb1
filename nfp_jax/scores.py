"""Scores: how much each weight matters, before any is removed; higher is kept.

The face of ``pruners``, one file a score, over their contract and ``losses``. Depends
on masks, jax and optax.
"""

from nfp_jax.losses import classification_loss, squared_loss
from nfp_jax.pruners.contract import ScoreFn, invert
from nfp_jax.pruners.edge_popup import edge_popup
from nfp_jax.pruners.fisher_free import fisher_free
from nfp_jax.pruners.fisher_taylor import fisher_taylor
from nfp_jax.pruners.force import force
from nfp_jax.pruners.gem_miner import gem_miner
from nfp_jax.pruners.grasp import grasp
from nfp_jax.pruners.hutchinson_taylor import hutchinson_taylor
from nfp_jax.pruners.magnitude import magnitude
from nfp_jax.pruners.ntk_sap import ntk_sap
from nfp_jax.pruners.prospr import prospr, prospr_first_order
from nfp_jax.pruners.px import px
from nfp_jax.pruners.random import random
from nfp_jax.pruners.snip import snip
from nfp_jax.pruners.synflow import synflow
from nfp_jax.types import Batch, LossFn

__all__ = [
    "Batch",
    "LossFn",
    "ScoreFn",
    "classification_loss",
    "edge_popup",
    "fisher_free",
    "fisher_taylor",
    "force",
    "gem_miner",
    "grasp",
    "hutchinson_taylor",
    "invert",
    "magnitude",
    "ntk_sap",
    "prospr",
    "prospr_first_order",
    "px",
    "random",
    "snip",
    "squared_loss",
    "synflow",
]
