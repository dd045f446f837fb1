"""The commands of the docs on a real Slurm: killed, requeued, cancelled, and met tasks.

Skipped where Slurm is not installed or does not start; see slurm.py.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from slurm import UnavailableError, client, one_node

import nfp_jax as nfp
from configs import gaussian
from nfp_jax.results import read_rows

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("one_device")
# Four draws and pruners: a task each.
GRID = {"pruner": ("random", "snip"), "sparsity": (0.5,), "n": (64, 128)}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment of a user of a Slurm; its tasks share what they compile."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    # Of a flag given twice the last counts.
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"
    with contextlib.ExitStack() as stack:
        try:
            clients = stack.enter_context(one_node())
        except UnavailableError as error:
            pytest.skip(f"no Slurm: {error}")
        path = f"{Path(sys.executable).parent}:{clients['PATH']}"  # python is this one
        yield {**clients, **cache, "XLA_FLAGS": flags, "PATH": path}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, one_device):
    """The directory of the same grid from one process, which knows no Slurm."""
    config = gaussian.smoke()
    config.grid.update(GRID)
    config.out = str(tmp_path_factory.mktemp("whole"))
    return nfp.run(config).directory


def documented(program):
    """The words of the line of the docs that calls a program, for the smoke preset."""
    [line] = {
        line.strip().partition("  #")[0]
        for file in ("README.md", "docs/many_networks.md")
        for line in (ROOT / file).read_text("utf-8").splitlines()
        if program in line and line.startswith("    ")
    }
    assert ":paper" in line
    return shlex.split(line.replace(":paper", ":smoke"))


def run(cluster, *command):
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **cluster},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def submit(cluster, logs, *arguments, shards=None):
    """The numbers of the tasks of the documented command, with more arguments."""
    command = documented("nfp_jax.submit")
    if shards:
        command = [re.sub("--shards=.*", f"--shards={shards}", x) for x in command]
    command.insert(command.index("--"), f"--logs={logs}")
    done = run(cluster, *command, *arguments)
    assert done.returncode == 0, done.stderr
    return [line.split(":")[0] for line in done.stdout.splitlines()[:-1]]


def on_grid(out):
    return [f"--config.out={out}", *(f"--config.grid.{x}={y}" for x, y in GRID.items())]


def state(cluster, task):
    text = client(cluster, "scontrol", "show", "job", task)
    found = re.search(r"JobState=(\w+)", text)
    return found[1] if found else text


def wait_for(what, seconds=240):
    """What a function returns, as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def printed(logs):
    files = sorted(Path(logs).glob("*_log.*"))
    return "\n".join(f"{file.name}: {file.read_text()}" for file in files)


def process_of(out, share):
    """The number of the process that does a share, once its launch is on file."""
    for file in out.glob("*/run.json"):
        for launch in json.loads(file.read_text())["runs"]:
            if launch["process"] == share:
                return int(launch["launch"].split("-")[-2])
    return None


def same(out, whole):
    """Asserts that a run has the rows of another, and its page up to their clocks."""
    [directory] = [path for path in out.iterdir() if path.is_dir()]
    tables = [
        read_rows(path).drop(columns=["seconds", "written"])
        for path in (directory, whole)
    ]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    pages = [
        (path / "report.html").read_text("utf-8").partition('<h2 id="rows">')[0]
        for path in (directory, whole)
    ]
    assert pages[0] == pages[1] and len(pages[0]) > 10_000
    assert not list(out.rglob("*.tmp"))


def test_a_killed_task_is_requeued_and_the_array_makes_the_page_of_one_process(
    tmp_path, cluster, whole
):
    out, logs = tmp_path / "out", tmp_path / "logs"
    tasks = submit(cluster, logs, *on_grid(out))
    assert len(tasks) == 4
    os.kill(wait_for(lambda: process_of(out, "1/4")), signal.SIGKILL)
    wait_for(lambda: state(cluster, tasks[1]) == "FAILED")
    client(cluster, "scontrol", "requeue", tasks[1])
    wait_for(lambda: {state(cluster, task) for task in tasks} <= {"COMPLETED"})
    launches = json.loads(next(out.glob("*/run.json")).read_text())["runs"]
    shares = sorted(launch["process"] for launch in launches)
    assert shares == ["0/4", "1/4", "1/4", "2/4", "3/4"], printed(logs)
    same(out, whole)


def test_a_cancelled_task_keeps_its_rows(tmp_path, cluster):
    out, logs = tmp_path / "out", tmp_path / "logs"
    # 10 labels are learnt in a second, 50,000 random ones in hours.
    long = ("max_epochs=100000", "stop=still")
    [task] = submit(
        cluster,
        logs,
        *(f"--config.train.{x}" for x in long),
        *(f"--config.out={out}", "--config.grid.pruner=('random',)"),
        *("--config.grid.sparsity=(0.5,)", "--config.grid.n=(10, 50000)"),
        shards=1,
    )
    wait_for(lambda: list(out.glob("*/rows/*.parquet")))
    client(cluster, "scancel", task)
    wait_for(lambda: "interrupted; the rows done are on file" in printed(logs))
    wait_for(lambda: state(cluster, task) == "CANCELLED")
    [directory] = out.iterdir()
    assert read_rows(directory)["n"].tolist() == [10]


def test_two_tasks_that_meet_make_the_page_of_one_process(tmp_path, cluster, whole):
    command = documented("srun")
    done = run(cluster, *command, *on_grid(tmp_path))
    assert done.returncode == 0, done.stderr
    launches = json.loads(next(tmp_path.glob("*/run.json")).read_text())["runs"]
    assert sorted(launch["process"] for launch in launches) == ["0/2", "1/2"]
    same(tmp_path, whole)
