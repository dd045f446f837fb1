"""MetaInit: the sizes of kernels, chosen so that gradients change little in a step."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nfp_jax.models.batch_norm import BatchApply, has_statistics
from nfp_jax.trees import named_leaves


def gradient_quotient(
    loss: Callable[[Any], jax.Array], params: Any, *, eps: float = 1e-5
) -> jax.Array:
    """Returns the mean over parameters of ``|1 - (g - Hg) / (g + eps sgn g)|``.

    g is the gradient of the loss and H its Hessian: how much a step of size 1 changes
    the gradient, relative to it. ``sgn 0`` is 1, and the sign counts as a constant.

    >>> quadratic = lambda w: 0.5 * jnp.sum(w**2)  # a step of size 1 ends at 0
    >>> round(float(gradient_quotient(quadratic, jnp.array([1.0, -2.0]))), 3)
    1.0

    Reference: Dauphin and Schoenholz 2019, "MetaInit: Initializing learning by learning
    to initialize", NeurIPS.
    """
    gradient = jax.grad(loss)
    g, hg = jax.jvp(gradient, (params,), (gradient(params),))

    def changes(g: jax.Array, hg: jax.Array) -> jax.Array:
        sign = jax.lax.stop_gradient(jnp.where(g >= 0, 1.0, -1.0))
        return jnp.sum(jnp.abs((g - hg) / (g + eps * sign) - 1))

    total = sum(jax.tree.leaves(jax.tree.map(changes, g, hg)), start=jnp.zeros(()))
    return total / sum(leaf.size for leaf in jax.tree.leaves(params))


def metainit(
    model: Any,
    params: Any,
    key: jax.Array,
    input_shape: Sequence[int],
    *,
    steps: int = 500,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    batch_size: int = 32,
    inputs: Any = None,
) -> Any:
    """Returns parameters whose kernels are rescaled to a small gradient quotient.

    Each step draws inputs from N(0, 1) and uniform labels, so that it sees nothing of a
    data set. It moves the norm of each kernel by the sign of its derivative, with
    momentum. A step costs some ten gradients of a batch.

    Args:
      model: a Flax module that classifies.
      params: its parameters.
      key: a JAX key.
      input_shape: one example's shape.
      steps: how many.
      learning_rate: of the norms, an absolute number.
      momentum: of the norms' steps.
      batch_size: of the random inputs.
      inputs: ``[n, ...]``, of which each step draws its own in place of noise; then
        weights have seen them, and still no label.

    Reference: Dauphin and Schoenholz 2019, NeurIPS; the defaults are theirs but for the
    size of the batch.
    """
    leaves, treedef = jax.tree.flatten(params)
    paths = [path for path, _ in named_leaves(params)]
    chosen = [i for i, path in enumerate(paths) if path.endswith("kernel")]
    apply_fn = BatchApply(model) if has_statistics(params) else model.apply
    norms = [jnp.linalg.norm(jnp.ravel(leaves[i])) for i in chosen]

    def at(scales: jax.Array) -> Any:
        scaled = list(leaves)
        for i, scale in zip(chosen, scales, strict=True):
            scaled[i] = leaves[i] * scale
        return jax.tree.unflatten(treedef, scaled)

    def quotient(scales: jax.Array, key: jax.Array) -> jax.Array:
        x_key, y_key = jax.random.split(key)
        if inputs is None:
            x = jax.random.normal(x_key, (batch_size, *input_shape))
        else:
            rows = jax.random.randint(x_key, (batch_size,), 0, len(inputs))
            x = jnp.asarray(inputs)[rows]

        def loss(params: Any) -> jax.Array:
            logits = apply_fn(params, x)
            y = jax.random.randint(y_key, (batch_size,), 0, logits.shape[-1])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return jnp.mean(losses)

        return gradient_quotient(loss, at(scales))

    def step(state: Any, key: jax.Array) -> tuple[Any, None]:
        scales, memory = state
        # The derivative in a norm is that in its scale, divided by the first norm.
        memory = momentum * memory - learning_rate * jnp.sign(
            jax.grad(quotient)(scales, key)
        )
        return (scales + memory / jnp.stack(norms), memory), None

    start = jnp.ones(len(chosen)), jnp.zeros(len(chosen))
    (scales, _), _ = jax.lax.scan(step, start, jax.random.split(key, steps))
    return at(scales)
