"""Derivatives of ``w ⊙ H g`` in closed form for dense ReLU layers without biases.

See ``slopes`` for what they are for and for the test of whether they hold.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.decoding.slopes import NoSlopes
from nfp_jax.masks import Params, Prunable, named_leaves, prunable_kernels


class Factors(NamedTuple):
    """Gradients of the difference f of two logits, in factors, at given inputs.

    The gradient of example i in kernel l is the outer product of ``inputs[l][i]`` and
    ``backs[l][i]``.

    Attributes:
      inputs: of each layer, ``[n, in]``.
      backs: derivatives of f in the outputs of each layer, ``[n, out]``.
      gates: which hidden units are on, by hidden layer, 0 or 1, ``[n, width]``.
      p: the network's own probability of class 1, at the temperature, ``[n]``.
      kernel: inner products of the gradients of two examples, ``[n, n]``.
    """

    inputs: tuple[jax.Array, ...]
    backs: tuple[jax.Array, ...]
    gates: tuple[jax.Array, ...]
    p: jax.Array
    kernel: jax.Array


class Picked(NamedTuple):
    """Some weights of one layer.

    Attributes:
      rows: the row of each in its kernel, int ``[E]``.
      columns: its column.
      fixed: the part of its slope that no label changes, ``[n, E]``.
    """

    rows: jax.Array
    columns: jax.Array
    fixed: jax.Array


class ReluChain:
    """Closed forms for dense ReLU layers without biases: ``Slopes``.

    Attributes:
      kernels: from the first layer to the last, ``[in, out]``.
      starts: where each begins among the prunable weights.
      total: number of prunable weights.
      temperature: divides the logits.
      known: prunable weights of which slopes are known, ``bool[P]``: those of all
        layers but the last.
    """

    def __init__(
        self,
        params: Params,
        layers: Sequence[str],
        *,
        temperature: float = 1.0,
        prunable: Prunable = None,
    ) -> None:
        if not 2 <= len(layers) <= 3:
            raise NoSlopes(
                f"the network has {len(layers)} layers, expected 2 or 3: of others no "
                "closed form is known"
            )
        flags = prunable_kernels(params) if prunable is None else prunable
        starts, total = {}, 0
        pairs = zip(named_leaves(params), jax.tree.leaves(flags), strict=True)
        for (path, leaf), flag in pairs:
            if flag:
                starts[path] = total, leaf
                total += leaf.size
        paths = [f"{layer}/kernel" for layer in layers]
        missing = [path for path in paths if path not in starts]
        if missing or any(starts[path][1].ndim != 2 for path in paths):
            raise NoSlopes(f"expected dense prunable kernels at {paths}")
        self.kernels = tuple(jnp.asarray(starts[path][1]) for path in paths)
        self.starts = tuple(starts[path][0] for path in paths)
        self.total, self.temperature = total, temperature
        self.known = np.zeros(total, bool)
        for start, kernel in zip(self.starts[:-1], self.kernels[:-1], strict=True):
            self.known[start : start + kernel.size] = True

    def factors(self, x: Any) -> Factors:
        """Returns the factors of all gradients at inputs ``[n, ...]``."""
        return _factors(self.kernels, x, self.temperature)

    def picked(self, factors: Factors, at: np.ndarray) -> tuple[Picked, ...]:
        """Returns the weights ``at``, by layer; all must be ``known``."""
        found = []
        for layer, start in enumerate(self.starts[:-1]):
            kernel = self.kernels[layer]
            inside = at[(start <= at) & (at < start + kernel.size)] - start
            rows, columns = np.divmod(inside, kernel.shape[1])
            a = factors.inputs[layer][:, rows]
            d = factors.backs[layer][:, columns]
            fixed = _fixed(factors.kernel, factors.p, a, d, self.temperature)
            found.append(Picked(jnp.asarray(rows), jnp.asarray(columns), fixed))
        return tuple(found)

    def slopes(
        self, factors: Factors, picked: Any, q: jax.Array, rows: Any
    ) -> jax.Array:
        """Returns ``dS/dq``, as every ``Slopes``; two ``[n, n] [n, E]`` products."""
        return _slopes(
            self.kernels, factors, picked, q - factors.p, rows, self.temperature
        )

    def diagonal(self, factors: Factors, variance: jax.Array) -> jax.Array:
        """Returns the diagonal's part, as every ``Slopes``."""
        parts = _diagonal(self.kernels, factors, variance, self.temperature)
        return self.flat(parts)

    def curvature(self, factors: Factors, weights: jax.Array) -> jax.Array:
        """Returns the Hessian, as every ``Slopes``."""
        parts = [
            weights[start : start + kernel.size].reshape(kernel.shape)
            for start, kernel in zip(self.starts, self.kernels, strict=True)
        ]
        return _curvature(self.kernels, factors, parts, self.temperature)

    def flat(self, parts: Sequence[jax.Array]) -> jax.Array:
        """What belongs to each kernel, in the order of the prunable weights."""
        found = jnp.zeros(self.total, parts[0].dtype)
        for start, part in zip(self.starts, parts, strict=True):
            found = found.at[start : start + part.size].set(part.reshape(-1))
        return found


def relu_chain(
    params: Params,
    layers: Sequence[str],
    *,
    temperature: float = 1.0,
    prunable: Prunable = None,
) -> ReluChain:
    """Returns the closed forms of a network of two or three dense layers.

    With ``f_i`` the difference of the two logits of example i, ``r_i = q_i - p_i``,
    ``G = Σ_i r_i ∇f_i`` and temperature T::

        S = w ⊙ [Σ_i r_i ∇²f_i G - Σ_i p_i (1 - p_i) ∇f_i (∇f_i · G) / T] / (n T)²

    ``∇f_i`` is an outer product in each layer, so slopes are gathered products of
    matrices over the examples. In deeper networks they are not.

    Args:
      params: the weights.
      layers: the paths of the layers, from input to output (``models.layer_chain``).
      temperature: of the loss, GraSP's is 200.
      prunable: static pytree of bools; ``None``: the leaves of two or more axes.

    Raises:
      NoSlopes: another number of layers, or a layer that is not dense.

    Reference: Wang et al. 2020, https://arxiv.org/abs/2002.07376, equation 8.
    """
    return ReluChain(params, layers, temperature=temperature, prunable=prunable)


def _products(function: Any) -> Any:
    """Jitted, with products in full float32: rounding would move thresholds."""

    @functools.wraps(function)
    def precise(*args: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return function(*args)

    return jax.jit(precise)


@_products
def _factors(kernels: Any, x: jax.Array, temperature: float) -> Factors:
    a, inputs, gates = x.reshape(len(x), -1), [], []
    for i, kernel in enumerate(kernels):
        inputs.append(a)
        h = a @ kernel
        if i < len(kernels) - 1:
            gates.append((h > 0).astype(h.dtype))
            a = h * gates[-1]
    p = jax.nn.softmax(h / temperature)[:, 1]
    backs = [jnp.zeros_like(h).at[:, 1].set(1.0).at[:, 0].set(-1.0)]
    for kernel, gate in zip(kernels[:0:-1], gates[::-1], strict=True):
        backs.insert(0, (backs[0] @ kernel.T) * gate)
    both = zip(inputs, backs, strict=True)
    kernel = jnp.asarray(sum((a @ a.T) * (d @ d.T) for a, d in both))
    return Factors(tuple(inputs), tuple(backs), tuple(gates), p, kernel)


def _tangents(
    kernels: Any, factors: Factors, forward: Any, backward: Any
) -> tuple[list[Any], list[Any]]:
    """How inputs and backs change when each kernel moves, ``[n, ...]`` by layer.

    Args:
      kernels: the weights.
      factors: at them.
      forward: by layer what the move of its kernel adds to its outputs, ``[n, out]``.
      backward: what it adds to the derivatives of f in its inputs, ``[n, in]``.
    """
    last = len(kernels) - 1
    inputs = [jnp.zeros_like(factors.inputs[0])]
    for i in range(last):
        h = forward[i] + inputs[i] @ kernels[i]
        inputs.append(factors.gates[i] * h)
    backs = [jnp.zeros_like(factors.backs[-1])]
    for i in range(last, 0, -1):
        h = backward[i] + backs[0] @ kernels[i].T
        backs.insert(0, factors.gates[i - 1] * h)
    return inputs, backs


def _along(kernels: Any, factors: Factors, direction: Any) -> Any:
    """``_tangents`` when the kernels move along a direction, like the kernels."""
    layers = range(len(kernels))
    forward = [factors.inputs[i] @ direction[i] for i in layers]
    backward = [factors.backs[i] @ direction[i].T for i in layers]
    return _tangents(kernels, factors, forward, backward)


@_products
def _fixed(
    kernel: jax.Array, p: jax.Array, a: jax.Array, d: jax.Array, temperature: float
) -> jax.Array:
    """The part of slopes from how the loss bends in f: ``Σ_j p_j (1 - p_j) …``."""
    return kernel @ ((p * (1 - p) / temperature)[:, None] * a * d)


@_products
def _slopes(
    kernels: Any,
    factors: Factors,
    picked: Any,
    r: jax.Array,
    left: jax.Array,
    temperature: float,
) -> jax.Array:
    inputs, backs, gates = factors.inputs, factors.backs, factors.gates
    last, column = len(kernels) - 1, r[:, None]
    pairs = zip(inputs, backs, strict=True)
    pull = [(a * column).T @ d for a, d in pairs]  # G
    moved_inputs, moved_backs = _along(kernels, factors, pull)
    found = []
    for i, (rows, columns, fixed) in enumerate(picked):
        a, d = inputs[i][:, rows], backs[i][:, columns]
        total = (
            moved_inputs[i][left][:, rows] * d[left]
            + a[left] * moved_backs[i][left][:, columns]
            - fixed[left]
        )
        # What the gradient of each example does to those of all others, by the layer
        # in which it moves the weights: the one before, the next, the one after.
        if i > 0:
            alike = (inputs[i - 1][left] @ inputs[i - 1].T) * r[None]
            on = gates[i - 1][:, rows] * d
            total += backs[i - 1][left][:, rows] * (alike @ on)
        on = gates[i][:, columns] * a
        if i + 1 == last:  # all backs are alike there
            total += 2 * inputs[last][left][:, columns] * (r @ on)[None]
        else:
            alike = (backs[i + 1][left] @ backs[i + 1].T) * r[None]
            total += inputs[i + 1][left][:, columns] * (alike @ on)
            through = (on * column).T @ gates[i + 1]  # [E, width]
            total += 2 * inputs[last][left] @ (through * kernels[i + 1][columns]).T
        found.append(total * kernels[i][rows, columns][None])
    return jnp.concatenate(found, axis=1) / (len(r) * temperature) ** 2


@_products
def _diagonal(
    kernels: Any, factors: Factors, variance: jax.Array, temperature: float
) -> list[jax.Array]:
    """``Σ_i variance_i ∇²f_i ∇f_i``, by layer, times the weights and the scale."""

    def size(rows: jax.Array) -> jax.Array:
        return jnp.sum(rows**2, axis=1, keepdims=True)

    pairs = list(zip(factors.inputs, factors.backs, strict=True))
    moved = _tangents(
        kernels,
        factors,
        [size(a) * d for a, d in pairs],
        [size(d) * a for a, d in pairs],
    )
    scale, found = (len(variance) * temperature) ** 2, []
    for kernel, (a, d), da, dd in zip(kernels, pairs, *moved, strict=True):
        weighted = variance[:, None]
        both = (da * weighted).T @ d + (a * weighted).T @ dd
        found.append(kernel * both / scale)
    return found


@_products
def _curvature(
    kernels: Any, factors: Factors, weights: Any, temperature: float
) -> jax.Array:
    direction = [kernel * part for kernel, part in zip(kernels, weights, strict=True)]
    moved = _along(kernels, factors, direction)
    total: Any = 0.0
    for a, d, da, dd in zip(factors.inputs, factors.backs, *moved, strict=True):
        total += (da @ a.T) * (d @ d.T) + (a @ a.T) * (dd @ d.T)
    return (total + total.T) / (len(total) * temperature) ** 2
