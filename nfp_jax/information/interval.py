"""The interval for the information: from the best lower bound to the best upper one."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nfp_jax import decoding
from nfp_jax.decoding import Decoder, MaskLaw
from nfp_jax.information.codes import code_lengths, log_binomial
from nfp_jax.information.conditioning import label_entropy, require_known
from nfp_jax.information.reading import (
    FEWEST,
    LEAST_GAIN,
    WORTH,
    decoded,
    mixed_with_uniform,
)
from nfp_jax.information.repeats import (
    collision_lower_bound,
    sample_entropy_lower_bound,
)
from nfp_jax.information.stacks import checked_labels, checked_masks, log_label_law
from nfp_jax.measures.betting import betting_lower_bound, betting_upper_bound


class Interval(NamedTuple):
    """Information in nats, between two ends that hold together.

    Attributes:
      lower: the lower end.
      upper: the upper end. Where it is below ``lower``, the bounds contradict each
        other. Either this is the rare event that ``confidence`` allows, or the masks
        are not what the caller said (another ``keep``, labels of another law).
      confidence: probability, over the data sets drawn, that both ends hold.
      samples: ``K``, the number of data sets drawn.
      conditioning: ``"labels"`` or ``"data"``.
      lower_by: the name of the bound that gave the lower end.
      upper_by: the name of the bound that gave the upper end.
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
    laws: Sequence[MaskLaw] = (),
    confidence: float = 0.95,
) -> Interval:
    """Returns an interval for the information between masks and data, in nats.

    The upper end is the least of three bounds: the entropy of the labels (under
    ``"labels"``), ``log (P keep)`` and the code length of the masks. The lower end is
    the largest of the sample's entropy, collisions and decoding. Each end gets half of
    the error allowed, ``1 - confidence``; the bounds of the lower end share its half.

    Args:
      masks: ``bool[datasets, weights]``, or numbers 0 and 1: the prunable weights of
        masks made by a deterministic pruner from independent data sets, W and R fixed.
      labels: ``int[datasets, n]``, the labels that each mask was made from. Needed
        under ``"labels"``; under ``"data"`` ``None`` means that nothing is decoded.
      conditioning: ``"labels"``: all data sets share their inputs, ``I(m; y | W, X,
        R)``; ``"data"``: inputs are resampled, ``I(m; D | W, R)``.
      classes: ``C``, where ``label_probabilities`` are not given.
      label_probabilities: ``[n, classes]``, the law of each label; labels are
        independent of each other and of the inputs. ``None``: uniform.
      x: the inputs, for decoders that look at them: ``[n, ...]``, under ``"data"``
        ``[datasets, n, ...]``.
      keep: weights that every mask keeps by construction, if that is known.
      gaussian: whether ``x`` was drawn from N(0, I). Under ``"data"`` the means of the
        classes are then decoded too (``decoding.class_means``).
      decoders: those of ``decoding``. They are asked in this order, and each only where
        it could still raise the lower end. ``None``: ``(ridge(),)`` under ``"labels"``,
        no decoder under ``"data"``.
      laws: of masks, those of ``decoding``: codes by which the upper end may be lower.
      confidence: of both ends together.

    Returns:
      An ``Interval``. Too few data sets say nothing: then the ends are the trivial
      ones, and ``lower_by`` is ``"nothing"``.

    Raises:
      ValueError: masks that are not 0/1 or not ``[datasets, weights]``; labels that are
        not ``[datasets, n]`` or outside the classes; masks that keep another number
        than ``keep``; a confidence out of range.

    >>> y = np.random.default_rng(0).integers(0, 2, (200, 4))
    >>> interval = mask_information(y, y)  # masks that are copies of the labels
    >>> interval.lower <= 4 * math.log(2) <= interval.upper
    True

    Reference: Kumar et al. 2024, https://arxiv.org/abs/2402.01089, section 4, for what
    is bounded; each bound has its own reference.
    """
    masks = checked_masks(masks)
    require_known(conditioning)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected 0 < confidence < 1")
    count = len(masks)
    kept = np.count_nonzero(masks, axis=1)
    if keep is not None and (kept != keep).any():
        raise ValueError(
            f"masks keep {kept.min()} to {kept.max()} weights, expected keep = {keep}"
        )
    stack = None
    if labels is not None:
        labels, prior = checked_labels(labels, count, classes, label_probabilities)
        stack = decoding.Stack(masks, labels, prior, x, conditioning == "data")
    elif conditioning == "labels":
        raise ValueError("labels is None, expected those that each mask was made from")
    if decoders is None:
        decoders = (decoding.ridge(),) if conditioning == "labels" else ()
    if decoders and stack is None:
        raise ValueError("labels is None, expected labels for the decoders")
    alpha = (1 - confidence) / 2
    if laws and stack is None:
        raise ValueError("labels is None, expected labels for the laws of masks")
    uppers = _upper_ends(masks, stack, laws, keep, alpha)
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
    masks: np.ndarray,
    stack: decoding.Stack | None,
    laws: Sequence[MaskLaw],
    keep: int | None,
    alpha: float,
) -> dict[str, float]:
    """The upper bounds by name."""
    known = None if stack is None or stack.resampled else stack  # labels alone drawn
    count, weights = masks.shape
    most = weights * math.log(2) if keep is None else log_binomial(weights, keep)
    uppers = {"number of weights" if keep is None else "log binomial": most}
    log_base, least = np.full(count, -most), -most
    if known is not None:
        uppers["label entropy"] = label_entropy(known.prior, conditioning="labels")
        log_base = log_label_law(known.prior, known.labels)
        with np.errstate(divide="ignore"):
            log_p = np.where(known.prior > 0, np.log(known.prior), 0.0)
        least = float(log_p.min(axis=1).sum())
    for law in laws:
        log_base = mixed_with_law(law, stack, log_base)
        least -= math.log(2)
    lengths, longest = code_lengths(masks, log_base=log_base, log_least=least)
    # A start in the middle leaves out the first masks, whose codes are longest. An
    # early start has more masks to bet on, which is better where all cost the same.
    starts = (min(count - 1, max(1, count // 32)), count // 2)
    name = " and ".join(["code length", *(law.name for law in laws)])
    uppers[name] = betting_upper_bound(lengths, longest, alpha, starts=starts)
    return uppers


def mixed_with_law(law: MaskLaw, stack: Any, log_base: np.ndarray) -> np.ndarray:
    """Returns ``log (q + base) / 2`` of each mask, a normalized law as both are.

    The law is asked for the first masks; for the others only if it was better than the
    base there. What is asked depends on masks before, so all remain laws.
    """
    count = len(log_base)
    tried = min(FEWEST, count)
    first = np.logaddexp(law.log_prob(stack, 0, tried), log_base[:tried]) - math.log(2)
    if np.mean(first) <= np.mean(log_base[:tried]):
        return np.concatenate([first, log_base[tried:]])
    rest = np.logaddexp(law.log_prob(stack, tried, count), log_base[tried:])
    return np.concatenate([first, rest - math.log(2)])


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
    if stack is None or len(masks) < FEWEST:
        return lowers
    if by_means:
        gains = mixed_with_uniform(decoding.class_means(stack))
        lowers["class means"] = betting_lower_bound(gains, LEAST_GAIN, share)
    for decoder in decoders:
        # The bound of a decoder that tells every label of every mask.
        perfect = np.full(len(masks) - decoder.start(len(masks)), most)
        attainable = betting_lower_bound(perfect, LEAST_GAIN, share)
        if attainable > max(lowers.values()) + WORTH * most:
            lower = betting_lower_bound(decoded(decoder, stack), LEAST_GAIN, share)
            lowers[decoder.name] = max(lower, lowers.get(decoder.name, 0.0))
    return lowers


def effective_parameters(kept: int, interval: Interval) -> tuple[float, float]:
    """Returns the ends of ``p_eff = kept + I``, in weights + nats.

    Args:
      kept: weights that the masks keep, ``‖m‖₁`` (the mean, where masks differ in it).
      interval: bounds the information ``I``.

    >>> effective_parameters(10, Interval(1.0, 2.0, 0.95, 9, "labels", "", ""))
    (11.0, 12.0)

    Reference: Kumar et al. 2024, https://arxiv.org/abs/2402.01089, definition 2.
    """
    return kept + interval.lower, kept + interval.upper
