"""Strict settings for every test: two virtual devices, no silent broadcasting."""

import os
from pathlib import Path

# Read when jax is first imported. One thread for linear algebra: the same sums in the
# same order, however many tests run side by side.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=2"
    + " --xla_cpu_multi_thread_eigen=false"
)

# Most of the time of tests is the compiler's: compiled once for all of them, and for
# the processes that they start.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".jax_cache")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import hypothesis
import jax

jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("seeded", deadline=None, derandomize=True)
hypothesis.settings.load_profile("seeded")
