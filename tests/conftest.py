"""Strict settings for every test: two virtual devices, no silent broadcasting."""

import os
import re
from pathlib import Path

# Read when jax is first imported. One thread for linear algebra: the same sums in the
# same order, however many tests run side by side.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=2"
    + " --xla_cpu_multi_thread_eigen=false"
    + " --xla_backend_optimization_level=0"
    + " --xla_llvm_disable_expensive_passes=true"
)
# Read when numpy is: for small matrices, threads take six times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis
import jax
import pytest

from nfp_jax.engine import programs

jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("seeded", deadline=None, derandomize=True)
hypothesis.settings.load_profile("seeded")


COMPILES = re.compile(r"^(import|from) (jax|running)\b|one_device|launch\.py", re.M)


def pytest_addoption(parser):
    parser.addoption("--fast", action="store_true", help="no file that compiles")


def pytest_ignore_collect(collection_path, config):
    """Under ``--fast``: files that use JAX, or start what does."""
    if config.getoption("fast") and collection_path.match("test_*.py"):
        return bool(COMPILES.search(collection_path.read_text("utf-8"))) or None
    return None


@pytest.fixture(autouse=True, scope="module")
def programs_that_fit():
    """Frees compiled programs before their memory maps are too many."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        programs.free()


@pytest.fixture(scope="module")
def one_device():
    """Programs are compiled for one device: for tests of what is above the engine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
        yield
