"""Masks as one-bit readings of labels: on which side of a threshold each score lies.

Some scores are sums over examples before their absolute value: SNIP's is ``|u|`` with
``u = (1/n) Σ_i g(x_i, y_i)``. With two classes and given inputs, u is then linear in
the signs ``s_i = ±1`` of the labels: ``u = a + Vᵀ s``. A mask says of each weight
whether ``|u|`` is above the threshold. ``Bits`` are those weights of which this is
uncertain beforehand, with their a and V; the threshold is unknown, too, and its law
comes from masks of labels that are drawn for this.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from nfp_jax.decoding.contract import CannotDecode
from nfp_jax.masks import Mask, Prunable, Scores, prunable_kernels, ravel_mask

# Labelings drawn for the law of the threshold.
DRAWN = 64

# Examples whose part of the scores is computed at once; bounds the memory.
AT_ONCE = 128

# The least probability of what is all but certain.
LEAST = 1e-6

# A score is additive if its sum over examples is off by no more than this share of
# what it varies between labelings.
DEVIATION = 1e-3


@dataclasses.dataclass(frozen=True)
class Signed:
    """A pruner in one round, as decoders see it: its score before the absolute value.

    Attributes:
      score_fn: ``score_fn(q, x) -> u``, a pytree, from the probabilities of labels ``q
        [n, classes]`` and the inputs ``[n, ...]``.
      mask_fn: ``mask_fn(y, x) -> mask``, a pytree: the pruner itself.
      absolute: whether weights are ranked by ``|u|``, and not by u.
      by_layer: whether each leaf has a threshold of its own.
      prunable: static pytree of bools; ``None``: the leaves of two or more axes.
    """

    score_fn: Callable[[jax.Array, Any], Scores]
    mask_fn: Callable[[jax.Array, Any], Mask]
    absolute: bool = True
    by_layer: bool = False
    prunable: Prunable = None

    def flat(self, q: jax.Array, x: Any) -> jax.Array:
        """Returns u of the prunable weights, ``[P]``."""
        return jnp.concatenate(self.layers(q, x))

    def layers(self, q: jax.Array, x: Any) -> list[jax.Array]:
        """Returns u of each prunable leaf, raveled."""
        scores = self.score_fn(q, x)
        flags = prunable_kernels(scores) if self.prunable is None else self.prunable
        leaves = itertools.compress(jax.tree.leaves(scores), jax.tree.leaves(flags))
        return [leaf.reshape(-1) for leaf in leaves]

    def mask(self, y: jax.Array, x: Any) -> jax.Array:
        """Returns the mask of labels, ``bool[P]``."""
        return ravel_mask(self.mask_fn(y, x), prunable=self.prunable)


class Bits(NamedTuple):
    """The weights of a mask that are uncertain beforehand, and what they read.

    Attributes:
      at: which of the prunable weights, int ``[E]``.
      offset: a, ``[E]``.
      slope: V, float32 ``[n, E]``.
      spread: the standard deviation of each u, ``[E]``.
      group: which threshold each is compared with, int ``[E]``.
      level: the mean of each threshold, ``[T]``.
      level_sd: its standard deviation, ``[T]``.
      prior: probability that each label is 1, ``[n]``.
      absolute: whether ``|u|`` is compared, or u.
      log_zero: log probability that each of all weights is removed, ``[P]``.
      log_one: that it is kept.
    """

    at: np.ndarray
    offset: np.ndarray
    slope: np.ndarray
    spread: np.ndarray
    group: np.ndarray
    level: np.ndarray
    level_sd: np.ndarray
    prior: np.ndarray
    absolute: bool
    log_zero: np.ndarray
    log_one: np.ndarray


class NotAdditive(ValueError):
    """A score is no sum over examples."""


def bits_of(
    signed: Signed, x: Any, prior: np.ndarray, *, far: float = 3.0, most: int = 0
) -> Bits:
    """Returns the one-bit readings that masks of these inputs are.

    Args:
      signed: the pruner.
      x: inputs ``[n, ...]``.
      prior: the law of each label, ``[n, 2]``.
      far: bits whose score is so many standard deviations from its threshold are
        certain.
      most: at most so many bits, those nearest to the threshold; 0: ``max(6 n, 4096)``.

    Raises:
      NotAdditive: the score is no sum over examples; says by how much it is off.
      CannotDecode: more than two classes.
    """
    prior = np.asarray(prior, np.float64)
    n, classes = prior.shape
    if classes != 2:
        raise CannotDecode(
            f"labels have {classes} classes, expected 2 for one-bit signs"
        )
    one = prior[:, 1]
    parts = _parts_of(signed, x)
    y, u, kept = drawn_masks(signed, x, prior)
    mean, square, total = np.zeros((3, u.shape[1]))
    for start, both in parts():  # [k, 2, P], the parts of a few examples
        few = slice(start, start + len(both))
        mean += np.einsum("kcp,kc->p", both, prior[few])
        square += (prior[few, 0] * prior[few, 1]) @ (both[:, 1] - both[:, 0]) ** 2
        total += both[np.arange(len(both)), y[0, few]].sum(axis=0)
    spread = np.sqrt(square)
    _check_additive(u[0], total, spread)
    group = groups_of(signed, x, n)
    size = np.abs(u) if signed.absolute else u
    level, level_sd = levels_of(size, kept, group)
    reach = np.abs(mean) if signed.absolute else mean
    distance = np.abs(reach - level[group])
    both_sd = np.sqrt(spread**2 + level_sd[group] ** 2)
    z = distance / np.maximum(both_sd, 1e-30)
    uncertain = np.flatnonzero((z < far) & (spread > 0))
    most = most or max(6 * n, 4096)
    if len(uncertain) > most:
        nearest = np.argsort(z[uncertain], kind="stable")[:most]
        uncertain = np.sort(uncertain[nearest])
    slopes = np.empty((n, len(uncertain)), np.float32)
    offset = np.zeros(len(uncertain))
    for start, both in parts():
        part = both[:, :, uncertain]
        slopes[start : start + len(both)] = (part[:, 1] - part[:, 0]) / 2
        offset += np.sum(part, axis=(0, 1)) / 2
    return Bits(
        uncertain,
        offset,
        slopes,
        spread[uncertain],
        group[uncertain],
        level,
        level_sd,
        one,
        signed.absolute,
        *log_laws(mean, both_sd, level[group], signed.absolute),
    )


def log_laws(
    mean: np.ndarray, sd: np.ndarray, level: np.ndarray, absolute: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The log probabilities that scores are below and above their thresholds."""
    sd = np.maximum(sd, 1e-30)
    above = special.ndtr((mean - level) / sd)
    if absolute:
        above = above + special.ndtr((-mean - level) / sd)
    above = LEAST + (1 - 2 * LEAST) * np.clip(above, 0, 1)
    return np.log1p(-above), np.log(above)


def _parts_of(signed: Signed, x: Any) -> Callable[[], Any]:
    """What yields each example's part of u under either label, a few at a time."""
    n = len(jax.tree.leaves(x)[0])

    @jax.jit
    def both(x: Any) -> jax.Array:
        def part(one: Any, q: jax.Array) -> jax.Array:
            alone = jax.tree.map(lambda leaf: leaf[None], one)
            return signed.flat(q[None], alone) / n

        each = jax.vmap(part, in_axes=(None, 0))
        return jax.vmap(each, in_axes=(0, None))(x, jnp.eye(2))

    def parts() -> Any:
        for start in range(0, n, AT_ONCE):
            few = jax.tree.map(lambda leaf: leaf[start : start + AT_ONCE], x)  # noqa: B023
            yield start, np.asarray(both(few), np.float64)

    return parts


def drawn_masks(
    signed: Signed, x: Any, prior: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labelings drawn from the prior, their u and their masks, ``[DRAWN, ...]``."""
    key = jax.random.key(0)
    y = jax.random.categorical(key, jnp.log(prior), shape=(DRAWN, len(prior)))

    @jax.jit
    def each(y: jax.Array) -> tuple[jax.Array, jax.Array]:
        return signed.flat(jax.nn.one_hot(y, 2), x), signed.mask(y, x)

    u, kept = jax.lax.map(each, y)
    return np.asarray(y), np.asarray(u, np.float64), np.asarray(kept)


def _check_additive(u: np.ndarray, total: np.ndarray, spread: np.ndarray) -> None:
    """Raises where u of a labeling is not the sum of its examples' parts."""
    scale = float(np.sqrt(np.mean(spread**2))) or 1.0
    off = float(np.max(np.abs(total - u))) / scale
    if not off <= DEVIATION:
        raise NotAdditive(
            f"the score is off the sum over its examples by {off:.2g} of what it "
            f"varies between labelings, expected at most {DEVIATION}"
        )


def groups_of(signed: Signed, x: Any, n: int) -> np.ndarray:
    """Which threshold each prunable weight is compared with, int ``[P]``."""
    shapes = jax.eval_shape(signed.layers, jax.ShapeDtypeStruct((n, 2), jnp.float32), x)
    sizes = [leaf.size for leaf in shapes]
    if signed.by_layer:
        return np.repeat(np.arange(len(sizes)), sizes)
    return np.zeros(sum(sizes), int)


def levels_of(
    size: np.ndarray, kept: np.ndarray, group: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The mean and standard deviation of each threshold over drawn masks."""
    found = np.empty((len(size), group.max() + 1))
    for t in range(found.shape[1]):
        at = group == t
        least = np.where(kept[:, at], size[:, at], np.inf).min(axis=1)
        largest = np.where(kept[:, at], -np.inf, size[:, at]).max(axis=1)
        middle = (least + largest) / 2
        found[:, t] = np.where(np.isfinite(middle), middle, np.fmin(least, largest))
    finite = np.where(np.isfinite(found), found, 0.0)
    return finite.mean(axis=0), finite.std(axis=0)
