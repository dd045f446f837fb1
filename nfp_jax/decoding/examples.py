"""A lower end under ``"data"``: examples named one by one in lists of candidates.

For a score that is a sum over examples, ``u = (1/n) Σ_i g(z_i)``. By the chain rule
``I(m; D) = Σ_i I(m; z_i | z_<i)``: given the examples before it, a mask is a one-bit
reading of g(z_i) plus the nearly Gaussian noise of the examples still unknown. For each
block of examples the decoder is handed a list, the true ones among fresh draws, and
names the true ones in order. The order T in which they stand is uniform before the mask
is seen, so for any q ::

    E log(q(T | list, m, z_<i) / uniform) <= I(m; z_block | z_<i)

and the sum over blocks is on average at most ``I(m; D | W)``. Lists are drawn anew for
each mask and block, from keys that know nothing of the mask. What a candidate is worth
is read off the mask and the examples named before: the derivatives of its bits, at the
common factors that all its bits together speak for (``factor_map``).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.decoding.bits import Signed
from nfp_jax.decoding.choosing import BLOCK, Lists, block_sizes, fitted, gains
from nfp_jax.decoding.contract import Stack
from nfp_jax.decoding.factor_law import Draw, FactorLaw, factor_law, made_up
from nfp_jax.decoding.factor_map import (
    Problem,
    climb,
    inverse_of,
    maximum,
    on_device,
    precision_of,
    read,
)
from nfp_jax.decoding.readouts import Readout, example_scores, readout_of

# Newton's steps in a block, and blocks that share a matrix; fewer where few examples
# are left, since the bits' noise then changes fast.
STEPS, SHARED, SHARED_LATE, LATE = 2, 10, 4, 100

# The decoder learns what its evidence is worth on so many lists at least, of masks of
# data drawn for this, and for so many ranges of blocks.
LEARNED, RANGES = 500, 8


class Ready(NamedTuple):
    """What describes lists, for data sets of one size.

    Attributes:
      at: the weights that it looks at, int ``[E]``; empty if the mask knows no data.
      features: ``features(bits, x, y, keys) -> [masks, blocks, features, list]``, each
        argument with the axis of masks.
    """

    at: np.ndarray
    features: Callable[..., jax.Array]


class Chain(NamedTuple):
    """A decoder made ready for data sets of one size.

    Attributes:
      ready: what describes its lists.
      sizes: examples in each block.
      weights: what the features are worth, ``[blocks, features]``.
    """

    ready: Ready
    sizes: np.ndarray
    weights: np.ndarray


class Examples:
    """Decodes data sets example by example; ``examples`` makes it.

    Statistics and weights come from data that it draws itself, once for each n.
    ``ready(n, classes)`` has what describes its lists.
    """

    def __init__(
        self,
        ready: Callable[[int, int], Ready],
        signed: Signed,
        draw: Draw,
        key: jax.Array,
        candidates: int,
        at_once: int,
    ) -> None:
        self.ready, self.signed, self.draw = ready, signed, draw
        self.candidates, self.at_once = candidates, at_once
        self.keys = jax.random.split(key, 3)  # made-up data, their lists, lists
        self.chains: dict[tuple[int, int], Chain] = {}

    def gains(self, stack: Stack, start: int, stop: int) -> np.ndarray:
        """Returns ``log(q / uniform)`` of the masks' lists, nats, ``[stop - start]``.

        Each is on average at most ``I(m; D | W)``; exactly 0 if no bit of a mask
        depends on the data (``data_free``).

        Args:
          stack: masks of data sets with inputs of their own, ``x [K, n, ...]``.
          start: first mask.
          stop: behind the last one.

        Raises:
          ValueError: a stack whose data sets share their inputs.
          NotAdditive: the score is no mean over examples, where it should be one.
          CannotDecode: it is of no degree two, where it should be; or takes too long.
        """
        chain = self.chain(stack)
        if not len(chain.ready.at):
            return np.zeros(stop - start)
        which = np.arange(start, stop)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(self.keys[2], which)
        x = jax.tree.map(lambda leaf: leaf[start:stop], stack.x)
        masks, y = stack.masks[start:stop], stack.labels[start:stop]
        found = []
        for part in self.features(chain, masks, x, y, keys):
            lists = Lists(part, chain.sizes, BLOCK)
            found.append(gains(lists, chain.weights).sum())
        return np.array(found)

    def data_free(self, stack: Stack) -> bool:
        """Returns whether no bit of such masks depends on the data."""
        return not len(self.chain(stack).ready.at)

    def chain(self, stack: Stack) -> Chain:
        """Returns the decoder for data sets of this size."""
        if not stack.resampled or stack.x is None:
            raise ValueError(
                "stack.resampled is False or stack.x is None, expected data sets with "
                "inputs of their own"
            )
        size = stack.labels.shape[1], stack.prior.shape[1]
        if size not in self.chains:
            self.chains[size] = self.made(*size)
        return self.chains[size]

    def made(self, n: int, classes: int) -> Chain:
        """Makes the decoder ready: statistics, programs, and what evidence is worth."""
        ready, sizes = self.ready(n, classes), block_sizes(n)
        chain = Chain(ready, sizes, np.zeros((len(sizes), 0)))
        if not len(ready.at):
            return chain
        return chain._replace(weights=self.learned(chain, n))

    def learned(self, chain: Chain, n: int) -> np.ndarray:
        """The weights of the features by block, from masks of data drawn for this."""
        count = math.ceil(LEARNED / len(chain.sizes))
        keys = jax.random.split(self.keys[0], count)
        make = jax.jit(lambda key: made_up(self.signed, self.draw, key, n))
        made = [make(key) for key in keys]
        x, y, masks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)
        keys = jax.random.split(self.keys[1], count)
        found = np.stack(list(self.features(chain, masks, x, y, keys)))
        weights: list[np.ndarray] = []
        for part in np.array_split(np.arange(len(chain.sizes)), RANGES):
            if len(part):
                features = found[:, part].reshape(-1, *found.shape[2:])
                lists = Lists(features, np.tile(chain.sizes[part], count), BLOCK)
                weights += [fitted(lists)] * len(part)
        return np.stack(weights)

    def features(self, chain: Chain, masks: Any, x: Any, y: Any, keys: Any) -> Any:
        """Yields the features of each mask's lists, ``[blocks, features, list]``."""
        bits = np.asarray(masks)[:, chain.ready.at]
        for start in range(0, len(bits), self.at_once):
            at = np.minimum(np.arange(start, start + self.at_once), len(bits) - 1)
            part = jax.tree.map(lambda leaf: leaf[at], (bits, x, y, keys))  # noqa: B023
            yield from np.asarray(chain.ready.features(*part))[: len(bits) - start]


def examples(
    signed: Signed,
    draw: Draw,
    key: jax.Array,
    *,
    readout: Readout | None = None,
    candidates: int = 2048,
    at_once: int | None = None,
) -> Examples:
    """Returns the decoder of examples from lists, for a pruner in one round.

    Args:
      signed: the pruner; its score must be a mean over examples, as SNIP's is.
      draw: ``draw(key, count) -> (x, y)``: independent examples of the data's law;
        traced. If the data have another law, the bound does not hold.
      key: for everything that is drawn; independent of the data sets.
      readout: see ``readouts``; ``None``: that of any score. For dense networks
        ``dense_readout`` takes less time.
      candidates: length of a list, at least 20. More tell more: they cost time in
        proportion.
      at_once: masks decoded together; ``None``: 1 on a CPU, else 16.

    Raises:
      ValueError: fewer than 20 candidates.

    Reference: Barber and Agakov 2003, NeurIPS, for the bound; Luce 1959 and Plackett
    1975 for the law of an order; van den Oord et al. 2018,
    https://arxiv.org/abs/1807.03748, for bounds by lists.
    """
    check_candidates(candidates)
    read_by = readout_of(signed) if readout is None else readout
    first, second = jax.random.split(key)

    def ready(n: int, classes: int) -> Ready:
        law = factor_law(signed, draw, first, n=n, classes=classes)
        each = describe(
            *(signed, draw, read_by),
            total=len(law.log_one),
            n=n,
            classes=classes,
            candidates=candidates,
        )
        each = jax.jit(jax.vmap(each, in_axes=(None, 0, 0, 0, 0)))
        return Ready(law.index, functools.partial(each, on_device(law)))

    return Examples(ready, signed, draw, second, candidates, at_once_of(at_once))


def check_candidates(candidates: int) -> None:
    """Raises for lists that are too short."""
    if candidates < 2 * BLOCK:
        raise ValueError(f"candidates is {candidates}, expected at least {2 * BLOCK}")


def at_once_of(at_once: int | None) -> int:
    """Returns how many masks are decoded together: 1 on a CPU, else 16, if ``None``."""
    if at_once is not None:
        return at_once
    return 1 if jax.default_backend() == "cpu" else 16


def describe(
    signed: Signed,
    draw: Draw,
    readout: Readout,
    *,
    total: int,
    n: int,
    classes: int,
    candidates: int,
) -> Callable[..., jax.Array]:
    """Returns ``features(law, bit, x, y, key) -> [blocks, features, list]``.

    With ``λ`` and ``π`` the first and minus the second derivative of the bits' log
    probability in their scores, at what is known before the block, a candidate's
    features are ``Σ_j λ_j (g_j - mean) / n`` and ``Σ_j π_j (g_j - mean)² / n²`` by
    layer, up to what all candidates share.
    """
    sizes = block_sizes(n)
    starts = np.cumsum(sizes) - sizes
    fresh, last = np.zeros(len(sizes), bool), -SHARED
    for i, start in enumerate(starts):
        fresh[i] = i - last >= (SHARED if n - start > LATE else SHARED_LATE)
        last = i if fresh[i] else last

    def features(
        law: FactorLaw, bit: jax.Array, x: Any, y: jax.Array, key: jax.Array
    ) -> jax.Array:
        kept = law.groups @ bit.astype(jnp.float32)

        def problem(known: jax.Array, unknown: Any, left: Any) -> Problem:
            mean = known + unknown / n * law.mean
            return Problem(law, bit, mean, jnp.sqrt(left) / n, kept, signed.absolute)

        def block(state: Any, given: Any) -> tuple[Any, jax.Array]:
            known, h, level, inverse = state
            number, start, size, anew = given
            unknown = n - start
            left = jnp.maximum(unknown - (size + 1) / 2, 0.25)
            asked = problem(known, unknown, left)
            found = read(asked, h, level)
            inverse = jax.lax.cond(
                anew,
                lambda found, _: inverse_of(precision_of(asked, found)),
                lambda _, inverse: inverse,
                *(found, inverse),
            )
            found = climb(asked, found, inverse, STEPS)
            at = jnp.minimum(start + jnp.arange(BLOCK), n - 1)
            true = jax.tree.map(lambda leaf: leaf[at], (x, y))
            others = draw(jax.random.fold_in(key, number), candidates - BLOCK)
            both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), true, others)
            q = jax.nn.one_hot(both[1], classes)
            weights = found.first + found.second * law.mean / n
            narrow = jnp.stack([weights / n, found.second / n**2])
            wide = jnp.zeros((2, total)).at[:, law.index].set(narrow)
            seen = readout(q, both[0], wide[0], wide[1])
            g = example_scores(signed, q[:BLOCK], true[0])[:, law.index]
            told = (jnp.arange(BLOCK) < size).astype(g.dtype)
            return (known + told @ g / n, found.h, found.level, inverse), seen

        found, inverse = maximum(problem(jnp.zeros(len(law.index)), n, n), 4, 3)
        state = jnp.zeros(len(law.index)), found.h, found.level, inverse
        given = jnp.arange(len(sizes)), starts, sizes, fresh
        return jax.lax.scan(block, state, jax.tree.map(jnp.asarray, given))[1]

    return features
