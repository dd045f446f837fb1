"""Initial weights: initializers by name, and a network's first parameters.

Most draw each kernel by itself. Some go on from there with the whole network:
`looks_linear`, `lsuv`, `metainit`. What a name here stands for sees no data set, so
that weights say nothing about one. With a colon and the name of a set, as in
``lsuv:half``, it sees that one: a `Source`.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from nfp_jax.models.looks_linear import looks_linear
from nfp_jax.models.lsuv import lsuv_on_inputs, lsuv_on_noise
from nfp_jax.models.metainit import metainit
from nfp_jax.models.pretrained import head_of, with_fresh_head

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


class Source(NamedTuple):
    """What initial weights are made of, where their name has a colon.

    Attributes:
      x: inputs ``[n, ...]``.
      params: weights of the same network that were trained on them, with a head for any
        number of classes; ``None``: there are none.
    """

    x: Any
    params: Any = None


@dataclasses.dataclass(frozen=True)
class Init:
    """An initialization.

    Attributes:
      kernel: ``kernel(key, shape, dtype)`` draws a kernel.
      whole: ``whole(model, params, key, input_shape) -> params`` goes on with the
        network; ``None``: nothing more is done.
      on_source: ``on_source(model, params, key, source) -> params``, in place of
        ``whole`` where a `Source` is named; ``None``: it takes none.
      sees: what it sees of a source, in the words of pruners' cards. Weights that saw
        some of a data set count with what a mask knows of it.
      needs_weights: whether the source must have trained weights, and so must be named.
    """

    kernel: Initializer
    whole: Callable[..., Any] | None = None
    on_source: Callable[..., Any] | None = None
    sees: str = "nothing"
    needs_weights: bool = False


def _lsuv_on_source(model: Any, params: Any, key: Any, source: Source) -> Any:
    return lsuv_on_inputs(model, params, key, source.x)


def _metainit_on_source(model: Any, params: Any, key: Any, source: Source) -> Any:
    return metainit(model, params, key, source.x.shape[1:], inputs=source.x)


def _pretrained(model: Any, params: Any, key: Any, source: Source) -> Any:
    del key
    return with_fresh_head(params, source.params, head_of(model, params))


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
    "lsuv": Init(_orthogonal(), lsuv_on_noise, _lsuv_on_source, "inputs"),
    "metainit": Init(_HE_NORMAL, metainit, _metainit_on_source, "inputs"),
    "pretrained": Init(_HE_NORMAL, None, _pretrained, "training", needs_weights=True),
}
INITIALIZERS: dict[str, Initializer] = {x: init.kernel for x, init in INITS.items()}


def initializer(name: str) -> Initializer:
    """Returns the initializer of kernels of that name.

    Args:
      name: ``he_normal``, ``he_uniform`` (variance 2/fan_in), ``lecun_normal``,
        ``lecun_uniform`` (1/fan_in), ``glorot_normal``, ``glorot_uniform``
        (2/(fan_in + fan_out)), ``orthogonal`` (orthonormal columns or rows),
        ``orthogonal_relu`` (times √2), ``delta_orthogonal``, ``signed_constant``, or
        one that ``initialize`` goes on from: ``looks_linear``, ``lsuv``, ``metainit``;
        ``lsuv:…``, ``metainit:…`` and ``pretrained:…`` with the name of a source.

    Returns:
      ``init(key, shape, dtype)``.

    Raises:
      ValueError: an unknown name; lists the known ones.

    >>> initializer("he_normal")(jax.random.key(0), (784, 200)).shape
    (784, 200)

    Reference: He et al. 2015, https://arxiv.org/abs/1502.01852; Glorot and Bengio
    2010; LeCun et al. 1998; Saxe et al. 2014, https://arxiv.org/abs/1312.6120.
    """
    return init_of(name).kernel


def init_of(name: str) -> Init:
    """Returns the initialization of a name, with or without that of a source.

    Raises:
      ValueError: an unknown name (lists the known ones), a source that it does not
        take, or none where it needs one.

    >>> init_of("lsuv:half").sees
    'inputs'
    """
    base, colon, source = name.partition(":")
    if base not in INITS:
        raise ValueError(f"init is {name!r}, expected one of {sorted(INITS)}")
    init = INITS[base]
    if bool(colon) and (init.on_source is None or not source):
        takers = sorted(x for x, other in INITS.items() if other.on_source)
        raise ValueError(
            f"init is {name!r}, expected a set after the colon of one of {takers}"
        )
    if init.needs_weights and not colon:
        raise ValueError(f"init is {name!r}, expected '{name}:' and a set, as 'half'")
    return init


def initialize(
    model: nn.Module,
    key: jax.Array,
    input_shape: Sequence[int],
    source: Source | None = None,
) -> Any:
    """Returns the initial parameters of a network, a dict with the key ``params``.

    With batch normalization the key ``batch_stats`` is beside it.

    Those of ``model.init``, or what the initialization that ``model.init_name`` names
    makes of them with the whole network.

    Args:
      model: a Flax module.
      key: a JAX key.
      input_shape: one example's shape, without the batch.
      source: what the initialization sees, where its name has a colon.

    Raises:
      ValueError: an initialization that is not for this network, or none to see.

    >>> from nfp_jax.models import MLP
    >>> params = initialize(MLP(classes=2), jax.random.key(0), (50,))
    >>> params["params"]["Dense_0"]["kernel"].shape
    (50, 200)
    """
    params = model.init(key, jnp.zeros((1, *input_shape)))
    name = getattr(model, "init_name", "")
    base, colon, _ = name.partition(":")
    init, key = INITS.get(base), jax.random.fold_in(key, 1)
    if init is not None and init.on_source is not None and colon:
        if source is None:
            raise ValueError(f"init is {name!r}, and no source is given")
        return init.on_source(model, params, key, source)
    if init is None or init.whole is None:
        return params
    return init.whole(model, params, key, tuple(input_shape))
