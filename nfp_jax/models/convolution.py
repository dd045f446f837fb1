"""Convolutions as matrix products over patches, for ``nn.Conv``."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp


def conv_as_matmul(
    x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, **options: Any
) -> jax.Array:
    """Returns a convolution as one matrix product over patches.

    Inside a loop XLA's CPU backend runs the gradients of its own convolution 10 times
    slower than outside (and training is a loop), and ``vmap`` over kernels makes a
    grouped convolution of it; a matrix product stays one. For ``nn.Conv``.

    Args:
      x: ``[batch, h, w, in]``.
      kernel: ``[a, b, in, out]``, ``a`` and ``b`` odd.
      strides: one for each side; other than 1 with explicit padding only, since
        ``"SAME"`` pads a strided convolution unevenly.
      padding: ``"SAME"``, or ``((a//2, a//2), (b//2, b//2))``, which is PyTorch's.
      options: of ``jax.lax.conv_general_dilated``; ``precision`` alone counts.

    Returns:
      ``[batch, ceil(h / stride), ceil(w / stride), out]``.

    Raises:
      ValueError: other strides or padding, or an even kernel.

    >>> ones = jnp.ones((1, 2, 2, 1))
    >>> conv_as_matmul(ones, jnp.ones((3, 3, 1, 1)), (1, 1), "SAME").ravel().tolist()
    [4.0, 4.0, 4.0, 4.0]
    """
    a, b, channels, out = kernel.shape
    centered = ((a // 2, a // 2), (b // 2, b // 2))
    is_same = padding == "SAME" and all(s == 1 for s in strides)
    if not (is_same or _pairs(padding) == centered) or not a % 2 == b % 2 == 1:
        raise ValueError(
            f"strides {strides}, padding {padding!r}, kernel {kernel.shape}: expected "
            f"strides of 1 and 'SAME', or padding {centered}, and an odd kernel"
        )
    height, width = x.shape[1:3]
    down, right = strides
    x = jnp.pad(x, ((0, 0), *centered, (0, 0)))
    shifts = [
        x[:, i : i + height : down, j : j + width : right]
        for i in range(a)
        for j in range(b)
    ]
    patches = jnp.concatenate(shifts, axis=-1)  # [batch, h, w, a * b * in]
    kernel = kernel.reshape(a * b * channels, out)
    return jnp.matmul(patches, kernel, precision=options.get("precision"))


def _pairs(padding: Any) -> tuple[tuple[int, ...], ...] | None:
    """Explicit padding as tuples; ``None`` for padding by name."""
    if isinstance(padding, str):
        return None
    pairs: Sequence[Sequence[int]] = padding
    return tuple(tuple(pair) for pair in pairs)


def patches_as_matmul(
    x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, **options: Any
) -> jax.Array:
    """Returns a convolution over patches side by side as one matrix product.

    For ``nn.Conv`` whose strides are the sides of its kernel, as in a patch embedding.

    Args:
      x: ``[batch, h, w, in]``, sides that are multiples of the kernel's.
      kernel: ``[a, b, in, out]``.
      strides: ``(a, b)``.
      padding: any; sides that are multiples need none.
      options: of ``jax.lax.conv_general_dilated``; ``precision`` alone counts.

    Returns:
      ``[batch, h / a, w / b, out]``.

    Raises:
      ValueError: other strides, or sides that are no multiples.

    >>> ones = jnp.ones((1, 4, 4, 1))
    >>> kernel = jnp.ones((2, 2, 1, 1))
    >>> patches_as_matmul(ones, kernel, (2, 2), "VALID").ravel().tolist()
    [4.0, 4.0, 4.0, 4.0]
    """
    del padding
    a, b, channels, out = kernel.shape
    batch, height, width, _ = x.shape
    if tuple(strides) != (a, b) or height % a or width % b:
        raise ValueError(
            f"strides {strides}, images of {height} x {width}: expected the kernel's "
            f"sides {(a, b)}, and multiples of them"
        )
    x = x.reshape(batch, height // a, a, width // b, b, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5)  # [batch, h / a, w / b, a, b, in]
    x = x.reshape(batch, height // a, width // b, a * b * channels)
    kernel = kernel.reshape(a * b * channels, out)
    return jnp.matmul(x, kernel, precision=options.get("precision"))
