"""The cores of a CPU: how many networks it trains, or searches, at once."""

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent import futures
from typing import TypeVar

import jax

Item = TypeVar("Item")
Found = TypeVar("Found")

# Networks that a CPU device trains at once, a thread each; ``use_all_cores`` sets it.
_at_once = 1


def use_all_cores(count: int | None = None) -> None:
    """Makes ``run`` train one network on every core of the CPU, each by one thread.

    All share one device, and so the programs that are compiled for it. It sets
    ``XLA_FLAGS``, so call it before JAX is first used; importing JAX before is fine.
    Where the flags make several devices already, they are left as they are, and each
    device trains one network. Accelerators are not affected.

    Args:
      count: number of networks; ``None``: the cores that this process may run on.
    """
    global _at_once
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" in flags:
        return
    if count is None:
        affinity = getattr(os, "sched_getaffinity", None)
        count = len(affinity(0)) if affinity else os.cpu_count() or 1
    if "xla_cpu_multi_thread_eigen" not in flags:
        flags = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    os.environ["XLA_FLAGS"], _at_once = flags, count


def workers(devices: Sequence[jax.Device]) -> list[jax.Device]:
    """Returns the device of each network that is trained at once.

    One a device, or several on a CPU device that is alone, as ``use_all_cores`` says.

    >>> len(workers(jax.devices())) >= len(jax.devices())
    True
    """
    alone = len(devices) == 1 and devices[0].platform == "cpu"
    return list(devices) * (_at_once if alone else 1)


def each(
    fn: Callable[[Item], Found],
    items: Iterable[Item],
    devices: Sequence[jax.Device] | None = None,
) -> list[Found]:
    """Returns ``fn`` of every item, in order; cores, or devices, share the work.

    A thread for each of ``workers`` takes item after item, with its device as JAX's
    default one. The first error is raised, once all threads have ended.

    Args:
      fn: of one item; it may be called in several threads at once.
      items: that do not depend on one another.
      devices: ``None``: all local ones.

    >>> each(abs, [-1, 2, -3])
    [1, 2, 3]
    """
    left, turns = list(items), itertools.count()
    found: dict[int, Found] = {}

    def work(device: jax.Device) -> None:
        with jax.default_device(device):
            while (i := next(turns)) < len(left):
                found[i] = fn(left[i])

    places = workers(jax.local_devices() if devices is None else devices)
    with futures.ThreadPoolExecutor(len(places)) as pool:
        list(pool.map(work, places))
    return [found[i] for i in range(len(left))]
