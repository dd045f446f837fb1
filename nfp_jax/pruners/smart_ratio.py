"""Smart ratio: random weights, and a number of each layer that falls with depth."""

import functools
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import jax
import numpy as np

from nfp_jax.masks import (
    Schedule,
    keep_count,
    named_leaves,
    prunable_kernels,
    top_k_by_quota,
)
from nfp_jax.pruners.by_score import ByScore, by_score
from nfp_jax.pruners.contract import Network, Pruner
from nfp_jax.pruners.order import order_of_use
from nfp_jax.pruners.random import random


def smart_ratio_counts(
    shapes: Mapping[str, tuple[int, ...]],
    keep: int,
    *,
    linear_keep: float = 0.3,
    by_depth: bool = False,
) -> dict[str, int]:
    """Returns how many weights each layer keeps by the smart ratio.

    Linear layers (kernels of two or three axes) keep the share ``linear_keep``, rounded
    down. Convolutions keep the rest: layer ``i`` of ``n``, linear ones counted too, a
    share in proportion to ``k² + k`` with ``k = n - i``. What a layer has no room for
    goes to those after it. Counts are rounded down; what rounding leaves over goes to
    the largest remainders, one each, so that exactly ``keep`` are kept. (The authors
    round down only.)

    Args:
      shapes: of the kernels by path, from input to output.
      keep: number of weights to keep in all.
      linear_keep: the share of every linear layer.
      by_depth: whether the share is divided by ``(i + 1)²`` too, as theirs for VGG.

    Returns:
      The counts by path, in the order of ``shapes``.

    Raises:
      ValueError: no convolution; a ``linear_keep`` outside [0, 1]; linear layers that
        keep more than ``keep``, or leave more than the convolutions have (names them).

    >>> shapes = {"a": (1, 1, 2, 3), "b": (1, 1, 3, 4), "head": (4, 5)}
    >>> smart_ratio_counts(shapes, 12)
    {'a': 3, 'b': 3, 'head': 6}

    Reference: Su et al. 2020, https://arxiv.org/abs/2009.11094.
    """
    linear = _linear_layers(shapes, linear_keep)
    sizes = {path: int(np.prod(shape)) for path, shape in shapes.items()}
    places = [i for i, path in enumerate(shapes) if path not in linear]
    share = Fraction(str(linear_keep))
    counts = {path: int(share * sizes[path]) for path in linear}
    budget = keep - sum(counts.values())
    paths = list(shapes)
    room = [sizes[paths[i]] for i in places]
    if not 0 <= budget <= sum(room):
        raise ValueError(
            f"smart_ratio keeps {sum(counts.values())} weights of the linear layers "
            f"{linear}, so that {budget} of {keep} are left for the convolutions, "
            f"which have {sum(room)}: expected 0 to {sum(room)}; change linear_keep, "
            f"{linear_keep}"
        )
    ranks = [len(shapes) - i for i in places]
    weights = [
        Fraction(size * (k * k + k), (i + 1) ** 2 if by_depth else 1)
        for i, k, size in zip(places, ranks, room, strict=True)
    ]
    wanted = [budget * weight / sum(weights) for weight in weights]
    quotas = _whole(_poured(wanted, room))
    return {
        **{path: 0 for path in paths},  # their order
        **counts,
        **{paths[i]: quota for i, quota in zip(places, quotas, strict=True)},
    }


def _linear_layers(
    shapes: Mapping[str, tuple[int, ...]], linear_keep: float
) -> list[str]:
    """The paths of the linear layers; ValueError for what has no counts at all."""
    if not 0 <= linear_keep <= 1:
        raise ValueError(f"linear_keep is {linear_keep}, expected 0 <= share <= 1")
    linear = [path for path, shape in shapes.items() if len(shape) <= 3]
    if len(linear) == len(shapes):
        raise ValueError(
            f"smart_ratio divides weights among convolutions, and {linear} are linear"
        )
    return linear


def _poured(wanted: list[Fraction], room: list[int]) -> list[Fraction]:
    """What each layer takes; the overflow goes to the next ones, and around again."""
    taken, over = [Fraction(0)] * len(room), Fraction(0)
    while any(wanted) or over:
        for i, size in enumerate(room):
            total = taken[i] + wanted[i] + over
            taken[i] = min(total, Fraction(size))
            over = total - taken[i]
        wanted = [Fraction(0)] * len(room)
    return taken


def _whole(amounts: list[Fraction]) -> list[int]:
    """Amounts rounded down, and one more of the largest remainders: the same sum."""
    counts = [int(amount) for amount in amounts]
    rests = [amount - count for amount, count in zip(amounts, counts, strict=True)]
    largest = sorted(range(len(rests)), key=lambda i: -rests[i])  # stable: first ones
    for i in largest[: int(sum(rests))]:
        counts[i] += 1
    return counts


def quotas_of(
    net: Network, *, linear_keep: float, by_depth: bool
) -> Callable[[int, float | Fraction], np.ndarray]:
    """Returns ``quotas(total, sparsity)``: int32 ``[layers]`` by the smart ratio.

    In the order of the prunable leaves. The layers' order is that of their use.

    Raises:
      ValueError: no convolution, or a ``linear_keep`` outside [0, 1]; ``quotas``
        itself, what ``smart_ratio_counts`` does.
    """
    params: Any = jax.eval_shape(net.init_fn, jax.random.key(0))
    leaves = named_leaves(params)
    flags = jax.tree.leaves(prunable_kernels(params))
    order = [i for i in order_of_use(net.apply_fn, params, net.input_shape) if flags[i]]
    shapes = {leaves[i][0]: tuple(leaves[i][1].shape) for i in order}
    counts_of = functools.partial(
        smart_ratio_counts, linear_keep=linear_keep, by_depth=by_depth
    )
    _linear_layers(shapes, linear_keep)  # refuses them here
    paths = [path for (path, _), flag in zip(leaves, flags, strict=True) if flag]

    def quotas(total: int, sparsity: float | Fraction) -> np.ndarray:
        counts = counts_of(shapes, keep_count(total, sparsity))
        return np.array([counts[path] for path in paths], np.int32)

    return quotas


def _build(
    net: Network, *, linear_keep: float = 0.3, by_depth: bool = False
) -> ByScore:
    quotas = quotas_of(net, linear_keep=linear_keep, by_depth=by_depth)

    def counts(
        total: int, sparsity: float | Fraction, *, rounds: int, schedule: Schedule
    ) -> np.ndarray:
        return quotas(total, sparsity)[None]  # [rounds, layers]

    return by_score(random(), counts_fn=counts, select=top_k_by_quota)


CARD = Pruner(
    "smart_ratio",
    label="smart ratio",
    sees="nothing",
    build=_build,
    gradients=lambda **_: 0,
)
