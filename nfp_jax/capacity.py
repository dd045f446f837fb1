"""How much a network memorized: points, bits, noise; and its memorization capacity.

Pure functions of arrays, for one network; ``vmap`` them over many. The capacity is
searched for with the function that prunes and trains, which is given: ``Search`` is the
search one step at a time, for a queue. Depends on jax, numpy and `nfp_jax.estimates`.
A search believes that what does not fit n points does not fit more.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.estimates import mean_ends


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
    chance or below (``err >= 1 - 1/C``). Only for labels that are pure noise, or for
    the redrawn ones among the points: on learnable labels it would count
    generalization.

    Args:
      accuracy: share of those labels predicted, in [0, 1], any shape.
      n: number of those labels.
      classes: ``C``, at least 2.

    Returns:
      Bits, the shape of ``accuracy``; NaN where ``n`` is 0, since nothing was to be
      memorized.

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
      share: of the labels, in (0, 1].

    Returns:
      The epoch, from 1; None where the training ended before.

    Raises:
      ValueError: ``share`` out of (0, 1].

    >>> epochs_to([0.5, 0.9, 1.0], 0.9), epochs_to([0.5], 0.9)
    (2, None)
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}, expected 0 < share <= 1")
    # As in training.stop_when_fitted: the rounding of two float32.
    fitted = np.flatnonzero(np.asarray(accuracy) >= share - 1.5e-7)
    return int(fitted[0]) + 1 if len(fitted) else None


def memorization_area(accuracy: Any, budget: int) -> float:
    """Returns the mean train accuracy over the logarithm of the epoch, in [0, 1].

    The area under accuracy against ``log(epoch)`` from epoch 1 to the budget, divided
    by ``log(budget)``. A training that ended before holds its last accuracy: how fast
    and how much in one number, which rules that stop at other times leave alone.

    Args:
      accuracy: at the end of each epoch, ``[epochs]``, at most ``budget`` of them.
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

    ``(1/n) Σ_i <f(x_i), z_i>``: 0 for a network that saw no noise, ``noise_power(z)``
    for one that has learnt all of it.

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
    """Returns ``(1/n) Σ_i ‖z_i‖²``, the correlation of having learnt all noise.

    Args:
      z: label noise ``[n, classes]``.

    Returns:
      A float scalar; 0 without noise, where the divided correlation is undefined.

    >>> float(noise_power(jnp.array([[0.5, -0.5]])))
    0.5
    """
    return jnp.mean(jnp.sum(z**2, axis=-1))


class Search(NamedTuple):
    """The search for a memorization capacity, between two steps.

    ``next_n`` is what to try; ``told`` returns the search that knows how it went.

    Attributes:
      most: the largest n that may be tried.
      precision: the search ends where the ends are so close, as a ratio less 1.
      fitted: the largest n that was fitted, 0 for none.
      unfitted: the smallest n that was not, or None.

    >>> search = Search(most=100)
    >>> search.next_n(), search.told(10, True).next_n()
    (10, 32)
    """

    most: int
    precision: float = 0.05
    fitted: int = 0
    unfitted: int | None = None

    def next_n(self) -> int | None:
        """The n to try, or None where the search has ended."""
        low, high = self.fitted, self.unfitted
        if low >= self.most or (high is not None and self._close(high)):
            return None
        if high is None and self._close(self.most + 1):
            return self.most
        middle = round(math.sqrt(max(low, 1) * (high or self.most + 1)))
        return min(max(middle, low + 1), (high or self.most + 1) - 1)

    def told(self, n: int, fits: bool) -> "Search":
        """The search after n points were fitted, or not."""
        if fits:
            return self._replace(fitted=max(n, self.fitted))
        least = n if self.unfitted is None else min(n, self.unfitted)
        return self._replace(unfitted=least)

    @property
    def at_least(self) -> bool:
        """Whether the end of the search was fitted: the capacity may be larger."""
        return self.fitted >= self.most

    def _close(self, high: int) -> bool:
        return high - self.fitted <= max(1, self.precision * self.fitted)


def fits(accuracy: float, n: int, share: float) -> bool:
    """Returns whether so many of n labels are predicted: at least ``share`` of them.

    Counted in labels, so that 0.99 of 100 is 99 whatever the rounding of a mean.

    >>> fits(0.98999995, 100, 0.99), fits(0.98, 100, 0.99)
    (True, False)
    """
    return round(float(accuracy) * n) >= math.ceil(share * n - 1e-9)


def memorization_capacity(
    accuracy_fn: Callable[[int], float],
    *,
    most: int,
    share: float = 0.99,
    precision: float = 0.05,
) -> Search:
    """Returns the largest n whose labels are fitted, by bisection on a log scale.

    Args:
      accuracy_fn: ``accuracy_fn(n)`` finds the mask on the first n points of one set,
        trains, and returns the accuracy on them.
      most: the largest n that may be tried.
      share: of the labels to fit, in (0, 1].
      precision: the ratio less 1 of the ends that is close enough.

    Returns:
      The ended search: the capacity is ``fitted``, below ``unfitted``; where
      ``at_least``, the end of the search was fitted and the capacity may be larger. A
      network of constant output fits one point and those after it of the same label.

    Raises:
      ValueError: ``share`` out of (0, 1], ``most`` below 1, ``precision`` not positive.

    >>> table = lambda n: min(1.0, 300 / n)  # a look-up table of 300 entries
    >>> memorization_capacity(table, most=10_000, share=1.0, precision=0.001).fitted
    300

    Reference: Kumar et al. 2024, https://arxiv.org/abs/2402.01089, section 5.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}, expected 0 < share <= 1")
    if most < 1:
        raise ValueError(f"most is {most}, expected at least 1")
    if not precision > 0:
        raise ValueError(f"precision is {precision}, expected precision > 0")
    search = Search(most, precision)
    while (n := search.next_n()) is not None:
        search = search.told(n, fits(accuracy_fn(n), n, share))
    return search


class Gap(NamedTuple):
    """A mean of paired differences and the ends of its interval, NaN for one pair."""

    mean: float
    lower: float
    upper: float


def paired_gap(own: Any, other: Any, *, confidence: float = 0.95) -> Gap:
    """Returns the mean of ``own - other`` over pairs, with its Student-t interval.

    The data-swap control: ``own`` is what each mask's network memorized of the data
    that the mask was found on, ``other`` what the same mask's memorized of other data,
    of which the mask knows nothing. Half-width ``t · s / sqrt(k)`` with k pairs, s the
    deviation of their differences (k - 1 in the denominator), t with k - 1 degrees of
    freedom. Pairs that are not finite are left out.

    Args:
      own: ``[k]``.
      other: ``[k]``, in the same order and unit.
      confidence: of the interval.

    Raises:
      ValueError: the shapes differ, or there is no pair.

    >>> gap = paired_gap([5.0, 7.0, 6.0], [4.0, 4.0, 4.0])
    >>> f"{gap.mean:.2f} ({gap.lower:.2f} to {gap.upper:.2f})"
    '2.00 (-0.48 to 4.48)'
    """
    a, b = np.asarray(own, float), np.asarray(other, float)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise ValueError(
            f"pairs have shapes {a.shape} and {b.shape}, expected both [k]"
        )
    return Gap(*mean_ends(a - b, confidence))
