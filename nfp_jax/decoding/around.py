"""A lower end under ``"data"`` for scores of degree two: lists, linearized.

GraSP's score ``S = w ⊙ H g`` has two means over examples, H and g. As a function of
how much each example counts it is a polynomial of degree two. So what one more example
adds is nearly linear, given all others. Of these the examples before a block are known.
The rest of the data set is taken as reference inputs with every label, each of which
counts a little more or less than on average. How much is sought by Newton's method with
conjugate gradients, block after block: the most likely numbers, given the mask. A
candidate of a list (``examples``) changes the log probability of the mask by so much an
example: this derivative is its evidence, and one reverse pass has it for all
candidates, with the pruner's score alone in the loop.

The lists make it a bound, whatever the evidence is worth.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jax.scipy.stats import norm

from nfp_jax.decoding.bits import Signed, groups_of, levels_of
from nfp_jax.decoding.choosing import BLOCK, block_sizes
from nfp_jax.decoding.contract import CannotDecode
from nfp_jax.decoding.examples import Examples, Ready, at_once_of, check_candidates
from nfp_jax.decoding.factor_law import AT_ONCE, Draw
from nfp_jax.decoding.propagation import reading
from nfp_jax.decoding.relinearized import CUBIC, NotQuadratic

# Inputs that stand for the examples still unknown.
INPUTS = 256

# Data sets whose scores tell the mean and variance; single examples likewise.
WHOLE, ALONE = 256, 4096

# Newton's steps from the start, and conjugate gradients in each step, at first and
# later: one step a block.
FIRST, GRADIENTS = 6, (8, 4)

# A step that loses more than so many nats against the best is halved.
LOSS = 2.0

# Blocks x examples x weights that a mask may take: about a minute on one core, and
# where there is an accelerator.
MOST_WORK_CPU, MOST_WORK = 5e9, 1e12


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


class Found(NamedTuple):
    """The most likely rest of a data set, as far as it was sought.

    Attributes:
      more: by how much each reference example counts more than on average, ``[r C]``.
      level: the thresholds there, ``[T]``.
      ahead: Newton's step from there.
      size: the share of the step that is tried next.
      value: the log probability of mask and rest, up to a constant.
    """

    more: jax.Array
    level: jax.Array
    ahead: jax.Array
    size: jax.Array
    value: jax.Array


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


def levels_at(
    rest: Rest, u: jax.Array, sd: jax.Array, kept: jax.Array, level: jax.Array
) -> jax.Array:
    """Returns thresholds above which as many weights are expected as are kept."""

    def step(_: Any, level: jax.Array) -> jax.Array:
        z = (u - level @ rest.groups) / sd
        more = rest.groups @ ndtr(z) - kept
        slope = jnp.maximum(rest.groups @ (norm.pdf(z) / sd), 1e-6)
        return level + jnp.clip(more / slope, -0.3, 0.3)

    return jax.lax.fori_loop(0, 8, step, level)


def describe_around(
    signed: Signed, draw: Draw, *, n: int, classes: int, candidates: int
) -> Callable[..., jax.Array]:
    """Returns ``features(rest, bit, x, y, key) -> [blocks, layers, list]``.

    What each candidate adds to the log probability of each layer's bits, around the
    examples before the block and the most likely rest.
    """
    sizes = block_sizes(n)
    starts = np.cumsum(sizes) - sizes

    def features(
        rest: Rest, bit: jax.Array, x: Any, y: jax.Array, key: jax.Array
    ) -> jax.Array:
        q = jax.nn.one_hot(y, classes)
        more_q, more_x = references(rest.x, classes)
        both_q = jnp.concatenate([q, more_q])
        both_x = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), x, more_x)
        kept = rest.groups @ bit.astype(jnp.float32)
        spread = jnp.tile(rest.law, INPUTS) / INPUTS

        def counts(more: jax.Array, known: jax.Array) -> jax.Array:
            left = n - jnp.sum(known)
            return jnp.concatenate([known, left * spread + more]) / n

        def scores(more: jax.Array, known: jax.Array) -> jax.Array:
            u = score_of(signed, counts(more, known), both_q, both_x) / rest.unit
            return u + (n - jnp.sum(known)) / n**2 * rest.own

        def said(u: jax.Array, left: Any, level: jax.Array) -> tuple[Any, ...]:
            """Thresholds, and what the bits say of their scores."""
            # Of n examples, k of them known: n² - k² of all n² products.
            variance = rest.variance * left * (2 * n - left) / n**2 + 1e-6
            level = levels_at(rest, u, jnp.sqrt(variance), kept, level)
            at = level @ rest.groups
            log_z, first, second = reading(u, variance, at, bit, False)
            good = jnp.isfinite(log_z) & jnp.isfinite(first) & jnp.isfinite(second)
            first = jnp.where(good, first, 0.0)
            second = jnp.where(good, jnp.clip(-second, 0.0, 1 / variance), 0.0)
            return level, jnp.sum(jnp.where(good, log_z, -50.0)), first, second

        def seen(
            more: jax.Array, level: jax.Array, known: jax.Array, steps: int
        ) -> Any:
            """What is found at a rest: its value and Newton's step from there."""
            left = n - jnp.sum(known)
            each = left / len(more)  # the variance of how much more each counts
            u, moved = jax.linearize(lambda more: scores(more, known), more)
            back = jax.linear_transpose(moved, more)
            level, value, first, second = said(u, left, level)
            ahead, _ = jax.scipy.sparse.linalg.cg(
                lambda v: v + each * back(second * moved(v))[0],
                each * back(first)[0] - more,
                maxiter=steps,
            )
            value -= more @ more / (2 * each)
            return Found(more, level, ahead, jnp.float32(0.5), value)

        def climb(found: Found, known: jax.Array, count: int, steps: int) -> Found:
            def step(_: Any, state: Any) -> Any:
                last, best = state
                ahead = last.more + last.size * last.ahead
                now = seen(ahead, last.level, known, steps)
                good = now.value > best - LOSS
                now = now._replace(size=jnp.minimum(2 * last.size, 1.0))
                last = last._replace(size=last.size / 2)
                last = jax.tree.map(lambda a, b: jnp.where(good, a, b), now, last)
                return last, jnp.maximum(best, last.value)

            return jax.lax.fori_loop(0, count, step, (found, found.value))[0]

        def mirrored(more: jax.Array) -> jax.Array:
            """The same rest with the labels reversed: the score is nearly even."""
            return more.reshape(-1, classes)[:, ::-1].reshape(-1)

        def turned(more: jax.Array, level: jax.Array, known: jax.Array) -> Any:
            """The better of a rest and its mirror, and its thresholds."""
            left = n - jnp.sum(known)
            both = jnp.stack([more, mirrored(more)])
            worth = [said(scores(one, known), left, level)[:2] for one in both]
            better = worth[1][1] > worth[0][1]
            return (
                jnp.where(better, both[1], both[0]),
                jnp.where(better, worth[1][0], worth[0][0]),
            )

        def block(state: Any, given: Any) -> tuple[Any, jax.Array]:
            more, level, known = state
            number, start, size = given
            left = n - jnp.sum(known)
            more, level = turned(more, level, known)
            found = seen(more, level, known, GRADIENTS[1])
            found = climb(found, known, 1, GRADIENTS[1])
            at = jnp.minimum(start + jnp.arange(BLOCK), n - 1)
            true = jax.tree.map(lambda leaf: leaf[at], (x, y))
            others = draw(jax.random.fold_in(key, number), candidates - BLOCK)
            listed = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), true, others)
            all_q = jnp.concatenate([both_q, jax.nn.one_hot(listed[1], classes)])
            all_x = jax.tree.map(
                lambda a, b: jnp.concatenate([a, b]), both_x, listed[0]
            )

            def added(extra: jax.Array) -> jax.Array:
                whole = jnp.concatenate([counts(found.more, known), extra / n])
                return score_of(signed, whole, all_q, all_x) / rest.unit

            u, back = jax.vjp(added, jnp.zeros(candidates))
            u += left / n**2 * rest.own
            unknown = jnp.maximum(left - (size + 1) / 2, 0.25)
            first = said(u, unknown, found.level)[2]
            told = jnp.stack([back(first * layer)[0] for layer in layers])
            place = jnp.arange(n)
            known = jnp.where((start <= place) & (place < start + size), 1.0, known)
            # The rest is smaller by the block.
            more = found.more * jnp.sqrt(jnp.maximum(n - jnp.sum(known), 0) / left)
            return (more, found.level, known), told

        leaves = [leaf.size for leaf in jax.eval_shape(signed.layers, q, x)]
        layers = jnp.repeat(
            jnp.eye(len(leaves)), np.array(leaves), axis=1, total_repeat_length=len(bit)
        )
        with jax.default_matmul_precision("highest"):
            known, size = jnp.zeros(n), jnp.sqrt(n / len(spread))
            noise = jax.random.normal(jax.random.key(0), (len(spread),))
            found = seen(0.3 * size * noise, rest.level, known, GRADIENTS[0])
            found = climb(found, known, FIRST, GRADIENTS[0])
            given = jax.tree.map(jnp.asarray, (np.arange(len(sizes)), starts, sizes))
            state = found.more, found.level, known
            return jax.lax.scan(block, state, given)[1]

    return features


def examples_around(
    signed: Signed,
    draw: Draw,
    key: jax.Array,
    *,
    candidates: int = 512,
    at_once: int | None = None,
    most_work: float | None = None,
) -> Examples:
    """Returns the decoder of examples from lists, for a score of degree two.

    Args:
      signed: the pruner, with its signed score: of degree two in how much each example
        counts, as GraSP's is, and linear in the probabilities of each one's labels.
      draw: as in ``examples``.
      key: as in ``examples``.
      candidates: length of a list, at least 20.
      at_once: as in ``examples``.
      most_work: blocks x examples x weights that a mask may take; ``None``: 5e9 on a
        CPU, about a minute a mask, else 1e12.

    Raises:
      ValueError: fewer than 20 candidates, or a score that is ranked by its absolute
        value.
      NotQuadratic: on decoding, if the score is of another degree.
      CannotDecode: on decoding, if a mask would take more work.
    """
    check_candidates(candidates)
    if signed.absolute:
        raise ValueError("the score is absolute, expected one that is ranked signed")
    if most_work is None:
        cpu = jax.default_backend() == "cpu"
        most_work = MOST_WORK_CPU if cpu else MOST_WORK
    first, second = jax.random.split(key)

    def ready(n: int, classes: int) -> Ready:
        x, y = jax.eval_shape(lambda key: draw(key, n), key)
        q = jax.ShapeDtypeStruct((len(y), classes), jnp.float32)
        total = jax.eval_shape(signed.flat, q, x).size
        work = len(block_sizes(n)) * (n + classes * INPUTS + candidates) * total
        if work > most_work:
            raise CannotDecode(
                f"linearizing takes {work:.2g} products a mask (blocks x examples x "
                f"weights), expected at most {most_work:.2g}"
            )
        rest = rest_of(signed, draw, first, n, classes)
        known = np.any(rest.variance > 0)
        at = np.arange(total if known else 0)
        each = describe_around(
            signed, draw, n=n, classes=classes, candidates=candidates
        )
        each = jax.jit(jax.vmap(each, in_axes=(None, 0, 0, 0, 0)))
        return Ready(at, lambda *given: each(rest, *given))

    return Examples(ready, signed, draw, second, candidates, at_once_of(at_once))
