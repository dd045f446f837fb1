"""How much a mask knows of the data: certified intervals for I(mask; data), in nats.

``sample_masks`` draws data sets and makes a mask of each; ``mask_information`` bounds
the information in such a stack from below and above, at a stated confidence::

    sample = sample_masks(mask_fn, random_labels(100), key, datasets=1024)
    interval = mask_information(sample.masks, sample.data)

With the initial weights W and the algorithm's own randomness R fixed, a mask is a
function of the data, so that its information is its entropy. Two conditionings, always
named: ``"labels"``, ``I(m; y | W, X, R)``, inputs fixed and labels resampled, and
``"data"``, ``I(m; D | W, R)``, all resampled. A bound that holds under one of them
alone refuses the other.
Depends on masks, confidence, decoding, jax, numpy and scipy. The surprise: the bounds
themselves are computed on the host, in double precision.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from nfp_jax import decoding
from nfp_jax.confidence import (
    mean_lower_bound,
    mean_upper_bound,
    share_upper_bound,
)
from nfp_jax.decoding import Decoder
from nfp_jax.masks import Prunable, ravel_mask

CONDITIONINGS = ("labels", "data")
# All labelings are enumerated up to here.
MOST_LABELINGS = 65_536


class Interval(NamedTuple):
    """Information in nats, between two ends that hold together.

    Attributes:
      lower: the lower end; ``upper``: the upper. Where ``lower`` is above ``upper`` the
        bounds contradict each other: the rare event that ``confidence`` allows, or
        masks that are not what was said of them (another ``keep``, unequal labels).
      confidence: probability, over the data sets drawn, that both ends hold.
      samples: ``K``, the data sets drawn.
      conditioning: ``"labels"`` or ``"data"``.
      lower_by: the bound that gave the lower end; ``upper_by``: the upper.
    """

    lower: float
    upper: float
    confidence: float
    samples: int
    conditioning: str
    lower_by: str
    upper_by: str

    def __str__(self) -> str:
        return (
            f"{self.lower:.2f} to {self.upper:.2f} nats ({self.conditioning}, "
            f"{self.confidence:.0%}, {self.samples} data sets; {self.lower_by}, "
            f"{self.upper_by})"
        )


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
    """Draws data sets and makes the mask of each, the same whatever is beside it.

    Args:
      mask_fn: ``mask_fn(data) -> mask``, a pytree of bools, deterministic: fix its
        initial weights and its keys. It is traced under ``vmap``.
      draw: ``draw(key) -> data``, such as ``random_labels(n)``; under ``"data"`` it
        returns ``(x, y)``.
      key: of the data sets: set ``i`` is drawn with ``fold_in(key, i)``, so that more
        of them keep the first ones.
      datasets: how many, ``K``.
      at_once: data sets in one call. Sums may be taken in another order for another
        number, and a tie that falls the other way reads as information: keep it fixed.
      vectorized: whether ``mask_fn`` takes the stacked data of ``at_once`` sets, leaves
        ``[at_once, ...]``, and returns stacked masks: a function that trains, say,
        through ``ensemble.run``. It is then called as it is, on the host.
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
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(datasets))
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
    many = _maker(mask_fn, vectorized, prunable)
    count = len(jax.tree.leaves(data)[0])
    found = []
    for start in range(0, count, at_once):
        index = np.arange(start, start + at_once)
        index = np.where(index < count, index, 0)
        part = jax.tree.map(lambda leaf, index=index: leaf[index], data)
        found.append(np.asarray(many(part))[: count - start])
    return np.concatenate(found)


def _maker(
    mask_fn: Callable[[Any], Any], vectorized: bool, prunable: Prunable
) -> Callable[[Any], jax.Array]:
    """From stacked data sets to stacked masks, compiled once."""

    def raveled(mask: Any) -> jax.Array:
        for leaf in jax.tree.leaves(mask):
            if leaf.dtype != bool:
                raise ValueError(f"mask_fn returned {leaf.dtype}, expected bool")
        return ravel_mask(mask, prunable=prunable)

    if not vectorized:
        return jax.jit(jax.vmap(lambda one: raveled(mask_fn(one))))
    ravel = jax.jit(jax.vmap(raveled))
    return lambda part: ravel(mask_fn(part))


def irreproducible(
    mask_fn: Callable[[Any], Any], sample: Sample, *, at_once: int = 8, **options: Any
) -> float:
    """Returns the share of masks that come out different when they are made again.

    The data sets go through in another order, each beside other neighbors. What this
    finds is entropy that is not information: the lower bounds are then too high.

    Args:
      mask_fn: that of ``sample_masks``.
      sample: what it made; its first ``8 at_once`` sets are looked at.
      at_once: that of ``sample_masks``.
      options: ``vectorized``, ``prunable``, as there.

    >>> copy = lambda y: {"kernel": (y == 1)[None]}
    >>> sample = sample_masks(copy, random_labels(3), jax.random.key(0), datasets=4)
    >>> irreproducible(copy, sample)
    0.0
    """
    some = min(len(sample.masks), 8 * at_once)
    backwards = np.arange(some)[::-1]
    order = np.concatenate([backwards[i::at_once] for i in range(at_once)])
    data = jax.tree.map(lambda leaf: leaf[order], sample.data)
    again = make_masks(mask_fn, data, at_once=at_once, **options)
    return float(np.mean(np.any(again != sample.masks[order], axis=1)))


def mask_information(
    masks: Any,
    labels: Any = None,
    *,
    conditioning: str = "labels",
    classes: int = 2,
    label_probabilities: Any = None,
    x: Any = None,
    keep: int | None = None,
    gaussian: bool = False,
    decoders: Sequence[Decoder] | None = None,
    confidence: float = 0.95,
) -> Interval:
    """Returns an interval for the information between masks and data, in nats.

    Upper end: the least of the entropy of the labels (``"labels"``), ``log (P keep)``
    and the code length of the masks. Lower end: the most of the sample's entropy,
    collisions and decoding.
    The level is shared: half to each end, and that of the lower end among its bounds.

    Args:
      masks: ``bool[datasets, weights]``, 0/1 numbers too: the prunable weights of masks
        made by a deterministic pruner from independent data sets, W and R fixed.
      labels: ``int[datasets, n]``, those that each mask was made from; ``None``: no
        decoding. Under ``"labels"`` they are needed.
      conditioning: ``"labels"``: all data sets share their inputs, ``I(m; y | W, X,
        R)``; ``"data"``: inputs are resampled, ``I(m; D | W, R)``.
      classes: ``C``, where ``label_probabilities`` are not given.
      label_probabilities: ``[n, classes]``, the law of each label (independent of each
        other and of the inputs); ``None``: uniform.
      x: the inputs, for decoders that look at them: ``[n, ...]``, under ``"data"``
        ``[datasets, n, ...]``.
      keep: weights that every mask keeps by construction, if it is known.
      gaussian: whether ``x`` was drawn from N(0, I): the means of classes are then
        decoded too (``decoding.class_means``), under ``"data"``.
      decoders: those of ``decoding``, in this order, each asked only where it could
        still raise the lower end; ``None``: ``(ridge(),)`` under ``"labels"``, none
        under ``"data"``.
      confidence: of both ends together.

    Returns:
      An ``Interval``. With too few data sets to say anything its ends are the trivial
      ones, and ``lower_by`` is ``"nothing"``.

    Raises:
      ValueError: masks that are not 0/1 or not of one size; labels that are not of
        ``[datasets, n]`` or outside the classes; masks that keep another number than
        ``keep``; a confidence out of range.

    >>> y = np.random.default_rng(0).integers(0, 2, (200, 4))
    >>> interval = mask_information(y, y)  # masks that are copies of the labels
    >>> interval.lower <= 4 * math.log(2) <= interval.upper
    True

    Reference: Kumar et al. 2024, https://arxiv.org/abs/2402.01089, section 4, for what
    is bounded; each bound has its own.
    """
    masks = _masks(masks)
    _require_known(conditioning)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected 0 < confidence < 1")
    count = len(masks)
    if keep is not None and (masks.sum(axis=1) != keep).any():
        kept = masks.sum(axis=1)
        raise ValueError(
            f"masks keep {kept.min()} to {kept.max()} weights, expected keep = {keep}"
        )
    stack = None
    if labels is not None:
        labels, prior = _labels(labels, count, classes, label_probabilities)
        stack = decoding.Stack(masks, labels, prior, x, conditioning == "data")
    elif conditioning == "labels":
        raise ValueError("labels is None, expected those that each mask was made from")
    if decoders is None:
        decoders = (decoding.ridge(),) if conditioning == "labels" else ()
    if decoders and stack is None:
        raise ValueError("labels is None, expected labels for the decoders")
    alpha = (1 - confidence) / 2
    known = stack if conditioning == "labels" else None
    uppers = _upper_ends(masks, known, keep, alpha)
    most = min(uppers.values())
    lowers = _lower_ends(masks, stack, decoders, gaussian, most, alpha)
    lower_by = max(lowers, key=lambda name: lowers[name])
    upper_by = min(uppers, key=lambda name: uppers[name])
    return Interval(
        lowers[lower_by],
        uppers[upper_by],
        confidence,
        count,
        conditioning,
        lower_by,
        upper_by,
    )


def _upper_ends(
    masks: np.ndarray, known: decoding.Stack | None, keep: int | None, alpha: float
) -> dict[str, float]:
    """The upper bounds by name; ``known``: the labels, where nothing else is drawn."""
    count, weights = masks.shape
    most = weights * math.log(2) if keep is None else log_binomial(weights, keep)
    uppers = {"number of weights" if keep is None else "log binomial": most}
    log_base, least = np.full(count, -most), -most
    if known is not None:
        uppers["label entropy"] = label_entropy(known.prior, conditioning="labels")
        log_base = _log_law(known.prior, known.labels)
        with np.errstate(divide="ignore"):
            log_p = np.where(known.prior > 0, np.log(known.prior), 0.0)
        least = float(log_p.min(axis=1).sum())
    lengths, longest = code_lengths(masks, log_base=log_base, log_least=least)
    # The first masks cost most; where they are all alike, more of them tell more.
    starts = (min(count - 1, max(1, count // 32)), count // 2)
    uppers["code length"] = mean_upper_bound(lengths, longest, alpha, starts=starts)
    return uppers


def _lower_ends(
    masks: np.ndarray,
    stack: decoding.Stack | None,
    decoders: Sequence[Decoder],
    gaussian: bool,
    most: float,
    alpha: float,
) -> dict[str, float]:
    """The lower bounds by name, each at its share of ``alpha``."""
    by_means = gaussian and stack is not None and stack.resampled
    share = alpha / (2 + len(decoders) + by_means)
    lowers = {
        "nothing": 0.0,
        "sample entropy": sample_entropy_lower_bound(masks, share),
        "collisions": collision_lower_bound(masks, share),
    }
    if stack is None or len(masks) < _FEWEST:
        return lowers
    if by_means:
        gains = _mixed(decoding.class_means(stack))
        lowers["class means"] = mean_lower_bound(gains, _LEAST_GAIN, share)
    for decoder in decoders:
        # The bound that it gives if it tells every label of every mask.
        best = np.full(len(masks) - decoder.start(len(masks)), most)
        could = mean_lower_bound(best, _LEAST_GAIN, share)
        if could > max(lowers.values()) + _WORTH * most:
            lower = mean_lower_bound(decoded(decoder, stack), _LEAST_GAIN, share)
            lowers[decoder.name] = max(lower, lowers.get(decoder.name, 0.0))
    return lowers


def effective_parameters(kept: int, interval: Interval) -> tuple[float, float]:
    """Returns the ends of ``p_eff = kept + I``, in weights + nats.

    Args:
      kept: weights that the masks keep, ``‖m‖₁`` (its mean, where it varies).
      interval: of the information.

    >>> effective_parameters(10, Interval(1.0, 2.0, 0.95, 9, "labels", "", ""))
    (11.0, 12.0)

    Reference: Kumar et al. 2024, https://arxiv.org/abs/2402.01089, definition 2.
    """
    return kept + interval.lower, kept + interval.upper


# Upper bounds


def label_entropy(probabilities: Any, *, conditioning: str) -> float:
    """Returns the entropy of independent labels, in nats: ``I(m; y) <= H(y)``.

    ``-Σ_i Σ_c p_ic log p_ic``; ``n log C`` for uniform labels.

    Args:
      probabilities: ``[n, classes]``, the distribution of each label.
      conditioning: ``"labels"``: resampled inputs add to the information.

    Raises:
      ValueError: another conditioning, or rows that are no distributions.

    >>> round(label_entropy(np.full((10, 2), 0.5), conditioning="labels"), 3)
    6.931
    """
    _require(conditioning, "labels", "the entropy of the labels")
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 2 or not (p >= 0).all() or not np.allclose(p.sum(axis=1), 1):
        raise ValueError(
            f"probabilities of shape {p.shape}, expected [n, classes] with rows that "
            "are distributions"
        )
    return float(np.sum(special.entr(p)))


def noisy_label_probabilities(clean: Any, noise: float, classes: int) -> np.ndarray:
    """Returns the distribution of labels redrawn at a rate, ``[n, classes]``.

    With probability ``noise`` a label is redrawn uniformly over all classes.

    >>> noisy_label_probabilities([1], 0.5, 2).tolist()
    [[0.25, 0.75]]
    """
    if not 0 <= noise <= 1:
        raise ValueError(f"noise is {noise}, expected 0 <= noise <= 1")
    return (1 - noise) * np.eye(classes)[np.asarray(clean)] + noise / classes


def log_binomial(total: int, keep: int) -> float:
    """Returns the log of the number of masks that keep so many: ``H(m) <= log (P k)``.

    Under either conditioning. Nats.

    >>> round(log_binomial(4, 2), 4) == round(math.log(6), 4)
    True
    """
    if not 0 <= keep <= total:
        raise ValueError(f"keep is {keep}, expected 0 <= keep <= total = {total}")
    return float(
        special.gammaln(total + 1)
        - special.gammaln(keep + 1)
        - special.gammaln(total - keep + 1)
    )


def code_lengths(
    masks: Any, *, log_base: Any, log_least: float
) -> tuple[np.ndarray, float]:
    """Returns the nats that each mask costs, told those before it, and the most it can.

    ``-log q_j(m_j)``, q_j fitted to the masks before. Its mean given these is at least
    ``H(m)``, whatever the model, so that ``mean_upper_bound`` of the lengths bounds the
    information. The model: a dictionary of the masks seen (Pitman-Yor, a mixture over
    its discount) that escapes, for a new mask, to a mixture of a base and a product of
    Bernoulli variables a weight (their Beta prior mixed too). The base bounds the
    range.

    Args:
      masks: ``bool[datasets, weights]``.
      log_base: ``[datasets]``, a lower bound of the log probability of each mask under
        a normalized base. Under ``"labels"`` the log probability of its labels: the
        base is the distribution of masks itself, at least as likely as the labels that
        gave this one. Else minus the log number of masks possible.
      log_least: the least that ``log_base`` can be.

    Returns:
      ``[datasets]`` and a float, nats.

    >>> same, log_base = np.ones((100, 8), bool), np.full(100, -5.0)
    >>> lengths, most = code_lengths(same, log_base=log_base, log_least=-5.0)
    >>> bool(lengths[0] <= most), bool(lengths[1:].mean() < 0.1)
    (True, True)

    Reference: prequential code length: Dawid 1984, J. R. Stat. Soc. A 147 (2); the
    dictionary: Pitman and Yor 1997, Ann. Probab. 25 (2).
    """
    masks, log_base = _masks(masks), np.asarray(log_base, np.float64)
    ids = _identities(masks)
    base = np.logaddexp(log_base, _log_bernoulli(masks)) - math.log(2)
    counts = np.zeros(ids.max() + 1, int)
    weights = np.full(len(_DISCOUNTS), -math.log(len(_DISCOUNTS)))
    lengths, distinct = np.empty(len(ids)), 0
    for t, mask in enumerate(ids):
        if counts[mask]:
            log_q = np.log(counts[mask] - _DISCOUNTS) - math.log(t + 1)
        else:
            log_q = np.log(1 + _DISCOUNTS * distinct) - math.log(t + 1) + base[t]
            distinct += 1
        counts[mask] += 1
        weights += log_q
        lengths[t] = -np.logaddexp.reduce(weights)
        weights += lengths[t]
    escape = math.log(len(ids)) - math.log(1 - _DISCOUNTS.max())
    return lengths, escape + math.log(2) - log_least


_DISCOUNTS = np.array([0.0, 0.25, 0.5, 0.75])


def _log_bernoulli(masks: np.ndarray) -> np.ndarray:
    """The log probability of each mask, its weights independent, told those before."""
    counts = np.zeros(masks.shape[1], np.int32)
    priors = (0.02, 0.5)
    weights = np.full(len(priors), -math.log(len(priors)))
    found = np.empty(len(masks))
    for t, mask in enumerate(masks):
        agree = np.where(mask, counts, t - counts)  # how often it was so before
        often = np.bincount(agree, minlength=t + 1)
        for i, prior in enumerate(priors):
            table = np.log((np.arange(t + 1) + prior) / (t + 2 * prior))
            weights[i] += often @ table
        found[t] = np.logaddexp.reduce(weights)
        weights -= found[t]
        counts += mask
    return found


# Lower bounds


def sample_entropy_lower_bound(masks: Any, alpha: float) -> float:
    """Returns a lower bound on the entropy of the masks, from the sample's own entropy.

    ``log K - (1/K) Σ_m c_m log c_m``, ``c_m`` of K masks being m, is below ``H(m)`` in
    the mean, since entropy is concave, and another mask in one place moves it by at
    most ``(log K + 1) / K``; so by McDiarmid's inequality ``H(m)`` is at least this
    less ``(log K + 1) sqrt(log(1/alpha) / 2 K)``. At most ``log K``. Under either
    conditioning, for deterministic masks.

    Args:
      masks: ``bool[datasets, weights]``.
      alpha: probability of error allowed.

    Returns:
      Nats, at least 0.

    >>> masks = np.arange(1024)[:, None] % 4 == np.arange(4)
    >>> 1.0 < sample_entropy_lower_bound(masks, 0.025) < math.log(4)
    True

    Reference: Antos and Kontoyiannis 2001, Random Struct. Algorithms 19 (3-4).
    """
    ids = _identities(_masks(masks))
    step = (math.log(len(ids)) + 1) / len(ids)
    slack = step * math.sqrt(len(ids) * math.log(1 / alpha) / 2)
    return max(0.0, entropy(ids) - slack)


def collision_lower_bound(masks: Any, alpha: float) -> float:
    """Returns a lower bound on the entropy of the masks, from how rarely two agree.

    ``H(m) >= -log Σ p²``, Rényi's entropy of order 2. Of blocks of ``s`` masks, those
    that hold a mask twice are counted: with ``c = Σ p²`` a block does with probability
    at least ``(E T)² / E T²``, T its agreeing pairs, where ``Σ p³ <= c^1.5``. So c is
    bounded by a binomial bound. ``s`` is chosen on the first quarter. It says at most
    about ``2 log K``. Under either conditioning, for deterministic masks.

    Args:
      masks: ``bool[datasets, weights]``.
      alpha: probability of error allowed.

    Returns:
      Nats, at least 0; 0 for fewer than 10 masks.

    >>> collision_lower_bound(np.ones((100, 8), bool), 0.025)
    0.0

    Reference: Rényi 1961; the second moment of agreeing pairs: Paley and Zygmund 1932.
    """
    ids = _identities(_masks(masks))
    pilot, rest = ids[: len(ids) // 4], ids[len(ids) // 4 :]
    if len(rest) < 8:
        return 0.0
    _, counts = np.unique(pilot, return_counts=True)
    pairs = len(pilot) * (len(pilot) - 1) / 2
    guess = max(1.0, np.sum(counts * (counts - 1) / 2)) / pairs
    sizes = [2**i for i in range(1, 12) if 4 * 2**i <= len(rest)]
    size = min(
        sizes,
        key=lambda s: _most_collisions(_repeat_share(s, guess), len(rest), s, alpha),
    )
    blocks = len(rest) // size
    split = rest[: blocks * size].reshape(blocks, size)
    repeats = sum(len(np.unique(block)) < size for block in split)
    return max(
        0.0, -math.log(_most_collisions(repeats / blocks, len(rest), size, alpha))
    )


def _most_collisions(repeats: float, total: int, size: int, alpha: float) -> float:
    """The largest ``Σ p²`` that goes with so many blocks in which a mask repeats."""
    blocks = total // size
    share = share_upper_bound(round(repeats * blocks), blocks, alpha)
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _repeat_share(size, middle) > share:
            high = middle
        else:
            low = middle
    return high


def _repeat_share(size: int, c: float) -> float:
    """The least share of blocks of a size that hold a mask twice, if ``Σ p² = c``."""
    pairs = size * (size - 1) / 2
    threes = size * (size - 1) * (size - 2)  # ordered pairs of pairs that share a mask
    fours = size * (size - 1) * (size - 2) * (size - 3) / 4
    return pairs**2 * c / (pairs + threes * math.sqrt(c) + fours * c)


_WORTH = 0.01  # of the upper end: what a decoder must be able to add, to be asked
_FEWEST = 8  # masks to decode
# What a decoder loses at most: it is mixed with the labels' own law, one part in 100.
_MIXED = 0.01
_LEAST_GAIN = math.log(_MIXED)


def _mixed(gains: np.ndarray) -> np.ndarray:
    """``log (0.99 q + 0.01 p) / p`` of ``log q / p``."""
    return np.logaddexp(math.log1p(-_MIXED) + gains, _LEAST_GAIN)


def decoded(decoder: Decoder, stack: decoding.Stack) -> np.ndarray:
    """Returns what each mask tells the decoder of its labels, ``log q(y|m) / p(y)``.

    The mean of each, given the data sets before it, is at most ``I(m; y)`` (under
    ``"data"``, ``I(m; y | X)``, a part of ``I(m; D)``), so that ``mean_lower_bound`` of
    these numbers bounds the information: ``H(y) + E log q(y | m)``. The decoder is
    fitted anew before each block of masks, to all those before. None is below log 0.01:
    q is mixed with the law of the labels.

    Args:
      decoder: see ``decoding``.
      stack: masks, labels and their law.

    Returns:
      ``[decoded]``, nats; empty for fewer than 8.

    Reference: Barber and Agakov 2003, NeurIPS.
    """
    count = len(stack.masks)
    start = (
        count // 2 if decoder.most is None else max(count // 2, count - decoder.most)
    )
    if count < _FEWEST:
        return np.empty(0)
    bounds = np.linspace(start, count, min(decoder.blocks, count - start) + 1).astype(
        int
    )
    log_q = np.concatenate(
        [decoder.log_prob(stack, i, j) for i, j in itertools.pairwise(bounds)]
    )
    return _mixed(log_q - _log_law(stack.prior, stack.labels[start:]))


def fano_lower_bound(error: float, n: int, classes: int = 2) -> float:
    """Returns the information that labels recovered with so many errors witness.

    ``n (log C - h(error) - error log(C - 1))``, for uniform labels and a share
    ``error`` of them wrong (or an upper bound on it); 0 at chance. Nats; ``"labels"``,
    and under ``"data"`` a bound on the part that the labels are.

    >>> round(fano_lower_bound(0.0, 10), 3)
    6.931

    Reference: Cover and Thomas 2006, theorem 2.10.1.
    """
    if not 0 <= error <= 1:
        raise ValueError(f"error is {error}, expected 0 <= error <= 1")
    if error >= 1 - 1 / classes:
        return 0.0
    entropy = special.entr(error) + special.entr(1 - error)
    return float(n * (math.log(classes) - entropy - error * math.log(classes - 1)))


# Exact, and by blocks of labels


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
    return entropy(_identities(found))


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
        return max(0.0, mean_lower_bound(self.entropies, 0.0, alpha))

    def upper(self, alpha: float) -> float:
        """Returns Han's upper bound: ``H(m) <= (n / b) E_B H(m | y_rest)``."""
        most = self.block * math.log(self.classes)
        return self.n / self.block * mean_upper_bound(self.entropies, most, alpha)


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

    many = _maker(mask_fn, vectorized, prunable)
    entropies = [
        entropy(_identities(np.asarray(many(labels))))
        for labels in map(jax.jit(labelings), jax.random.split(key, rests))
    ]
    return Blocks(np.array(entropies), block, n, classes)


def _labelings(n: int, classes: int) -> np.ndarray:
    """All labelings of n points, ``int32[C^n, n]``."""
    return np.array(
        list(itertools.product(range(classes), repeat=n)), np.int32
    ).reshape(-1, n)


def _identities(masks: np.ndarray) -> np.ndarray:
    """A number for each mask, equal where masks are."""
    packed = np.packbits(masks, axis=1)
    _, ids = np.unique(packed, axis=0, return_inverse=True)
    return ids.reshape(-1)


def _masks(masks: Any) -> np.ndarray:
    """The stack, checked."""
    masks = np.asarray(masks)
    if masks.ndim != 2 or not masks.size:
        raise ValueError(
            f"masks of shape {masks.shape}, expected [datasets, weights], at least 1"
        )
    if masks.dtype != bool:
        if not np.isin(masks, (0, 1)).all():
            raise ValueError(f"masks hold other values than 0 and 1 ({masks.dtype})")
        masks = masks.astype(bool)
    return masks


def _log_law(prior: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The log probability of each data set's labels, nats."""
    with np.errstate(divide="ignore"):
        log_p = np.log(prior)[None]
    each = np.take_along_axis(log_p, labels[..., None], axis=2)
    return np.asarray(each.sum(axis=(1, 2)))


def _labels(
    labels: Any, count: int, classes: int, probabilities: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Labels ``[count, n]`` and their law ``[n, classes]``, checked."""
    labels = np.asarray(labels)
    if labels.ndim != 2 or len(labels) != count or not labels.size:
        raise ValueError(
            f"labels of shape {labels.shape}, expected [datasets, n] with {count} "
            "data sets, as many as masks"
        )
    prior = np.full((labels.shape[1], classes), 1 / classes)
    if probabilities is not None:
        prior = np.asarray(probabilities, np.float64)
        label_entropy(prior, conditioning="labels")  # checks it
    if len(prior) != labels.shape[1]:
        raise ValueError(
            f"label_probabilities are of {len(prior)} labels, expected "
            f"{labels.shape[1]}, as many as a data set has"
        )
    if not np.isin(labels, np.arange(prior.shape[1])).all():
        raise ValueError(
            f"labels hold {labels.min()} to {labels.max()}, expected whole numbers in "
            f"0 to {prior.shape[1] - 1}"
        )
    labels = labels.astype(int)
    if (np.take_along_axis(prior[None], labels[..., None], axis=2) <= 0).any():
        raise ValueError("labels hold some that label_probabilities rule out")
    return labels, prior


def _require_known(conditioning: str) -> None:
    if conditioning not in CONDITIONINGS:
        raise ValueError(
            f"conditioning is {conditioning!r}, expected one of {CONDITIONINGS}"
        )


def _require(conditioning: str, needed: str, what: str) -> None:
    _require_known(conditioning)
    if conditioning != needed:
        raise ValueError(
            f"{what} bounds the information under {needed!r} alone, not under "
            f"{conditioning!r}"
        )
