"""Exact information: all labelings, or all of a block, where they are few."""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.information.sampling import jitted_maker, make_masks
from nfp_jax.information.stacks import mask_identities
from nfp_jax.masks import Prunable
from nfp_jax.measures.betting import betting_lower_bound, betting_upper_bound

# All labelings are enumerated up to here.
MOST_LABELINGS = 65_536


def exact_information(
    mask_fn: Callable[[Any], Any],
    n: int,
    *,
    classes: int = 2,
    at_once: int = 64,
    vectorized: bool = False,
    prunable: Prunable = None,
) -> float:
    """Returns ``I(m; y | W, X, R)`` for uniform labels, all ``C^n`` of them tried.

    ``log N - (1/N) Σ_m c_m log c_m``, N labelings, ``c_m`` of which give the mask m.
    Conditioning ``"labels"``, nats.

    Args:
      mask_fn: that of ``sample_masks``, with the labels ``int32[n]`` as data.
      n: number of labels.
      classes: ``C``.
      at_once: as in ``sample_masks``.
      vectorized: as in ``sample_masks``.
      prunable: as in ``sample_masks``.

    Raises:
      ValueError: more than 65,536 labelings.

    >>> round(exact_information(lambda y: {"kernel": (y == 1)[None]}, 3), 3)
    2.079
    """
    total = classes**n
    if total > MOST_LABELINGS:
        raise ValueError(
            f"n is {n}: {classes}^{n} labelings are too many to enumerate, expected at "
            f"most {MOST_LABELINGS:,}"
        )
    found = make_masks(
        mask_fn,
        jnp.asarray(_labelings(n, classes)),
        at_once=min(at_once, total),
        vectorized=vectorized,
        prunable=prunable,
    )
    return entropy(mask_identities(found))


def entropy(outcomes: Any) -> float:
    """Returns the entropy of equally likely outcomes, of which equal rows are one.

    ``log N - (1/N) Σ_m c_m log c_m`` of N rows, ``c_m`` of which are m. Nats.

    >>> round(entropy(np.array([[0], [0], [1], [1]])), 4)
    0.6931
    """
    _, counts = np.unique(outcomes, axis=0, return_counts=True)
    return float(math.log(len(outcomes)) - counts @ np.log(counts) / len(outcomes))


class Blocks(NamedTuple):
    """What flipping blocks of labels, all others fixed, says of the information.

    Attributes:
      entropies: ``[rests]``, ``H(m | y_rest)`` in nats of blocks drawn at random.
      block: labels in a block, ``b``; ``n``: in all.
      classes: ``C``.
    """

    entropies: np.ndarray
    block: int
    n: int
    classes: int

    def lower(self, alpha: float) -> float:
        """Returns Han's lower bound: ``H(m) >= E_B H(m | y_rest)``."""
        return max(0.0, betting_lower_bound(self.entropies, 0.0, alpha))

    def upper(self, alpha: float) -> float:
        """Returns Han's upper bound: ``H(m) <= (n / b) E_B H(m | y_rest)``."""
        most = self.block * math.log(self.classes)
        return self.n / self.block * betting_upper_bound(self.entropies, most, alpha)


def flip_blocks(
    mask_fn: Callable[[Any], Any],
    n: int,
    key: jax.Array,
    *,
    block: int,
    rests: int,
    classes: int = 2,
    vectorized: bool = False,
    prunable: Prunable = None,
) -> Blocks:
    """Returns the entropies of masks over blocks of uniform labels, others fixed.

    For each of ``rests`` labelings and blocks of ``b`` labels, drawn at random, all
    ``C^b`` labelings of the block are tried. Conditioning ``"labels"``.

    Args:
      mask_fn: that of ``sample_masks``, with labels ``int32[n]`` as data.
      n: number of labels.
      key: of the labelings and blocks.
      block: ``b``, from 1 to n; ``C^b`` at most 65,536.
      rests: how many labelings of the others.
      classes: ``C``.
      vectorized: as in ``sample_masks``; ``C^b`` labelings come at once.
      prunable: as in ``sample_masks``.

    Raises:
      ValueError: a block or a number of rests out of range.

    Reference: Han 1978, Inf. Control 36 (2); Cover and Thomas 2006, section 17.6.
    """
    if not 1 <= block <= n or classes**block > MOST_LABELINGS:
        raise ValueError(
            f"block is {block}, expected 1 <= block <= n = {n} and at most "
            f"{MOST_LABELINGS:,} labelings of it"
        )
    if rests < 1:
        raise ValueError(f"rests is {rests}, expected at least 1")
    part = jnp.asarray(_labelings(block, classes))

    def labelings(key: jax.Array) -> jax.Array:
        one, two = jax.random.split(key)
        where = jax.random.permutation(two, n)[:block]
        y = jax.random.randint(one, (n,), 0, classes)
        return jnp.tile(y, (len(part), 1)).at[:, where].set(part)

    many = jitted_maker(mask_fn, vectorized, prunable)
    entropies = [
        entropy(mask_identities(np.asarray(many(labels))))
        for labels in map(jax.jit(labelings), jax.random.split(key, rests))
    ]
    return Blocks(np.array(entropies), block, n, classes)


def _labelings(n: int, classes: int) -> np.ndarray:
    """All labelings of n points, ``int32[C^n, n]``."""
    return np.array(
        list(itertools.product(range(classes), repeat=n)), np.int32
    ).reshape(-1, n)
