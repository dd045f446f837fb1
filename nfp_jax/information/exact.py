"""Exact information, by trying all labelings of a few points."""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.information.sampling import jitted_maker, pack_masks
from nfp_jax.information.stacks import mask_identities, row_identities
from nfp_jax.masks import Prunable
from nfp_jax.measures.betting import betting_lower_bound, betting_upper_bound

# More labelings are not enumerated.
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
    """Returns ``I(m; y | W, X, R)`` for uniform labels, in nats, from all labelings.

    ``log N - (1/N) Σ_m c_m log c_m``, where ``c_m`` of the ``N = C^n`` labelings give
    the mask m. The conditioning is ``"labels"``.

    Args:
      mask_fn: as in ``sample_masks``, with the labels ``int32[n]`` as data.
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
    packed, _ = pack_masks(
        mask_fn,
        jnp.asarray(_labelings(n, classes)),
        at_once=min(at_once, total),
        vectorized=vectorized,
        prunable=prunable,
    )
    return entropy(row_identities(packed))


def entropy(outcomes: Any) -> float:
    """Returns the entropy of an outcome drawn uniformly from N given ones, in nats.

    ``log N - (1/N) Σ_m c_m log c_m``, where ``c_m`` of the N outcomes are equal to m.

    Args:
      outcomes: ``[N, ...]``.

    >>> round(entropy(np.array([[0], [0], [1], [1]])), 4)
    0.6931
    """
    _, counts = np.unique(outcomes, axis=0, return_counts=True)
    return float(math.log(len(outcomes)) - counts @ np.log(counts) / len(outcomes))


class Blocks(NamedTuple):
    """Entropies of masks where a block of labels is resampled and all others are fixed.

    Attributes:
      entropies: ``[rests]``, ``H(m | y_rest)`` in nats for blocks drawn at random.
      block: ``b``, the number of labels in a block.
      n: the number of all labels.
      classes: ``C``.
    """

    entropies: np.ndarray
    block: int
    n: int
    classes: int

    def lower(self, alpha: float) -> float:
        """Returns Han's lower bound, in nats: ``H(m) >= E_B H(m | y_rest)``."""
        return max(0.0, betting_lower_bound(self.entropies, 0.0, alpha))

    def upper(self, alpha: float) -> float:
        """Returns Han's upper bound, in nats: ``H(m) <= (n / b) E_B H(m | y_rest)``."""
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
    """Returns the entropies of masks where only a block of uniform labels is resampled.

    ``rests`` times, a labeling of all points and a block of ``b`` labels are drawn at
    random, and all ``C^b`` labelings of the block are tried. The conditioning is
    ``"labels"``.

    Args:
      mask_fn: as in ``sample_masks``, with the labels ``int32[n]`` as data.
      n: number of labels.
      key: draws the labelings and the blocks.
      block: ``b``, from 1 to n; ``C^b`` is at most 65,536.
      rests: how many labelings and blocks are drawn.
      classes: ``C``.
      vectorized: as in ``sample_masks``; all ``C^b`` labelings come in one call.
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
    block_labelings = jnp.asarray(_labelings(block, classes))

    @jax.jit
    def labelings(key: jax.Array) -> jax.Array:
        y_key, block_key = jax.random.split(key)
        index = jax.random.permutation(block_key, n)[:block]
        y = jax.random.randint(y_key, (n,), 0, classes)
        repeated = jnp.tile(y, (len(block_labelings), 1))
        return repeated.at[:, index].set(block_labelings)

    make = jitted_maker(mask_fn, vectorized, prunable)
    entropies = []
    for draw_key in jax.random.split(key, rests):
        masks = np.asarray(make(labelings(draw_key)))
        entropies.append(entropy(mask_identities(masks)))
    return Blocks(np.array(entropies), block, n, classes)


def _labelings(n: int, classes: int) -> np.ndarray:
    """All labelings of n points, ``int32[C^n, n]``."""
    labelings = list(itertools.product(range(classes), repeat=n))
    return np.array(labelings, np.int32).reshape(-1, n)
