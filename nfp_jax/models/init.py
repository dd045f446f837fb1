"""Initial weights: initializers by name, and a network's first parameters.

Most draw each kernel by itself. Some go on from there with the whole network:
`looks_linear`, `lsuv`, `metainit`. What a name here stands for sees no data set, so
that weights say nothing about one.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nfp_jax.models.looks_linear import looks_linear
from nfp_jax.models.lsuv import lsuv_on_noise
from nfp_jax.models.metainit import metainit

Initializer = Callable[..., jax.Array]

_scaled = nn.initializers.variance_scaling
_orthogonal = nn.initializers.orthogonal


def signed_constant(key: jax.Array, shape: Sequence[int], dtype: Any = float) -> Any:
    """Returns a kernel of ``±√(2 / fan_in)`` at random.

    All weights are equally large: scores by magnitude are ties.

    >>> signed_constant(jax.random.key(0), (8, 2)).min().item()
    -0.5

    Reference: Ramanujan et al. 2020, https://arxiv.org/abs/1911.13299.
    """
    signs = jax.random.rademacher(
        key, tuple(shape), jax.dtypes.canonicalize_dtype(dtype)
    )
    return signs * math.sqrt(2 / math.prod(shape[:-1]))


def delta_orthogonal(key: jax.Array, shape: Sequence[int], dtype: Any = float) -> Any:
    """Returns a kernel whose only tap is the center: an orthogonal matrix times √2.

    Columns are orthogonal, or rows where there are more outputs than inputs. Kernels of
    dense layers are all center. All other weights are 0, and so are most scores.

    >>> kernel = delta_orthogonal(jax.random.key(0), (3, 3, 4, 8))
    >>> int((kernel != 0).sum()), bool((kernel[1, 1] != 0).all())
    (32, True)

    Reference: Xiao et al. 2018, https://arxiv.org/abs/1806.05393.
    """
    center = tuple((side - 1) // 2 for side in shape[:-2])
    matrix = _orthogonal(math.sqrt(2))(key, tuple(shape[-2:]), dtype)
    return jnp.zeros(shape, matrix.dtype).at[center].set(matrix)


@dataclasses.dataclass(frozen=True)
class Init:
    """An initialization.

    Attributes:
      kernel: ``kernel(key, shape, dtype)`` draws a kernel.
      whole: ``whole(model, params, key, input_shape) -> params`` goes on with the
        network; ``None``: nothing more is done.
      sees: what it sees of a data set, in the words of pruners' cards. Weights that saw
        some of it count with what a mask knows of it.
    """

    kernel: Initializer
    whole: Callable[..., Any] | None = None
    sees: str = "nothing"


_HE_NORMAL = _scaled(2.0, "fan_in", "normal")

# The normal ones are whole normals, as in the papers and in PyTorch. Those that JAX has
# under these names are cut at two standard deviations, and without the tails pruning by
# magnitude at initialization empties whole layers earlier.
INITS: dict[str, Init] = {
    "he_normal": Init(_HE_NORMAL),
    "he_uniform": Init(_scaled(2.0, "fan_in", "uniform")),
    "lecun_normal": Init(_scaled(1.0, "fan_in", "normal")),
    "lecun_uniform": Init(_scaled(1.0, "fan_in", "uniform")),
    "glorot_normal": Init(_scaled(1.0, "fan_avg", "normal")),
    "glorot_uniform": Init(_scaled(1.0, "fan_avg", "uniform")),
    "orthogonal": Init(_orthogonal()),
    "orthogonal_relu": Init(_orthogonal(math.sqrt(2))),
    "delta_orthogonal": Init(delta_orthogonal),
    "signed_constant": Init(signed_constant),
    "looks_linear": Init(_orthogonal(), looks_linear),
    "lsuv": Init(_orthogonal(), lsuv_on_noise),
    "metainit": Init(_HE_NORMAL, metainit),
}
INITIALIZERS: dict[str, Initializer] = {x: init.kernel for x, init in INITS.items()}


def initializer(name: str) -> Initializer:
    """Returns the initializer of kernels of that name.

    Args:
      name: ``he_normal``, ``he_uniform`` (variance 2/fan_in), ``lecun_normal``,
        ``lecun_uniform`` (1/fan_in), ``glorot_normal``, ``glorot_uniform``
        (2/(fan_in + fan_out)), ``orthogonal`` (orthonormal columns or rows),
        ``orthogonal_relu`` (times √2), ``delta_orthogonal``, ``signed_constant``, or
        one that ``initialize`` goes on from: ``looks_linear``, ``lsuv``, ``metainit``.

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

    With batch normalization the key ``batch_stats`` is beside it.

    Those of ``model.init``, or what the initialization that ``model.init_name`` names
    makes of them with the whole network.

    Args:
      model: a Flax module.
      key: a JAX key.
      input_shape: one example's shape, without the batch.

    Raises:
      ValueError: an initialization that is not for this network.

    >>> from nfp_jax.models import MLP
    >>> params = initialize(MLP(classes=2), jax.random.key(0), (50,))
    >>> params["params"]["Dense_0"]["kernel"].shape
    (50, 200)
    """
    params = model.init(key, jnp.zeros((1, *input_shape)))
    init = INITS.get(getattr(model, "init_name", ""))
    if init is None or init.whole is None:
        return params
    return init.whole(model, params, jax.random.fold_in(key, 1), tuple(input_shape))
