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
        all of its state in ``params``, and in ``batch_stats`` where it has batch
        normalization.
        Settings out of range raise a ``ValueError`` that names them.
      prunable: ``prunable(params)``, a pytree like them of Python bools: which leaves
        may be pruned. ``None``: those of ``masks.prunable_kernels``, which goes by
        axes and names.

    The module may have the methods of a chain of layers: ``layers()``,
    ``positions(input_shape)`` and ``with_widths(widths)``; see `chain`. A network that
    normalizes has the method ``without_norm()``: a network of the same parameters that
    does not, by which SynFlow scores. With batch normalization its ``__call__`` takes
    ``counts``, bool ``[batch]``: the examples whose statistics normalize; ``None``, the
    default: the running ones do. See `batch_norm`.
    """

    name: str
    build: Callable[..., Any]
    prunable: Callable[[Any], Any] | None = None
