"""How much a network memorized, and how fast: points, bits, epochs, label noise.

Pure functions of arrays, for one network; ``vmap`` those over many that return arrays.
Depends on jax and numpy.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def memorized_points(accuracy: Any, n: Any) -> jax.Array:
    """Returns how many training labels are fitted: ``n · accuracy``, in points.

    Args:
      accuracy: share of the training labels predicted, in [0, 1], any shape.
      n: number of training points.

    >>> float(memorized_points(0.75, 1000))
    750.0

    Reference: Kumar et al. 2024, https://arxiv.org/abs/2402.01089, section 5.
    """
    return jnp.asarray(accuracy) * n


def memorized_bits(accuracy: Any, n: Any, classes: int) -> jax.Array:
    """Returns the bits about uniform labels that the network holds, by Fano.

    ``n · (log2 C - h2(err) - err · log2(C-1))`` with ``err = 1 - accuracy``, and 0 at
    chance or below (``err >= 1 - 1/C``). It is only for labels that are pure noise, or
    for those among them that were redrawn. On learnable labels it would count
    generalization.

    Args:
      accuracy: share of those labels predicted, in [0, 1], any shape.
      n: number of those labels.
      classes: ``C``, at least 2.

    Returns:
      Bits, in the shape of ``accuracy``; NaN where ``n`` is 0, since there was nothing
      to memorize.

    Raises:
      ValueError: fewer than two classes.

    >>> float(memorized_bits(1.0, 1000, 2)), float(memorized_bits(0.5, 1000, 2))
    (1000.0, 0.0)

    Reference: Fano's inequality, Cover and Thomas 2006, theorem 2.10.1.
    """
    if classes < 2:
        raise ValueError(f"classes is {classes}, expected at least 2")
    error = 1.0 - jnp.asarray(accuracy, float)
    n = jnp.asarray(n)
    entropy = -(jax.scipy.special.xlogy(error, error)) - jax.scipy.special.xlogy(
        1 - error, 1 - error
    )
    bits = math.log2(classes) - entropy / math.log(2) - error * math.log2(classes - 1)
    bits = jnp.where(error < 1 - 1 / classes, n * jnp.maximum(bits, 0.0), 0.0)
    return jnp.where(n > 0, bits, jnp.nan)


def epochs_to(accuracy: Any, share: float) -> int | None:
    """Returns the time to memorize: the first epoch at whose end a share is fitted.

    Args:
      accuracy: train accuracy at the end of each epoch, ``[epochs]``.
      share: share of the labels, in (0, 1].

    Returns:
      The epoch, counted from 1; None where the training ended before.

    Raises:
      ValueError: ``share`` out of (0, 1].

    >>> epochs_to([0.5, 0.9, 1.0], 0.9), epochs_to([0.5], 0.9)
    (2, None)
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}, expected 0 < share <= 1")
    # 1.5e-7: the rounding of two float32, as in training.stop_when_fitted.
    fitted = np.flatnonzero(np.asarray(accuracy) >= share - 1.5e-7)
    return int(fitted[0]) + 1 if len(fitted) else None


def memorization_area(accuracy: Any, budget: int) -> float:
    """Returns the mean train accuracy over the logarithm of the epoch, in [0, 1].

    It is the area under accuracy against ``log(epoch)`` from epoch 1 to the budget,
    divided by ``log(budget)``. A training that ended earlier keeps its last accuracy to
    the budget. So one number tells how fast and how much, and hardly depends on when
    the training was stopped.

    Args:
      accuracy: train accuracy at the end of each epoch, ``[epochs]``, at most
        ``budget`` of them.
      budget: in epochs, at least 2.

    Raises:
      ValueError: no epoch, more than ``budget`` of them, or a budget below 2.

    >>> memorization_area([0.5, 1.0], 4)
    0.75
    """
    values = np.asarray(accuracy, float)
    if budget < 2 or not 1 <= len(values) <= budget:
        raise ValueError(
            f"accuracy has {len(values)} epochs and the budget is {budget}, expected 1 "
            "to budget of them, and a budget of at least 2"
        )
    ends = np.log(np.append(np.arange(1, len(values) + 1), budget))
    return float(values @ np.diff(ends) / ends[-1])


def noise_correlation(probabilities: jax.Array, z: jax.Array) -> jax.Array:
    """Returns the correlation of the outputs with the label noise.

    ``(1/n) Σ_i <f(x_i), z_i>``: in expectation 0 for a network that did not see the
    noise, and ``noise_power(z)`` for a network that has learnt all of it.

    Args:
      probabilities: softmax outputs ``f(x_i)``, ``[n, classes]``.
      z: label noise ``[n, classes]``, as in ``data.with_label_noise``.

    Returns:
      A float scalar.

    >>> z = jnp.array([[0.5, -0.5], [-0.5, 0.5]])
    >>> float(noise_correlation(jnp.array([[1.0, 0.0], [0.0, 1.0]]), z))
    0.5

    Reference: Kumar et al. 2024, https://arxiv.org/abs/2402.01089, section 5; Bubeck
    and Sellke 2021, https://arxiv.org/abs/2105.12806, section 2.
    """
    return jnp.mean(jnp.sum(probabilities * z, axis=-1))


def noise_power(z: jax.Array) -> jax.Array:
    """Returns ``(1/n) Σ_i ‖z_i‖²``, the ``noise_correlation`` if all noise is learnt.

    Args:
      z: label noise ``[n, classes]``.

    Returns:
      A float scalar. It is 0 without noise, and nothing can then be divided by it.

    >>> float(noise_power(jnp.array([[0.5, -0.5]])))
    0.5
    """
    return jnp.mean(jnp.sum(z**2, axis=-1))
