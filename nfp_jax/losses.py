"""Losses of a batch, and their means over chunks of it in a fixed order.

Order and chunking are fixed, because another order of a sum may flip a bit of a mask,
and a flipped bit would read as information. Depends on jax and optax.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nfp_jax.trees import named_leaves
from nfp_jax.types import ApplyFn, Batch, LossFn, Params


class Counted(NamedTuple):
    """A batch of which only some examples count: sets of many sizes share a program.

    Attributes:
      batch: examples, padded to any size.
      counts: bool ``[size]``, which of them count.
      n: how many do, in all chunks together.
    """

    batch: Batch
    counts: Any
    n: Any


def first_of(batch: Batch, n: Any) -> Counted:
    """Returns a batch of which the first ``n`` examples count; ``n`` may be traced.

    >>> int(first_of(jnp.ones((4, 2)), 3).counts.sum())
    3
    """
    return Counted(batch, jnp.arange(example_count(batch)) < n, n)


def mean_loss(loss_fn: LossFn, params: Params, batch: Batch) -> jax.Array:
    """Returns the mean loss over a batch, or over those of its examples that count.

    ``loss_fn`` must be a mean over examples. Of a chunk of a ``Counted`` batch it is
    the part that the chunk adds to the mean.

    >>> square = lambda w, x: jnp.mean((w * x) ** 2)
    >>> batch = first_of(jnp.array([1.0, 3.0, 9.0]), 2)
    >>> float(mean_loss(square, 1.0, batch))
    5.0
    """
    if not isinstance(batch, Counted):
        return loss_fn(params, batch)

    def alone(example: Any) -> jax.Array:
        return loss_fn(params, jax.tree.map(lambda leaf: leaf[None], example))

    losses = jax.vmap(alone)(batch.batch)
    return jnp.sum(jnp.where(batch.counts, losses, 0)) / batch.n


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
      ``loss_fn(params, (x, y))``: a scalar. ``y`` is int ``[batch]``, or has the
      probabilities of classes, float ``[batch, classes]``; the loss is linear in these.

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


@dataclasses.dataclass(frozen=True)
class SquaredLoss:
    """The mean squared error of a network; ``squared_loss`` makes it.

    Two of the same network are equal, and share compiled programs.
    """

    apply_fn: ApplyFn

    def __call__(self, params: Params, batch: Batch) -> jax.Array:
        """Returns the mean loss of a batch that begins with ``x`` and ``y``."""
        x, y = batch[:2]
        return jnp.mean(jnp.sum((self.apply_fn(params, x) - y) ** 2, axis=-1))


def squared_loss(apply_fn: ApplyFn) -> SquaredLoss:
    """Returns the mean squared error of a network, ``(1/n) Σ ‖f(x) - y‖²``.

    Args:
      apply_fn: ``apply_fn(params, x) -> outputs [batch, outputs]``.

    Returns:
      ``loss_fn(params, (x, y, …))``: a scalar, of targets ``y [batch, outputs]``.

    >>> loss_fn = squared_loss(lambda params, x: x @ params)
    >>> float(loss_fn(jnp.zeros((3, 1)), (jnp.ones((2, 3)), jnp.full((2, 1), 2.0))))
    4.0
    """
    return SquaredLoss(apply_fn)


def check_chunk_size(chunk_size: int | None) -> None:
    """Raises unless ``chunk_size`` is at least 1, or None for one chunk of all."""
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}, expected at least 1 or None")


def mean_over_chunks(
    fn: Callable[[Batch], Any], batch: Batch, chunk_size: int | None
) -> Any:
    """The mean over all examples of a function that returns the mean over a batch."""
    if chunk_size is None:
        return fn(batch)
    if isinstance(batch, Counted):
        return _sum_over_chunks(fn, batch, chunk_size)
    size = example_count(batch)
    if size <= chunk_size:
        return fn(batch)
    chunks, rest = divmod(size, chunk_size)
    whole = chunks * chunk_size

    def chunked(leaf: jax.Array) -> jax.Array:
        return leaf[:whole].reshape(chunks, chunk_size, *leaf.shape[1:])

    def add(total: Any, chunk: Batch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, fn(chunk)), None

    head = jax.tree.map(chunked, batch)
    shapes = jax.eval_shape(fn, jax.tree.map(lambda leaf: leaf[0], head))
    total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, shapes), head)
    total = jax.tree.map(lambda t: t * (chunk_size / size), total)
    if rest == 0:
        return total
    tail = fn(jax.tree.map(lambda leaf: leaf[whole:], batch))
    return jax.tree.map(lambda t, last: t + last * (rest / size), total, tail)


def _sum_over_chunks(fn: Callable[[Batch], Any], batch: Counted, size: int) -> Any:
    """The sum over chunks of what each adds to the mean; padding adds exact zeros."""
    examples, counts, n = batch
    if len(counts) <= size:
        return fn(batch)

    def chunked(leaf: Any) -> jax.Array:
        more = [(0, -len(leaf) % size)] + [(0, 0)] * (jnp.ndim(leaf) - 1)
        return jnp.pad(leaf, more).reshape(-1, size, *leaf.shape[1:])

    def add(total: Any, chunk: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, fn(Counted(chunk[0], chunk[1], n))), None

    chunks = jax.tree.map(chunked, (examples, counts))
    one = jax.tree.map(lambda leaf: leaf[0], chunks)
    first = Counted(one[0], one[1], n)
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(fn, first))
    return jax.lax.scan(add, zeros, chunks)[0]


def example_count(batch: Batch) -> int:
    """Returns the number of examples, the common leading size of the batch's leaves.

    Raises:
      ValueError: no leaves, leaves of different leading sizes, or a scalar (names the
        path).

    >>> example_count((jnp.ones((4, 2)), jnp.zeros(4)))
    4
    """
    leaves = named_leaves(batch)
    if not leaves:
        raise ValueError("batch has no leaves, expected examples to score on")
    first_path, first_leaf = leaves[0]
    size = jnp.shape(first_leaf)[:1]
    for path, leaf in leaves[1:]:
        if jnp.shape(leaf)[:1] != size:
            raise ValueError(
                f"batch at {path!r} has shape {jnp.shape(leaf)}, expected a leading "
                f"size of {size}, as at {first_path!r}"
            )
    if not size:
        raise ValueError(
            f"batch at {first_path!r} is a scalar, expected an axis of examples"
        )
    return int(size[0])
