"""Stacks of networks as lanes take them, whether made of jobs or on the device."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.engine.examples import Examples, Padded, padded_size
from nfp_jax.engine.jobs import Job, Networks, Row
from nfp_jax.engine.shapes import stacked_on_host
from nfp_jax.engine.training import NO_LIMIT


class Stack(NamedTuple):
    """Networks stacked: every array has a leading axis of them.

    Attributes:
      params: initial weights.
      mask: bool pytree like ``params``.
      examples: without inputs, where the run has them for all.
      n: int32 ``[k]``, how many examples count.
      key: keys ``[k]``.
      limit: int32 ``[k]``, of steps.
    """

    params: Any
    mask: Any
    examples: Examples
    n: Any
    key: Any
    limit: Any


def of_networks(networks: Networks, batch_size: int, inputs: Any) -> tuple[Stack, int]:
    """Returns a stack, and the size that its examples are to be padded or cut to.

    Raises:
      ValueError: arrays of different leading sizes; examples without inputs where the
        run has none for all, or the other way round.
    """
    leaves = jax.tree.leaves((networks.params, networks.mask, networks.key))
    sizes = {(*jnp.shape(leaf), 0)[0] for leaf in leaves}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            f"networks have leading sizes {sorted(sizes)}, expected one common size of "
            "at least 1"
        )
    count = sizes.pop()
    examples, room = _stacked_examples(networks.data, count)
    if examples.inputs is None and inputs is None:
        raise ValueError("the examples have no inputs, and the run has none for all")
    n = np.full(count, room) if networks.n is None else networks.n
    limit = NO_LIMIT if networks.steps is None else networks.steps
    if not jnp.ndim(limit):
        limit = np.full(count, limit, np.int32)
    if isinstance(n, np.ndarray):
        n = n.astype(np.int32)
    most = room if networks.most is None else networks.most
    size = padded_size(most, batch_size)
    return Stack(networks.params, networks.mask, examples, n, networks.key, limit), size


def stack_of_jobs(jobs: Sequence[Any]) -> Stack:
    """Returns jobs of one shape stacked on the host.

    Args:
      jobs: of each weights, mask, padded data, key and limit.
    """
    parts = [(params, mask, *data, *rest) for params, mask, data, *rest in jobs]
    return Stack(*jax.tree.map(lambda *leaves: stacked_on_host(leaves), *parts))


def network_at(stack: Stack, row: Any, size: int) -> tuple[Any, ...]:
    """Returns a network of a stack as ``Training.init`` takes it: its arguments.

    Args:
      stack: of networks; of those whose examples have no inputs, they are left out.
      row: which, an integer that may be traced.
      size: what its examples are padded or cut to.
    """
    params, mask, examples, n, key, limit = jax.tree.map(lambda x: x[row], stack)

    def fitted(leaf: Any) -> Any:
        leaf = leaf[:size]
        more = [(0, size - leaf.shape[0])] + [(0, 0)] * (leaf.ndim - 1)
        return jnp.pad(leaf, more)

    room = examples.index.shape[0]
    index, labels = jax.tree.map(fitted, (examples.index, examples.labels))
    own = examples.inputs
    if own is not None and jax.tree.leaves(own)[0].shape[0] == room:
        own = jax.tree.map(fitted, own)  # a set of its size alone
    return params, mask, Padded(Examples(own, index, labels), n), key, limit


def job_of(row: Row, batch_size: int, inputs: Any) -> Job:
    """Returns a network of a stack as a job on the host, with the examples that count.

    Arguments and errors are those of ``of_networks``.
    """
    stack, size = of_networks(row.networks, batch_size, inputs)
    found = jax.device_get(_network_at(stack, np.int32(row.row), size))
    params, mask, ((own, index, labels), n), key, _ = found
    if own is not None and len(jax.tree.leaves(own)[0]) == len(index):
        own = jax.tree.map(lambda leaf: leaf[:n], own)
    index, labels = jax.tree.map(lambda leaf: leaf[:n], (index, labels))
    examples = Examples(own, index, labels)
    return Job(params, mask, examples, key, row.steps, row.tag)


_network_at = jax.jit(network_at, static_argnums=2)


def shape_of(stack: Stack, size: int) -> Any:
    """Returns the shape of the networks of a stack: equal ones share lanes."""
    one = jax.eval_shape(lambda stack: network_at(stack, 0, size), stack)
    leaves, treedef = jax.tree.flatten(one)
    return treedef, tuple((leaf.shape, leaf.dtype) for leaf in leaves)


def _stacked_examples(data: Any, count: int) -> tuple[Examples, int]:
    """The examples of stacked data, and how many each network has room for."""
    if isinstance(data, Examples):
        return data, int(jnp.shape(data.index)[1])
    first = jax.tree.leaves(data)[0]
    room = int(jnp.shape(first)[1])
    index = np.broadcast_to(np.arange(room, dtype=np.int32), (count, room))
    if isinstance(data, tuple) and data and not hasattr(data, "_fields"):
        return Examples(data[0], index, data[1:]), room
    return Examples(data, index, None), room
