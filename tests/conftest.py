"""Strict settings for every test: two virtual devices, no silent broadcasting."""

import os

# Read when jax is first imported. One thread for linear algebra: the same sums in the
# same order, however many tests run side by side.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=2"
    + " --xla_cpu_multi_thread_eigen=false"
)
# Read when numpy is: for small matrices, threads take six times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis
import jax

jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("seeded", deadline=None, derandomize=True)
hypothesis.settings.load_profile("seeded")
