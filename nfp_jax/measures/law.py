"""The law of robustness: how far below the noise a network fits, and what it costs.

Pure functions of arrays, for one network or many. Depends on jax.
"""

from typing import Any

import jax
import jax.numpy as jnp


def squared_error(probabilities: jax.Array, y: jax.Array) -> jax.Array:
    """Returns ``(1/n) Σ_i ‖f(x_i) - onehot(y_i)‖²``, the error in squared loss.

    Args:
      probabilities: softmax outputs ``f(x_i)``, ``[n, classes]``.
      y: labels, int ``[n]``.

    Returns:
      A float scalar in [0, 2].

    >>> float(squared_error(jnp.array([[1.0, 0.0], [0.5, 0.5]]), jnp.array([0, 1])))
    0.25
    """
    onehot = jax.nn.one_hot(y, probabilities.shape[-1], dtype=probabilities.dtype)
    return jnp.mean(jnp.sum((probabilities - onehot) ** 2, axis=-1))


def excess(squared_error: Any, noise_variance: Any) -> jax.Array:
    """Returns ε, the noise variance less the training error: how far below noise it is.

    It is positive where a network has learnt a part of the noise by heart.

    Args:
      squared_error: the training error, from ``squared_error``, any shape.
      noise_variance: ``(1/n) Σ_i ‖z_i‖²``, from ``memorization.noise_power``.

    >>> float(excess(0.125, 0.5))
    0.375

    Reference: Bubeck and Sellke 2021, https://arxiv.org/abs/2105.12806, theorem 1.
    """
    return jnp.asarray(noise_variance) - jnp.asarray(squared_error)


def lipschitz_required(excess: Any, n: Any, dim: Any, parameters: Any) -> jax.Array:
    """Returns the Lipschitz constant that the law of robustness demands.

    ``ε sqrt(n d / p)``, up to constants and logarithms, in units where the inputs have
    ``E‖x‖² = 1`` (``lipschitz.in_unit_norm``). It is a rate, no bound on one network.

    Args:
      excess: ε, from ``excess``, any shape.
      n: number of training points.
      dim: ``d``, dimension of the inputs.
      parameters: ``p``, the network's parameters, or their effective count.

    Returns:
      An array in the shape of ``excess``. It is NaN where ε is not positive: there the
      network does not fit below the noise, and the law says nothing.

    >>> lipschitz_required(jnp.array([0.5, -0.1]), n=1000, dim=40, parameters=400)
    Array([ 5., nan], dtype=float32)

    Reference: Bubeck and Sellke 2021, https://arxiv.org/abs/2105.12806, theorem 1, has
    p; Kumar et al. 2024, https://arxiv.org/abs/2402.01089, has the effective count.
    """
    eps = jnp.asarray(excess)
    share = jnp.asarray(n, float) / jnp.asarray(parameters, float)
    return jnp.where(eps > 0, eps * jnp.sqrt(share * dim), jnp.nan)
