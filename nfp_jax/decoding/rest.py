"""What is known beforehand of a score of degree two, for data sets of n examples.

As a function of how much each example counts such a score is a polynomial of degree
two. Reference inputs with every label stand for examples that are not known.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.decoding.bits import Signed, groups_of, levels_of
from nfp_jax.decoding.factor_law import AT_ONCE, Draw
from nfp_jax.decoding.relinearized import CUBIC, NotQuadratic

# Inputs that stand for the examples still unknown.
INPUTS = 256

# Data sets whose scores tell the mean and variance; single examples likewise.
WHOLE, ALONE = 256, 4096


class Rest(NamedTuple):
    """What is known beforehand of the scores of data sets of n examples.

    Scores are in units of their spread between data sets.

    Attributes:
      x: reference inputs, ``[r, ...]``.
      law: of labels, ``[classes]``.
      own: by how much the mean score of an example alone exceeds the score of all
        examples' mean, ``[P]``.
      variance: of the scores of n examples, ``[P]``.
      unit: the unit.
      groups: 1 where a weight has this threshold, else 0, ``[T, P]``.
      level: the mean of each threshold, ``[T]``.
    """

    x: Any
    law: Any
    own: Any
    variance: Any
    unit: Any
    groups: Any
    level: Any


def score_of(signed: Signed, counts: jax.Array, q: jax.Array, x: Any) -> jax.Array:
    """Returns the score where example i counts ``counts_i``, in all 1, ``[P]``.

    The loss is linear in the probabilities of labels, which need not sum to 1.
    """
    return signed.flat(len(counts) * counts[:, None] * q, x)


def rest_of(signed: Signed, draw: Draw, key: jax.Array, n: int, classes: int) -> Rest:
    """Returns what is known beforehand, from data that are drawn for it.

    Raises:
      NotQuadratic: the score is of another degree than two in how much examples count.
    """
    keys = jax.random.split(key, 4)

    @jax.jit
    def whole(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            x, y = draw(key, n)
            return signed.flat(jax.nn.one_hot(y, classes), x), signed.mask(y, x)

        return jax.lax.map(one, keys)

    u, kept = map(np.asarray, whole(jax.random.split(keys[0], WHOLE)))
    u = np.asarray(u, np.float64)
    variance = np.var(u - u[0], axis=0)
    unit = float(np.sqrt(variance.mean())) or 1.0
    x, y = draw(keys[1], ALONE)
    q = jax.nn.one_hot(y, classes)
    check_quadratic(signed, q[: 2 * n], jax.tree.map(lambda leaf: leaf[: 2 * n], x), u)

    @jax.jit
    def alone(q: jax.Array, x: Any) -> jax.Array:
        def one(each: Any) -> jax.Array:
            return signed.flat(*jax.tree.map(lambda leaf: leaf[None], each))

        def add(total: jax.Array, part: Any) -> tuple[jax.Array, None]:
            return total + jnp.sum(jax.vmap(one)(part), axis=0), None

        parts = jax.tree.map(
            lambda leaf: leaf.reshape(-1, AT_ONCE, *leaf.shape[1:]), (q, x)
        )
        return jax.lax.scan(add, jnp.zeros(u.shape[1]), parts)[0] / ALONE

    inputs = draw(keys[2], INPUTS)[0]
    law = jnp.mean(q, axis=0)
    spread = jnp.tile(law, INPUTS) / INPUTS
    middle = jax.jit(lambda: score_of(signed, spread, *references(inputs, classes)))()
    group = groups_of(signed, x, ALONE)
    level, _ = levels_of(u, kept, group)
    return Rest(
        inputs,
        law,
        (alone(q, x) - middle) / unit,
        jnp.asarray(variance / unit**2, jnp.float32),
        jnp.float32(unit),
        jnp.asarray(group == np.arange(len(level))[:, None], jnp.float32),
        jnp.asarray(level / unit, jnp.float32),
    )


def references(inputs: Any, classes: int) -> tuple[jax.Array, Any]:
    """Returns each input with each label: ``q [r C, C]`` and ``x [r C, ...]``."""
    size = len(jax.tree.leaves(inputs)[0])
    x = jax.tree.map(lambda leaf: jnp.repeat(leaf, classes, axis=0), inputs)
    return jnp.tile(jnp.eye(classes), (size, 1)), x


def check_quadratic(signed: Signed, q: jax.Array, x: Any, u: np.ndarray) -> None:
    """Raises where third differences in how much examples count do not vanish."""
    size = len(q)
    first = jnp.where(jnp.arange(size) < size // 2, 2 / size, 0.0)
    second = 2 / size - first
    score = jax.jit(lambda counts: score_of(signed, counts, q, x))
    ends = [
        np.asarray(score(first + np.float32(share) * (second - first)), np.float64)
        for share in (0, 1 / 3, 2 / 3, 1)
    ]
    half = jax.tree.map(lambda leaf: leaf[: size // 2], (q, x))
    alone = np.asarray(jax.jit(signed.flat)(*half), np.float64)
    scale = float(np.sqrt(np.mean(np.var(u - u[0], axis=0)))) or 1.0
    third = ends[3] - ends[0] + 3 * (ends[1] - ends[2])
    off = max(np.max(np.abs(third)), np.max(np.abs(ends[0] - alone))) / scale
    if not off <= CUBIC:
        raise NotQuadratic(
            f"the score's third differences in how much examples count are {off:.2g} "
            f"of what it varies between data sets, expected at most {CUBIC}"
        )
