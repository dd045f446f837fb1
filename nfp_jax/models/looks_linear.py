"""Looks-linear initial weights: a ReLU network that is a linear map at first."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nfp_jax.trees import named_leaves


def looks_linear(
    model: Any, params: Any, key: jax.Array, input_shape: Sequence[int]
) -> Any:
    """Returns weights of a chain of dense ReLU layers by which it is exactly linear.

    A hidden layer has each number twice, with both signs, of which ReLU keeps one:
    ``relu(u) - relu(-u) = u``. With W orthogonal the kernels are ``[W, -W]`` for the
    first layer, ``[[W, -W], [-W, W]]`` for those between and ``[[W], [-W]]`` for the
    last, where rows are inputs. So the network is the product of all W.

    Args:
      model: a network of dense layers that has a chain (`chain`).
      params: its parameters; the kernels are replaced.
      key: a JAX key.
      input_shape: one example's shape; not used.

    Raises:
      ValueError: a network without a chain of dense layers, or a hidden layer of an odd
        width.

    >>> from nfp_jax.models import MLP, initialize
    >>> model = MLP(classes=2, widths=(8, 8), init_name="looks_linear")
    >>> params = initialize(model, jax.random.key(0), (5,))
    >>> a, b = jax.random.normal(jax.random.key(1), (2, 1, 5))
    >>> f = lambda x: model.apply(params, x)
    >>> bool(jnp.allclose(f(a + b), f(a) + f(b), atol=1e-5))
    True

    Reference: Balduzzi et al. 2017, https://arxiv.org/abs/1702.08591.
    """
    del input_shape
    leaves = dict(named_leaves(params))
    layers = model.layers() if hasattr(model, "layers") else ()
    paths = [f"{layer}/kernel" for layer in layers]
    if not paths or any(leaves[path].ndim != 2 for path in paths):
        raise ValueError(
            f"init is 'looks_linear', and {type(model).__name__} is no chain of dense "
            "layers, expected a network such as MLP"
        )
    made = {}
    for i, path in enumerate(paths):
        inputs, outputs = leaves[path].shape
        first, last = i == 0, i == len(paths) - 1
        if not last and outputs % 2:
            raise ValueError(
                f"init is 'looks_linear', and {path!r} has {outputs} outputs, expected "
                "an even number"
            )
        shape = (inputs if first else inputs // 2, outputs if last else outputs // 2)
        w = nn.initializers.orthogonal()(jax.random.fold_in(key, i), shape)
        w = w if last else jnp.concatenate([w, -w], axis=1)
        made[path] = w if first else jnp.concatenate([w, -w], axis=0)
    new = [made.get(path, leaf) for path, leaf in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(params), new)
