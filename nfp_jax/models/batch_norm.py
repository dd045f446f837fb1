"""Networks with batch normalization: what they do with a batch, and what it leaves.

Flax keeps the running statistics of ``nn.BatchNorm`` in the collection ``batch_stats``.
Here they are leaves of the parameters, beside ``params``: no gradient moves them, no
mask removes them, and they travel with the weights. ``model.apply(params, x)``
normalizes by them. With ``counts`` it normalizes by the statistics of the batch.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from nfp_jax.trees import STATISTICS, named_leaves


def has_statistics(params: Any) -> bool:
    """Returns whether parameters, or their shapes, hold statistics of batches.

    >>> has_statistics({"params": {}})
    False
    """
    return isinstance(params, dict) and STATISTICS in params


@dataclasses.dataclass(frozen=True)
class TrainingApply:
    """A network in training: ``apply_fn(params, x, counts) -> (outputs, statistics)``.

    It normalizes by the statistics of the examples of the batch that count, ``counts``
    bool ``[batch]``. ``statistics`` is ``params["batch_stats"]`` after the batch.

    Attributes:
      model: a Flax module whose ``__call__`` takes ``counts``, as that of `ResNet`.
    """

    model: Any

    def __call__(self, params: Any, x: jax.Array, counts: jax.Array) -> Any:
        """Returns outputs ``[batch, ...]``, and the statistics after the batch."""
        outputs, after = self.model.apply(
            params, x, counts=counts, mutable=[STATISTICS]
        )
        return outputs, after[STATISTICS]


@dataclasses.dataclass(frozen=True)
class BatchApply:
    """A network on a whole batch: ``apply_fn(params, x) -> outputs``.

    It normalizes by the statistics of the batch, as scores at initialization need it:
    there the running statistics still are 0 and 1. Two of the same network are equal,
    and share compiled programs.

    Attributes:
      model: as in ``TrainingApply``.

    Raises:
      ValueError: a batch of one example, as of a caller that takes examples one by one
        (names the layer).
    """

    model: Any

    def __call__(self, params: Any, x: jax.Array) -> jax.Array:
        """Returns outputs ``[batch, ...]``."""
        if len(x) == 1:
            raise ValueError(
                f"{layer_of(params)} normalizes by the statistics of a batch, and got "
                "a batch, or the rest of one, of a single example"
            )
        outputs, _ = TrainingApply(self.model)(params, x, jnp.ones(len(x), bool))
        return outputs


def layer_of(params: Any) -> str:
    """Returns the path of the first layer that holds statistics of batches.

    >>> layer_of({"batch_stats": {"norm": {"mean": 0, "var": 1}}})
    'norm'
    """
    path, _ = named_leaves(params[STATISTICS])[0]
    return path.rpartition("/")[0]
