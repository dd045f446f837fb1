"""Ridge regression from masks to labels, in its dual form."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize, special

from nfp_jax.decoding.contract import CannotDecode, Decoder, Last, Stack
from nfp_jax.decoding.overlaps import pair_overlaps
from nfp_jax.masks import ApplyFn, Params, Prunable, apply_mask, unravel_mask

# In units of a centered mask's mean square.
PENALTIES = np.geomspace(1e-5, 1e2, 15)

# The penalty is chosen by so many targets, at most, and so many are fitted at a time.
CHOSEN_BY = 256

# Masks whose features are computed ahead of the host.
AHEAD = 32

# Bounds on memory: pairs of labels that are regressed, labels that calibrate.
MOST_PAIRS, MOST_CALIBRATING = 16_384, 131_072


def ridge(
    *,
    features: Callable[[np.ndarray, Any], np.ndarray] | None = None,
    pairs: int = 64,
) -> Decoder:
    """Returns the decoder that needs no pruner: ridge regression on the masks.

    It is regression in the dual form, on the K x K products of centered masks. These
    are counted on the device (``overlaps``); the rest is on the host, in double
    precision: K³ operations, and at its peak about 36 K² bytes beside the masks. The
    penalty is chosen by the leave-one-out error. A first regression predicts each
    label, one-hot. A second one predicts, for pairs of labels, whether they are the
    same; from this and the labels before it, label i is decoded along the chain. Pairs
    are needed where a score is even in the labels' sign (GraSP's almost is): then the
    mask tells no single label, only how labels go together. Both predictions and the
    ``features`` are evidence. Their weighted sum is added to the logits; all labels
    share the weights, which are fitted by likelihood to the leave-one-out predictions.

    Where inputs are resampled, label i belongs to another input in each data set. Then
    the decoder uses ``features`` alone.

    Args:
      features: ``features(mask[weights], x) -> [n, classes, count]``: evidence for each
        label, from one mask and its inputs, as in ``network_features``; ``None``: none.
      pairs: with how many labels before it a label is compared; 0: none. Fewer, where
        that would make more than 16,384 pairs.

    Raises:
      ValueError: on decoding, if inputs are resampled and there are no features.
      CannotDecode: on decoding, if there is no mask before those that it decodes.

    Reference: Barber and Agakov 2003, NeurIPS; ridge in its dual form: Saunders et al.
    1998, ICML.
    """
    overlaps_of, features_of = (
        Last(lambda stack: pair_overlaps(stack.masks)),
        Last(functools.partial(_features, features)),
    )

    def log_prob(stack: Stack, start: int, stop: int) -> np.ndarray:
        if stack.resampled and features is None:
            raise ValueError(
                "inputs are resampled and the decoder has no features: a label's place "
                "says nothing there"
            )
        if start < 1:
            raise CannotDecode(
                "ridge decoding has 0 masks before those that it decodes, expected at "
                "least 1 to fit to"
            )
        classes = stack.prior.shape[1]
        onehot = np.eye(classes)[stack.labels] - stack.prior  # [K, n, classes]
        parts = []
        if not stack.resampled:
            fitted = _Ridge(overlaps_of(stack), start, stop)
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
            values = features_of(stack)[:stop]
            if not stack.resampled:
                values = values - values[:start].mean(axis=0)
            evidence = np.concatenate([evidence[:stop], values], axis=-1)
        with np.errstate(divide="ignore"):
            prior = np.log(stack.prior)
        weights = calibrate(evidence[:start], prior, stack.labels[:start])
        logits = prior + evidence[start:stop] @ weights
        return log_likelihood(logits, stack.labels[start:stop])

    return Decoder("ridge decoding", log_prob)


def network_features(
    apply_fn: ApplyFn, params: Params, *, prunable: Prunable = None
) -> Callable[[np.ndarray, Any], np.ndarray]:
    """Returns ``features`` for ``ridge``: what the masked network says of its inputs.

    There are two features a class, each less its mean over classes: the logits of the
    masked network at its initial weights, and their part that is linear in the mask,
    ``Σ_w m_w w ∂logit/∂w`` at the dense network. A network whose mask was found on
    labels leans towards these before it is trained. With few masks to fit to, this says
    more than ridge regression does.

    Args:
      apply_fn: ``apply_fn(params, x) -> logits [n, classes]``.
      params: the initial weights that the masks were found from.
      prunable: static pytree of bools; ``None``: the leaves of two or more axes.

    Reference: masks that are a training: Zhou et al. 2019,
    https://arxiv.org/abs/1905.01067.
    """

    @jax.jit
    def features(flat: jax.Array, x: jax.Array) -> jax.Array:
        masked = apply_mask(params, unravel_mask(flat, params, prunable=prunable))
        outputs = apply_fn(masked, x)
        _, slope = jax.jvp(lambda p: apply_fn(p, x), (params,), (masked,))
        both = jnp.stack([outputs, slope], axis=-1)
        return both - both.mean(axis=1, keepdims=True)

    return features


def class_means(stack: Stack) -> np.ndarray:
    """Returns what masks tell of the means of the classes, ``log(q(s | m) / p(s))``.

    It is for inputs drawn from N(0, I), under ``"data"``. Whatever the labels are, the
    ``C d`` numbers ``s_c = Σ_{i: y_i = c} x_i / sqrt(n_c)`` are then standard normal.
    So ``I(m; D) >= E log(q(s | m) / p(s))``. q is normal: its mean is predicted by
    ridge regression on the masks, and its variances, one a number, are those of the
    leave-one-out errors. The second half of the masks is decoded in four blocks, and q
    is fitted anew before each.

    Args:
      stack: with resampled inputs ``[K, n, ...]``.

    Returns:
      ``[K - K // 2]``, nats.

    Raises:
      ValueError: inputs that are not resampled.
      CannotDecode: fewer than 2 masks.
    """
    if not stack.resampled or stack.x is None:
        raise ValueError("class_means needs resampled inputs, x of [K, n, ...]")
    count = len(stack.masks)
    if count < 2:
        raise CannotDecode(f"class_means has {count} masks, expected at least 2")
    x = np.asarray(stack.x, np.float64).reshape(*stack.labels.shape, -1)
    member = np.eye(stack.prior.shape[1])[stack.labels]  # [K, n, classes]
    sizes = member.sum(axis=1)[..., None]
    means = np.einsum("knc,knd->kcd", member, x) / np.sqrt(np.maximum(sizes, 1))
    has_examples = np.broadcast_to(sizes > 0, means.shape).reshape(count, -1)
    means, gains = means.reshape(count, -1), []
    overlaps = pair_overlaps(stack.masks)
    bounds = np.linspace(count // 2, count, 5).astype(int)
    for start, stop in itertools.pairwise(bounds):
        if start == stop:
            continue
        predicted = _Ridge(overlaps, start, stop).predict(means)
        error = means[:stop] - predicted
        variance = np.mean(error[:start] ** 2, axis=0) + 1e-6
        actual, error = means[start:stop], error[start:]
        gain = (actual**2 - error**2 / variance - np.log(variance)) / 2
        gains.append(np.sum(gain, axis=1, where=has_examples[start:stop]))
    return np.concatenate(gains)


def _features(features: Any, stack: Stack) -> np.ndarray:
    """The features of every mask, ``[K, n, classes, count]``; a few are under way."""
    found: list[Any] = []
    for k, mask in enumerate(stack.masks):
        found.append(features(mask, stack.inputs(k)))
        if k >= AHEAD:
            found[k - AHEAD] = np.asarray(found[k - AHEAD], np.float64)
    return np.stack([np.asarray(values, np.float64) for values in found])


class _Ridge:
    """Ridge regression on the masks before ``start``, in its dual form.

    On the host, in double precision: a penalty may be 1e-5 of a mask's mean square.
    """

    def __init__(self, overlaps: np.ndarray, start: int, stop: int) -> None:
        gram = overlaps[:stop, :start].astype(np.float64)
        means = gram[:start].mean(axis=0)  # centered on the masks fitted to
        gram -= gram.mean(axis=1, keepdims=True)
        gram -= means
        gram += means.mean()
        gram /= max(np.trace(gram[:start]) / start, 1e-12)
        self.start, self.stop, self.late = start, stop, gram[start:].copy()
        self.values, self.vectors = np.linalg.eigh(gram[:start])

    def predict(self, targets: np.ndarray) -> np.ndarray:
        """The predictions ``[stop, ...]``; a mask before ``start`` is left out of its.

        The ``targets [K, ...]`` have a mean that is known to be 0.
        """
        flat = targets.reshape(len(targets), -1)[: self.start]
        chosen_by = flat[:, :: max(1, flat.shape[1] // CHOSEN_BY)]
        turned = self.vectors.T @ chosen_by

        def error(penalty: float) -> float:
            weights, leverage = self.fit(penalty, turned)
            return float(np.mean((weights / leverage) ** 2))

        best, found = min(PENALTIES, key=error), np.empty((self.stop, flat.shape[1]))
        for first in range(0, flat.shape[1], CHOSEN_BY):  # of many pairs, a part
            part = slice(first, first + CHOSEN_BY)
            weights, leverage = self.fit(best, self.vectors.T @ flat[:, part])
            found[: self.start, part] = flat[:, part] - weights / leverage
            found[self.start :, part] = self.late @ weights
        return found.reshape(self.stop, *targets.shape[1:])

    def fit(self, penalty: float, turned: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The weights of the masks, and by what part of them each mask's prediction
        changes without it; ``turned`` are the targets in the basis of ``vectors``.
        """
        shrunk = 1 / (np.maximum(self.values, 0) + penalty)
        weights = self.vectors @ (shrunk[:, None] * turned)
        leverage = np.einsum("ij,ij,j->i", self.vectors, self.vectors, shrunk)
        return weights, leverage[:, None]


def _pairs(n: int, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of labels ``(i, j)`` with ``i - reach <= j < i``."""
    first, second = np.tril_indices(n, -1)
    near = first - second <= reach
    return first[near], second[near]


def _votes(
    same: np.ndarray, onehot: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """What earlier labels say of label i: ``Σ_{j<i} same_ij onehot_j``, by class."""
    votes = np.zeros(onehot.shape)
    order = np.argsort(first, kind="stable")
    for pair in np.split(order, np.flatnonzero(np.diff(first[order])) + 1):
        before = onehot[:, second[pair]]  # [stop, pairs, classes]
        votes[:, first[pair[0]]] = np.einsum("kp,kpc->kc", same[:, pair], before)
    return votes


def calibrate(
    evidence: np.ndarray, prior: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """The weights of evidence in the logits, for all labels, by maximum likelihood."""
    step = max(1, labels.size // MOST_CALIBRATING)
    x = evidence.reshape(-1, *evidence.shape[2:])[::step]  # [examples, classes, parts]
    scale = x.std(axis=(0, 1)) + 1e-12
    x, y = x / scale, labels.reshape(-1)[::step]
    offset = np.tile(prior, (len(labels), 1))[::step]
    index = np.arange(len(y))

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = offset + x @ weights
        log_p = logits - special.logsumexp(logits, axis=1, keepdims=True)
        error = np.exp(log_p)
        error[index, y] -= 1
        slope = np.einsum("ec,ecp->p", error, x) / len(y)
        penalty = 1e-5 * weights
        value = -log_p[index, y].mean() + penalty @ weights / 2
        return value, slope + penalty

    start = np.zeros(x.shape[-1])
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B")
    return np.asarray(found.x) / scale


def log_likelihood(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """``Σ_i log softmax(logits_i)[y_i]`` of each mask; logits ``[k, n, classes]``."""
    log_p = logits - special.logsumexp(logits, axis=-1, keepdims=True)
    by_label = np.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]
    return np.asarray(by_label.sum(axis=1))
