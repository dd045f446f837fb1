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

from nfp_jax.decoding.bits import Signed
from nfp_jax.decoding.choosing import BLOCK, block_sizes
from nfp_jax.decoding.contract import CannotDecode
from nfp_jax.decoding.examples import Examples, Ready, at_once_of, check_candidates
from nfp_jax.decoding.factor_law import Draw
from nfp_jax.decoding.propagation import reading
from nfp_jax.decoding.rest import INPUTS, Rest, references, rest_of, score_of

# Newton's steps from the start, and conjugate gradients in each step, at first and
# later: one step a block.
FIRST, GRADIENTS = 6, (8, 4)

# The start, in standard deviations: away from where an even score has no slope.
START = 0.3

# No bit counts for more than this, nats.
WORST = -50.0

# A step that loses more than so many nats against the best is halved.
LOSS = 2.0

# Blocks x examples x weights that a mask may take: about a minute on one core, and
# where there is an accelerator.
MOST_WORK_CPU, MOST_WORK = 5e9, 1e12


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


class Problem(NamedTuple):
    """A mask whose examples are sought.

    Attributes:
      signed: the pruner.
      rest: what is known beforehand.
      bit: the mask, ``bool[P]``.
      kept: how many weights it keeps, by threshold, ``[T]``.
      q: one-hot labels of the data set and of the references, ``[n + r C, C]``.
      x: their inputs.
      n: examples of the data set.
    """

    signed: Signed
    rest: Rest
    bit: jax.Array
    kept: jax.Array
    q: jax.Array
    x: Any
    n: int

    def counts(self, more: jax.Array, known: jax.Array) -> jax.Array:
        """Returns how much each example counts, in all 1; ``known [n]``, 1 or 0."""
        left, size = self.n - jnp.sum(known), len(more) // len(self.rest.law)
        spread = jnp.tile(self.rest.law, size) / size
        return jnp.concatenate([known, left * spread + more]) / self.n

    def scores(self, more: jax.Array, known: jax.Array) -> jax.Array:
        """Returns the mean score, ``[P]``, in the rest's unit."""
        counts = self.counts(more, known)
        u = score_of(self.signed, counts, self.q, self.x) / self.rest.unit
        return u + (self.n - jnp.sum(known)) / self.n**2 * self.rest.own


class Said(NamedTuple):
    """What bits say of their scores.

    Attributes:
      level: the thresholds above which as many weights are expected as are kept.
      value: the log probability of the bits.
      first: its derivative in each score.
      second: minus the second derivative, at least 0.
    """

    level: jax.Array
    value: jax.Array
    first: jax.Array
    second: jax.Array


def said(problem: Problem, u: jax.Array, left: Any, level: jax.Array) -> Said:
    """Returns what the bits say at mean scores u, with ``left`` examples unknown."""
    rest, n = problem.rest, problem.n
    # Of n² products of examples, those with an unknown one.
    variance = rest.variance * left * (2 * n - left) / n**2 + 1e-6
    level = levels_at(rest, u, jnp.sqrt(variance), problem.kept, level)
    at = level @ rest.groups
    log_z, first, second = reading(u, variance, at, problem.bit, False)
    good = jnp.isfinite(log_z) & jnp.isfinite(first) & jnp.isfinite(second)
    return Said(
        level,
        jnp.sum(jnp.where(good, log_z, WORST)),
        jnp.where(good, first, 0.0),
        jnp.where(good, jnp.clip(-second, 0.0, 1 / variance), 0.0),
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


def seen(
    problem: Problem, more: jax.Array, level: jax.Array, known: jax.Array, steps: int
) -> Found:
    """Returns a rest with its value and Newton's step from there."""
    left = problem.n - jnp.sum(known)
    each = left / len(more)  # the variance of how much more each counts
    u, moved = jax.linearize(lambda more: problem.scores(more, known), more)
    back = jax.linear_transpose(moved, more)
    bits = said(problem, u, left, level)
    ahead, _ = jax.scipy.sparse.linalg.cg(
        lambda v: v + each * back(bits.second * moved(v))[0],
        each * back(bits.first)[0] - more,
        maxiter=steps,
    )
    value = bits.value - more @ more / (2 * each)
    return Found(more, bits.level, ahead, jnp.float32(0.5), value)


def climb(
    problem: Problem, found: Found, known: jax.Array, count: int, steps: int
) -> Found:
    """Returns what is found after so many of Newton's steps; bad ones are halved."""

    def step(_: Any, state: tuple[Found, jax.Array]) -> tuple[Found, jax.Array]:
        last, best = state
        ahead = last.more + last.size * last.ahead
        now = seen(problem, ahead, last.level, known, steps)
        good = now.value > best - LOSS
        now = now._replace(size=jnp.minimum(2 * last.size, 1.0))
        last = last._replace(size=last.size / 2)
        last = jax.tree.map(lambda a, b: jnp.where(good, a, b), now, last)
        return last, jnp.maximum(best, last.value)

    return jax.lax.fori_loop(0, count, step, (found, found.value))[0]


def turned(
    problem: Problem, more: jax.Array, level: jax.Array, known: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the better of a rest and its mirror, and its thresholds.

    The mirror has the labels reversed: the score is nearly even in them.
    """
    mirror = more.reshape(-1, problem.q.shape[1])[:, ::-1].reshape(-1)
    left = problem.n - jnp.sum(known)
    here, there = (
        said(problem, problem.scores(one, known), left, level) for one in (more, mirror)
    )
    better = there.value > here.value
    level = jnp.where(better, there.level, here.level)
    return jnp.where(better, mirror, more), level


def evidence(
    problem: Problem, found: Found, known: jax.Array, listed: Any, size: jax.Array
) -> jax.Array:
    """Returns what each candidate adds to the log probability of each layer's bits.

    Args:
      problem: the mask.
      found: the likely rest.
      known: which examples are known, ``[n]``.
      listed: inputs and one-hot labels of the candidates, ``[list, ...]``.
      size: how many of them are of the block.

    Returns:
      ``[layers, list]``.
    """
    signed, n = problem.signed, problem.n
    x, q = listed
    all_q = jnp.concatenate([problem.q, q])
    all_x = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), problem.x, x)
    left = n - jnp.sum(known)

    def added(extra: jax.Array) -> jax.Array:
        counts = jnp.concatenate([problem.counts(found.more, known), extra / n])
        return score_of(signed, counts, all_q, all_x) / problem.rest.unit

    u, back = jax.vjp(added, jnp.zeros(len(q)))
    u += left / n**2 * problem.rest.own
    unknown = jnp.maximum(left - (size + 1) / 2, 0.25)
    first = said(problem, u, unknown, found.level).first
    sizes = [leaf.size for leaf in jax.eval_shape(signed.layers, q, x)]
    parts = jnp.split(first, np.cumsum(sizes)[:-1])
    alone = [
        [part if i == j else 0 * part for j, part in enumerate(parts)]
        for i in range(len(parts))
    ]
    return jnp.stack([back(jnp.concatenate(one))[0] for one in alone])


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
        more_q, more_x = references(rest.x, classes)
        both_q = jnp.concatenate([jax.nn.one_hot(y, classes), more_q])
        both_x = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), x, more_x)
        kept = rest.groups @ bit.astype(jnp.float32)
        problem = Problem(signed, rest, bit, kept, both_q, both_x, n)

        def block(state: Any, given: Any) -> tuple[Any, jax.Array]:
            more, level, known = state
            number, start, size = given
            more, level = turned(problem, more, level, known)
            found = seen(problem, more, level, known, GRADIENTS[1])
            found = climb(problem, found, known, 1, GRADIENTS[1])
            at = jnp.minimum(start + jnp.arange(BLOCK), n - 1)
            true = jax.tree.map(lambda leaf: leaf[at], (x, y))
            others = draw(jax.random.fold_in(key, number), candidates - BLOCK)
            both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), true, others)
            listed = both[0], jax.nn.one_hot(both[1], classes)
            told = evidence(problem, found, known, listed, size)
            place, before = jnp.arange(n), n - jnp.sum(known)
            known = jnp.where((start <= place) & (place < start + size), 1.0, known)
            # The rest is smaller by the block.
            share = jnp.maximum(n - jnp.sum(known), 0) / before
            return (found.more * jnp.sqrt(share), found.level, known), told

        with jax.default_matmul_precision("highest"):
            known, count = jnp.zeros(n), len(more_q)
            noise = jax.random.normal(jax.random.key(0), (count,))
            more = START * jnp.sqrt(n / count) * noise
            found = seen(problem, more, rest.level, known, GRADIENTS[0])
            found = climb(problem, found, known, FIRST, GRADIENTS[0])
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
