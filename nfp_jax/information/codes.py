"""Upper ends: how many masks are possible, and how long a code for them is."""

import math
from typing import Any

import numpy as np
from scipy import special

from nfp_jax.information.stacks import checked_masks, mask_identities

# Of the Pitman-Yor process: a larger one expects more masks that are new.
_DISCOUNTS = np.array([0.0, 0.25, 0.5, 0.75])


def log_binomial(total: int, keep: int) -> float:
    """Returns the log of the number of masks that keep ``k`` of ``P`` weights, in nats.

    ``H(m) <= log (P k)``, with the binomial coefficient, under either conditioning.

    Args:
      total: ``P``.
      keep: ``k``.

    Raises:
      ValueError: ``keep`` outside 0 to ``total``.

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
    """Returns the nats that a code spends on each mask, and the most that it can spend.

    The length of mask j is ``-log q_j(m_j)``, where q_j is fitted to the masks before
    it. Given these, the mean of the length is at least ``H(m)``, whatever the model. So
    ``betting_upper_bound`` of the lengths bounds the information.

    The model is a dictionary of the masks seen (Pitman-Yor, a mixture over its
    discount). For a new mask it escapes to a mixture of two distributions: the base,
    and independent weights, each Bernoulli (with a mixture of two Beta priors). The
    base bounds the lengths.

    Args:
      masks: ``bool[datasets, weights]``.
      log_base: ``[datasets]``, a lower bound on the log probability of each mask under
        a normalized base. Under ``"labels"`` it is the log probability of the mask's
        labels: the base is then the distribution of masks, in which a mask is at least
        as likely as the labels that gave it. Under ``"data"`` it is minus the log of
        the number of masks possible.
      log_least: the least that ``log_base`` can be.

    Returns:
      The lengths ``[datasets]`` and the longest length possible, nats.

    >>> same, log_base = np.ones((100, 8), bool), np.full(100, -5.0)
    >>> lengths, most = code_lengths(same, log_base=log_base, log_least=-5.0)
    >>> bool(lengths[0] <= most), bool(lengths[1:].mean() < 0.1)
    (True, True)

    Reference: prequential code length: Dawid 1984, J. R. Stat. Soc. A 147 (2); the
    dictionary: Pitman and Yor 1997, Ann. Probab. 25 (2).
    """
    masks, log_base = checked_masks(masks), np.asarray(log_base, np.float64)
    ids = mask_identities(masks)
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


def _log_bernoulli(masks: np.ndarray) -> np.ndarray:
    """The log probability of each mask as independent weights, given those before."""
    counts = np.zeros(masks.shape[1], np.int32)
    priors = (0.02, 0.5)
    weights = np.full(len(priors), -math.log(len(priors)))
    found = np.empty(len(masks))
    for t, mask in enumerate(masks):
        agree = np.where(mask, counts, t - counts)  # earlier masks with this value
        weights_by_agree = np.bincount(agree, minlength=t + 1)
        for i, prior in enumerate(priors):
            table = np.log((np.arange(t + 1) + prior) / (t + 2 * prior))
            weights[i] += weights_by_agree @ table
        found[t] = np.logaddexp.reduce(weights)
        weights -= found[t]
        counts += mask
    return found
