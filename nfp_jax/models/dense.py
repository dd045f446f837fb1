"""What each example passes through dense layers: their inputs and derivatives.

The gradient of an example's loss in the kernel of a dense layer is the outer product of
the layer's input and the derivative of the loss in its output. Both are small, so sums
over gradients of thousands of examples need no gradient.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from nfp_jax.trees import named_leaves


class Passed(NamedTuple):
    """What passes through a dense layer, for each example.

    Attributes:
      inputs: of the layer, ``[batch, in]``.
      slopes: the derivative of each example's loss in the outputs, ``[batch, out]``.
    """

    inputs: jax.Array
    slopes: jax.Array


def dense_layers(
    loss_fn: Callable[[Any, Any], jax.Array], params: Any
) -> Callable[[jax.Array, Any], list[Passed]]:
    """Returns ``passed(q, x)``: what passes through each dense layer.

    Args:
      loss_fn: ``loss_fn(params, (x, q))``, the mean loss over examples of a Flax
        network whose leaves of two or more axes are the kernels of dense layers, each
        applied once to inputs ``[batch, in]``; examples do not see each other.
      params: the weights.

    Returns:
      ``passed(q, x)``, a ``Passed`` for each kernel in the order of the leaves; ``q
      [batch, classes]`` are probabilities of labels. It raises a ``ValueError`` that
      names a leaf for any other network.

    >>> from nfp_jax.losses import classification_loss
    >>> from nfp_jax.models import MLP
    >>> model = MLP(classes=2, widths=(3,))
    >>> params = model.init(jax.random.key(0), jnp.ones((1, 5)))
    >>> passed = dense_layers(classification_loss(model.apply), params)
    >>> [layer.slopes.shape for layer in passed(jnp.eye(2), jnp.ones((2, 5)))]
    [(2, 3), (2, 2)]
    """
    shapes = {path: leaf.shape for path, leaf in named_leaves(params) if leaf.ndim > 1}

    def passed(q: jax.Array, x: Any) -> list[Passed]:
        size = len(q)
        moved = {path: jnp.zeros((size, shape[-1])) for path, shape in shapes.items()}

        def loss(moved: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
            inputs: dict[str, jax.Array] = {}

            def watch(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
                out = call(*args, **kwargs)
                path = "/".join(("params", *context.module.path, "kernel"))
                if path not in shapes or context.method_name != "__call__":
                    return out
                if path in inputs or args[0].shape != (size, shapes[path][0]):
                    raise ValueError(
                        f"{path} is applied to {args[0].shape}, expected a dense "
                        f"layer that is applied once to {(size, shapes[path][0])}"
                    )
                inputs[path] = args[0]
                return out + moved[path]

            with nn.intercept_methods(watch):
                return loss_fn(params, (x, q)) * size, inputs

        slopes, inputs = jax.grad(loss, has_aux=True)(moved)
        if missing := sorted(set(shapes) - set(inputs)):
            raise ValueError(f"{missing[0]} is no kernel of a dense layer")
        return [Passed(inputs[path], slopes[path]) for path in shapes]

    return passed
