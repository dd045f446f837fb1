"""Networks whose layers feed each the next alone: their paths, places and widths.

A network says so by three methods: ``layers()``, the paths of its layers in order;
``positions(input_shape)``, at how many places of an example the kernel of each is
applied; ``with_widths(widths)``, the same network with other hidden widths.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from nfp_jax.trees import named_leaves


def layer_chain(model: Any) -> tuple[str, ...]:
    """Returns the paths of a network's layers, from input to output.

    Convolutions before dense layers, each kind by number (``Dense_10`` after
    ``Dense_9``); each layer feeds the next alone.

    Raises:
      ValueError: a model that does not say what its layers are.

    >>> from nfp_jax.models import ConvNet
    >>> layer_chain(ConvNet(classes=10))[1:]
    ('params/Conv_1', 'params/Dense_0', 'params/Dense_1')
    """
    if not hasattr(model, "layers"):
        raise ValueError(
            f"the layers of {type(model).__name__} are not known, expected a network "
            "that has them, as MLP and ConvNet do"
        )
    layers: tuple[str, ...] = model.layers()
    return layers


def layer_positions(model: Any, input_shape: Sequence[int]) -> tuple[int, ...]:
    """Returns at how many places of an example each layer's kernel is applied.

    Height times width for a convolution, 1 for a dense layer: times the size of the
    kernel, the multiply-adds of the layer. In the order of ``layer_chain``.

    Args:
      model: a network that has a chain of layers.
      input_shape: one example's shape, without the batch.

    Raises:
      ValueError: as ``layer_chain``.

    >>> from nfp_jax.models import ConvNet
    >>> layer_positions(ConvNet(classes=10), (28, 28, 1))
    (784, 196, 1, 1)
    """
    layer_chain(model)  # raises where it has none
    positions: tuple[int, ...] = model.positions(tuple(input_shape))
    return positions


def apply_at_any_width(model: Any) -> Callable[[Any, jax.Array], jax.Array]:
    """Returns ``apply_fn(params, x)``: ``model.apply`` at the widths of the params.

    Flax refuses kernels of another shape than the model declares; here ``widths`` and
    ``channels`` are those of the kernels given, so that one function serves a network
    and smaller ones. The result at the model's own widths is that of ``model.apply``.

    Args:
      model: a network that has a chain of layers.

    Returns:
      ``apply_fn(params, x)``, pure; under ``vmap`` and ``jit`` as ``model.apply`` is.

    Raises:
      ValueError: as ``layer_chain``.

    >>> import jax.numpy as jnp
    >>> from nfp_jax.models import MLP, initialize
    >>> apply_fn = apply_at_any_width(MLP(classes=2, widths=(200,)))
    >>> params = initialize(MLP(classes=2, widths=(3,)), jax.random.key(0), (5,))
    >>> apply_fn(params, jnp.zeros((4, 5))).shape
    (4, 2)
    """
    hidden = layer_chain(model)[:-1]

    def apply_fn(params: Any, x: jax.Array) -> jax.Array:
        kernels = dict(named_leaves(params))
        widths = [kernels[f"{path}/kernel"].shape[-1] for path in hidden]
        logits: Any = model.with_widths(widths).apply(params, x)
        return logits

    return apply_fn
