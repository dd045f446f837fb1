"""The types that go through every function: pytrees, and functions of them."""

from collections.abc import Callable
from typing import Any

import jax

Params = Any
Mask = Any  # like params, bool: True where a weight is kept
Scores = Any  # like params: the higher is kept
Prunable = Any  # like params, Python bools: whether a leaf may be pruned
ApplyFn = Callable[[Params, jax.Array], jax.Array]
Schedule = Callable[[float, float], float]
Batch = Any  # what a loss takes as data, often (x, y)
LossFn = Callable[[Params, Batch], jax.Array]  # the mean over the batch, a scalar
