"""Layer-sequential unit variance: outputs of each layer have variance 1 on inputs."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nfp_jax.models.batch_norm import BatchApply, has_statistics
from nfp_jax.trees import named_leaves

EXAMPLES = 64  # of noise, or of a set


def lsuv(model: nn.Module, params: Any, x: jax.Array) -> Any:
    """Returns parameters by which each layer's outputs have variance 1 on ``x``.

    Layers are rescaled one after the other, each on what the ones before it, already
    rescaled, pass on. It sees inputs: weights made of a data set's count with what a
    mask knows of its inputs. Layers are the modules that have a ``kernel``; the
    variance is over examples, places and units, before a norm and the activation.
    Outputs that do not vary are left as they are.

    Args:
      model: a Flax module whose layers are each applied once.
      params: its parameters; the paper starts from orthogonal kernels and zero biases.
      x: inputs ``[batch, ...]``.

    Raises:
      ValueError: a layer that is applied more than once.

    >>> from nfp_jax.models import MLP
    >>> model = MLP(classes=2, widths=(3,))
    >>> x = jax.random.normal(jax.random.key(0), (8, 5))
    >>> params = lsuv(model, model.init(jax.random.key(1), x), x)
    >>> round(float(jnp.std(model.apply(params, x))), 4)
    1.0

    Reference: Mishkin and Matas 2016, https://arxiv.org/abs/1511.06422, algorithm 1.
    """
    kernels = {path for path, _ in named_leaves(params) if path.endswith("/kernel")}
    scales: dict[str, jax.Array] = {}

    def watch(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        out = call(*args, **kwargs)
        layer = "/".join(("params", *context.module.path))
        if f"{layer}/kernel" not in kernels or context.method_name != "__call__":
            return out
        if layer in scales:
            raise ValueError(f"{layer!r} is applied twice, expected once")
        deviation = jnp.std(out)
        scales[layer] = jnp.where(deviation > 0, deviation, 1)
        return out / scales[layer]

    apply_fn = BatchApply(model) if has_statistics(params) else model.apply
    with nn.intercept_methods(watch):
        apply_fn(params, x)

    def rescaled(path: str, leaf: jax.Array) -> jax.Array:
        layer = path.rpartition("/")[0]  # of a kernel or a bias
        return leaf / scales[layer] if layer in scales else leaf

    new = [rescaled(path, leaf) for path, leaf in named_leaves(params)]
    return jax.tree.unflatten(jax.tree.structure(params), new)


def lsuv_on_inputs(model: Any, params: Any, key: jax.Array, x: Any) -> Any:
    """Returns ``lsuv`` on 64 inputs of a set ``[n, ...]``, drawn with replacement."""
    rows = jax.random.randint(key, (EXAMPLES,), 0, len(x))
    return lsuv(model, params, jnp.asarray(x)[rows])


def lsuv_on_noise(
    model: Any, params: Any, key: jax.Array, input_shape: Sequence[int]
) -> Any:
    """Returns ``lsuv`` on 64 inputs from N(0, 1), so that it sees nothing.

    Inputs in standard units have this mean and variance; not these correlations.
    """
    return lsuv(model, params, jax.random.normal(key, (EXAMPLES, *input_shape)))
