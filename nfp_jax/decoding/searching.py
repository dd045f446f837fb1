"""Searches for the labels of a mask, with the pruner in the loop."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import optimize, special
from scipy.sparse import linalg as sparse

from nfp_jax import cores
from nfp_jax.decoding.contract import Decoder, Last, Stack
from nfp_jax.masks import Mask, Prunable, Scores, prunable_kernels, ravel_mask

# Overlaps of masks above which their labels are the same, or close.
FOUND, NEAR = 0.999, 0.8


def search(
    score_fn: Callable[[jax.Array, Any], Scores],
    mask_fn: Callable[[jax.Array, Any], Mask],
    *,
    most: int = 128,
    steps: int = 100,
    calibrated: int = 16,
    prunable: Prunable = None,
) -> Decoder:
    """Returns the decoder that looks for labels from which the pruner makes the mask.

    Labels are relaxed to probabilities ``q [n, classes]``. Adam looks for a q whose
    scores are high where the mask keeps a weight and low where it removes one. It
    minimizes a logistic loss of ``asinh(score)``, and fits a threshold for each layer
    too. As in phase retrieval, it needs a good start. A start is the top eigenvector of
    the Hessian, in q, of ``Σ_w (m_w - mean_w) (score_w / σ_w)^r``; r is 1 or 2, and
    both signs are tried. The labels found are rounded, and a mask is made from them.
    Its overlap with the mask that is decoded says which start was the best. How far
    labels can be trusted, given the overlap and their margin, is learnt from the masks
    decoded before.

    Args:
      score_fn: ``score_fn(q, x) -> scores``, a pytree, from the probabilities of labels
        ``[n, classes]`` and the inputs; twice differentiable in q; higher is kept. A
        ``ScoreFn`` built on ``classification_loss`` takes q in place of labels.
      mask_fn: ``mask_fn(y, x) -> mask``, a pytree: the pruner itself.
      most: how many masks are decoded at most.
      steps: of Adam, from each start.
      calibrated: so many masks before these are decoded too, to learn how far the
        labels found can be trusted.
      prunable: static pytree of bools; ``None``: the leaves of two or more axes.

    Reference: spectral starts: Candès et al. 2015, https://arxiv.org/abs/1407.1065.
    """

    def layers(q: jax.Array, x: Any) -> list[jax.Array]:
        scores = score_fn(q, x)
        flags = prunable_kernels(scores) if prunable is None else prunable
        leaves = itertools.compress(jax.tree.leaves(scores), jax.tree.leaves(flags))
        return [leaf.reshape(-1) for leaf in leaves]

    def prune(y: jax.Array, x: Any) -> jax.Array:
        return ravel_mask(mask_fn(y, x), prunable=prunable)

    finder_of = Last(lambda stack: _Finder(layers, prune, stack, steps))

    def log_prob(stack: Stack, start: int, stop: int) -> np.ndarray:
        first = max(0, decoder.start(len(stack.masks)) - calibrated)
        mean = stack.masks[: max(first, 1)].mean(axis=0 if first else None)
        found = finder_of(stack).find(range(first, stop), mean)
        before, asked = found[: start - first], found[start - first :]
        weights = _trust(before, stack.labels[first:start])
        pairs = zip(asked, stack.labels[start:stop], strict=True)
        return np.array([_believe(labels, weights).log_prob(y) for labels, y in pairs])

    decoder = Decoder("search decoding", log_prob, most)
    return decoder


class _Found(NamedTuple):
    """Labels found for a mask, best first."""

    labels: np.ndarray  # [candidates, n]
    overlaps: np.ndarray  # [candidates], share of the mask that theirs keeps
    margins: np.ndarray  # [n], between the logits of the first and second class
    classes: int


class _Finder:
    """Finds the labels of masks of a stack, and keeps what it found."""

    def __init__(self, score_fn: Any, mask_fn: Any, stack: Stack, steps: int) -> None:
        self.stack = stack
        self.known: dict[int, _Found] = {}
        prior = jnp.asarray(stack.prior, jnp.float32)
        self.spread = _spread(score_fn, prior)
        self.curve = _curve(score_fn, prior)
        self.descend = _descend(score_fn, steps)
        self.overlaps = _overlaps(mask_fn)

    def find(self, wanted: Sequence[int], mean: Any) -> list[_Found]:
        """The labels found for the wanted masks; cores or devices share the work."""
        missing = [k for k in wanted if k not in self.known]
        found = cores.each(lambda k: self.find_one(k, mean), missing)
        self.known |= dict(zip(missing, found, strict=True))
        return [self.known[k] for k in wanted]

    def find_one(self, k: int, mean: Any) -> _Found:
        """The best labels found for mask k."""
        stack = self.stack
        n, classes = stack.prior.shape
        mask = jnp.asarray(stack.masks[k])
        x = jax.tree.map(jnp.asarray, stack.inputs(k))
        weights = jnp.asarray(stack.masks[k] - mean, jnp.float32)
        best: tuple[float, np.ndarray, np.ndarray] | None = None
        for start in self.starts(weights, x):
            logits = np.asarray(self.descend(start, mask, x))
            if not np.isfinite(logits).all():
                continue
            y = np.argmax(logits, axis=1)
            overlap = float(self.overlaps(y[None], mask, x)[0])
            if best is None or overlap > best[0]:
                best = overlap, y, logits
            if overlap > FOUND:
                break
        if best is None:
            nothing = np.zeros(n)
            return _Found(nothing[None].astype(int), np.zeros(1), nothing, classes)
        overlap, y, logits = best
        order = np.argsort(logits, axis=1)
        two = np.take_along_axis(logits, order[:, -2:], axis=1)
        margins = two[:, 1] - two[:, 0]
        if overlap > NEAR:
            y, overlap = self.polish(y, overlap, order, margins, mask, x)
        candidates = y[None]
        if classes == 2:  # a score may be even in the sign of all labels
            candidates = np.stack([y, 1 - y])
        found = np.asarray(self.overlaps(candidates, mask, x))
        best_first = np.argsort(-found, kind="stable")
        return _Found(candidates[best_first], found[best_first], margins, classes)

    def starts(self, weights: Any, x: Any) -> Iterator[np.ndarray]:
        """Yields logits to descend from, the more promising first."""
        prior = self.stack.prior
        sigma, signed = self.spread(jax.random.key(0), x)
        for power in (1, 2) if signed else (2, 1):
            direction = self.direction(weights, sigma, x, power)
            for sign in () if direction is None else (1, -1):
                q = prior + sign * 0.7 * direction
                q = np.clip(q, 0.16 / prior.shape[1], None)
                yield np.log(q / q.sum(axis=1, keepdims=True)).astype(np.float32)

    def direction(self, weights: Any, sigma: Any, x: Any, power: int) -> Any:
        """The Hessian's top eigenvector ``[n, classes]``, of root mean square 1/2.

        None where the Hessian is 0 or not finite, or the search does not converge.
        """
        n, classes = self.stack.prior.shape
        start = np.random.default_rng(0).standard_normal((n, classes))
        start -= start.mean(axis=1, keepdims=True)

        def times(v: np.ndarray) -> np.ndarray:
            v = v.reshape(n, classes).astype(np.float32)
            found = self.curve(v, weights, sigma, x, power=power)
            return np.asarray(found, np.float64).reshape(-1)

        bent = times(start.reshape(-1))
        if not np.isfinite(bent).all() or not bent.any():  # |score| has no curvature
            return None
        operator = sparse.LinearOperator((n * classes,) * 2, matvec=times, dtype=float)
        try:
            _, vectors = sparse.eigsh(
                operator, k=1, which="LA", v0=start.reshape(-1), tol=1e-2, maxiter=300
            )
        except sparse.ArpackNoConvergence:
            return None
        vector = vectors[:, 0].reshape(n, classes)
        return vector / np.sqrt(np.mean(vector**2)) / 2

    def polish(
        self, y: Any, overlap: float, order: Any, margins: Any, mask: Any, x: Any
    ) -> Any:
        """Labels and overlap after changes of single labels, made while they help.

        The labels of the smallest margins are tried first.
        """
        doubtful = np.argsort(margins, kind="stable")
        wide = min(24, len(y))
        for _ in range(40):
            if overlap > FOUND:
                break
            index = doubtful[:wide]
            first, second = order[index, -1], order[index, -2]
            tried = np.tile(y, (len(index), 1))
            tried[np.arange(len(index)), index] = np.where(
                y[index] == first, second, first
            )
            found = np.asarray(self.overlaps(tried, mask, x))
            if found.max() > overlap:
                y, overlap = tried[np.argmax(found)], float(found.max())
            elif wide < min(len(y), 128):
                wide = min(len(y), 128)
            else:
                break
        return y, overlap


def _spread(score_fn: Any, prior: jax.Array) -> Any:
    """``spread(key, x)``: how large each score is, and whether any is negative."""
    n, classes = prior.shape

    @jax.jit
    def spread(key: jax.Array, x: Any) -> tuple[jax.Array, jax.Array]:
        y = jax.random.categorical(key, jnp.log(prior), shape=(32, n))
        scores = jax.lax.map(
            lambda labels: jnp.concatenate(
                score_fn(jax.nn.one_hot(labels, classes), x)
            ),
            y,
        )
        size = jnp.sqrt(jnp.mean(scores**2, axis=0))
        return size + 1e-6 * jnp.max(size) + 1e-30, jnp.any(scores < 0)

    return spread


def _curve(score_fn: Any, prior: jax.Array) -> Any:
    """``curve(v, weights, sigma, x, power)``: the Hessian of ``search``, times v."""

    @functools.partial(jax.jit, static_argnames="power")
    def curve(
        v: jax.Array, weights: jax.Array, sigma: jax.Array, x: Any, power: int
    ) -> jax.Array:
        def height(q: jax.Array) -> jax.Array:
            scaled = jnp.concatenate(score_fn(q, x)) / sigma
            return jnp.sum(weights * scaled**power)

        bent = jax.jvp(jax.grad(height), (prior,), (_between(v),))[1]
        return _between(bent)

    return curve


def _between(v: jax.Array) -> jax.Array:
    """The part of a change of probabilities that keeps their sum at 1."""
    return v - v.mean(axis=-1, keepdims=True)


def _descend(score_fn: Any, steps: int) -> Any:
    """``descend(logits, mask, x)``: the logits of labels after steps of Adam."""
    optimizer = optax.adam(0.15)

    def loss(fit: Any, kept: list[jax.Array], scales: list[jax.Array], x: Any) -> Any:
        logits, thresholds, sharpness = fit
        total: Any = 0.0
        size = sum(k.size for k in kept)
        share = sum(jnp.sum(k) for k in kept) / size
        layers = score_fn(jax.nn.softmax(logits), x)
        for i, (s, k, scale) in enumerate(zip(layers, kept, scales, strict=True)):
            z = (jnp.arcsinh(s / scale) - thresholds[i]) * jnp.exp(sharpness)
            weight = jnp.where(k, 1 / share, 1 / (1 - share))
            total += jnp.sum(weight * jax.nn.softplus(jnp.where(k, -z, z)))
        return total / size

    @jax.jit
    def descend(logits: jax.Array, mask: jax.Array, x: Any) -> jax.Array:
        layers = score_fn(jax.nn.softmax(logits), x)
        cuts = np.cumsum([s.size for s in layers])[:-1]
        kept = jnp.split(mask, cuts)
        scales = [jnp.median(jnp.abs(s)) + 1e-12 * jnp.max(jnp.abs(s)) for s in layers]
        scales = [jnp.maximum(scale, 1e-30) for scale in scales]
        thresholds = []
        for s, k, scale in zip(layers, kept, scales, strict=True):
            lowest_kept = jnp.clip(s.size - jnp.sum(k), 0, s.size - 1)
            thresholds.append(jnp.arcsinh(jnp.sort(s)[lowest_kept] / scale))
        fit = (logits, jnp.stack(thresholds), jnp.float32(1))

        def step(carry: Any, _: Any) -> Any:
            fit, state = carry
            slope = jax.grad(loss)(fit, kept, scales, x)
            updates, state = optimizer.update(slope, state)
            return (optax.apply_updates(fit, updates), state), None

        (fit, _), _ = jax.lax.scan(step, (fit, optimizer.init(fit)), length=steps)
        return fit[0]

    return descend


def _overlaps(mask_fn: Any) -> Any:
    """``overlaps(labels, mask, x)``: the share of the mask that each's mask keeps."""

    @jax.jit
    def overlaps(labels: jax.Array, mask: jax.Array, x: Any) -> jax.Array:
        return jax.lax.map(
            lambda y: jnp.sum(mask_fn(y, x) & mask) / jnp.maximum(jnp.sum(mask), 1),
            labels,
        )

    return overlaps


class _Belief(NamedTuple):
    """A distribution of labels: a mixture over candidates."""

    found: _Found
    weights: np.ndarray  # [candidates], of the mixture
    right: np.ndarray  # [candidates, n], log probability that the label is right

    def log_prob(self, y: np.ndarray) -> float:
        """Returns ``log q(y | mask)``."""
        wrong = np.log(-np.expm1(self.right)) - math.log(self.found.classes - 1)
        by_label = np.where(self.found.labels == y, self.right, wrong)
        return float(special.logsumexp(by_label.sum(axis=1), b=self.weights))


def _reasons(found: _Found) -> np.ndarray:
    """Reasons to trust each label of each candidate: 1, margin, overlap.

    ``[candidates, n, 3]``.
    """
    exact = -np.log10(1 - found.overlaps + 1e-4)[:, None]  # 0 to 4
    margins = np.minimum(found.margins, 8) / 8
    return np.stack(np.broadcast_arrays(1.0, margins, exact), axis=-1)


def _trust(found: Sequence[_Found], labels: np.ndarray) -> np.ndarray:
    """The weights of reasons, fitted to masks whose labels are known."""
    # One label that is wrong and one that is right, so that nothing is certain.
    parts, right = [np.array([[1.0, 0, 0]] * 2)], [np.array([False, True])]
    for candidates, y in zip(found, labels, strict=True):
        match = candidates.labels == y
        nearest = int(np.argmax(match.mean(axis=1)))
        parts.append(_reasons(candidates)[nearest])
        right.append(match[nearest])
    reasons, sign = np.concatenate(parts), np.where(np.concatenate(right), 1.0, -1.0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        z = sign * (reasons @ weights)
        slope = -(sign * special.expit(-z)) @ reasons + 0.02 * weights
        return float(np.logaddexp(0, -z).sum() + 0.01 * weights @ weights), slope

    fit = optimize.minimize(loss, np.zeros(3), jac=True, method="L-BFGS-B")
    return np.asarray(fit.x)


def _believe(found: _Found, weights: np.ndarray) -> _Belief:
    # 200: one percent more overlap makes a candidate e^2 times as likely.
    share = special.softmax(200 * found.overlaps)
    right = special.log_expit(np.clip(_reasons(found) @ weights, -12, 12))
    return _Belief(found, share, right)
