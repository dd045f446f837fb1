"""A small convolutional network."""

from collections.abc import Callable, Sequence

import jax
from flax import linen as nn

from nfp_jax.fields import check, items
from nfp_jax.models.contract import Model
from nfp_jax.models.convolution import conv_as_matmul
from nfp_jax.models.init import initializer


class ConvNet(nn.Module):
    """A small convolutional network: 3×3 convolutions with pooling, then dense layers.

    Each of ``channels`` is a convolution (stride 1, same padding), ReLU and 2×2 max
    pooling; then ReLU layers of ``widths`` and logits. Inputs ``[batch, height, width,
    channels]``, 28×28 or 32×32 and others of at least ``2**len(channels)`` a side.

    >>> import jax.numpy as jnp
    >>> model = ConvNet(classes=10)
    >>> params = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    >>> model.apply(params, jnp.zeros((4, 32, 32, 3))).shape
    (4, 10)

    Reference: Kumar et al. 2024, https://arxiv.org/abs/2402.01089, section 5, gives
    no architecture beyond "a small conv net"; this one is ours.
    """

    classes: int
    channels: Sequence[int] = (32, 64)
    widths: Sequence[int] = (128,)
    init_name: str = "he_normal"
    activation: Callable[[jax.Array], jax.Array] = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns logits ``[batch, classes]`` of images ``[batch, h, w, c]``."""
        if x.ndim != 4 or min(x.shape[1:3]) < 2 ** len(self.channels):
            raise ValueError(
                f"ConvNet got inputs of shape {x.shape}, expected [batch, h, w, c] "
                f"with sides of at least {2 ** len(self.channels)}"
            )
        kernel_init = initializer(self.init_name)
        for channels in self.channels:
            x = nn.Conv(
                channels,
                (3, 3),
                kernel_init=kernel_init,
                conv_general_dilated=conv_as_matmul,
            )(x)
            x = nn.max_pool(self.activation(x), (2, 2), strides=(2, 2))
        x = x.reshape(x.shape[0], -1)
        for width in self.widths:
            x = self.activation(nn.Dense(width, kernel_init=kernel_init)(x))
        return nn.Dense(self.classes, kernel_init=kernel_init)(x)

    def layers(self) -> tuple[str, ...]:
        """Returns the paths of its layers, from input to output."""
        convolutions = tuple(f"params/Conv_{i}" for i in range(len(self.channels)))
        dense = tuple(f"params/Dense_{i}" for i in range(len(self.widths) + 1))
        return convolutions + dense

    def positions(self, input_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns at how many places of an example each layer's kernel is applied."""
        height, width = input_shape[:2]
        count = len(self.channels)
        places = tuple((height >> i) * (width >> i) for i in range(count))
        return places + (1,) * (len(self.widths) + 1)

    def with_widths(self, widths: Sequence[int]) -> "ConvNet":
        """Returns the same network with other widths of its hidden layers."""
        count = len(self.channels)
        return self.clone(channels=tuple(widths[:count]), widths=tuple(widths[count:]))


def _build(
    classes: int,
    *,
    channels: tuple[int, ...] = (32, 64),
    widths: tuple[int, ...] = (200, 200),
    init: str = "he_normal",
) -> ConvNet:
    sizes = {**items("model.channels", channels), **items("model.widths", widths)}
    check(sizes, lambda width: width >= 1, "{} >= 1")
    initializer(init)  # refuses an unknown one
    return ConvNet(classes, channels, widths, init)


CARD = Model("convnet", _build)
