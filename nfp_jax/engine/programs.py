"""Compiled programs: how many there were, and the one place that frees them.

Each takes some memory maps of its process, of which Linux gives 65,530; with none left,
LLVM ends the process. Depends on jax.
"""

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.monitoring


class Compiled(NamedTuple):
    """Programs that this process has compiled so far, by JAX's own count.

    Attributes:
      programs: how many, those taken from the cache on disk among them.
      seconds: what that took, summed over threads.
      from_cache: how many were taken from the cache on disk.
    """

    programs: int = 0
    seconds: float = 0.0
    from_cache: int = 0

    def since(self, before: "Compiled") -> "Compiled":
        """Returns those that came after."""
        return Compiled(
            self.programs - before.programs,
            self.seconds - before.seconds,
            self.from_cache - before.from_cache,
        )


_lock = threading.Lock()
_so_far = Compiled()


def so_far() -> Compiled:
    """Returns what this process has compiled since this module was imported."""
    return _so_far


_also: list[Callable[[], None]] = []


def also_free(clear: Callable[[], None]) -> None:
    """Makes ``free`` call this, too: it clears programs that a module keeps."""
    _also.append(clear)


class Kept:
    """Programs that are kept as long as this object is, and until ``free``."""

    def __init__(self) -> None:
        self.programs: dict[Any, Any] = {}
        _kept.add(self)


_kept: weakref.WeakSet[Kept] = weakref.WeakSet()


def free() -> None:
    """Frees the programs that are kept; those still needed are compiled again."""
    for clear in _also:
        clear()
    for kept in _kept:
        kept.programs.clear()
    jax.clear_caches()
    gc.collect()  # what cycles hold, too


def _took(event: str, duration_secs: float, **_: Any) -> None:
    global _so_far
    if event == "/jax/core/compile/backend_compile_duration":
        with _lock:
            programs, spent, cached = _so_far
            _so_far = Compiled(programs + 1, spent + duration_secs, cached)


def _came(event: str, **_: Any) -> None:
    global _so_far
    if event == "/jax/compilation_cache/cache_hits":
        with _lock:
            _so_far = _so_far._replace(from_cache=_so_far.from_cache + 1)


jax.monitoring.register_event_duration_secs_listener(_took)
jax.monitoring.register_event_listener(_came)
