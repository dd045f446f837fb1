"""Student-t intervals of paired differences, as in the data-swap control.

Host arrays in double precision; depends on numpy and `nfp_jax.estimates`.
"""

from typing import Any, NamedTuple

import numpy as np

from nfp_jax.estimates import mean_ends


class Gap(NamedTuple):
    """A mean of paired differences and the ends of its interval, NaN for one pair."""

    mean: float
    lower: float
    upper: float


def paired_gap(own: Any, other: Any, *, confidence: float = 0.95) -> Gap:
    """Returns the mean of ``own - other`` over pairs, with its Student-t interval.

    In the data-swap control, ``own`` is how much a network with a mask memorized of the
    data that the mask was found on. ``other`` is how much it memorized, with the same
    mask, of other data, of which the mask knows nothing. The half-width is ``t · s /
    sqrt(k)``, where k is the number of pairs, s the standard deviation of their
    differences (k - 1 in the denominator), and t the quantile for k - 1 degrees of
    freedom. Pairs that are not finite are left out.

    Args:
      own: ``[k]``.
      other: ``[k]``, in the same order and unit.
      confidence: of the interval, in (0, 1).

    Raises:
      ValueError: the shapes differ, or there is no pair.

    >>> gap = paired_gap([5.0, 7.0, 6.0], [4.0, 4.0, 4.0])
    >>> f"{gap.mean:.2f} ({gap.lower:.2f} to {gap.upper:.2f})"
    '2.00 (-0.48 to 4.48)'
    """
    a, b = np.asarray(own, float), np.asarray(other, float)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise ValueError(
            f"pairs have shapes {a.shape} and {b.shape}, expected both [k]"
        )
    return Gap(*mean_ends(a - b, confidence))
