"""The examples of a training: padded, taken in a random order, batch by batch."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.trees import named_leaves, same_structure
from nfp_jax.types import Batch

Data = Any


class Examples(NamedTuple):
    """A training set: inputs, where among them its examples lie, and their labels.

    Attributes:
      inputs: pytree of arrays ``[pool, ...]``, which many sets may share; ``None``:
        those that the run has for all of its sets.
      index: int32 ``[n]``: example i has the inputs ``inputs[index[i]]``.
      labels: a tuple of pytrees of arrays ``[n, ...]``: what a batch has after its
        inputs; ``None``: a batch is its inputs alone, and no tuple.
    """

    inputs: Any
    index: Any
    labels: tuple[Any, ...] | None


class Padded(NamedTuple):
    """Examples as a lane takes them, padded: sets of many sizes share a program.

    Attributes:
      examples: with ``index`` and labels of a padded size; the first ``n`` count.
      n: int32, the number of examples.
    """

    examples: Examples
    n: Any


def as_examples(data: Data) -> Examples:
    """Returns a data set as examples.

    Args:
      data: ``Examples``; a tuple ``(x, *labels)``, or any other pytree, of arrays with
        a common leading axis of examples.

    Raises:
      ValueError: leaves of different leading sizes, or of none; inputs that have none.
    """
    if isinstance(data, Examples):
        if not jnp.issubdtype(getattr(data.index, "dtype", float), jnp.integer):
            raise ValueError(
                f"index is {type(data.index).__name__}, expected an integer array: "
                "where among the inputs each example lies"
            )
        count_examples((data.index, data.labels))
        return data
    # Padded beside the index; arange is made on the host, where it compiles nothing.
    index = np.arange(count_examples(data), dtype=np.int32)
    if isinstance(data, tuple) and data and not hasattr(data, "_fields"):
        return Examples(data[0], index, data[1:])
    return Examples(data, index, None)


def is_same(data: Data, other: Data) -> bool:
    """Returns whether two data sets are made of the same arrays, not equal ones alone.

    >>> x = np.zeros((3, 2))
    >>> is_same(Examples(x, None, None), Examples(x, None, None))
    True
    """
    if not same_structure(data, other):
        return False
    pairs = zip(jax.tree.leaves(data), jax.tree.leaves(other), strict=True)
    return all(a is b for a, b in pairs)


def padded_size(n: int, batch_size: int) -> int:
    """Returns the size that ``n`` examples are padded to: one of four an octave.

    Whole batches, where there is more than one; in a single one powers of 2 from 8 on,
    since small programs take as long to compile and less to run.

    >>> [padded_size(n, 64) for n in (3, 9, 64, 65, 1000, 1025)]
    [8, 16, 64, 128, 1024, 1280]
    """
    if n <= batch_size:
        return min(max(8, 1 << (n - 1).bit_length()), batch_size)
    return _rounded(-(-n // batch_size)) * batch_size


def pad(data: Data, batch_size: int, *, inputs: Any = None) -> Padded:
    """Returns the examples of a data set, padded to ``padded_size``.

    Args:
      data: as in ``as_examples``.
      batch_size: examples a step.
      inputs: those of examples that have none of their own.

    Raises:
      ValueError: as ``as_examples``; examples without inputs where none are given, or
        data that are no ``Examples`` where some are.
    """
    if inputs is not None and not isinstance(data, Examples):
        raise ValueError(
            "inputs are given, expected data to be Examples without inputs, got "
            f"{type(data).__name__}"
        )
    found = as_examples(data)
    n = count_examples((found.index, found.labels))
    more = padded_size(n, batch_size) - n
    shared = found.inputs is None
    if shared and inputs is None:
        raise ValueError("the examples have no inputs, and the run has none for all")

    def longer(leaf: Any) -> Any:
        widths = [(0, more)] + [(0, 0)] * (jnp.ndim(leaf) - 1)
        on_host = isinstance(leaf, np.ndarray)
        return np.pad(leaf, widths) if on_host else jnp.pad(leaf, widths)

    index, labels = found.index, found.labels
    if more:
        index, labels = jax.tree.map(longer, (index, labels))
    pool = inputs if shared else found.inputs
    if not shared and more and _size(pool) == n:
        pool = jax.tree.map(longer, pool)  # a set of its size alone: no new program
    return Padded(Examples(pool, index, labels), np.int32(n))


def _size(pool: Any) -> int:
    return int(jnp.shape(jax.tree.leaves(pool)[0])[0])


def epoch_order(key: jax.Array, epoch: jax.Array, n: Any, padded: int) -> jax.Array:
    """A permutation of the first ``n``, whatever ``padded`` is, and then the rest."""
    bits = jax.random.bits(jax.random.fold_in(key, epoch), (padded,), jnp.uint32)
    last = jnp.uint32(2**32 - 1)
    return jnp.argsort(jnp.where(jnp.arange(padded) < n, bits, last), stable=True)


def take_batch(examples: Examples, places: jax.Array) -> Batch:
    """The batch of the examples at these places."""
    index = jnp.asarray(examples.index)[places]
    x = jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], examples.inputs)
    if examples.labels is None:
        return x
    labels = jax.tree.map(lambda leaf: jnp.asarray(leaf)[places], examples.labels)
    return (x, *labels)


def _rounded(count: int) -> int:
    """The next number of the form (4, 5, 6 or 7) * 2**k, or one below 8 itself."""
    unit = 1 << max(count.bit_length() - 3, 0)
    return -(-count // unit) * unit


def count_examples(data: Data) -> int:
    """The number of examples, the common leading size of the leaves."""
    leaves = named_leaves(data)
    sizes = {path: jnp.shape(leaf)[:1] for path, leaf in leaves}
    if len(set(sizes.values())) != 1 or () in sizes.values() or (0,) in sizes.values():
        raise ValueError(
            f"data has leaves of leading sizes {sizes}, expected one common size of at "
            "least 1"
        )
    return int(next(iter(sizes.values()))[0])
