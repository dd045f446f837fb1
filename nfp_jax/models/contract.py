"""What a network is: its card.

What removes dead neurons, and what bounds a Lipschitz constant from above, must know a
network's layers (`chain`). A network has that, or goes without both.
"""

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Model:
    """The card of a network.

    Attributes:
      name: what ``config.model.name`` calls it.
      build: ``build(classes, *, …)`` with its settings, keyword-only and with defaults,
        returns a Flax module: inputs ``[batch, ...]`` to logits ``[batch, classes]``,
        all of its state in ``params``.
        Settings out of range raise a ``ValueError`` that names them.

    The module may have the methods of a chain of layers: ``layers()``,
    ``positions(input_shape)`` and ``with_widths(widths)``; see `chain`.
    """

    name: str
    build: Callable[..., Any]
