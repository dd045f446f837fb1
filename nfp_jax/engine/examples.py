"""The examples of a training: padded, taken in a random order, batch by batch."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.trees import named_leaves
from nfp_jax.types import Batch

Data = Any


class Examples(NamedTuple):
    """A training set as a lane takes it, padded: sets of many sizes share a program.

    Attributes:
      data: pytree of arrays ``[padded, ...]``, of which the first ``n`` rows count.
      n: int32, the number of examples.
      inputs: ``None``, or a pytree of arrays ``[pool, ...]`` that many sets share; then
        ``data`` is a tuple whose first entry holds rows of the pool, and batches hold
        the inputs of these rows in its place.
    """

    data: Data
    n: Any
    inputs: Any = None


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


def pad(data: Data, batch_size: int, *, inputs: Any = None) -> Examples:
    """Returns the examples of a data set, padded to ``padded_size``.

    Raises:
      ValueError: leaves of ``data`` of different leading sizes, or of none; with
        ``inputs``, data that is not a tuple that begins with integer rows.
    """
    n = count_examples(data)
    if inputs is not None:
        rows = data[0] if isinstance(data, tuple) and data else None
        if not jnp.issubdtype(getattr(rows, "dtype", float), jnp.integer):
            raise ValueError(
                "inputs are given, expected data to be a tuple that begins with an "
                f"integer array of their rows, got {type(data).__name__}"
            )
    more = padded_size(n, batch_size) - n

    def longer(leaf: Any) -> Any:
        widths = [(0, more)] + [(0, 0)] * (jnp.ndim(leaf) - 1)
        on_host = isinstance(leaf, np.ndarray)
        return np.pad(leaf, widths) if on_host else jnp.pad(leaf, widths)

    padded = jax.tree.map(longer, data) if more else data
    return Examples(padded, np.int32(n), inputs)


def epoch_order(key: jax.Array, epoch: jax.Array, n: Any, padded: int) -> jax.Array:
    """A permutation of the first ``n``, whatever ``padded`` is, and then the rest."""
    bits = jax.random.bits(jax.random.fold_in(key, epoch), (padded,), jnp.uint32)
    last = jnp.uint32(2**32 - 1)
    return jnp.argsort(jnp.where(jnp.arange(padded) < n, bits, last), stable=True)


def take_batch(examples: Examples, index: jax.Array) -> Batch:
    """The batch of these examples, their inputs fetched."""
    batch = jax.tree.map(lambda leaf: leaf[index], examples.data)
    if examples.inputs is None:
        return batch
    return (jax.tree.map(lambda leaf: leaf[batch[0]], examples.inputs), *batch[1:])


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
