"""Initial weights: initializers by name, and a network's first parameters."""

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


def initialize(model: nn.Module, key: jax.Array, input_shape: Sequence[int]) -> Any:
    """Returns the initial parameters of a network, a dict with the key ``params``.

    Args:
      model: a Flax module.
      key: a JAX key.
      input_shape: one example's shape, without the batch.

    >>> from nfp_jax.models import MLP
    >>> params = initialize(MLP(classes=2), jax.random.key(0), (50,))
    >>> params["params"]["Dense_0"]["kernel"].shape
    (50, 200)
    """
    return model.init(key, jnp.zeros((1, *input_shape)))
