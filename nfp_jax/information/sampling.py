"""Draws data sets and makes a mask of each."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.masks import Prunable, ravel_mask

AHEAD = 6  # calls under way at a time


class Sample(NamedTuple):
    """Masks and the data that each was made from.

    Attributes:
      masks: ``bool[datasets, weights]``, the prunable weights alone.
      data: what ``draw`` returned, each leaf with the leading axis ``datasets``.
    """

    masks: np.ndarray
    data: Any


def random_labels(n: int, classes: int = 2) -> Callable[[jax.Array], jax.Array]:
    """Returns ``draw(key) -> int32[n]``: labels uniform over the classes.

    >>> random_labels(5)(jax.random.key(0)).shape
    (5,)
    """
    return lambda key: jax.random.randint(key, (n,), 0, classes)


def sample_masks(
    mask_fn: Callable[[Any], Any],
    draw: Callable[[jax.Array], Any],
    key: jax.Array,
    *,
    datasets: int,
    at_once: int = 8,
    vectorized: bool = False,
    prunable: Prunable = None,
) -> Sample:
    """Returns masks of data sets that it draws; the other sets do not change a mask.

    K may be thousands. The masks have ``K P`` bytes; until all are made they are bits,
    ``K P / 8`` bytes, and at most 7 calls of ``at_once`` masks are under way.

    Args:
      mask_fn: ``mask_fn(data) -> mask``, a pytree of bools. It must be deterministic:
        fix its initial weights and its keys. It is traced under ``vmap``.
      draw: ``draw(key) -> data``, such as ``random_labels(n)``; under ``"data"`` it
        returns ``(x, y)``.
      key: draws the data sets. Set ``i`` is drawn with ``fold_in(key, i)``, so a larger
        ``datasets`` keeps the first sets.
      datasets: how many data sets, ``K``.
      at_once: data sets in one call. Keep it fixed: with another number, sums may be
        taken in another order, a tie may fall the other way, and that would read as
        information.
      vectorized: whether ``mask_fn`` takes the stacked data of ``at_once`` sets, leaves
        ``[at_once, ...]``, and returns stacked masks. A function that trains through
        ``ensemble.run`` does so. It is then called on the host, without ``vmap``.
      prunable: static pytree of bools like the mask; ``None``: the leaves of two or
        more axes.

    Returns:
      A ``Sample``.

    Raises:
      ValueError: ``datasets`` or ``at_once`` below 1; masks that are not boolean.

    >>> copy = lambda y: {"kernel": (y == 1)[None]}
    >>> sample_masks(copy, random_labels(3), jax.random.key(0), datasets=4).masks.shape
    (4, 3)
    """
    for name, value in {"datasets": datasets, "at_once": at_once}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
    keys = jax.jit(jax.vmap(jax.random.fold_in, (None, 0)))(key, np.arange(datasets))
    data = jax.jit(jax.vmap(draw))(keys)
    return Sample(
        make_masks(
            mask_fn, data, at_once=at_once, vectorized=vectorized, prunable=prunable
        ),
        jax.device_get(data),
    )


def make_masks(
    mask_fn: Callable[[Any], Any],
    data: Any,
    *,
    at_once: int = 8,
    vectorized: bool = False,
    prunable: Prunable = None,
) -> np.ndarray:
    """Returns the masks of stacked data sets, ``bool[datasets, weights]``.

    Arguments and errors are those of ``sample_masks``; ``data`` has the leading axis
    ``datasets`` on every leaf. The last call is filled up with the first set, so that
    every call has the same shape.
    """
    packed, weights = pack_masks(
        mask_fn, data, at_once=at_once, vectorized=vectorized, prunable=prunable
    )
    return np.unpackbits(packed, axis=1, count=weights).view(bool)


def pack_masks(
    mask_fn: Callable[[Any], Any],
    data: Any,
    *,
    at_once: int,
    vectorized: bool,
    prunable: Prunable,
) -> tuple[np.ndarray, int]:
    """Returns the masks as bits, ``uint8[datasets, ceil(P / 8)]``, and P.

    Masks are packed where they are made. A few calls are under way while the host takes
    the masks of those before, so neither waits for the other.
    """
    make = jitted_maker(mask_fn, vectorized, prunable)
    count = len(jax.tree.leaves(data)[0])
    found: list[Any] = []
    for start in range(0, count, at_once):
        index = np.arange(start, start + at_once)
        made = make(_taken(data, np.where(index < count, index, 0)))
        found.append(_packed(made))
        if len(found) > AHEAD:
            found[-1 - AHEAD] = np.asarray(found[-1 - AHEAD])
    return np.concatenate(jax.device_get(found))[:count], made.shape[1]


@jax.jit
def _taken(data: Any, index: jax.Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], data)


@jax.jit
def _packed(masks: jax.Array) -> jax.Array:
    return jnp.packbits(masks, axis=1)


def jitted_maker(
    mask_fn: Callable[[Any], Any], vectorized: bool, prunable: Prunable
) -> Callable[[Any], jax.Array]:
    """Returns the function from stacked data sets to raveled masks, compiled once."""

    def raveled(mask: Any) -> jax.Array:
        for leaf in jax.tree.leaves(mask):
            if leaf.dtype != bool:
                raise ValueError(f"mask_fn returned {leaf.dtype}, expected bool")
        return ravel_mask(mask, prunable=prunable)

    if not vectorized:
        return jax.jit(jax.vmap(lambda data: raveled(mask_fn(data))))
    ravel = jax.jit(jax.vmap(raveled))
    return lambda part: ravel(mask_fn(part))


def irreproducible(
    mask_fn: Callable[[Any], Any], sample: Sample, *, at_once: int = 8, **options: Any
) -> float:
    """Returns the share of masks that come out different when they are made again.

    The data sets are taken in another order, so that each is beside other sets. Masks
    that differ have entropy that is no information, and the lower bounds are too high.

    Args:
      mask_fn: the one that made the sample.
      sample: from ``sample_masks``; its first ``8 * at_once`` sets are used.
      at_once: the one that the sample was made with.
      options: ``vectorized`` and ``prunable``, as for ``sample_masks``.

    >>> copy = lambda y: {"kernel": (y == 1)[None]}
    >>> sample = sample_masks(copy, random_labels(3), jax.random.key(0), datasets=4)
    >>> irreproducible(copy, sample)
    0.0
    """
    count = min(len(sample.masks), 8 * at_once)
    backwards = np.arange(count)[::-1]
    order = np.concatenate([backwards[i::at_once] for i in range(at_once)])
    data = jax.tree.map(lambda leaf: leaf[order], sample.data)
    remade = make_masks(mask_fn, data, at_once=at_once, **options)
    return float(np.mean(np.any(remade != sample.masks[order], axis=1)))
