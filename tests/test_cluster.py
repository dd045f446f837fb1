"""Who works what: by hand, by JAX's cluster, and processes as their users run them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from nfp_jax.cluster import Place, find_place, parse_shard
from nfp_jax.results import read_rows
from nfp_jax.spec import SpecError

ROOT = Path(__file__).parent.parent
# Two processes share it as dense and magnitude_trained, random and snip.
SMALL = (
    "--config=configs/gaussian.py:smoke",
    "--config.grid.pruner=('dense', 'magnitude_trained', 'random', 'snip')",
    "--config.grid.sparsity=(0.5,)",
)


def start(out, *flags, **environment):
    # Of a flag given twice the last counts.
    devices = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"
    return subprocess.Popen(
        [sys.executable, "launch.py", *SMALL, f"--config.out={out}", *flags],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": devices, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process):
    """What the process printed, and its exit code."""
    try:
        printed, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    return printed, errors, process.returncode


def free_port():
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def the_run(out):
    (directory,) = [path for path in out.iterdir() if path.is_dir()]
    return directory


def numbers(out):
    return read_rows(the_run(out)).drop(columns=["seconds", "written"])


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """What the processes compile, shared by all: most of such a short run."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory, cache):
    """The rows of the same grid from one process."""
    out = tmp_path_factory.mktemp("alone")
    _, errors, code = end(start(out, **cache))
    assert code == 0, errors
    return numbers(out)


def test_no_flag_is_one_process():
    assert find_place() == Place(0, 1)


def test_shards_count_from_0():
    assert parse_shard("0/8") == find_place(shard="0/8") == Place(0, 8)
    assert str(parse_shard("07/8")) == "7/8"


@pytest.mark.parametrize("text", ["8/8", "1", "1/", "-1/8", "0/0", "1/2/3", "a/b", ""])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(SpecError, match=f"--shard is '{text}', expected i/n with 0 <="):
        find_place(shard=text)


BY_HAND = {"coordinator": "localhost:5000", "num_processes": 2, "process_id": 1}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"shard": "0/2", "cluster": True}, "--shard and --cluster are both there"),
        ({"shard": "0/2", **BY_HAND}, "--shard and --coordinator are both there"),
        ({"cluster": True, "process_id": 1}, "--cluster and --process_id are both"),
        ({"coordinator": "a:1"}, "--num_processes is missing, .* with --coordinator"),
        ({"process_id": 0}, "--coordinator is missing, .* with --process_id"),
        ({**BY_HAND, "coordinator": "node"}, "--coordinator is 'node', expected host:"),
        ({**BY_HAND, "coordinator": "a:99999"}, "--coordinator is 'a:99999', expected"),
        ({**BY_HAND, "num_processes": 0}, "--num_processes is 0, expected at least 1"),
        (
            {**BY_HAND, "process_id": 2},
            "--process_id is 2, expected 0 <= process_id < 2",
        ),
        ({**BY_HAND, "process_id": -1}, "--process_id is -1, expected 0 <="),
        ({**BY_HAND, "timeout": 0.0}, "--timeout is 0, expected seconds > 0"),
    ],
)
def test_flags_that_make_no_sense_are_refused(flags, message):
    with pytest.raises(SpecError, match=message):
        find_place(**flags)


def test_a_port_in_use_is_refused_where_jax_would_crash():
    with socket.create_server(("", 0)) as server:
        address = f"localhost:{server.getsockname()[1]}"
        with pytest.raises(SpecError, match=f"{address}, expected a free port: Addr"):
            find_place(coordinator=address, num_processes=2, process_id=0)


def test_meeting_starts_no_backend_and_leaves_signals_alone():
    code = f"""
import os, signal, sys, time
from jax._src import xla_bridge
from nfp_jax.cluster import find_place

signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print(find_place(coordinator="localhost:{free_port()}", num_processes=1, process_id=0))
print(xla_bridge.backends_are_initialized(), flush=True)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(10)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("0/1\nFalse\n", 7), done.stderr


def test_no_cluster_to_recognize_is_one_line(tmp_path):
    printed, errors, code = end(start(tmp_path, "--cluster"))
    assert (printed, code) == ("", 2)
    assert errors.startswith("error: --cluster: JAX recognizes none here, expected Sl")
    assert len(errors.splitlines()) == 1 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("process", [0, 1])
def test_others_that_do_not_come_in_time_are_one_line(tmp_path, process):
    address = f"localhost:{free_port()}"
    flags = ("--num_processes=2", f"--process_id={process}", "--timeout=2")
    printed, errors, code = end(start(tmp_path, f"--coordinator={address}", *flags))
    assert (printed, code) == ("", 2)
    who = f"error: --coordinator: process {process} of 2 at {address} did not meet the"
    assert errors.startswith(f"{who} others within 2 s")
    assert len(errors.splitlines()) == 1 and list(tmp_path.iterdir()) == []


def test_two_processes_make_the_rows_of_one(tmp_path, alone, cache):
    flags = (f"--coordinator=localhost:{free_port()}", "--num_processes=2")
    both = [start(tmp_path, *flags, f"--process_id={i}", **cache) for i in range(2)]
    ends = [end(process) for process in both]
    assert [code for *_, code in ends] == [0, 0], ends
    pd.testing.assert_frame_equal(numbers(tmp_path), alone, check_exact=True)
    runs = json.loads((the_run(tmp_path) / "run.json").read_text())["runs"]
    assert {run["process"]: run["networks"] for run in runs} == {"0/2": 2, "1/2": 2}
    # Who ended last made the page.
    assert any("4 rows of this grid, 2 of them new. Page" in out for out, *_ in ends)
    assert (the_run(tmp_path) / "report.html").exists()


def slurm(out, process, port, cache):
    """One of two tasks, by what Slurm tells each."""
    told = {"JOB_ID": 1, "STEP_NODELIST": "localhost", "STEP_NUM_NODES": 1, "NTASKS": 2}
    told |= {"PROCID": process, "LOCALID": process}
    environment = {f"SLURM_{name}": str(value) for name, value in told.items()}
    return start(
        out, "--cluster", JAX_COORDINATOR_PORT=str(port), **environment, **cache
    )


def test_a_lost_process_takes_no_other_along_and_the_same_commands_resume(
    tmp_path, alone, cache
):
    port = free_port()
    lost, survivor = (slurm(tmp_path, i, port, cache) for i in range(2))
    deadline = time.monotonic() + 120
    while not any('"0/2"' in run.read_text() for run in tmp_path.glob("*/run.json")):
        assert lost.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    lost.kill()  # process 0, of whose service JAX makes all others depend
    assert end(lost)[2] == -signal.SIGKILL
    printed, errors, code = end(survivor)
    assert code == 0, errors
    directory = the_run(tmp_path)
    told = "share 1/2: 2 new rows; 2 of 4 rows of this grid are missing. Whoever ends "
    assert printed.startswith(told)
    assert f"python -m nfp_jax.report {directory}" in printed
    assert set(read_rows(directory)["pruner"]) == {"random", "snip"}
    assert not (directory / "report.html").exists()

    port = free_port()
    both = [slurm(tmp_path, i, port, cache) for i in range(2)]
    again = [end(process) for process in both]
    assert [code for *_, code in again] == [0, 0], again
    pd.testing.assert_frame_equal(numbers(tmp_path), alone, check_exact=True)
    assert "4 rows of this grid, 2 of them new. Page" in again[0][0]
