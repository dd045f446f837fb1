"""Networks in Flax linen, with zero biases and initializations by name.

Parameters are explicit: ``model.init(key, x)`` gives the pytree, and
``model.apply(params, x)`` is a pure function to logits ``[batch, classes]``. A network
a file, with its card; ``init`` has initializations, ``chain`` what is known of layers.
"""

import functools
from typing import Any

from nfp_jax import cards
from nfp_jax.models.batch_norm import (
    BatchApply,
    TrainingApply,
    has_statistics,
    layer_of,
)
from nfp_jax.models.chain import apply_at_any_width, layer_chain, layer_positions
from nfp_jax.models.contract import Model
from nfp_jax.models.convnet import ConvNet
from nfp_jax.models.convolution import conv_as_matmul, patches_as_matmul
from nfp_jax.models.init import (
    INITIALIZERS,
    INITS,
    Init,
    Initializer,
    Source,
    init_of,
    initialize,
    initializer,
)
from nfp_jax.models.looks_linear import looks_linear
from nfp_jax.models.lsuv import lsuv
from nfp_jax.models.metainit import gradient_quotient, metainit
from nfp_jax.models.mlp import MLP
from nfp_jax.models.pretrained import Pretrained, pretrained, shared_points
from nfp_jax.models.resnet import ResNet
from nfp_jax.models.transformer import Transformer
from nfp_jax.models.vit import ViT

__all__ = [
    "INITIALIZERS",
    "INITS",
    "MLP",
    "BatchApply",
    "ConvNet",
    "Init",
    "Initializer",
    "Model",
    "Pretrained",
    "ResNet",
    "Source",
    "TrainingApply",
    "Transformer",
    "ViT",
    "apply_at_any_width",
    "build",
    "card",
    "conv_as_matmul",
    "gradient_quotient",
    "has_statistics",
    "init_of",
    "initialize",
    "initializer",
    "layer_chain",
    "layer_of",
    "layer_positions",
    "looks_linear",
    "lsuv",
    "metainit",
    "names",
    "patches_as_matmul",
    "pretrained",
    "settings_of",
    "shared_points",
]


def names() -> tuple[str, ...]:
    """Returns the names of the networks that have a card here, sorted."""
    return cards.names_in(__name__)


def settings_of(name: str) -> dict[str, Any]:
    """Returns the settings of a network with their defaults.

    Args:
      name: of one of ours, of a user's file, or ``module:CARD``.

    Raises:
      CardError: there is none (lists the known ones).

    >>> settings_of("mlp")
    {'widths': (200, 200), 'init': 'he_normal'}
    """
    return cards.settings_of(card(name).build)


def card(name: str) -> Model:
    """Returns the card of a network: of ours, of a user's file, or ``module:CARD``.

    Raises:
      CardError: there is none (lists the known ones).

    >>> card("mlp").prunable is None
    True
    """
    found: Model = cards.find(name, __name__, Model)
    return found


def build(name: str, classes: int, **settings: Any) -> Any:
    """Returns a network, by name or by a user's file: a Flax module.

    The same one for the same settings, so that programs made of it are shared.

    Raises:
      CardError: there is none (lists the known ones).
      ValueError: a setting out of range.

    >>> build("mlp", 2, widths=(3,)).widths
    (3,)
    """
    return _build(card(name), classes, tuple(settings.items()))


@functools.lru_cache(maxsize=64)
def _build(card: Model, classes: int, settings: tuple[tuple[str, Any], ...]) -> Any:
    return card.build(classes, **dict(settings))
