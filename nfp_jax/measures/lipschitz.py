"""Lipschitz constants of networks, from below and above.

The network is ``f = softmax(logits)``, and the norm of inputs and of outputs Euclidean.
Its constant is never one number: ``lipschitz_lower`` finds a slope that f has, and
``lipschitz_upper`` proves one that f never exceeds. Both hold for all inputs, not only
for those near the data. Both are per unit of the inputs as they are; ``in_unit_norm``
turns them into the units of the law of robustness. Depends on jax and numpy.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.types import ApplyFn, Params

# A factor above the rounding in float64, and above that of a bound kept as float32
# (6e-8), so that the result is still a bound.
_SLACK = 1 + 1e-6

# Frequencies for each degree of a convolution's symbol: an error below 0.5 % an axis.
_GRID = 32


def lipschitz_lower(
    apply_fn: ApplyFn,
    *,
    segments: int = 1024,
    ascents: int = 16,
    steps: int = 50,
    batch_size: int = 64,
) -> Callable[[Params, jax.Array, jax.Array], jax.Array]:
    """Returns the function that bounds a Lipschitz constant from below, by a slope.

    The slope at a point is ``‖J‖``, the spectral norm of the Jacobian of
    ``softmax(apply_fn(params, ·))``. Where f is differentiable, it is at most the
    constant. At a kink, a ReLU at exactly 0, J is what JAX takes it to be. Where data
    lie on kinks, as blank patches do in a network without biases, move them a little.

    The bound is the largest slope found at three kinds of points: the data; points on
    segments between random pairs of data points, which cross the decision boundary,
    where f is steep; and points that gradient ascent reaches from the steepest of
    these. A step goes along the gradient of ``log ‖J‖``. If it leads higher, it is
    taken and the next is 1.5 times as long; else the next is half as long. The first
    step is 0.1 of the inputs' root mean square norm.

    Args:
      apply_fn: ``apply_fn(params, x[batch, ...])`` returns logits ``[batch, classes]``.
      segments: number of points on segments, at least 0.
      ascents: number of points to ascend from, at least 1; all of them, if there are
        fewer.
      steps: steps of each ascent, at least 0.
      batch_size: points whose Jacobians are in memory at a time.

    Returns:
      ``lower(params, x, key)``: a float scalar, not negative; x is ``[n, ...]`` and
      float. It is 0 for a constant network, and NaN where a slope is NaN. It is pure:
      one ``jit`` serves all params, and ``vmap`` over params and key serves many
      networks.

    Raises:
      ValueError: a number out of range.

    >>> lower = lipschitz_lower(lambda w, x: x @ w, segments=8, ascents=2)
    >>> w, x = jnp.array([[4.0, 0.0]]), jnp.array([[-1.0], [1.0]])
    >>> print(f"{lower(w, x, jax.random.key(0)):.3f} of {4 * 2**0.5 / 4:.3f}")
    1.414 of 1.414
    """
    for name, value, least in (
        ("segments", segments, 0),
        ("ascents", ascents, 1),
        ("steps", steps, 0),
        ("batch_size", batch_size, 1),
    ):
        if value < least:
            raise ValueError(f"{name} is {value}, expected at least {least}")

    def lower(params: Params, x: jax.Array, key: jax.Array) -> jax.Array:
        def f(point: jax.Array) -> jax.Array:
            return jax.nn.softmax(apply_fn(params, point[None])[0])

        slope = functools.partial(_squared_slope, f)
        length = 0.1 * jnp.sqrt(_mean_square(x))
        points = jnp.concatenate([x, _on_segments(key, x, segments)])
        # Not the default of some accelerators, which rounds factors to 10 bits.
        with jax.default_matmul_precision("highest"):
            found = jax.lax.map(slope, points, batch_size=batch_size)
            _, steepest = jax.lax.top_k(found, min(ascents, len(points)))
            climbed = jax.lax.map(
                lambda start: _climb(slope, start, length, steps),
                points[steepest],
                batch_size=batch_size,
            )
        return jnp.sqrt(jnp.maximum(jnp.max(found), jnp.max(climbed)))

    return lower


def _on_segments(key: jax.Array, x: jax.Array, count: int) -> jax.Array:
    """Points at random places of the segments between random pairs of points."""
    pair_key, place_key = jax.random.split(key)
    i, j = jax.random.randint(pair_key, (2, count), 0, len(x))
    shape = (count,) + (1,) * (x.ndim - 1)
    place = jax.random.uniform(place_key, shape, x.dtype)
    return place * x[i] + (1 - place) * x[j]


def _squared_slope(f: Callable[[jax.Array], jax.Array], point: jax.Array) -> jax.Array:
    """``‖J‖²`` of f at a point, as ``‖Jᵀu‖²`` of the top left singular vector u.

    The gradient with respect to the point takes u as fixed (the envelope theorem). u is
    a unit vector, so its rounding can't make the slope too large. The slope is squared
    so that it has a gradient where it is 0.
    """
    outputs, pull = jax.vjp(f, point)
    classes = outputs.shape[0]
    if classes == 2:  # outputs sum to 1, so their gradients are opposite
        u = jnp.array([0.5**0.5, -(0.5**0.5)], outputs.dtype)
    else:
        jacobian = jax.vmap(pull)(jnp.eye(classes, dtype=outputs.dtype))[0]
        jacobian = jax.lax.stop_gradient(jacobian).reshape(classes, -1)
        u = jnp.linalg.eigh(jacobian @ jacobian.T)[1][:, -1]
    return jnp.sum(pull(u)[0] ** 2)


def _climb(
    squared_slope: Callable[[jax.Array], jax.Array],
    start: jax.Array,
    length: jax.Array,
    steps: int,
) -> jax.Array:
    """The highest squared slope that an ascent from a point reaches."""

    def look(point: jax.Array) -> tuple[jax.Array, jax.Array]:
        value, gradient = jax.value_and_grad(squared_slope)(point)
        tiny = jnp.finfo(value.dtype).tiny
        gradient = gradient / jnp.maximum(value, tiny)  # else its square underflows
        norm = jnp.sqrt(jnp.sum(gradient**2))
        return value, gradient / jnp.maximum(norm, tiny)

    def step(_: Any, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        point, value, direction, length = state
        next_point = point + length * direction
        next_value, next_direction = look(next_point)
        higher = next_value > value
        return (
            jnp.where(higher, next_point, point),
            jnp.where(higher, next_value, value),
            jnp.where(higher, next_direction, direction),
            jnp.where(higher, 1.5, 0.5) * length,
        )

    # The first step has no direction and starts from -inf: it looks at the start.
    state = (start, -jnp.inf, jnp.zeros_like(start), length)
    return jax.lax.fori_loop(0, steps + 1, step, state)[1]


class LipschitzUpper(NamedTuple):
    """Upper bounds on a Lipschitz constant, both proven.

    Attributes:
      bound: the smaller, which looks at how layers act together.
      product: the product of the layers' norms.
    """

    bound: float
    product: float


def lipschitz_upper(kernels: Sequence[Any], *, softmax: bool = True) -> LipschitzUpper:
    """Returns proven upper bounds on the Lipschitz constant of a chain of layers.

    Between the layers may stand elementwise activations of slopes in [0, 1] (ReLU,
    tanh; not GELU), 2×2 max pooling with stride 2, and flattening. Each is 1-Lipschitz,
    and biases don't matter. So the *product* of the layers' operator norms is a bound.

    Dense layers allow a better *bound*. Their outputs at two inputs differ by ``W_jᵀ D
    ... D W_iᵀ`` times the difference of the inputs, where each D is diagonal with
    entries in [0, 1]. At each activation, the best of three bounds on this matrix is
    taken:

    - cut: the norms of the two parts are multiplied, as in the product;
    - averaged: ``D = (1 + E)/2`` with ``‖E‖ <= 1``. So the mean of two bounds is one:
      that of the cut, and that of the two layers merged into one matrix, with no
      activation between;
    - paths: elementwise the matrix is at most ``|W_j|ᵀ ... |W_i|ᵀ``. The norm of this
      is small where the network is sparse and few paths lead through it.

    A dense layer's norm is exact, by SVD. A zero-padded convolution is a compression of
    the convolution on Z². The norm of that is M, the supremum over frequencies θ of
    ``‖K(θ)‖``, with the symbol ``K(θ) = Σ_pq K_pq exp(i(p θ_1 + q θ_2))``. M is bounded
    from norms on a grid. Let u, v be the top singular vectors at the supremum.
    ``Re(u* K(θ) v)`` is M there. In each of the two variables it is a trigonometric
    polynomial of degree n, half of the kernel's size less 1, once the kernel is
    centered, which changes no norm. Near its largest value such a polynomial falls no
    faster than a cosine of frequency n (Riesz). Of N points on the circle, one is
    within π/N of that place. So the largest absolute value on the N points is at least
    ``cos(π n/N)`` of that on the circle. Hence M is at most the largest norm on the
    grid, divided by this cosine once for each axis.

    The Jacobian of softmax, ``diag(p) - p pᵀ``, has norm at most 1/2. Softmax ignores
    what all logits have in common, so the mean over classes is taken from the last
    layer. Attention is not Lipschitz: it has no such bound, and its constant is
    infinite.

    Args:
      kernels: masked kernels from input to output: ``[a, b, in, out]``, a and b odd, of
        "same" convolutions of stride 1, then ``[in, out]`` of dense layers.
      softmax: whether softmax follows the last layer, which must then be dense.

    Returns:
      ``LipschitzUpper``, in double precision; 0 where all weights of a layer are 0. For
      L dense layers about L³/6 spectral norms are computed.

    Raises:
      ValueError: no kernel, softmax after a convolution, or a kernel of another shape,
        out of order or with values not finite, named by its position.

    >>> thin = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 0.0], [1.0, -1.0]])
    >>> upper = lipschitz_upper(thin)  # no path leads from input to output
    >>> print(f"{upper.bound:.3f}, product {upper.product:.3f}")
    0.000, product 1.000

    Reference: product of norms: Gouk et al. 2021, https://arxiv.org/abs/1804.04368;
    averaged: Combettes and Pesquet 2020, https://arxiv.org/abs/1903.01014;
    norm of a convolution by its symbol: Sedghi et al. 2019,
    https://arxiv.org/abs/1805.10408; maximum from a grid: Ehlich and Zeller 1964;
    attention: Kim et al. 2021, https://arxiv.org/abs/2006.04710.
    """
    layers = [np.asarray(kernel, np.float64) for kernel in kernels]
    _check_chain(layers, softmax)
    scale = _SLACK
    if softmax:
        layers[-1] = layers[-1] - layers[-1].mean(axis=1, keepdims=True)
        scale *= 0.5
    dense = [layer for layer in layers if layer.ndim == 2]
    scale *= math.prod(_convolution_norm(layer) for layer in layers if layer.ndim == 4)
    product = math.prod(_dense_norm(layer) for layer in dense)
    return LipschitzUpper(scale * _dense_bound(dense), scale * product)


def _check_chain(layers: list[np.ndarray], softmax: bool) -> None:
    """Raises unless the kernels form a chain of layers."""
    if not layers:
        raise ValueError("kernels is empty, expected at least one")
    for i, layer in enumerate(layers):
        odd = all(size % 2 for size in layer.shape[:2])
        if layer.ndim != 2 and not (layer.ndim == 4 and odd):
            raise ValueError(
                f"kernel {i} has shape {layer.shape}, expected [in, out] or [a, b, "
                "in, out] with a and b odd"
            )
        if not np.isfinite(layer).all():
            raise ValueError(f"kernel {i} has values that are not finite")
    for i, (before, layer) in enumerate(itertools.pairwise(layers), start=1):
        if layer.ndim > before.ndim:
            raise ValueError(f"kernel {i} is a convolution after a dense layer")
        if layer.ndim == before.ndim and layer.shape[-2] != before.shape[-1]:
            raise ValueError(
                f"kernel {i} has shape {layer.shape}, expected {before.shape[-1]} "
                f"inputs, the outputs of kernel {i - 1}"
            )
    if softmax and layers[-1].ndim != 2:
        raise ValueError(
            f"the last kernel has shape {layers[-1].shape}, expected [in, out] before "
            "softmax"
        )


def _dense_norm(kernel: np.ndarray) -> float:
    return float(np.linalg.norm(kernel, 2))


def _dense_bound(layers: list[np.ndarray]) -> float:
    """Bound on dense layers with activations of slopes in [0, 1] between them."""

    @functools.cache
    def bound(i: int, j: int) -> float:
        """Bound on layers i to the last, where layers i to j are merged into one."""
        if i == len(layers):
            return 1.0
        front = functools.reduce(np.matmul, layers[i : j + 1])
        cut = _dense_norm(front) * bound(j + 1, j + 1)
        if j + 1 == len(layers):
            return cut
        best = min(cut, (cut + bound(i, j + 1)) / 2)
        paths = np.abs(front)
        for k in range(j + 1, len(layers)):
            paths = paths @ np.abs(layers[k])
            best = min(best, _dense_norm(paths) * bound(k + 1, k + 1))
        return best

    return bound(0, 0)


def _convolution_norm(kernel: np.ndarray) -> float:
    """Bound on the norm of a convolution, from its symbol on a grid."""
    degrees = [size // 2 for size in kernel.shape[:2]]
    grid = [max(1, _GRID * degree) for degree in degrees]
    # Half of the frequencies: the others have conjugate symbols, of the same norms.
    symbols = np.fft.rfft2(kernel, s=grid, axes=(0, 1))
    cosines = [math.cos(math.pi * n / N) for n, N in zip(degrees, grid, strict=True)]
    largest = np.linalg.norm(symbols, 2, axis=(-2, -1)).max()
    return float(largest / math.prod(cosines))


def in_unit_norm(lipschitz: Any, x: jax.Array) -> jax.Array:
    """Returns Lipschitz constants in units where the inputs have ``E‖x‖² = 1``.

    They are multiplied by the inputs' root mean square norm, √d for inputs drawn from
    N(0, I_d).

    Args:
      lipschitz: constants per unit of x, any shape.
      x: inputs ``[n, ...]``.

    >>> float(in_unit_norm(0.5, jnp.array([[3.0, 4.0], [4.0, -3.0]])))
    2.5
    """
    return jnp.asarray(lipschitz) * jnp.sqrt(_mean_square(x))


def _mean_square(x: jax.Array) -> jax.Array:
    """``(1/n) Σ_i ‖x_i‖²``."""
    return jnp.sum(x**2) / len(x)
