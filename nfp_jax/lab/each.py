"""Functions of one network over a stack of them, and stacks made ahead by threads."""

import collections
import concurrent.futures
import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nfp_jax.engine.jobs import Networks

AHEAD = 6  # stacks made ahead, where they have many networks


def parts(whole: list[Any], size: int) -> list[list[Any]]:
    """Returns a list in parts of a size; the last has what is left."""
    return [whole[i : i + size] for i in range(0, len(whole), size)]


def each(fn: Callable[..., Any], size: int) -> Callable[..., Any]:
    """Returns a function over stacks, of a function of one network.

    Arguments that are ``Shared`` have no axis. Of a stack of one, it is the function
    itself: its sums keep their order.

    >>> each(lambda x, y: x + y.of, 1)(jnp.ones((1, 2)), Shared(2.0)).tolist()
    [[3.0, 3.0]]
    """

    @functools.wraps(getattr(fn, "func", fn))  # its name is that of the program
    def over(*arguments: Any) -> Any:
        axes = tuple(None if isinstance(x, Shared) else 0 for x in arguments)
        if size > 1:
            return jax.vmap(fn, in_axes=axes)(*arguments)
        alone = [
            x if isinstance(x, Shared) else jax.tree.map(lambda leaf: leaf[0], x)
            for x in arguments
        ]
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], fn(*alone))

    return over


class Once:
    """A jitted function that one thread compiles while others that call it wait."""

    def __init__(self, fn: Any) -> None:
        self.fn, self.lock, self.ready = fn, threading.Lock(), False

    def __call__(self, *arguments: Any) -> Any:
        """Returns what the function does."""
        if not self.ready:
            with self.lock:
                if not self.ready:
                    found = self.fn(*arguments)
                    self.ready = True
                    return found
        return self.fn(*arguments)


def ahead(
    makers: Iterable[Callable[[], list[Networks]]], threads: int
) -> Iterator[Networks]:
    """Yields what the makers make, in their order, so many of them made ahead.

    By threads: while one waits for its program to be compiled, the others go on. None
    waits for a thread: closed, what was begun ends, and nothing more begins.

    >>> list(ahead([lambda: [1], lambda: [2, 3]], 2))
    [1, 2, 3]
    """
    if threads < 2:
        for make in makers:
            yield from make()
        return
    pending: collections.deque[Any] = collections.deque()
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    try:
        for make in makers:
            pending.append(pool.submit(make))
            if len(pending) >= threads:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        pool.shutdown(wait=False)


class Shared(NamedTuple):
    """What all networks of a stack share."""

    of: Any
