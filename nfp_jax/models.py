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


def layer_chain(model: nn.Module) -> tuple[str, ...]:
    """Returns the paths of a network's layers, from input to output.

    Convolutions before dense layers, each kind by number (``Dense_10`` after
    ``Dense_9``); each layer feeds the next alone.

    Raises:
      ValueError: a model other than ``MLP`` and ``ConvNet``.

    >>> layer_chain(ConvNet(classes=10))[1:]
    ('params/Conv_1', 'params/Dense_0', 'params/Dense_1')
    """
    if not isinstance(model, MLP | ConvNet):
        raise ValueError(
            f"the layers of {type(model).__name__} are not known, expected MLP or "
            "ConvNet"
        )
    channels = model.channels if isinstance(model, ConvNet) else ()
    convolutions = tuple(f"params/Conv_{i}" for i in range(len(channels)))
    dense = tuple(f"params/Dense_{i}" for i in range(len(model.widths) + 1))
    return convolutions + dense


def layer_positions(model: nn.Module, input_shape: Sequence[int]) -> tuple[int, ...]:
    """Returns at how many places of an example each layer's kernel is applied.

    Height times width for a convolution, 1 for a dense layer: times the size of the
    kernel, the multiply-adds of the layer. In the order of ``layer_chain``.

    Args:
      model: an ``MLP`` or a ``ConvNet``.
      input_shape: one example's shape, without the batch.

    Raises:
      ValueError: as ``layer_chain``.

    >>> layer_positions(ConvNet(classes=10), (28, 28, 1))
    (784, 196, 1, 1)
    """
    return tuple(
        (input_shape[0] >> i) * (input_shape[1] >> i) if "Conv" in path else 1
        for i, path in enumerate(layer_chain(model))
    )


def apply_at_any_width(model: nn.Module) -> Callable[[Any, jax.Array], jax.Array]:
    """Returns ``apply_fn(params, x)``: ``model.apply`` at the widths of the params.

    Flax refuses kernels of another shape than the model declares; here ``widths`` and
    ``channels`` are those of the kernels given, so that one function serves a network
    and smaller ones. The result at the model's own widths is that of ``model.apply``.

    Args:
      model: an ``MLP`` or a ``ConvNet``.

    Returns:
      ``apply_fn(params, x)``, pure; under ``vmap`` and ``jit`` as ``model.apply`` is.

    Raises:
      ValueError: as ``layer_chain``.

    >>> apply_fn = apply_at_any_width(MLP(classes=2, widths=(200,)))
    >>> params = initialize(MLP(classes=2, widths=(3,)), jax.random.key(0), (5,))
    >>> apply_fn(params, jnp.zeros((4, 5))).shape
    (4, 2)
    """
    *hidden, _ = (path.split("/")[1] for path in layer_chain(model))

    def apply_fn(params: Any, x: jax.Array) -> jax.Array:
        width = {name: params["params"][name]["kernel"].shape[-1] for name in hidden}
        sizes: dict[str, Any] = {
            "widths": tuple(width[name] for name in hidden if "Dense" in name)
        }
        if isinstance(model, ConvNet):
            sizes["channels"] = tuple(width[name] for name in hidden if "Conv" in name)
        logits: Any = model.clone(**sizes).apply(params, x)
        return logits

    return apply_fn
