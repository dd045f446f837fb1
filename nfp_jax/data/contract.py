"""What a synthetic set is: its card. Any other name is an image set's."""

import dataclasses
from collections.abc import Callable
from typing import Any

from nfp_jax.data.dataset import Dataset


@dataclasses.dataclass(frozen=True)
class Synthetic:
    """The card of a set that is drawn from a key.

    Attributes:
      name: what ``config.data.name`` calls it.
      make: ``make(key, n, *, …) -> Dataset`` with its settings, keyword-only and with
        defaults; labels without noise. Point i must depend on the key and on i alone.
        It is called under ``jit``, with n and the settings static.
      shape: ``shape(**settings) -> (input_shape, classes)``, of one example.
      gaussian_inputs: whether inputs are independent ``N(0, I)``.
      uniform_labels: whether labels are uniform, and independent of all else.
    """

    name: str
    make: Callable[..., Dataset]
    shape: Callable[..., tuple[tuple[int, ...], int]]
    gaussian_inputs: bool = False
    uniform_labels: bool = False

    def __call__(self, key: Any, n: int, **settings: Any) -> Dataset:
        """Returns n points, as ``make``."""
        return self.make(key, n, **settings)
