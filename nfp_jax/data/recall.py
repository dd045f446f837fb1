"""Associative recall: random keys, each a few tokens, with random values."""

import jax
import jax.numpy as jnp

from nfp_jax.data.contract import Synthetic
from nfp_jax.data.dataset import INPUT, LABEL, Dataset, without_noise
from nfp_jax.fields import check


def recall(
    key: jax.Array, n: int, *, vocabulary: int = 32, length: int = 8, values: int = 32
) -> Dataset:
    """Returns n random key-value pairs: keys of tokens, values as labels.

    A key is ``length`` tokens, uniform over the vocabulary; its value is uniform over
    ``values``. Nothing but memory tells the value of a key, so the most pairs that a
    network fits is its capacity of associative recall. Keys may repeat: of n keys about
    n² / (2 vocabulary^length) pairs are equal. Pair i depends on the key of randomness
    and on i alone.

    Args:
      key: a random key; may be traced.
      n: the number of pairs.
      vocabulary: the number of tokens, at least 2.
      length: of a key, in tokens, at least 1.
      values: the number of values, which are the classes, at least 2.

    Returns:
      A set with ``x`` of one-hot tokens times √vocabulary, so that their mean square is
      1: float32 ``[n, length, vocabulary]``.

    Raises:
      ValueError: a number is out of range.

    >>> recall(jax.random.key(0), 3, vocabulary=5, length=2).x.shape
    (3, 2, 5)

    Reference: Nichani et al. 2024, https://arxiv.org/abs/2412.06538; a key here has
    several tokens, which attention has to bring together.
    """
    for name, value, least in (
        ("n", n, 1),
        ("vocabulary", vocabulary, 2),
        ("length", length, 1),
        ("values", values, 2),
    ):
        if value < least:
            raise ValueError(f"{name} is {value}, expected at least {least}")

    def pair(i: jax.Array) -> tuple[jax.Array, jax.Array]:
        pair_key = jax.random.fold_in(key, i)
        x_key, y_key = (jax.random.fold_in(pair_key, s) for s in (INPUT, LABEL))
        tokens = jax.random.randint(x_key, (length,), 0, vocabulary)
        return tokens, jax.random.randint(y_key, (), 0, values, jnp.int32)

    tokens, y = jax.vmap(pair)(jnp.arange(n))
    x = jax.nn.one_hot(tokens, vocabulary, dtype=jnp.float32) * vocabulary**0.5
    return without_noise(x, y, values)


def _make(
    key: jax.Array, n: int, *, vocabulary: int = 32, length: int = 8, values: int = 32
) -> Dataset:
    return recall(key, n, vocabulary=vocabulary, length=length, values=values)


def _shape(
    *, vocabulary: int = 32, length: int = 8, values: int = 32
) -> tuple[tuple[int, ...], int]:
    sizes = {"data.vocabulary": vocabulary, "data.values": values}
    check(sizes, lambda size: size >= 2, "{} >= 2")
    check({"data.length": length}, lambda length: length >= 1, "{} >= 1")
    return (length, vocabulary), values


CARD = Synthetic("recall", _make, _shape, uniform_labels=True)
