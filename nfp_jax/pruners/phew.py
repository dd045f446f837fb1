"""PHEW: weights on random walks from inputs to outputs, likelier along large ones."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.masks import (
    Mask,
    Params,
    Prunable,
    is_concrete,
    named_leaves,
    prunable_kernels,
    unravel_mask,
)
from nfp_jax.masks.prunable import prunable_paths
from nfp_jax.pruners.contract import MaskFn, Network, Pruner, mask_params
from nfp_jax.types import Batch


def phew(layers: Sequence[str], *, max_walks: int = 1_000_000) -> MaskFn:
    """Returns a pruner that keeps the weights on random walks through the network.

    A walk forward goes from unit ``i`` of a layer to unit ``o`` with the probability
    ``A_oi / Σ_o A_oi``, and one backward from ``o`` to ``i`` with ``A_oi / Σ_i A_oi``,
    where ``A`` is ``|w|``, of a convolution summed over space; there it takes one
    element of the kernel with a probability in proportion to ``|w|``. From channels to
    a flattened dense layer it goes forward at a place chosen uniformly. Walks forward
    and backward alternate. They start at the inputs in turn, and at the outputs in
    turn. The mask keeps what they visit; the last walk is cut where the count is
    reached. A walk that comes to a unit from which no weight leads on is left out.

    Args:
      layers: the paths of the kernels from input to output, each of which feeds the
        next alone: Flax's shapes ``[..., in, out]``, channels last.
      max_walks: forward and backward together, after which it gives up.

    Returns:
      ``mask_fn(params, key=key, keep=keep)``: a ``MaskFn``. ``key`` is needed,
      ``batch`` ignored. ``keep`` may be traced.

    Raises:
      ValueError: when it is called: no key; prunable leaves that are not those of the
        chain, or shapes that do not fit (names the layer); no path from input to
        output (names the layer where it ends); fewer weights visited than ``keep``
        after ``max_walks``. Under a transform the last two can't be raised: then the
        mask keeps what was visited.

    >>> params = {"a": jnp.ones((2, 3)), "b": jnp.ones((3, 2))}
    >>> mask = phew(["a", "b"])(params, key=jax.random.key(0), keep=5)
    >>> int(mask["a"].sum() + mask["b"].sum())
    5

    Reference: Patil and Dovrolis 2021, https://arxiv.org/abs/2010.11354.
    """
    if max_walks < 1:
        raise ValueError(f"max_walks is {max_walks}, expected at least 1")
    return Phew(tuple(layers), max_walks)


@dataclasses.dataclass(frozen=True)
class Phew:
    """What ``phew`` returns; two of the same layers are equal."""

    layers: tuple[str, ...]
    max_walks: int

    def __call__(
        self,
        params: Params,
        batch: Batch = None,
        key: jax.Array | None = None,
        *,
        keep: Any,
        prunable: Prunable = None,
        mask: Mask = None,
    ) -> Mask:
        """Returns the mask, as every ``MaskFn``."""
        del batch
        if key is None:
            raise ValueError("phew needs a key, got None")
        prunable = prunable_kernels(params) if prunable is None else prunable
        kernels = self.kernels(mask_params(params, mask), prunable)
        if is_concrete(kernels):
            refuse_no_path(dict(zip(self.layers, kernels, strict=True)))
        visited = _visited(kernels, key, keep, self.max_walks)
        if is_concrete((visited, keep)) and (count := int(visited.sum())) != keep:
            raise ValueError(
                f"phew visited {count} weights in {self.max_walks} walks, expected "
                f"{int(keep)}: raise max_walks, or keep fewer"
            )
        order = np.argsort(
            [prunable_paths(params, prunable).index(x) for x in self.layers]
        )
        parts = jnp.split(visited, np.cumsum([k.size for k in kernels])[:-1])
        row = jnp.concatenate([parts[i] for i in order])
        return unravel_mask(row, params, prunable=prunable)

    def kernels(self, params: Params, prunable: Prunable) -> list[jax.Array]:
        """The kernels ``[space, in, out]``, in order; ValueError: there is no chain."""
        leaves = dict(named_leaves(params))
        paths = prunable_paths(params, prunable)
        if sorted(paths) != sorted(self.layers):
            wrong = sorted(set(paths) ^ set(self.layers))
            raise ValueError(
                f"phew walks the chain {list(self.layers)}, and {wrong} is not both in "
                "the chain and prunable"
            )
        found: list[jax.Array] = []
        for path in self.layers:
            leaf = leaves[path]
            kernel = jnp.abs(leaf).reshape(-1, *leaf.shape[-2:])
            before = found[-1].shape[-1] if found else kernel.shape[1]
            if kernel.shape[1] % before:
                raise ValueError(
                    f"phew: layer {path!r} has {kernel.shape[1]} inputs, expected a "
                    f"multiple of {before}, the outputs of the layer before it"
                )
            found.append(kernel)
        return found


def refuse_no_path(kernels: dict[str, Any]) -> None:
    """Raises where no path of nonzero weights leads through kernels ``[s, in, out]``.

    Raises:
      ValueError: names the layer where the last path ends.
    """
    reached: Any = None
    for path, kernel in kernels.items():
        edges: Any = (np.asarray(kernel) > 0).any(axis=0)
        if reached is not None:  # unit p * channels + c of a flattened layer
            edges = edges & np.tile(reached, len(edges) // len(reached))[:, None]
        reached = edges.any(axis=0)
        if not reached.any():
            raise ValueError(
                f"phew finds no path from input to output: none of nonzero weights "
                f"leads through layer {path!r}"
            )


class _Table(NamedTuple):
    """The running sums of a layer that its steps are drawn by."""

    forward: jax.Array  # [in, out], over out
    backward: jax.Array  # [out, in], over in
    space: jax.Array  # [in, out, space], over space


def _visited(
    kernels: list[jax.Array], key: jax.Array, keep: Any, max_walks: int
) -> jax.Array:
    """The weights visited, bool ``[P]`` in the order of the chain: ``keep`` of them."""
    tables = [_table(kernel) for kernel in kernels]
    starts = np.cumsum([0, *(kernel.size for kernel in kernels)])
    inputs, outputs = kernels[0].shape[1], kernels[-1].shape[2]
    widths = [inputs, *(kernel.shape[2] for kernel in kernels)]

    def place(layer: int, s: Any, i: Any, o: Any) -> Any:
        _, ins, outs = kernels[layer].shape
        return starts[layer] + (s * ins + i) * outs + o

    def forward(key: jax.Array, unit: Any) -> tuple[list[Any], Any]:
        """The weights of a walk from an input, and whether it came through."""
        whole: Any = True
        draws, places = jax.random.uniform(key, (len(tables), 3)), []
        for layer, (table, width) in enumerate(zip(tables, widths, strict=False)):
            at, chosen, element = draws[layer]
            copies = kernels[layer].shape[1] // width  # above 1 where it flattens
            i = jnp.minimum((at * copies).astype(int), copies - 1) * width + unit
            o, leads = _drawn(table.forward[i], chosen)
            s, _ = _drawn(table.space[i, o], element)
            whole &= leads
            places.append(place(layer, s, i, o))
            unit = o
        return places, whole

    def backward(key: jax.Array, unit: Any) -> tuple[list[Any], Any]:
        """The weights of a walk from an output, and whether it came through."""
        whole: Any = True
        draws, places = jax.random.uniform(key, (len(tables), 2)), []
        for layer in reversed(range(len(tables))):
            chosen, element = draws[layer]
            i, leads = _drawn(tables[layer].backward[unit], chosen)
            s, _ = _drawn(tables[layer].space[i, unit], element)
            whole &= leads
            places.append(place(layer, s, i, unit))
            unit = i % widths[layer]
        return places, whole

    def mark(state: tuple[Any, Any], walk: tuple[list[Any], Any]) -> tuple[Any, Any]:
        visited, count = state
        places, whole = walk
        for at in places:
            new = whole & ~visited[at] & (count < keep)
            visited = visited.at[at].set(visited[at] | new)
            count += new
        return visited, count

    def both(state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        turn, visited, count = state
        keys = jax.random.split(jax.random.fold_in(key, turn))
        marks = mark((visited, count), forward(keys[0], turn % inputs))
        return turn + 1, *mark(marks, backward(keys[1], turn % outputs))

    def more(state: tuple[Any, Any, Any]) -> jax.Array:
        turn, _, count = state
        return has_path & (count < keep) & (2 * turn < max_walks)

    has_path = _has_path(kernels)
    nothing = jnp.zeros(int(starts[-1]), bool)
    visited: jax.Array = jax.lax.while_loop(more, both, (0, nothing, 0))[1]
    return visited


def _table(kernel: jax.Array) -> _Table:
    edges = jnp.sum(kernel, axis=0)
    return _Table(
        jnp.cumsum(edges, axis=1),
        jnp.cumsum(edges.T, axis=1),
        jnp.cumsum(jnp.moveaxis(kernel, 0, -1), axis=-1),
    )


def _drawn(sums: jax.Array, uniform: jax.Array) -> tuple[jax.Array, jax.Array]:
    """An index in proportion to what running sums grow by; whether they grow at all.

    What adds nothing is never drawn: its sum is that of the one before.
    """
    index = jnp.sum(sums <= uniform * sums[-1])
    return jnp.minimum(index, len(sums) - 1), sums[-1] > 0


def _has_path(kernels: list[jax.Array]) -> jax.Array:
    """Whether a path of nonzero weights leads from input to output."""
    reached = jnp.ones(kernels[0].shape[1], bool)
    for kernel in kernels:
        edges = jnp.any(kernel > 0, axis=0)
        units = jnp.tile(reached, len(edges) // len(reached))
        reached = jnp.any(edges & units[:, None], axis=0)
    return jnp.any(reached)


def _build(net: Network, *, max_walks: int = 1_000_000) -> MaskFn:
    if net.layers is None:
        params: Any = jax.eval_shape(net.init_fn, jax.random.key(0))
        first = prunable_paths(params, prunable_kernels(params))[0]
        raise ValueError(
            "phew walks a chain of layers, and those of this network are not known to "
            f"feed each the next alone, from {first!r} on"
        )
    found = phew(net.layers, max_walks=max_walks)
    return found


CARD = Pruner(
    "phew", label="PHEW", sees="nothing", build=_build, gradients=lambda *, max_walks: 0
)
