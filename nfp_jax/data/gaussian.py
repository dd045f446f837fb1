"""Gaussian inputs with random labels."""

import jax
import jax.numpy as jnp

from nfp_jax.data.contract import Synthetic
from nfp_jax.data.dataset import INPUT, LABEL, Dataset, without_noise
from nfp_jax.fields import check


def gaussian(key: jax.Array, n: int, dim: int, *, classes: int = 2) -> Dataset:
    """Returns n points of ``N(0, I)`` with labels uniform over the classes.

    Point i depends on the key and on i alone: the set of n points is the first part
    of every larger one. There is no label noise and no test set. ``jit`` and ``vmap``
    over the key give the same points.

    Args:
      key: a random key; may be traced.
      n: the number of points.
      dim: the dimension of a point, so that ``x`` is ``[n, dim]``.
      classes: the number of classes, at least 2.

    Raises:
      ValueError: a number is out of range.

    >>> gaussian(jax.random.key(0), 3, 5).x.shape
    (3, 5)

    Reference: Kumar et al. 2024, https://arxiv.org/abs/2402.01089: random
    Boolean labels of Gaussian inputs.
    """
    for name, value, least in (("n", n, 1), ("dim", dim, 1), ("classes", classes, 2)):
        if value < least:
            raise ValueError(f"{name} is {value}, expected at least {least}")

    def point(i: jax.Array) -> tuple[jax.Array, jax.Array]:
        point_key = jax.random.fold_in(key, i)
        x_key, y_key = (jax.random.fold_in(point_key, s) for s in (INPUT, LABEL))
        x = jax.random.normal(x_key, (dim,), jnp.float32)
        return x, jax.random.randint(y_key, (), 0, classes, jnp.int32)

    x, y = jax.vmap(point)(jnp.arange(n))
    return without_noise(x, y, classes)


def _make(key: jax.Array, n: int, *, dim: int = 50, classes: int = 2) -> Dataset:
    return gaussian(key, n, dim, classes=classes)


def _shape(*, dim: int = 50, classes: int = 2) -> tuple[tuple[int, ...], int]:
    check({"data.dim": dim}, lambda dim: dim >= 1, "{} >= 1")
    check({"data.classes": classes}, lambda classes: classes >= 2, "{} >= 2")
    return (dim,), classes


CARD = Synthetic("gaussian", _make, _shape, gaussian_inputs=True, uniform_labels=True)
