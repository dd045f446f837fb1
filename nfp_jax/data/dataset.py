"""A data set: points, labels and label noise; parts of it, and standard units.

A label that the noise redraws may come out unchanged, so that a rate of 1 is pure
noise. Everything random about point i depends on the key and on i alone, so that the
sets of different sizes and noise rates are nested.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray


# What a key is folded with after the point's index: one stream a kind of draw.
INPUT, LABEL, REDRAW, NEW_LABEL = range(4)


class DataError(Exception):
    """A set that can't be had or read; the message says where and what to do."""


class Dataset(NamedTuple):
    """Training points with their labels, and test points where the set has some.

    Attributes:
      x: ``[n, ...]`` float32 inputs, standardized; images are ``[n, h, w, c]``.
      y: ``[n]`` int32, the labels to train on.
      clean: ``[n]`` int32, the labels before noise.
      redrawn: ``[n]`` bool, the labels that the noise redrew, changed or not.
      z: ``[n, classes]`` float32, the label noise
        ``onehot(y) - ((1 - rate)·onehot(clean) + rate/classes)``, of mean 0.
      x_test: like ``x``, or None.
      y_test: like ``y``, never noisy, or None.
      classes: the number of classes.

    The arrays are numpy's or jax's. ``jit`` and ``vmap`` make an array of ``classes``;
    ``z.shape[-1]`` stays a number.
    """

    x: Array
    y: Array
    clean: Array
    redrawn: Array
    z: Array
    x_test: Array | None
    y_test: Array | None
    classes: int


class Labels(NamedTuple):
    """The labels of a set with noise, as a training takes them after the inputs.

    Attributes:
      y: ``[n]`` int32, the labels to train on.
      z: ``[n, classes]`` float32, the label noise, as in ``Dataset``.
      redrawn: ``[n]`` bool, the labels that the noise redrew, changed or not.
    """

    y: Array
    z: Array
    redrawn: Array


def with_label_noise(
    dataset: Dataset, key: jax.Array, rate: float | jax.Array
) -> Dataset:
    """Returns the dataset with each clean label redrawn with probability ``rate``.

    A redrawn label is uniform over all classes, so it stays the same once in
    ``classes`` times. Whether and what to redraw for point i depends on the key and on
    i alone, and the same draws serve every rate: the redrawn points of a smaller set or
    rate are redrawn, to the same labels, in a larger one. Earlier noise is forgotten,
    test labels are left alone, and ``x`` is not copied.

    Args:
      dataset: its ``clean`` labels are where the noise starts from.
      key: a random key; may be traced.
      rate: in [0, 1]; may be traced, and is then not checked.

    Returns:
      The dataset with new ``y``, ``redrawn`` and ``z``.

    Raises:
      ValueError: the rate is out of range.

    >>> from nfp_jax.data import gaussian
    >>> points = gaussian(jax.random.key(0), 100, 2)
    >>> int(with_label_noise(points, jax.random.key(1), 1.0).redrawn.sum())
    100
    """
    classes = dataset.z.shape[-1]
    labels = redraw(dataset.clean, key, rate, classes=classes)
    return dataset._replace(y=labels.y, redrawn=labels.redrawn, z=labels.z)


def redraw(
    clean: Array, key: jax.Array, rate: float | jax.Array, *, classes: int
) -> Labels:
    """Returns labels of which each is redrawn with probability ``rate``.

    What ``with_label_noise`` does, of the labels alone: int32 ``[n]``.

    Raises:
      ValueError: the rate is out of range.

    >>> labels = redraw(jnp.zeros(3, int), jax.random.key(0), 0.0, classes=2)
    >>> labels.y.tolist()
    [0, 0, 0]
    """
    if not isinstance(rate, jax.core.Tracer) and not 0 <= rate <= 1:
        raise ValueError(f"rate is {rate}, expected 0 <= rate <= 1")
    rate = jnp.asarray(rate, jnp.float32)
    clean = jnp.asarray(clean)

    def draw(i: jax.Array) -> tuple[jax.Array, jax.Array]:
        point_key = jax.random.fold_in(key, i)
        u_key, label_key = (
            jax.random.fold_in(point_key, s) for s in (REDRAW, NEW_LABEL)
        )
        u = jax.random.uniform(u_key, (), jnp.float32)
        return u, jax.random.randint(label_key, (), 0, classes, jnp.int32)

    u, label = jax.vmap(draw)(jnp.arange(len(clean)))
    redrawn = u < rate  # u < 1, so rate 1 redraws all of them
    y = jnp.where(redrawn, label, clean)
    expected = (1 - rate) * jax.nn.one_hot(clean, classes) + rate / classes
    z = jax.nn.one_hot(y, classes) - expected
    return Labels(y, z, redrawn)


def subset_index(total: int, n: int, key: jax.Array | None = None) -> Array:
    """Returns which points ``subset`` takes of so many: int32 ``[n]``.

    Raises:
      ValueError: n is above the number of points, or below 1.

    >>> subset_index(5, 2).tolist()
    [0, 1]
    """
    if not 1 <= n <= total:
        raise ValueError(f"n is {n}, the set has {total} training points")
    if key is None:
        return np.arange(n, dtype=np.int32)
    return jax.random.permutation(key, total)[:n]


def subset(dataset: Dataset, n: int, key: jax.Array | None = None) -> Dataset:
    """Returns the first n training points, of a permutation of them if given a key.

    With one key, the points of a smaller subset are in every larger one. The test set
    stays whole.

    Raises:
      ValueError: there are fewer than n training points, or n is below 1.

    >>> from nfp_jax.data import gaussian
    >>> subset(gaussian(jax.random.key(0), 3, 5), 2).x.shape
    (2, 5)
    """
    index: Any = subset_index(len(dataset.y), n, key)
    if key is None:
        index = slice(n)  # which copies nothing
    return dataset._replace(
        x=dataset.x[index],
        y=dataset.y[index],
        clean=dataset.clean[index],
        redrawn=dataset.redrawn[index],
        z=dataset.z[index],
    )


def halves(dataset: Dataset, key: jax.Array | None = None) -> tuple[Dataset, Dataset]:
    """Returns the training points in two parts that have none in common.

    To train on one part the weights that the other is pruned and trained with. Each
    keeps the whole test set, and the units of the whole: means and deviations of pixels
    are of both parts together.

    Args:
      dataset: of two or more training points.
      key: of a permutation first; ``None``: the first half, and the rest.

    Raises:
      ValueError: fewer than two points.

    >>> from nfp_jax.data import gaussian
    >>> [len(part.y) for part in halves(gaussian(jax.random.key(0), 5, 2))]
    [2, 3]
    """
    total = len(dataset.y)
    if total < 2:
        raise ValueError(f"the set has {total} training points, expected 2 or more")
    order: Any = subset_index(total, total, key)
    parts = (order[: total // 2], order[total // 2 :])
    names = ("x", "y", "clean", "redrawn", "z")
    first, second = (
        dataset._replace(**{name: getattr(dataset, name)[part] for name in names})
        for part in parts
    )
    return first, second


def standardize(
    train: np.ndarray, test: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns both splits with mean 0 and deviation 1 at each pixel of the first.

    ``(x - mean) / std``, where mean and standard deviation (over n, not n - 1) are
    those of the training split, summed in float64. A pixel that is constant in the
    training split becomes 0 in both.

    Args:
      train: ``[n, ...]`` numbers of any type.
      test: ``[n_test, ...]``, or None.

    Returns:
      ``(train, test)``, float32; None for a test split of None.

    >>> standardize(np.array([[0, 7], [2, 7]]))[0].tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    mean = train.mean(0, dtype=np.float64)
    variance = np.zeros_like(mean)
    for start in range(0, len(train), 1024):  # bounds the memory float64 takes
        variance += np.square(train[start : start + 1024] - mean).sum(0) / len(train)
    # Not variance == 0: the rounded mean of equal numbers may differ from them.
    constant = train.min(0) == train.max(0)
    std = np.where(constant, 1, np.sqrt(variance))

    def scale(x: np.ndarray) -> np.ndarray:
        scaled = x.astype(np.float32)
        scaled -= mean
        scaled /= std
        scaled[:, constant] = 0
        return scaled

    return scale(train), None if test is None else scale(test)


def without_noise(
    x: Array,
    y: Array,
    classes: int,
    x_test: Array | None = None,
    y_test: Array | None = None,
) -> Dataset:
    """Returns the set of these points, its labels clean."""
    redrawn = np.zeros(y.shape, bool)
    z = np.zeros((*y.shape, classes), np.float32)
    return Dataset(x, y, y, redrawn, z, x_test, y_test, classes)
