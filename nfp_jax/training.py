"""The whole training of one masked network, to convergence, as pure functions.

The face of ``engine``'s ``training``, ``stopping``, ``moments``, ``coupled``,
``examples`` and ``metrics``.
"""

from nfp_jax.engine.alone import run_training, train
from nfp_jax.engine.coupled import CoupledLoss, carry_statistics, statistics_loss
from nfp_jax.engine.examples import Data, Examples, Padded, pad, padded_size
from nfp_jax.engine.metrics import (
    Metrics,
    classification_metrics,
    label_metrics,
    logits_in_chunks,
    regression_metrics,
)
from nfp_jax.engine.moments import bfloat16_moments
from nfp_jax.engine.stopping import (
    Progress,
    StopFn,
    stop_as_paper,
    stop_when_fitted,
    stop_when_settled,
    stop_when_still,
)
from nfp_jax.engine.training import (
    NO_LIMIT,
    Training,
    TrainResult,
    TrainState,
    make_training,
)
from nfp_jax.types import Batch, LossFn

__all__ = [
    "NO_LIMIT",
    "Batch",
    "CoupledLoss",
    "Data",
    "Examples",
    "LossFn",
    "Metrics",
    "Padded",
    "Progress",
    "StopFn",
    "TrainResult",
    "TrainState",
    "Training",
    "bfloat16_moments",
    "carry_statistics",
    "classification_metrics",
    "label_metrics",
    "logits_in_chunks",
    "make_training",
    "pad",
    "padded_size",
    "regression_metrics",
    "run_training",
    "statistics_loss",
    "stop_as_paper",
    "stop_when_fitted",
    "stop_when_settled",
    "stop_when_still",
    "train",
]
