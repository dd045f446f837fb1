"""Devices: CPU cores as devices, programs kept on disk, how much memory there is."""

import logging
import math
import os
from typing import Any

import jax
import jax.numpy as jnp

_LOG = logging.getLogger(__name__)


# Lanes of an accelerator, at most: beyond, its arithmetic is busy all the time.
MOST_LANES = 512


# Share of a device's memory that lanes may take.
MEMORY_SHARE = 0.8


def use_all_cores(count: int | None = None) -> None:
    """Makes one single-threaded CPU device of every core, for ``run`` to fill.

    Sets ``XLA_FLAGS`` and must come before JAX is first used (importing it is no use).
    Flags that are already set are left as they are; accelerators are not affected.

    Args:
      count: number of devices; ``None``: the cores this process may run on.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" in flags:
        return
    if count is None:
        affinity = getattr(os, "sched_getaffinity", None)
        count = len(affinity(0)) if affinity else os.cpu_count() or 1
    os.environ["XLA_FLAGS"] = (
        f"{flags} --xla_cpu_multi_thread_eigen=false "
        f"--xla_force_host_platform_device_count={count}"
    ).strip()


def use_compilation_cache() -> None:
    """Keeps an accelerator's programs on disk, for the next process not to compile.

    In ``$XDG_CACHE_HOME/nfp_jax``, else ``~/.cache/nfp_jax``; a directory that is set
    (``JAX_COMPILATION_CACHE_DIR``) is left as it is. Not on a CPU, unless one is set:
    there jaxlib 0.10.2 was seen to abort while it wrote a program. Where no directory
    can be made, nothing is kept. Must come before JAX first compiles.
    """
    # JAX's options are attributes that its types do not list.
    if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        return
    if jax.default_backend() == "cpu":
        return
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    directory = os.path.join(root, "nfp_jax")
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        _LOG.warning("compiled programs are not kept: %s", error)
        return
    jax.config.update("jax_compilation_cache_dir", directory)


def most_lanes(device: jax.Device, known: int | None, devices: int) -> int:
    """Returns how many lanes a device is given, before its memory is looked at."""
    if device.platform == "cpu":
        return 1  # one network's weights and moments stay in cache, many do not
    return min(MOST_LANES, -(-known // devices) if known else MOST_LANES)


def footprint(program: Any) -> int:
    """Returns the bytes that a program needs, by the compiler's own account."""
    used = program.memory_analysis()
    if used is None:  # a backend that keeps none
        return 0
    sizes = used.argument_size_in_bytes + used.output_size_in_bytes
    return int(sizes + used.temp_size_in_bytes - used.alias_size_in_bytes)


def bytes_of(leaf: jax.ShapeDtypeStruct) -> int:
    """Returns the bytes of an array of this shape."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return 0
    return math.prod(leaf.shape) * leaf.dtype.itemsize


def memory_of(device: jax.Device) -> int:
    """Returns the bytes of a device; a CPU's are those of the machine."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
