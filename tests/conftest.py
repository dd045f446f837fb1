"""Strict settings for every test: two virtual devices, no silent broadcasting."""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

# Read when jax is first imported. One thread for linear algebra: the same sums in the
# same order, however many tests run side by side. The last ones make compiling, most of
# the tests' time, short.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=2"
    + " --xla_cpu_multi_thread_eigen=false"
    + " --xla_backend_optimization_level=0"
    + " --xla_llvm_disable_expensive_passes=true"
)
if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones may abort
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
# Read when numpy is: for small matrices, threads take six times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis
import jax
import pytest
from absl.testing import flagsaver
from jax._src import compiler  # where a program becomes an executable

from nfp_jax.engine import programs

ROOT = Path(__file__).parent.parent

jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("seeded", deadline=None, derandomize=True)
hypothesis.settings.load_profile("seeded")


SLOW = re.compile(
    r"^(import|from) (jax|running)\b|one_device|launch\.py|write_(report|page|results)",
    re.M,
)


def pytest_addoption(parser):
    parser.addoption(
        "--fast", action="store_true", help="no file that compiles or makes pages"
    )
    parser.addoption("--fuzz", type=int, default=300, help="command lines to try")
    parser.addoption("--kills", type=int, default=10, help="of runs of each question")


def pytest_ignore_collect(collection_path, config):
    """Under ``--fast``: files that use JAX, or start what does, or make whole pages."""
    if config.getoption("fast") and collection_path.match("test_*.py"):
        return bool(SLOW.search(collection_path.read_text("utf-8"))) or None
    return None


compile_anew = getattr(compiler, "compile_or_get_cached", None)
EXECUTABLES = {}


def compile_once(backend, module, devices, options, callbacks, *others, **more):
    """The executable of a program, shared by all tests that compile the same text.

    A training that is made anew is another function to JAX, traced and compiled again:
    most of the tests' time. In memory, since jaxlib 0.10.2 was seen to abort while it
    wrote a program to disk.
    """
    arguments = (backend, module, devices, options, callbacks, *others)
    text = str(module)
    if callbacks or "callback" in text:  # names a Python function by its address
        return compile_anew(*arguments, **more)
    places = tuple(device.id for device in devices.flatten())
    digest = hashlib.sha256(text.encode()).digest()
    key = digest, places, options.SerializeAsString()
    if key not in EXECUTABLES:
        EXECUTABLES[key] = compile_anew(*arguments, **more)
    return EXECUTABLES[key]


if compile_anew is not None:  # it is no public name: without it tests take longer
    compiler.compile_or_get_cached = compile_once


@pytest.fixture(autouse=True, scope="module")
def programs_that_fit():
    """Frees compiled programs before their memory maps are too many."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        EXECUTABLES.clear()
        programs.free()


@pytest.fixture(scope="module")
def one_device():
    """Programs are compiled for one device: for tests of what is above the engine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
        yield


@pytest.fixture(scope="session")
def launcher():
    """launch.py as a module, with the flags defined that flagsaver restores."""
    from nfp_jax import launching  # noqa: F401

    spec = importlib.util.spec_from_file_location("launch", ROOT / "launch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def launch(launcher, monkeypatch):
    """Runs launch.py as its users do, without a process; leaves this one as it was.

    Of flags: the exit code, and what was printed.
    """

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["launch.py", *arguments])
        out, err = io.StringIO(), io.StringIO()
        with (
            flagsaver.flagsaver(),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                code = launcher.launch(sys.argv)
            except SystemExit as end:
                code = end.code
        return subprocess.CompletedProcess(
            sys.argv, code or 0, out.getvalue(), err.getvalue()
        )

    loggers = [logging.getLogger(), logging.getLogger("jax")]
    before = [(x, x.level, list(x.handlers)) for x in loggers]
    terminate = signal.getsignal(signal.SIGTERM)
    monkeypatch.chdir(ROOT)
    yield call
    signal.signal(signal.SIGTERM, terminate)
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
