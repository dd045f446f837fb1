"""Data sets with label noise: Gaussian inputs, or images by name.

``dataset`` says what a set is and draws its label noise. A synthetic set is a file with
a card, as ``gaussian`` is; ``images`` finds every other one by its name, through
``readers`` and ``download``. Depends on jax and
numpy; on tensorflow-datasets only for what it prepared or lists.
"""

from typing import Any

from nfp_jax import cards
from nfp_jax.data.contract import Synthetic
from nfp_jax.data.dataset import (
    Array,
    DataError,
    Dataset,
    Labels,
    halves,
    redraw,
    standardize,
    subset,
    subset_index,
    with_label_noise,
)
from nfp_jax.data.gaussian import gaussian
from nfp_jax.data.images import load
from nfp_jax.data.recall import recall
from nfp_jax.data.regression import Regression, regression

__all__ = [
    "Array",
    "DataError",
    "Dataset",
    "Labels",
    "Regression",
    "Synthetic",
    "gaussian",
    "halves",
    "load",
    "names",
    "recall",
    "redraw",
    "regression",
    "settings_of",
    "standardize",
    "subset",
    "subset_index",
    "synthetic",
    "with_label_noise",
]


def names() -> tuple[str, ...]:
    """Returns the names of the synthetic sets that have a card here, sorted."""
    return cards.names_in(__name__)


def synthetic(name: str) -> Synthetic | None:
    """Returns the card of a synthetic set; ``None``: it is the name of an image set.

    Args:
      name: of one of ours, of a user's file, or ``module:CARD``.

    Raises:
      CardError: a file or a module that has none.

    >>> synthetic("gaussian").gaussian_inputs, synthetic("digits")
    (True, None)
    """
    if name in names() or cards.is_path(name):
        found: Synthetic = cards.find(name, __name__, Synthetic)
        return found
    return None


def settings_of(name: str) -> dict[str, Any]:
    """Returns the settings of a set with their defaults; an image set has none.

    Raises:
      CardError: as ``synthetic``.

    >>> settings_of("gaussian")
    {'dim': 50, 'classes': 2}
    """
    card = synthetic(name)
    return cards.settings_of(card.make) if card else {}
