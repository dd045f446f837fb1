"""Residual networks for small images: ResNet-8, -20, -32 and other depths."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nfp_jax.fields import require
from nfp_jax.models.contract import Model
from nfp_jax.models.convolution import conv_as_matmul
from nfp_jax.models.flow import in_range
from nfp_jax.models.init import initializer

NORMS = ("group", "batch", "none")
# Of running statistics, a step: 0.1 of the new one, PyTorch's default.
MOMENTUM = 0.9
SHORTCUTS = ("conv", "pad")


class Block(nn.Module):
    """Two 3×3 convolutions with a shortcut around them: ``relu(x + branch(x))``.

    The shortcut is the input; where the stride is 2, a 1×1 convolution of it or its
    pixels with more channels of zeros.
    """

    channels: int
    stride: int
    norm: str
    groups: int
    shortcut: str
    kernel_init: Any

    @nn.compact
    def __call__(self, x: jax.Array, counts: jax.Array | None = None) -> jax.Array:
        """Returns ``[batch, h / stride, w / stride, channels]``."""
        conv = functools.partial(_conv, self.channels, kernel_init=self.kernel_init)
        norm = functools.partial(_norm, self.norm, self.groups, counts)
        out = nn.relu(norm("norm1")(conv("conv1", 3, self.stride)(x)))
        out = norm("norm2")(conv("conv2", 3, 1)(out))
        if self.stride > 1 and self.shortcut == "conv":
            x = norm("shortcut_norm")(conv("shortcut", 1, self.stride)(x))
        elif self.stride > 1:
            x = x[:, :: self.stride, :: self.stride]
            before = (self.channels - x.shape[-1]) // 2
            after = self.channels - x.shape[-1] - before
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (before, after)))
        return nn.relu(x + out)


def _conv(
    channels: int, name: str, side: int, stride: int, *, kernel_init: Any
) -> nn.Conv:
    return nn.Conv(
        channels,
        (side, side),
        strides=(stride, stride),
        # As PyTorch pads; "SAME" pads a strided convolution unevenly.
        padding=[(side // 2, side // 2)] * 2,
        use_bias=False,
        kernel_init=kernel_init,
        conv_general_dilated=conv_as_matmul,
        name=name,
    )


def _norm(
    kind: str, groups: int, counts: jax.Array | None, name: str
) -> Callable[[jax.Array], jax.Array]:
    if kind == "none":
        return lambda x: x
    # 1e-5: PyTorch's default.
    if kind == "group":
        return nn.GroupNorm(num_groups=groups, epsilon=1e-5, name=name)
    norm = nn.BatchNorm(momentum=MOMENTUM, epsilon=1e-5, name=name)
    if counts is None:
        return functools.partial(norm, use_running_average=True)
    counted = counts[:, None, None, None]
    return functools.partial(norm, use_running_average=False, mask=counted)


class ResNet(nn.Module):
    """A residual network: a 3×3 convolution, three stages of blocks, the mean, logits.

    ``depth`` is 6 k + 2 with k blocks a stage; the stages have ``width``, 2 ``width``
    and 4 ``width`` channels, and the second and third halve the sides. Inputs ``[batch,
    height, width, channels]``. Convolutions have no biases.

    Attributes:
      classes: how many.
      depth: 8, 14, 20, 26, 32, …
      width: channels of the first stage.
      norm: ``"group"``: normalization over groups of channels, per example, without
        state. ``"batch"``: over the batch. A training step normalizes by its batch, and
        what is measured of a network by running means and variances, which follow
        batches with momentum 0.9; they are in ``batch_stats`` (`batch_norm`).
        ``"none"``: without. Then each block about doubles the variance.
      groups: of channels, for ``"group"``.
      shortcut: where a stage begins. ``"conv"``: a 1×1 convolution, normalized as the
        others. ``"pad"``: every second pixel, with channels of zeros; no weights.
      init_name: of kernels.
      flow: whether it is kept in range as SynFlow needs it; see ``without_norm``.

    >>> model = ResNet(classes=10)
    >>> x = jnp.zeros((1, 32, 32, 3))
    >>> params = jax.eval_shape(model.init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    272474

    Reference: He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2 (its
    shortcuts are ``"pad"``); Wu and He 2018, https://arxiv.org/abs/1803.08494; Ioffe
    and Szegedy 2015, https://arxiv.org/abs/1502.03167.
    """

    classes: int
    depth: int = 20
    width: int = 16
    norm: str = "group"
    groups: int = 8
    shortcut: str = "conv"
    init_name: str = "he_normal"
    flow: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, counts: jax.Array | None = None) -> jax.Array:
        """Returns logits ``[batch, classes]`` of images ``[batch, h, w, c]``.

        Args:
          x: the images.
          counts: for ``"batch"``: bool ``[batch]``, the examples whose statistics
            normalize; ``None``: the running ones do.
        """
        if x.ndim != 4 or min(x.shape[1:3]) < 4:
            raise ValueError(
                f"ResNet got inputs of shape {x.shape}, expected [batch, h, w, c] with "
                "sides of at least 4"
            )
        kernel_init = initializer(self.init_name)
        kind = (self.norm, self.groups, self.shortcut, kernel_init)
        x = _conv(self.width, "stem", 3, 1, kernel_init=kernel_init)(x)
        x = nn.relu(_norm(self.norm, self.groups, counts, "stem_norm")(x))
        blocks = (self.depth - 2) // 6
        for i in range(3 * blocks):
            stage = i // blocks
            stride = 2 if stage > 0 and i % blocks == 0 else 1
            x = Block(self.width << stage, stride, *kind, name=f"block_{i}")(x, counts)
            x = in_range(x, 90) if self.flow else x
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.classes, kernel_init=kernel_init, name="head")(x)

    def without_norm(self) -> "ResNet":
        """Returns the network without normalization, which takes the same parameters.

        SynFlow scores by its flow: with normalization that of a layer sums to 0. A
        network too deep for float32 is scaled by powers of two; see `flow.in_range`.
        """
        return self.clone(norm="none", flow=True)


def _build(
    classes: int,
    *,
    depth: int = 20,
    width: int = 16,
    norm: str = "group",
    groups: int = 8,
    shortcut: str = "conv",
    init: str = "he_normal",
) -> ResNet:
    holds = depth >= 8 and depth % 6 == 2
    require(holds, "model.depth", depth, "8, 14, 20, 26, 32, …: 6 k + 2")
    require(norm in NORMS, "model.norm", norm, f"one of {NORMS}")
    require(shortcut in SHORTCUTS, "model.shortcut", shortcut, f"one of {SHORTCUTS}")
    require(groups >= 1, "model.groups", groups, "groups >= 1")
    of_groups = norm != "group" or width % groups == 0
    expected = "width >= 1" + (f", a multiple of groups = {groups}" * (norm == "group"))
    require(width >= 1 and of_groups, "model.width", width, expected)
    initializer(init)  # refuses an unknown one
    return ResNet(classes, depth, width, norm, groups, shortcut, init)


CARD = Model("resnet", _build)
