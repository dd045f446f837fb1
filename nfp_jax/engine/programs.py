"""Compiled programs: the one place that frees them.

Each takes some memory maps of its process, of which Linux gives 65,530; with none left,
LLVM ends the process. Depends on jax.
"""

import gc

import jax


def free() -> None:
    """Frees the programs that JAX keeps; those still needed are compiled again."""
    jax.clear_caches()
    gc.collect()  # what cycles hold, too
