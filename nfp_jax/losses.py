"""Losses of a batch, and their means over chunks of it in a fixed order.

Data is taken in a fixed order and chunking, because a flipped mask bit would read as
information. Depends on jax and optax.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nfp_jax.trees import named_leaves
from nfp_jax.types import ApplyFn, Batch, Params


@dataclasses.dataclass(frozen=True)
class ClassificationLoss:
    """The mean softmax cross-entropy of a network; ``classification_loss`` makes it.

    Two of the same network and temperature are equal, and share compiled programs.
    """

    apply_fn: ApplyFn
    temperature: float = 1.0

    def __call__(self, params: Params, batch: Batch) -> jax.Array:
        """Returns the mean loss of a batch ``(x, y)``, in nats."""
        x, y = batch
        logits = self.apply_fn(params, x) / self.temperature
        if jnp.ndim(y) == 2:
            return jnp.mean(optax.softmax_cross_entropy(logits, y))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return jnp.mean(losses)


def classification_loss(
    apply_fn: ApplyFn, *, temperature: float = 1.0
) -> ClassificationLoss:
    """Returns the mean softmax cross-entropy of a network, in nats.

    Args:
      apply_fn: ``apply_fn(params, x) -> logits [batch, classes]``.
      temperature: divides the logits; GraSP takes 200.

    Returns:
      ``loss_fn(params, (x, y))``: a scalar; ``y`` int ``[batch]``, or the probabilities
      of classes, float ``[batch, classes]``: the loss is linear in these.

    Raises:
      ValueError: a temperature that is not positive.

    >>> loss_fn = classification_loss(lambda params, x: x @ params)
    >>> float(loss_fn(jnp.zeros((3, 2)), (jnp.ones((1, 3)), jnp.array([1]))))
    0.6931471824645996

    Reference: Wang et al. 2020, https://arxiv.org/abs/2002.07376, section 5
    (the temperature).
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}, expected a positive number")
    return ClassificationLoss(apply_fn, float(temperature))


def check_chunk_size(chunk_size: int | None) -> None:
    """Raises unless it is a number of examples, or None: all."""
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}, expected at least 1 or None")


def mean_over_chunks(
    fn: Callable[[Batch], Any], batch: Batch, chunk_size: int | None
) -> Any:
    """The mean over all examples of a function that takes the mean over a batch."""
    if chunk_size is None:
        return fn(batch)
    size = _examples(batch)
    if size <= chunk_size:
        return fn(batch)
    chunks, rest = divmod(size, chunk_size)
    head = jax.tree.map(
        lambda leaf: leaf[: chunks * chunk_size].reshape(
            chunks, chunk_size, *leaf.shape[1:]
        ),
        batch,
    )
    total, _ = jax.lax.scan(
        lambda total, part: (jax.tree.map(jnp.add, total, fn(part)), None),
        jax.tree.map(
            jnp.zeros_like, jax.eval_shape(fn, jax.tree.map(lambda x: x[0], head))
        ),
        head,
    )
    total = jax.tree.map(lambda t: t * (chunk_size / size), total)
    if rest == 0:
        return total
    tail = fn(jax.tree.map(lambda leaf: leaf[chunks * chunk_size :], batch))
    return jax.tree.map(lambda t, last: t + last * (rest / size), total, tail)


def _examples(batch: Batch) -> int:
    """The common leading size of a batch."""
    leaves = named_leaves(batch)
    if not leaves:
        raise ValueError("batch has no leaves, expected examples to score on")
    (first, leaf), *others = leaves
    for path, other in others:
        if jnp.shape(other)[:1] != jnp.shape(leaf)[:1]:
            raise ValueError(
                f"batch at {path!r} has shape {jnp.shape(other)}, expected a leading "
                f"size of {jnp.shape(leaf)[:1]}, as at {first!r}"
            )
    if jnp.ndim(leaf) == 0:
        raise ValueError(
            f"batch at {first!r} is a scalar, expected an axis of examples"
        )
    return int(jnp.shape(leaf)[0])
