"""Networks in Flax linen, with zero biases and initializations by name.

Parameters are explicit: ``model.init(key, x)`` gives the pytree, and
``model.apply(params, x)`` is a pure function to logits ``[batch, classes]``.
Imports none of ours.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

Initializer = Callable[..., jax.Array]

_scaled = nn.initializers.variance_scaling

# The normal ones are whole normals, as in the papers and in PyTorch. Those that JAX has
# under these names are cut at two standard deviations, and without the tails pruning by
# magnitude at initialization empties whole layers earlier.
INITIALIZERS: dict[str, Initializer] = {
    "he_normal": _scaled(2.0, "fan_in", "normal"),
    "he_uniform": _scaled(2.0, "fan_in", "uniform"),
    "lecun_normal": _scaled(1.0, "fan_in", "normal"),
    "lecun_uniform": _scaled(1.0, "fan_in", "uniform"),
    "glorot_normal": _scaled(1.0, "fan_avg", "normal"),
    "glorot_uniform": _scaled(1.0, "fan_avg", "uniform"),
    "orthogonal": nn.initializers.orthogonal(),
}


def initializer(name: str) -> Initializer:
    """Returns the initializer of kernels of that name.

    Args:
      name: ``he_normal``, ``he_uniform`` (variance 2/fan_in), ``lecun_normal``,
        ``lecun_uniform`` (1/fan_in), ``glorot_normal``, ``glorot_uniform``
        (2/(fan_in + fan_out)) or ``orthogonal`` (orthonormal columns or rows).

    Returns:
      ``init(key, shape, dtype)``.

    Raises:
      ValueError: an unknown name; lists the known ones.

    >>> initializer("he_normal")(jax.random.key(0), (784, 200)).shape
    (784, 200)

    Reference: He et al. 2015, https://arxiv.org/abs/1502.01852; Glorot and Bengio
    2010; LeCun et al. 1998; Saxe et al. 2014, https://arxiv.org/abs/1312.6120.
    """
    if name not in INITIALIZERS:
        raise ValueError(f"init is {name!r}, expected one of {sorted(INITIALIZERS)}")
    return INITIALIZERS[name]


class MLP(nn.Module):
    """A fully connected network: ReLU layers of the given widths, then logits.

    Inputs of any shape are flattened, ``[batch, ...]`` to ``[batch, d]``; outputs are
    ``[batch, classes]``. The paper's is ``widths=(200, 200)``.

    >>> model = MLP(classes=2)
    >>> params = model.init(jax.random.key(0), jnp.zeros((1, 50)))
    >>> sum(leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim > 1)
    50400

    Reference: Kumar et al. 2024, https://arxiv.org/abs/2402.01089, section 5.
    """

    classes: int
    widths: Sequence[int] = (200, 200)
    init_name: str = "he_normal"
    activation: Callable[[jax.Array], jax.Array] = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns logits ``[batch, classes]`` of inputs ``[batch, ...]``."""
        x = x.reshape(x.shape[0], -1)
        kernel_init = initializer(self.init_name)
        for width in self.widths:
            x = self.activation(nn.Dense(width, kernel_init=kernel_init)(x))
        return nn.Dense(self.classes, kernel_init=kernel_init)(x)


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


def initialize(model: nn.Module, key: jax.Array, input_shape: Sequence[int]) -> Any:
    """Returns the initial parameters of a network, a dict with the key ``params``.

    Args:
      model: a Flax module.
      key: a JAX key.
      input_shape: one example's shape, without the batch.

    >>> params = initialize(MLP(classes=2), jax.random.key(0), (50,))
    >>> params["params"]["Dense_0"]["kernel"].shape
    (50, 200)
    """
    return model.init(key, jnp.zeros((1, *input_shape)))
