"""Loss and accuracy of a network, and its logits in chunks of examples."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nfp_jax.engine.examples import Data
from nfp_jax.masks import Params
from nfp_jax.types import Batch

Metrics = dict[str, jax.Array]


def classification_metrics(
    apply_fn: Callable[[Params, jax.Array], jax.Array],
) -> Callable[[Params, Data], Metrics]:
    """Returns the metrics of a classifier: mean cross-entropy (nats) and accuracy.

    Args:
      apply_fn: ``apply_fn(params, x) -> logits [batch, classes]``.

    Returns:
      ``metrics_fn(params, (x, y))``: ``{"loss", "accuracy"}``, float scalars.

    >>> metrics_fn = classification_metrics(lambda params, x: x @ params)
    >>> metrics = metrics_fn(jnp.eye(2), (jnp.eye(2), jnp.array([0, 0])))
    >>> float(metrics["accuracy"])
    0.5
    """

    def metrics_fn(params: Params, data: Data) -> Metrics:
        x, y = data
        return label_metrics(apply_fn(params, x), y)

    return metrics_fn


def label_metrics(logits: jax.Array, y: jax.Array) -> Metrics:
    """Returns mean cross-entropy (nats) and accuracy of logits ``[n, classes]``.

    >>> float(label_metrics(jnp.zeros((1, 2)), jnp.array([0]))["loss"])
    0.6931471824645996
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    correct = jnp.argmax(logits, axis=-1) == y
    return {"loss": jnp.mean(losses), "accuracy": jnp.mean(correct.astype(jnp.float32))}


def regression_metrics(
    apply_fn: Callable[[Params, jax.Array], jax.Array],
) -> Callable[[Params, Data], Metrics]:
    """Returns the metrics of a regression on targets with noise.

    Args:
      apply_fn: ``apply_fn(params, x) -> outputs [batch, outputs]``.

    Returns:
      ``metrics_fn(params, (x, y, z))`` with the noise ``z`` of targets ``y``, both
      ``[batch, outputs]``: the mean squared error ``loss``; ``accuracy``, the share of
      points memorized, those whose output is nearer to the target than to the signal
      ``y - z``; and ``noise_correlation``, ``(1/n) Σ ⟨f(x), z⟩``.

    >>> metrics_fn = regression_metrics(lambda params, x: x)
    >>> z = jnp.array([[1.0], [1.0]])
    >>> metrics = metrics_fn(None, (jnp.array([[0.75], [0.25]]), z, z))
    >>> {name: float(value) for name, value in metrics.items()}
    {'loss': 0.3125, 'accuracy': 0.5, 'noise_correlation': 0.5}
    """

    def metrics_fn(params: Params, data: Data) -> Metrics:
        x, y, z = data
        outputs = apply_fn(params, x)
        errors = jnp.sum((outputs - y) ** 2, axis=-1)
        memorized = errors < jnp.sum((outputs - y + z) ** 2, axis=-1)
        return {
            "loss": jnp.mean(errors),
            "accuracy": jnp.mean(memorized.astype(jnp.float32)),
            "noise_correlation": jnp.mean(jnp.sum(outputs * z, axis=-1)),
        }

    return metrics_fn


def logits_in_chunks(
    apply_fn: Callable[[Params, jax.Array], jax.Array],
    params: Params,
    x: jax.Array,
    chunk_size: int,
) -> jax.Array:
    """Returns ``apply_fn(params, x)``, computed ``chunk_size`` examples at a time.

    >>> double = lambda params, x: 2 * x
    >>> logits_in_chunks(double, None, jnp.ones((3, 1)), 2).tolist()
    [[2.0], [2.0], [2.0]]
    """
    n = x.shape[0]
    if n <= chunk_size:
        return apply_fn(params, x)
    whole = n // chunk_size * chunk_size
    chunks = x[:whole].reshape(-1, chunk_size, *x.shape[1:])
    logits = jax.lax.map(lambda chunk: apply_fn(params, chunk), chunks)
    logits = logits.reshape(whole, *logits.shape[2:])
    if whole == n:
        return logits
    return jnp.concatenate([logits, apply_fn(params, x[whole:])])


def per_example(
    fn: Callable[[Params, Batch], Any], params: Params, batch: Batch
) -> Any:
    """What ``fn`` returns for each example alone, along a leading axis."""

    def fn_alone(example: Any) -> Any:
        return fn(params, jax.tree.map(lambda leaf: leaf[None], example))

    return jax.vmap(fn_alone)(batch)
