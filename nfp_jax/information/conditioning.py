"""What is resampled, and what the labels alone would tell.

Under ``"labels"``, ``I(m; y | W, X, R)``, inputs are fixed and labels resampled; under
``"data"``, ``I(m; D | W, R)``, all is.
"""

from typing import Any

import numpy as np
from scipy import special

CONDITIONINGS = ("labels", "data")


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


def require_known(conditioning: str) -> None:
    """Raises unless it names a conditioning."""
    if conditioning not in CONDITIONINGS:
        raise ValueError(
            f"conditioning is {conditioning!r}, expected one of {CONDITIONINGS}"
        )


def _require(conditioning: str, needed: str, what: str) -> None:
    require_known(conditioning)
    if conditioning != needed:
        raise ValueError(
            f"{what} bounds the information under {needed!r} alone, not under "
            f"{conditioning!r}"
        )
