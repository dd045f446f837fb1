"""Pretrained weights with a new head, and what they have seen of a data set."""

from typing import Any, NamedTuple

import jax
import numpy as np

from nfp_jax.models.chain import layer_chain
from nfp_jax.trees import check_like, named_leaves


class Pretrained(NamedTuple):
    """Weights to start from, and what they saw of the data they are for.

    Attributes:
      params: the weights.
      sees: in the words of pruners' cards. ``"nothing"``: they were trained on other
        points. ``"training"``: on some of the same; then all that a mask or a network
        has of these weights counts as known of the data.
    """

    params: Any
    sees: str


def pretrained(
    params: Any, source: Any, *, head: str, trained_on: Any, x: Any
) -> Pretrained:
    """Returns trained weights with a fresh head, and whether they saw points of a set.

    Weights that are independent of a data set D leave a bound of what a mask knows of D
    as it is; those that saw a point of D do not. Two points are the same where all of
    their numbers are, so both must be in the same units: of one set, in two parts
    (`nfp_jax.data.halves`).

    Args:
      params: fresh weights, as of ``initialize``: the head is taken from them.
      source: trained weights of the same network; their head may have another shape.
      head: path of the last layer, as in ``params/head``.
      trained_on: the inputs that ``source`` was trained on, ``[n, ...]``.
      x: the inputs of D, ``[m, ...]``.

    Raises:
      ValueError: no leaf under ``head``, or weights of another shape beside it (names
        the path).

    >>> fresh = {"a": np.ones(2), "b": np.ones(2)}
    >>> trained = {"a": np.full(2, 5.0), "b": np.zeros(3)}
    >>> found = pretrained(fresh, trained, head="b", trained_on=[[1.0]], x=[[2.0]])
    >>> found.params["a"].tolist(), found.params["b"].tolist(), found.sees
    ([5.0, 5.0], [1.0, 1.0], 'nothing')
    """
    made = with_fresh_head(params, source, head)
    seen = shared_points(trained_on, x)
    return Pretrained(made, "training" if seen else "nothing")


def with_fresh_head(params: Any, source: Any, head: str) -> Any:
    """Returns trained weights with the head of fresh ones; as in `pretrained`."""
    fresh, given = named_leaves(params), dict(named_leaves(source))
    ours = [path == head or path.startswith(f"{head}/") for path, _ in fresh]
    if not any(ours):
        paths = [path for path, _ in fresh]
        raise ValueError(f"head is {head!r}, expected a layer of {paths}")
    mixed = [
        leaf if mine else given.get(path)
        for (path, leaf), mine in zip(fresh, ours, strict=True)
    ]
    made = jax.tree.unflatten(jax.tree.structure(params), mixed)
    check_like(params, made, "source")
    return made


def head_of(model: Any, params: Any) -> str:
    """Returns the path of a network's last layer: of its chain, or ``params/head``.

    Raises:
      ValueError: it has neither.
    """
    if hasattr(model, "layers"):
        return layer_chain(model)[-1]
    if not any(path.startswith("params/head/") for path, _ in named_leaves(params)):
        raise ValueError(
            f"the head of {type(model).__name__} is not known, expected a network with "
            "a chain of layers, or a last one that is called 'head'"
        )
    return "params/head"


def shared_points(first: Any, second: Any) -> int:
    """Returns how many points of the second array are in the first, too.

    Args:
      first: ``[n, ...]``.
      second: ``[m, ...]``.

    >>> shared_points(np.eye(3), np.eye(3)[1:])
    2
    """
    rows = [np.ascontiguousarray(np.asarray(x, np.float32)) for x in (first, second)]
    # + 0: of 0 and -0, which are equal, the bytes differ.
    known = {(row + 0).tobytes() for row in rows[0]}
    return sum((row + 0).tobytes() in known for row in rows[1])
