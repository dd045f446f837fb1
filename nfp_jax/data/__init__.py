"""Data sets with label noise: Gaussian inputs, or images by name.

``dataset`` says what a set is and draws its label noise; ``gaussian`` makes one,
``images`` finds one by name, through ``readers`` and ``download``. Depends on jax and
numpy; on tensorflow-datasets only for what it prepared or lists.
"""

from nfp_jax.data.dataset import (
    Array,
    DataError,
    Dataset,
    standardize,
    subset,
    with_label_noise,
)
from nfp_jax.data.gaussian import gaussian
from nfp_jax.data.images import load

__all__ = [
    "Array",
    "DataError",
    "Dataset",
    "gaussian",
    "load",
    "standardize",
    "subset",
    "with_label_noise",
]
