"""Gaussian inputs with real targets: a linear signal, and Gaussian noise on it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nfp_jax.data.dataset import INPUT, LABEL

# After the streams of a point; that of the first point is the signal's.
SIGNAL = 2


class Regression(NamedTuple):
    """Points with real targets, ``y = clean + z``.

    Attributes:
      x: inputs, ``[n, dim]``.
      y: targets, ``[n, 1]``.
      clean: the signal, ``[n, 1]``.
      z: the noise, ``[n, 1]``.
    """

    x: jax.Array
    y: jax.Array
    clean: jax.Array
    z: jax.Array


def regression(
    key: jax.Array, n: int, dim: int, *, noise: float = 1.0, signal: float = 1.0
) -> Regression:
    """Returns n points of ``N(0, I)`` with ``y = √signal ⟨a, x⟩ + √noise ε``.

    ``a`` is a random unit vector and ``ε ~ N(0, 1)``, so that ``noise`` and ``signal``
    are variances. A network whose training error is below ``noise`` has learnt a part
    of the noise by heart (``robustness.excess``). Point i depends on the key and on i
    alone.

    Args:
      key: a random key; may be traced.
      n: the number of points.
      dim: of an input.
      noise: variance of the noise.
      signal: variance of the signal.

    Raises:
      ValueError: a number is out of range.

    >>> points = regression(jax.random.key(0), 3, 5, noise=0.0)
    >>> points.y.shape, bool((points.y == points.clean).all())
    ((3, 1), True)

    Reference: Bubeck and Sellke 2021, https://arxiv.org/abs/2105.12806, section 1.1.
    """
    for name, value, least in (
        ("n", n, 1),
        ("dim", dim, 1),
        ("noise", noise, 0),
        ("signal", signal, 0),
    ):
        if value < least:
            raise ValueError(f"{name} is {value}, expected at least {least}")
    first = jax.random.fold_in(key, 0)
    a = jax.random.normal(jax.random.fold_in(first, SIGNAL), (dim,))
    a = a / jnp.linalg.norm(a)

    def point(i: jax.Array) -> tuple[jax.Array, jax.Array]:
        at = jax.random.fold_in(key, i)
        x_key, z_key = (jax.random.fold_in(at, s) for s in (INPUT, LABEL))
        return jax.random.normal(x_key, (dim,)), jax.random.normal(z_key, (1,))

    x, epsilon = jax.vmap(point)(jnp.arange(n))
    clean, z = signal**0.5 * (x @ a)[:, None], noise**0.5 * epsilon
    return Regression(x, clean + z, clean, z)
