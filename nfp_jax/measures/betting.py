"""Bounds on a mean at a stated confidence, for any bounded values, by betting.

A gambler bets against a claim, "the mean is at most m". Each value multiplies his
capital by ``1 + c (value / m - 1)``. If the claim holds, he expects to win nothing: by
Ville's inequality the probability that his capital ever reaches ``1/alpha`` is at most
``alpha``. So a claim is refuted if his capital reached that. No variance is assumed or
estimated, and values need not be independent: each may come from a model fitted to the
values before it. Host arrays in double precision; depends on numpy alone.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

# The shares of the capital that are bet, and their weights. It is a mixture, since the
# best share is known only afterwards; for values without variance the best is 1.
_SHARES = np.append(np.geomspace(2**-9, 0.97, 27), 1.0)
_WEIGHTS = np.append(np.full(27, 0.5 / 27), 0.5)


def betting_lower_bound(
    values: Any, least: float, alpha: float, *, starts: Sequence[int] = (0,)
) -> float:
    """Returns a number that is above the mean with probability at most ``alpha``.

    It is the largest ``m`` that is refuted. The capital is ``Σ_c w_c Π_j (1 - c + c Y_j
    / (m - least))`` with ``Y_j = values_j - least`` and a fixed mixture of shares c. It
    falls as ``m`` grows, so bisection finds the ``m`` at which its largest value over
    time is ``1/alpha``.

    Args:
      values: ``[count]``, each at least ``least``. Given the values before it, the mean
        of each is at most the quantity that is bounded. Independent values of one mean
        are such, and so are those of models fitted as the values come in. No upper
        limit is needed.
      least: no value can be below it; known beforehand, not read off the values.
      alpha: probability of error allowed, in (0, 1).
      starts: indices at which betting begins, each with an equal part of the capital.
        A later start helps where a model is still being fitted at first, so that its
        first values are far from the quantity.

    Returns:
      A float, at least ``least``; ``least`` itself where nothing can be said.

    Raises:
      ValueError: a value that is not finite or below ``least``, or alpha out of range.

    >>> betting_lower_bound([1.0] * 1000, 0.0, 0.025) > 0.99
    True

    Reference: Waudby-Smith and Ramdas 2023, https://arxiv.org/abs/2010.09686, section
    4; the mixture of shares: Orabona and Jun 2023, https://arxiv.org/abs/2110.14099.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}, expected 0 < alpha < 1")
    above = np.asarray(values, np.float64).reshape(-1) - least
    if above.size and not above.min() >= 0:  # NaN too
        raise ValueError(
            f"values hold {above.min() + least}, expected all >= least = {least}"
        )
    low, high = 0.0, float(above.max(initial=0.0))
    if not math.isfinite(high):
        raise ValueError(f"values hold {high}, expected finite ones")
    for _ in range(60):  # halvings, to the last digits of a double
        middle = (low + high) / 2
        if middle > 0 and _log_capital(above / middle, starts) >= -math.log(alpha):
            low = middle
        else:
            high = middle
    return low + least


def betting_upper_bound(
    values: Any, most: float, alpha: float, *, starts: Sequence[int] = (0,)
) -> float:
    """Returns a number that is below the mean with probability at most ``alpha``.

    ``betting_lower_bound`` of the negated values, which are at most ``most``.

    >>> betting_upper_bound([0.0] * 1000, 1.0, 0.025) < 0.01
    True
    """
    negated = -np.asarray(values, np.float64)
    if negated.size and not negated.min() >= -most:
        raise ValueError(f"values hold {-negated.min()}, expected all <= most = {most}")
    return -betting_lower_bound(negated, -most, alpha, starts=starts)


def _log_capital(gains: np.ndarray, starts: Sequence[int]) -> float:
    """The log of the most capital ever held, in bets on ``gains`` of mean at most 1."""
    with np.errstate(divide="ignore"):
        steps = np.log1p(_SHARES[:, None] * (gains - 1))  # [shares, values]
    purses = np.full((len(starts), len(gains)), -math.log(len(starts)))
    for purse, start in zip(purses, starts, strict=True):
        growth = np.cumsum(steps[:, start:], axis=1) + np.log(_WEIGHTS)[:, None]
        purse[start:] += np.logaddexp.reduce(growth, axis=0)
    return float(np.logaddexp.reduce(purses, axis=0).max(initial=-np.inf))
