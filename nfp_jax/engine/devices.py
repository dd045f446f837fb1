"""Devices: compiled programs on disk, lanes and memory."""

import logging
import math
import os
from typing import Any

import jax
import jax.numpy as jnp

_LOG = logging.getLogger(__name__)


# Lanes of an accelerator, at most: with so many its arithmetic is always busy.
MOST_LANES = 512

# Share of a device's memory that lanes may take.
MEMORY_SHARE = 0.8


def use_compilation_cache() -> None:
    """Keeps an accelerator's programs on disk, so the next process need not compile.

    Call it before JAX first compiles. The directory is ``$XDG_CACHE_HOME/nfp_jax``, or
    ``~/.cache/nfp_jax`` without that variable. If a directory is set already
    (``JAX_COMPILATION_CACHE_DIR``), it stays. If none can be made, nothing is kept.
    On a CPU this does nothing: jaxlib 0.10.2 was seen to abort there while it wrote a
    program.
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
    """Returns how many lanes a device gets if its memory allows.

    Args:
      device: the device.
      known: number of jobs, ``None`` if unknown.
      devices: number of devices that share the jobs.
    """
    if device.platform == "cpu":
        return 1  # the weights and moments of one network fit in cache
    return min(MOST_LANES, -(-known // devices) if known else MOST_LANES)


def footprint(program: Any) -> int:
    """Returns the bytes that a program needs, as the compiler counts them."""
    used = program.memory_analysis()
    if used is None:  # this backend does not count
        return 0
    sizes = used.argument_size_in_bytes + used.output_size_in_bytes
    return int(sizes + used.temp_size_in_bytes - used.alias_size_in_bytes)


def bytes_of(leaf: jax.ShapeDtypeStruct) -> int:
    """Returns the bytes of an array of this shape."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return 0
    return math.prod(leaf.shape) * leaf.dtype.itemsize


def memory_of(device: jax.Device) -> int:
    """Returns the bytes of a device's memory; of a CPU, those of the machine."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def is_out_of_memory(error: Exception) -> bool:
    """Returns whether an error of JAX says that a device's memory ran out."""
    is_runtime_error = isinstance(error, jax.errors.JaxRuntimeError)
    return is_runtime_error and "RESOURCE_EXHAUSTED" in str(error)
