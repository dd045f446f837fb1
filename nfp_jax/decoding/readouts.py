"""What single examples add to scores that are sums over examples, weighed.

With ``u = (1/n) Σ_i g(z_i)``, ``z = (x, y)``, a decoder asks of thousands of examples
for ``Σ_j λ_j g_j(z)`` and ``Σ_j π_j g_j(z)²``, by layer. Any score gives these by each
example's g; dense layers give them by two products of matrices, without g.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.decoding.bits import Signed

# Examples whose g is computed at once; bounds the memory, and keeps a core's cache.
AT_ONCE = 32

# Two readouts are the same if they differ by no more than this share of their size:
# rounding in float32.
DEVIATION = 1e-4

# ``readout(q, x, weights, squares) -> [2 layers, examples]``: from the probabilities of
# labels ``[examples, classes]``, inputs, and λ and π, ``[P]``.
Readout = Callable[[jax.Array, Any, jax.Array, jax.Array], jax.Array]


def layer_sizes(signed: Signed, q: Any, x: Any) -> list[int]:
    """Returns how many prunable weights each leaf has; arrays or their shapes."""
    return [leaf.size for leaf in jax.eval_shape(signed.layers, q, x)]


def example_scores(signed: Signed, q: jax.Array, x: Any) -> jax.Array:
    """Returns g of each example, ``[examples, P]``."""

    def alone(q: jax.Array, x: Any) -> jax.Array:
        return signed.flat(q[None], jax.tree.map(lambda leaf: leaf[None], x))

    return jax.vmap(alone)(q, x)


def readout_of(signed: Signed) -> Readout:
    """Returns the readout of any score, which computes each example's g."""

    def readout(
        q: jax.Array, x: Any, weights: jax.Array, squares: jax.Array
    ) -> jax.Array:
        cuts = np.cumsum(layer_sizes(signed, q, x))[:-1]
        by_layer = list(
            zip(jnp.split(weights, cuts), jnp.split(squares, cuts), strict=True)
        )

        def alone(example: tuple[jax.Array, Any]) -> jax.Array:
            q, x = jax.tree.map(lambda leaf: leaf[None], example)
            parts = list(zip(signed.layers(q, x), by_layer, strict=True))
            linear = [g @ w for g, (w, _) in parts]
            return jnp.stack(linear + [g**2 @ s for g, (_, s) in parts])

        with jax.default_matmul_precision("highest"):
            return jax.lax.map(alone, (q, x), batch_size=AT_ONCE).T

    return readout


def dense_readout(passed: Callable[..., Any], kernels: Sequence[Any]) -> Readout:
    """Returns the readout of ``g = w ∂L/∂w`` in dense layers, without any g.

    Args:
      passed: ``passed(q, x)``: for each kernel what the examples pass through it, pairs
        of inputs ``[examples, in]`` and derivatives of the loss ``[examples, out]``.
      kernels: w, ``[in, out]`` each, in the order of the score's leaves.
    """

    def readout(
        q: jax.Array, x: Any, weights: jax.Array, squares: jax.Array
    ) -> jax.Array:
        linear, square, start = [], [], 0
        with jax.default_matmul_precision("highest"):
            for w, (inputs, slopes) in zip(kernels, passed(q, x), strict=True):
                part = slice(start, start + w.size)
                first = weights[part].reshape(w.shape) * w
                second = squares[part].reshape(w.shape) * w**2
                linear.append(jnp.sum((inputs @ first) * slopes, axis=1))
                square.append(jnp.sum((inputs**2 @ second) * slopes**2, axis=1))
                start += w.size
        return jnp.stack(linear + square)

    return readout


def readout_for(
    signed: Signed, passed: Callable[..., Any], kernels: Sequence[Any], q: Any, x: Any
) -> Readout:
    """Returns ``dense_readout`` where it says what the score does, else ``readout_of``.

    Both are asked about the same examples, with weights that are drawn.

    Args:
      signed: the pruner, whose score is a mean over examples.
      passed: as ``dense_readout`` takes it; it may raise a ``ValueError`` for a network
        that is not made of dense layers.
      kernels: as ``dense_readout`` takes them.
      q: probabilities of labels of a few examples, ``[examples, classes]``.
      x: their inputs.
    """
    general, sizes = readout_of(signed), layer_sizes(signed, q, x)
    if sizes != [np.size(kernel) for kernel in kernels]:
        return general
    weights = jax.random.normal(jax.random.key(0), (2, sum(sizes)))
    dense = dense_readout(passed, kernels)
    try:
        found = np.asarray(jax.jit(dense)(q, x, *weights))
    except ValueError:  # no dense layers alone
        return general
    expected = np.asarray(jax.jit(general)(q, x, *weights))
    size = np.sqrt(np.mean(expected**2, axis=1, keepdims=True))
    return dense if np.all(np.abs(found - expected) <= DEVIATION * size) else general
