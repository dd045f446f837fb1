"""A small convolutional network."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nfp_jax.fields import check, items
from nfp_jax.models.contract import Model
from nfp_jax.models.init import initializer


class ConvNet(nn.Module):
    """A small convolutional network: 3×3 convolutions with pooling, then dense layers.

    Each of ``channels`` is a convolution (stride 1, same padding), ReLU and 2×2 max
    pooling; then ReLU layers of ``widths`` and logits. Inputs ``[batch, height, width,
    channels]``, 28×28 or 32×32 and others of at least ``2**len(channels)`` a side.

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


def conv_as_matmul(
    x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, **options: Any
) -> jax.Array:
    """Returns a stride-1 "same" convolution as one matrix product over patches.

    Inside a loop XLA's CPU backend runs the gradients of its own convolution 10 times
    slower than outside (and training is a loop), and ``vmap`` over kernels makes a
    grouped convolution of it; a matrix product stays one. For ``nn.Conv``.

    Args:
      x: ``[batch, h, w, in]``.
      kernel: ``[a, b, in, out]``, ``a`` and ``b`` odd.
      strides: all 1.
      padding: ``"SAME"``.
      options: of ``jax.lax.conv_general_dilated``; ``precision`` alone counts.

    Returns:
      ``[batch, h, w, out]``.

    Raises:
      ValueError: another stride, padding or an even kernel.

    >>> ones = jnp.ones((1, 2, 2, 1))
    >>> conv_as_matmul(ones, jnp.ones((3, 3, 1, 1)), (1, 1), "SAME").ravel().tolist()
    [4.0, 4.0, 4.0, 4.0]
    """
    a, b, channels, out = kernel.shape
    if any(s != 1 for s in strides) or padding != "SAME" or not a % 2 == b % 2 == 1:
        raise ValueError(
            f"strides {strides}, padding {padding!r}, kernel {kernel.shape}: expected "
            "strides of 1, 'SAME' and an odd kernel"
        )
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (a // 2, a // 2), (b // 2, b // 2), (0, 0)))
    shifts = [x[:, i : i + height, j : j + width] for i in range(a) for j in range(b)]
    patches = jnp.concatenate(shifts, axis=-1)  # [batch, h, w, a * b * in]
    kernel = kernel.reshape(a * b * channels, out)
    return jnp.matmul(patches, kernel, precision=options.get("precision"))


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
