"""The whole training of one network, in one ``jit``."""

import functools
from typing import Any

import jax

from nfp_jax.engine.examples import Data, Padded, pad
from nfp_jax.engine.training import NO_LIMIT, Training, TrainResult
from nfp_jax.types import Mask, Params


def train(
    training: Training,
    params: Params,
    mask: Mask,
    data: Data,
    key: jax.Array,
    *,
    steps: Any = None,
    inputs: Any = None,
) -> TrainResult:
    """Returns one network, trained to its own convergence in one ``jit``.

    The outcome depends on the arguments alone. Works under ``vmap``, where all
    networks run until the slowest has converged (``ensemble.run`` does better), and
    differentiates nothing.

    Args:
      training: from ``make_training``; keep it, another one compiles again.
      params: initial weights.
      mask: bool pytree like ``params``.
      data: ``Examples``; or a tuple ``(x, *labels)``, often ``(x, y)``, or any other
        pytree of arrays with a common leading axis of examples. Sizes that pad to the
        same one share a program.
      key: decides the order of batches.
      steps: instead, exactly this many optimizer steps, an integer: the weights to
        rewind to. The last metrics may then be those of a part of an epoch.
      inputs: those of ``Examples`` that have none, so that many sets share them.

    Returns:
      A ``TrainResult``.

    Raises:
      ValueError: a mask that does not fit (names the path), or leaves of ``data`` of
        different leading sizes.
    """
    limit = NO_LIMIT if steps is None else steps
    padded = pad(data, training.batch_size, inputs=inputs)
    result = run_training(training, params, mask, padded, key, limit)
    return result if training.moves else result._replace(mask=mask)


@functools.partial(jax.jit, static_argnums=0)
def run_training(
    training: Training,
    params: Params,
    mask: Mask,
    data: Padded,
    key: jax.Array,
    limit: Any,
) -> TrainResult:
    """Returns what ``train`` does; jitted, so that it can be lowered ahead of time."""
    state = jax.lax.while_loop(
        lambda state: ~training.done(state),
        lambda state: training.epoch(state, data),
        training.init(params, mask, data, key, limit),
    )
    return training.finish(state)
