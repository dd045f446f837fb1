"""Ridge regression from masks to labels, in its dual form."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize, special

from nfp_jax.decoding.contract import Decoder, Last, Stack
from nfp_jax.masks import ApplyFn, Params, Prunable, apply_mask, unravel_mask


def ridge(
    *,
    features: Callable[[np.ndarray, Any], np.ndarray] | None = None,
    pairs: int = 64,
) -> Decoder:
    """Returns the decoder that needs no pruner: ridge regression on the masks.

    In its dual form: labels, one-hot, are regressed on masks through the K x K products
    of centered masks, the penalty chosen by the leave-one-out error. A second one
    regresses, for pairs of labels, whether they are the same, and decodes label i along
    the chain, from ``y_j`` of the labels before it: a score that is even in the labels'
    sign (GraSP's is, almost) tells no label by itself, only how labels go together.
    What both say, and the ``features``, become logits by weights that all labels share,
    fitted by likelihood to the leave-one-out predictions.

    Where inputs are resampled, label i is another thing in each data set, and only
    ``features`` are left.

    Args:
      features: ``features(mask[weights], x) -> [n, classes, count]``: evidence for each
        label, from one mask and its inputs, as in ``network_features``; ``None``: none.
      pairs: how many labels before it a label is compared with (fewer, where that makes
        more than 16,384 pairs); 0: none.

    Raises:
      ValueError: when it decodes, where inputs are resampled and there are no features.

    Reference: Barber and Agakov 2003, NeurIPS; ridge in its dual form: Saunders et al.
    1998, ICML.
    """
    gram_of, features_of = Last(_gram), Last(functools.partial(_features, features))

    def log_prob(stack: Stack, start: int, stop: int) -> np.ndarray:
        if stack.resampled and features is None:
            raise ValueError(
                "inputs are resampled and the decoder has no features: a label's place "
                "says nothing there"
            )
        classes = stack.prior.shape[1]
        onehot = np.eye(classes)[stack.labels] - stack.prior  # [K, n, classes]
        parts = []
        if not stack.resampled:
            fitted = _Ridge(gram_of(stack), start, stop)
            parts.append(fitted.predict(onehot))
            n = len(stack.prior)
            first, second = _pairs(n, min(pairs, MOST_PAIRS // n))
            if len(first):
                chance = np.sum(stack.prior[first] * stack.prior[second], axis=1)
                same = (stack.labels[:, first] == stack.labels[:, second]) - chance
                votes = _votes(fitted.predict(same), onehot[:stop], first, second)
                parts.append(votes)
        evidence = np.stack(parts, axis=-1) if parts else np.empty((*onehot.shape, 0))
        if features is not None:
            own = features_of(stack)[:stop]
            if not stack.resampled:
                own = own - own[:start].mean(axis=0)
            evidence = np.concatenate([evidence[:stop], own], axis=-1)
        with np.errstate(divide="ignore"):
            prior = np.log(stack.prior)
        weights = _calibrate(evidence[:start], prior, stack.labels[:start])
        logits = prior + evidence[start:stop] @ weights
        return _log_likelihood(logits, stack.labels[start:stop])

    return Decoder("ridge decoding", log_prob)


def network_features(
    apply_fn: ApplyFn, params: Params, *, prunable: Prunable = None
) -> Callable[[np.ndarray, Any], np.ndarray]:
    """Returns ``features`` for ``ridge``: what the masked network says of its inputs.

    The logits of the network at its initial weights, masked, and their part that is
    linear in the mask, ``Σ_w m_w w ∂logit/∂w`` at the whole network, both between
    classes. A mask found on labels leaves a network that leans towards them before it
    is trained: with few masks to fit to, that says more than ridge does.

    Args:
      apply_fn: ``apply_fn(params, x) -> logits [n, classes]``.
      params: the initial weights that the masks were found from.
      prunable: static pytree of bools; ``None``: the leaves of two or more axes.

    Reference: masks that are a training: Zhou et al. 2019,
    https://arxiv.org/abs/1905.01067.
    """

    @jax.jit
    def features(row: jax.Array, x: jax.Array) -> jax.Array:
        masked = apply_mask(params, unravel_mask(row, params, prunable=prunable))
        outputs = apply_fn(masked, x)
        _, slope = jax.jvp(lambda p: apply_fn(p, x), (params,), (masked,))
        both = jnp.stack([outputs, slope], axis=-1)
        return both - both.mean(axis=1, keepdims=True)

    return features


def class_means(stack: Stack) -> np.ndarray:
    """Returns what masks tell of the means of the classes, ``log q(s | m) / p(s)``.

    For inputs drawn from N(0, I) (``"data"``). Given the labels, ``s_c = Σ_{i: y_i = c}
    x_i / sqrt(n_c)`` are standard normal, ``C d`` numbers independent of the labels, so
    that ``I(m; D) >= E log q(s | m) / p(s)``. q is normal: its mean by ridge on the
    masks, a variance each number, of the leave-one-out errors. In four blocks of the
    second half, fitted anew before each.

    Args:
      stack: with resampled inputs ``[K, n, ...]``.

    Returns:
      ``[K - K // 2]``, nats.

    Raises:
      ValueError: inputs that are not resampled.
    """
    if not stack.resampled or stack.x is None:
        raise ValueError("class_means needs resampled inputs, x of [K, n, ...]")
    count = len(stack.masks)
    x = np.asarray(stack.x, np.float64).reshape(*stack.labels.shape, -1)
    member = np.eye(stack.prior.shape[1])[stack.labels]  # [K, n, classes]
    sizes = member.sum(axis=1)[..., None]
    means = np.einsum("knc,knd->kcd", member, x) / np.sqrt(np.maximum(sizes, 1))
    there = np.broadcast_to(sizes > 0, means.shape).reshape(count, -1)
    means, gram, gains = means.reshape(count, -1), _gram(stack), []
    bounds = np.linspace(count // 2, count, 5).astype(int)
    for start, stop in itertools.pairwise(bounds):
        if start == stop:
            continue
        predicted = _Ridge(gram, start, stop).predict(means)
        error = means[:stop] - predicted
        variance = np.mean(error[:start] ** 2, axis=0) + 1e-6
        now, late = means[start:stop], error[start:]
        each = (now**2 - late**2 / variance - np.log(variance)) / 2
        gains.append(np.sum(each, axis=1, where=there[start:stop]))
    return np.concatenate(gains)


def _features(features: Any, stack: Stack) -> np.ndarray:
    return np.stack(
        [
            np.asarray(features(mask, stack.inputs(k)), np.float64)
            for k, mask in enumerate(stack.masks)
        ]
    )


def _gram(stack: Stack) -> np.ndarray:
    """How many weights each two masks both keep ``[K, K]``."""
    total = np.zeros((len(stack.masks), len(stack.masks)))
    for first in range(0, stack.masks.shape[1], 16_384):  # a part at a time, in floats
        part = stack.masks[:, first : first + 16_384].astype(np.float32)
        total += part @ part.T
    return total


# In units of a centered mask's square; chosen by so many targets at most.
PENALTIES = np.geomspace(1e-5, 1e2, 15)


CHOSEN_BY = 256


# Bounds on memory: pairs of labels regressed, labels that calibrate.
MOST_PAIRS, MOST_CALIBRATING = 16_384, 131_072


class _Ridge:
    """Ridge regression on the masks before ``start``, in its dual form."""

    def __init__(self, gram: np.ndarray, start: int, stop: int) -> None:
        gram = gram[:stop, :start]
        means = gram[:start].mean(axis=0)  # centered on the masks fitted to
        gram = gram - gram.mean(axis=1, keepdims=True) - means + means.mean()
        gram /= max(np.trace(gram[:start]) / start, 1e-12)
        self.start, self.stop, self.late = start, stop, gram[start:]
        self.values, self.vectors = np.linalg.eigh(gram[:start])

    def predict(self, targets: np.ndarray) -> np.ndarray:
        """What it predicts, those before ``start`` left out one by one.

        ``targets [K, ...]``, of a mean known to be 0; returned ``[stop, ...]``.
        """
        flat = targets.reshape(len(targets), -1)[: self.start]
        some = flat[:, :: max(1, flat.shape[1] // CHOSEN_BY)]

        def error(penalty: float) -> float:
            return float(np.mean((self.fit(penalty, some)[1] - some) ** 2))

        weights, left_out = self.fit(min(PENALTIES, key=error), flat)
        found = np.concatenate([left_out, self.late @ weights])
        return found.reshape(self.stop, *targets.shape[1:])

    def fit(self, penalty: float, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The weights of masks, and the predictions with each left out."""
        shrunk = 1 / (np.maximum(self.values, 0) + penalty)
        weights = self.vectors @ (shrunk[:, None] * (self.vectors.T @ targets))
        return weights, targets - weights / (self.vectors**2 @ shrunk)[:, None]


def _pairs(n: int, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """The pairs ``(i, j)``, ``i - reach <= j < i``."""
    first, second = np.tril_indices(n, -1)
    near = first - second <= reach
    return first[near], second[near]


def _votes(
    same: np.ndarray, onehot: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """What earlier labels say of each: ``Σ_{j<i} same_ij onehot_j``, a class each."""
    votes = np.zeros(onehot.shape)
    order = np.argsort(first, kind="stable")
    for pair in np.split(order, np.flatnonzero(np.diff(first[order])) + 1):
        before = onehot[:, second[pair]]  # [stop, pairs, classes]
        votes[:, first[pair[0]]] = np.einsum("kp,kpc->kc", same[:, pair], before)
    return votes


def _calibrate(
    evidence: np.ndarray, prior: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """The weights, shared by all labels, that make logits of evidence; likelihood."""
    step = max(1, labels.size // MOST_CALIBRATING)
    x = evidence.reshape(-1, *evidence.shape[2:])[::step]  # [examples, classes, parts]
    scale = x.std(axis=(0, 1)) + 1e-12
    x, y = x / scale, labels.reshape(-1)[::step]
    offset = np.tile(prior, (len(labels), 1))[::step]
    rows = np.arange(len(y))

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = offset + x @ weights
        log_p = logits - special.logsumexp(logits, axis=1, keepdims=True)
        error = np.exp(log_p)
        error[rows, y] -= 1
        slope = np.einsum("ec,ecp->p", error, x) / len(y)
        penalty = 1e-5 * weights
        value = -log_p[rows, y].mean() + penalty @ weights / 2
        return value, slope + penalty

    start = np.zeros(x.shape[-1])
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B")
    return np.asarray(found.x) / scale


def _log_likelihood(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """``Σ_i log softmax(logits_i)[y_i]`` of each mask; logits ``[k, n, classes]``."""
    log_p = logits - special.logsumexp(logits, axis=-1, keepdims=True)
    each = np.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]
    return np.asarray(each.sum(axis=1))
