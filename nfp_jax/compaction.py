"""Takes dead neurons out of a masked network for training, and puts them back after.

A neuron that no path of kept weights joins to the output gets no gradient. In a ReLU
network with zero biases, a neuron that no path joins to the input gets none either. So
the smaller network, trained the same way, has the trained weights of the full one, up
to the order of sums. That holds if the loss depends on the parameters through the
output alone, and the optimizer does not move weights without gradient
(``keeps_dead_weights``). Widths are rounded up to halves, quarters and so on, so that
few programs are compiled. All of it runs on the host, in numpy. Depends on masks, jax
and optax.
"""

import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nfp_jax.masks import Mask, Params, check_like, check_mask, named_leaves


class Shrunk(NamedTuple):
    """A network without most of its dead neurons.

    Attributes:
      params: its masked weights, numpy arrays in the structure of the full network's.
      mask: its mask.
      expand: ``expand(params)`` puts weights of the small network, such as trained
        ones, in their places in the full network. All other weights keep their masked
        initial values. Returns numpy arrays.
    """

    params: Params
    mask: Mask
    expand: Callable[[Params], Params]


Shrink = Callable[[Params, Mask], Shrunk | None]


def make_shrink(
    chain: Sequence[str],
    *,
    dead_inputs: bool,
    least_saving: float = 2.0,
    positions: Sequence[int] | None = None,
) -> Shrink:
    """Returns ``shrink(params, mask)``: the network without most of its dead neurons.

    A neuron is a unit or channel of a hidden layer. It is dead if no path of kept
    weights leads from it to the output. With ``dead_inputs`` it is dead, too, if no
    path leads to it from the input or from a neuron whose kept bias is not 0. The new
    width of a layer is its width divided by 1, 2, 4, 8, … and rounded up: the smallest
    of these that holds the live neurons, and at least 1. The layer keeps its live
    neurons, and the first dead ones fill it up. All inputs of the first layer and all
    outputs of the last are kept.

    Args:
      chain: paths of the layers from input to output, as in ``params/Dense_0``; each
        layer feeds the next one and no other. A layer has a ``kernel`` ``[..., in,
        out]`` and maybe a ``bias`` ``[out]``. A dense layer may follow flattened
        channels: its ``in`` is then a multiple of their number, and the channel index
        varies fastest.
      dead_inputs: set it only where ``is_dead_at_zero(activation)``.
      least_saving: least ratio of multiply-adds, full to small, at least 1.
      positions: at how many places of an example each kernel is applied, one integer a
        layer: 1 for a dense layer, height times width of the output for a convolution.
        They weigh the multiply-adds; ``None``: 1 everywhere.

    Returns:
      ``shrink(params, mask)``: a ``Shrunk``, or ``None`` where the saving is below
      ``least_saving``. It depends on its arguments alone, which must be concrete. It
      raises ``ValueError``, naming the path, for a mask that does not fit, for a layer
      or shape that is not as above, and for an array outside the chain that is no
      scalar.

    Raises:
      ValueError: fewer than one layer, ``positions`` of another length, or
        ``least_saving`` below 1.

    >>> params = {"a": {"kernel": jnp.ones((3, 4))}, "b": {"kernel": jnp.ones((4, 2))}}
    >>> mask = jax.tree.map(lambda p: p > 0, params)
    >>> mask["b"]["kernel"] = mask["b"]["kernel"].at[1:].set(False)
    >>> small = make_shrink(("a", "b"), dead_inputs=True)(params, mask)
    >>> small.params["a"]["kernel"].shape, small.params["b"]["kernel"].shape
    ((3, 1), (1, 2))
    >>> small.expand(jax.tree.map(lambda p: 5 * p, small.params))["a"]["kernel"][0]
    array([5., 1., 1., 1.], dtype=float32)

    Reference: Tanaka et al. 2020, https://arxiv.org/abs/2006.05467, section 3; layer
    collapse is the extreme case.
    """
    chain = tuple(chain)
    positions = (1,) * len(chain) if positions is None else tuple(positions)
    if not chain or len(set(chain)) < len(chain):
        raise ValueError(f"chain is {list(chain)}, expected different paths of layers")
    if len(positions) != len(chain):
        raise ValueError(f"positions is {positions}, expected one for each of {chain}")
    if not least_saving >= 1:
        raise ValueError(f"least_saving is {least_saving}, expected at least 1")

    def shrink(params: Params, mask: Mask) -> Shrunk | None:
        check_mask(params, mask)
        paths = [path for path, _ in named_leaves(params)]
        treedef = jax.tree.structure(params)
        leaves, flags = (
            dict(zip(paths, map(np.asarray, jax.tree.leaves(tree)), strict=True))
            for tree in jax.device_get((params, mask))
        )
        widths = _widths(chain, leaves)
        live = _live(chain, leaves, flags, widths, dead_inputs=dead_inputs)
        chosen = [np.arange(widths[0]), *map(_fill_up, live), np.arange(widths[-1])]
        costs = [
            n * leaves[f"{layer}/kernel"].size
            for n, layer in zip(positions, chain, strict=True)
        ]
        small_costs = [
            cost // (widths[i] * widths[i + 1]) * chosen[i].size * chosen[i + 1].size
            for i, cost in enumerate(costs)
        ]
        if sum(costs) < least_saving * sum(small_costs):
            return None
        full = {
            path: np.where(flags[path], leaf, np.zeros_like(leaf))
            for path, leaf in leaves.items()
        }
        places = _places(chain, leaves, widths, chosen)
        small = [full[path][places[path]] for path in paths]
        shrunk = jax.tree.unflatten(treedef, small)

        def expand(params: Params) -> Params:
            check_like(shrunk, params, "params", "the shrunk network")
            grown = {path: leaf.copy() for path, leaf in full.items()}
            parts = jax.device_get(jax.tree.leaves(params))
            for path, part in zip(paths, parts, strict=True):
                grown[path][places[path]] = part
            return jax.tree.unflatten(treedef, grown.values())

        shrunk_mask = jax.tree.unflatten(
            treedef, [flags[path][places[path]] for path in paths]
        )
        return Shrunk(shrunk, shrunk_mask, expand)

    return shrink


def is_dead_at_zero(activation: Callable[[jax.Array], jax.Array]) -> bool:
    """Returns whether an activation's value and derivative at 0 are 0, as JAX has them.

    A neuron with such an activation, no inputs and a zero bias is never trained.

    >>> is_dead_at_zero(jax.nn.relu), is_dead_at_zero(jnp.tanh)
    (True, False)
    """

    @jax.jit
    def at(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        value, pullback = jax.vjp(activation, x)
        return value, pullback(jnp.ones_like(value))[0]

    zeros = np.array([0.0, -0.0], np.float32)
    return not any(np.any(found != 0) for found in jax.device_get(at(zeros)))


def keeps_dead_weights(optimizer: optax.GradientTransformation) -> bool:
    """Returns whether dead weights leave the optimizer's steps on live ones unchanged.

    The optimizer takes three steps on random arrays in which the gradient of many
    inputs and outputs is 0, and three steps on the same arrays without these. The
    weights of gradient 0 must get an update of exactly 0 (so no weight decay, no
    noise). The others must get the same update both times, to 1e-6 of the largest (so
    no means or norms over a layer). Kernels are ``[160, 144]``, which Adafactor would
    factor, and ``[3, 3, 16, 12]``; paths are those of Flax.

    Returns:
      A Python bool. ``False`` too for an optimizer that cannot be tried like this: one
      that takes more than gradients and parameters, or that moves nothing in three
      steps.

    >>> keeps_dead_weights(optax.adam(0.1)), keeps_dead_weights(optax.adamw(0.1))
    (True, False)
    """
    rng = np.random.default_rng(0)

    def draw() -> Params:
        shapes = {"Conv_0": (3, 3, 16, 12), "Dense_0": (160, 144)}
        kinds = {
            name: {"kernel": rng.normal(size=shape), "bias": rng.normal(size=shape[-1])}
            for name, shape in shapes.items()
        }
        return jax.tree.map(np.float32, {"params": kinds})

    def live(leaf: Any) -> Any:
        return leaf[1::3] if leaf.ndim == 1 else leaf[..., ::4, 1::3]

    def live_alone(leaf: Any) -> Any:
        alone = np.zeros_like(leaf)
        live(alone)[...] = live(leaf)
        return alone

    @jax.jit  # op by op, each would compile alone
    def run(params: Params, gradients: list[Params]) -> list[Params]:
        state, every = optimizer.init(params), []
        for gradient in gradients:
            updates, state = optimizer.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
            every.append(updates)
        return every

    # Gradients of three sizes, since an optimizer may clip at any norm.
    gradients = [
        jax.tree.map(lambda g, size=size: np.float32(size) * live_alone(g), draw())
        for size in (1.0, 1e4, 1e-4)
    ]
    args = draw(), gradients
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            full, small = run(*args), run(*jax.tree.map(live, args))
    except Exception:  # whatever it raises, this optimizer cannot be tried
        return False
    full, small = map(jax.tree.leaves, jax.device_get((full, small)))
    return any(np.any(u != 0) for u in small) and all(
        np.array_equal(u != 0, live_alone(u) != 0)
        and np.max(np.abs(live(u) - v)) <= 1e-6 * np.max(np.abs(v))
        for u, v in zip(full, small, strict=True)
    )


def _widths(chain: Sequence[str], params: dict[str, np.ndarray]) -> list[int]:
    """The number of neurons before each layer and after the last, shapes checked."""
    layers = {f"{layer}/{name}" for layer in chain for name in ("kernel", "bias")}
    for path, leaf in params.items():
        if path not in layers and leaf.size > 1:
            raise ValueError(
                f"params at {path!r} has shape {leaf.shape}, expected a scalar, since "
                f"it is no kernel or bias of the chain {list(chain)}"
            )
    widths: list[int] = []
    for layer in chain:
        path, bias = f"{layer}/kernel", params.get(f"{layer}/bias")
        if path not in params or params[path].ndim < 2:
            raise ValueError(
                f"params has no {path!r} of two or more axes, which chain names; it "
                f"has {list(params)}"
            )
        kernel = params[path]
        fan_in, width = kernel.shape[-2:]
        widths = widths or [fan_in]
        flattened = kernel.ndim == 2 and fan_in % widths[-1] == 0
        if fan_in != widths[-1] and not flattened:
            raise ValueError(
                f"params at {path!r} has shape {kernel.shape}, expected {widths[-1]} "
                "inputs, the width of the layer before"
            )
        if bias is not None and bias.shape != (width,):
            raise ValueError(
                f"params at '{layer}/bias' has shape {bias.shape}, expected {(width,)}"
            )
        widths.append(width)
    return widths


def _live(
    chain: Sequence[str],
    params: dict[str, np.ndarray],
    mask: dict[str, np.ndarray],
    widths: list[int],
    *,
    dead_inputs: bool,
) -> list[np.ndarray]:
    """Which neurons of each hidden layer are live, bool ``[width]`` a layer.

    In a chain, a neuron that is reached from both ends lies on a path. So one sweep in
    each direction is enough.
    """
    joins: list[Any] = [  # bool [in, out] a layer
        mask[f"{layer}/kernel"].reshape(-1, *pair).any(0)
        for layer, pair in zip(chain, itertools.pairwise(widths), strict=True)
    ]
    reached = [np.ones(width, bool) for width in widths]
    if dead_inputs:
        for i, layer in enumerate(chain):
            reached[i + 1] = joins[i][reached[i]].any(0)
            if (bias := f"{layer}/bias") in params:
                reached[i + 1] |= mask[bias] & (params[bias] != 0)
    needed: Any = np.ones(widths[-1], bool)
    for i in range(len(chain) - 1, 0, -1):
        needed = joins[i][:, needed].any(1)
        reached[i] &= needed
    return reached[1:-1]


def _fill_up(live: np.ndarray) -> np.ndarray:
    """The indices of the neurons that a layer keeps: the live ones and a few dead."""
    # The width, its half, its quarter and so on, rounded up.
    sizes = [-(-live.size // 2**i) for i in range(live.size.bit_length() + 1)]
    size = min(size for size in sizes if size >= live.sum())
    return np.sort(np.argsort(~live, kind="stable")[:size])


def _places(
    chain: Sequence[str],
    params: dict[str, np.ndarray],
    widths: list[int],
    chosen: list[np.ndarray],
) -> dict[str, Any]:
    """For each leaf, the index of the part that belongs to the chosen neurons."""
    places: dict[str, Any] = dict.fromkeys(params, ...)
    for i, layer in enumerate(chain):
        # After flattening, channel c is input position * width + c at every position.
        firsts = np.arange(0, params[f"{layer}/kernel"].shape[-2], widths[i])
        inputs = (firsts[:, None] + chosen[i]).reshape(-1, 1)
        if len(chosen[i]) == widths[i]:
            inputs = slice(None)  # the same, faster
        places[f"{layer}/kernel"] = (..., inputs, chosen[i + 1])
        places[f"{layer}/bias"] = chosen[i + 1]
    return places
