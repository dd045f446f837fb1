"""What is resampled, and the entropy of the labels.

Under ``"labels"``, ``I(m; y | W, X, R)``, inputs are fixed and labels resampled. Under
``"data"``, ``I(m; D | W, R)``, all is resampled.
"""

from typing import Any

import numpy as np
from scipy import special

CONDITIONINGS = ("labels", "data")


def label_entropy(probabilities: Any, *, conditioning: str) -> float:
    """Returns the entropy of independent labels, in nats: ``I(m; y) <= H(y)``.

    ``-Σ_i Σ_c p_ic log p_ic``, which is ``n log C`` for uniform labels.

    Args:
      probabilities: ``[n, classes]``, the distribution of each label.
      conditioning: must be ``"labels"``, since resampled inputs add to the information.

    Raises:
      ValueError: another conditioning, or ``probabilities[i]`` that are no
        distribution.

    >>> round(label_entropy(np.full((10, 2), 0.5), conditioning="labels"), 3)
    6.931
    """
    require_known(conditioning)
    if conditioning != "labels":
        raise ValueError(
            "the entropy of the labels bounds the information under 'labels' alone, "
            f"not under {conditioning!r}"
        )
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 2 or not (p >= 0).all() or not np.allclose(p.sum(axis=1), 1):
        raise ValueError(
            f"probabilities of shape {p.shape}, expected [n, classes], a distribution "
            "for each label"
        )
    return float(np.sum(special.entr(p)))


def noisy_label_probabilities(clean: Any, noise: float, classes: int) -> np.ndarray:
    """Returns the distributions of labels with noise, ``[n, classes]``.

    With probability ``noise`` a label is redrawn uniformly over all classes.

    Args:
      clean: labels before noise, int ``[n]``.
      noise: rate ρ, in [0, 1].
      classes: ``C``.

    Raises:
      ValueError: ``noise`` outside [0, 1].

    >>> noisy_label_probabilities([1], 0.5, 2).tolist()
    [[0.25, 0.75]]
    """
    if not 0 <= noise <= 1:
        raise ValueError(f"noise is {noise}, expected 0 <= noise <= 1")
    return (1 - noise) * np.eye(classes)[np.asarray(clean)] + noise / classes


def require_known(conditioning: str) -> None:
    """Raises for an unknown conditioning."""
    if conditioning not in CONDITIONINGS:
        raise ValueError(
            f"conditioning is {conditioning!r}, expected one of {CONDITIONINGS}"
        )
