"""Losses that couple the examples of a batch, and statistics of batches among params.

With batch normalization the loss of an example depends on its batch, and each step also
moves running statistics. These are leaves of the parameters, under the key
``batch_stats`` of Flax. `statistics_loss` gives them a gradient, "now less after the
batch", and `carry_statistics` subtracts it as it is, beside any optimizer.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nfp_jax.trees import STATISTICS
from nfp_jax.types import Batch, Params


class CoupledLoss(NamedTuple):
    """A loss for ``make_training`` that sees the batch as a whole.

    Attributes:
      fn: ``fn(params, batch, counts)``, the mean over the examples that count:
        ``counts`` is bool ``[batch]``. Others are padding, and must change nothing.
    """

    fn: Callable[[Params, Batch, jax.Array], jax.Array]


def statistics_loss(
    apply_fn: Callable[[Params, jax.Array, jax.Array], tuple[jax.Array, Any]],
) -> CoupledLoss:
    """Returns the mean softmax cross-entropy of a network with batch normalization.

    Its gradient in a running statistic s is ``s - s'``, where s' is the statistic after
    the batch; the value of the loss has no part of that.

    Args:
      apply_fn: ``apply_fn(params, x, counts) -> (logits, statistics)`` with
        ``params["batch_stats"]`` after the batch; ``models.TrainingApply`` is one.

    Returns:
      A ``CoupledLoss`` of batches ``(x, y, …)``, in nats.

    >>> def apply_fn(params, x, counts):
    ...     return x, {"mean": jnp.mean(x, where=counts[:, None])}
    >>> params = {"params": {}, "batch_stats": {"mean": jnp.float32(1.0)}}
    >>> batch = jnp.array([[3.0, 3.0], [9.0, 9.0]]), jnp.array([0, 0])
    >>> counts = jnp.array([True, False])
    >>> loss, gradient = jax.value_and_grad(statistics_loss(apply_fn).fn)(
    ...     params, batch, counts)
    >>> round(float(loss), 4), float(gradient["batch_stats"]["mean"])
    (0.6931, -2.0)
    """

    def fn(params: Params, batch: Batch, counts: jax.Array) -> jax.Array:
        x, y = batch[:2]
        logits, after = apply_fn(params, x, counts)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        mean = jnp.sum(jnp.where(counts, losses, 0)) / jnp.sum(counts)
        return mean + _pull(params[STATISTICS], after)

    return CoupledLoss(fn)


def _pull(now: Any, after: Any) -> jax.Array:
    """Zero, whose gradient in ``now`` is ``now - after``."""
    stop = jax.lax.stop_gradient

    def of_leaf(s: jax.Array, t: jax.Array) -> jax.Array:
        # s - stop(s) is 0 also where the other factor is large.
        return jnp.sum((s - stop(s)) * stop(s - t))

    return sum(jax.tree.leaves(jax.tree.map(of_leaf, now, after)), start=jnp.zeros(()))


def carry_statistics(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformation:
    """Returns an optimizer that leaves statistics of batches to their gradient.

    Under ``batch_stats`` the update is minus the gradient, that of `statistics_loss`.
    The optimizer is given 0 there, so that these leaves count in no norm that clips,
    and neither a rate nor weight decay reaches them. Its state is that of the
    optimizer, with the structure of all parameters.

    Args:
      optimizer: any optax transformation.

    >>> params = {"params": jnp.array([1.0]), "batch_stats": jnp.array([5.0])}
    >>> carried = carry_statistics(optax.sgd(0.5))
    >>> updates, _ = carried.update(params, carried.init(params), params)
    >>> updates["params"].tolist(), updates["batch_stats"].tolist()
    ([-0.5], [-5.0])
    """

    def update(
        updates: Params, state: Any, params: Params | None = None
    ) -> tuple[Params, Any]:
        zeros = jax.tree.map(jnp.zeros_like, updates[STATISTICS])
        found, after = optimizer.update({**updates, STATISTICS: zeros}, state, params)
        carried = jax.tree.map(jnp.negative, updates[STATISTICS])
        return {**found, STATISTICS: carried}, after

    return optax.GradientTransformation(optimizer.init, update)
