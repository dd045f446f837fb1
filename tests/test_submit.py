"""Arrays of tasks, submitted to this machine and to a Slurm that only writes down."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nfp_jax import submit
from nfp_jax.results import read_rows

ROOT = Path(__file__).parent.parent
SMALL = (
    "--config=configs/gaussian.py:smoke",
    "--config.grid.pruner=('random',)",
    "--config.grid.sparsity=(0.5,)",
)
# Of a flag given twice the last counts.
ONE_DEVICE = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"


def submitted(*arguments, cwd=ROOT, **environment):
    return subprocess.run(
        [sys.executable, "-m", "nfp_jax.submit", *arguments],
        cwd=cwd,
        env={**os.environ, "XLA_FLAGS": ONE_DEVICE, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_two_local_tasks_work_the_grid_between_them(tmp_path):
    logs, out = tmp_path / "logs", tmp_path / "out"
    flags = ("--shards=2", "--minutes=10", "--executor=local", f"--logs={logs}")
    # Where there is no launch.py: the tasks run the command.
    done = submitted(*flags, "--", *SMALL, f"--config.out={out}", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    *jobs, folder, failed = done.stdout.splitlines()
    assert folder == f"2 tasks; what they print is in {logs}"
    assert failed == "0 of 2 tasks failed"
    first, second = (Path(job.split(": ")[1]).read_text() for job in jobs)
    assert "--shard=0/2" in first and "1 rows of this grid, 1 of them new" in first
    assert "--shard=1/2" in second  # one pruner's cells of a draw stay together
    (directory,) = out.iterdir()
    assert read_rows(directory)["pruner"].tolist() == ["random"]


def test_a_task_that_fails_is_counted(tmp_path):
    launcher = tmp_path / "launcher.py"
    launcher.write_text("import sys; sys.exit(sys.argv[-1] == '--shard=0/2')")
    flags = ("--shards=2", "--executor=local", f"--logs={tmp_path}")
    done = submitted(*flags, f"--launcher={launcher}", "--", "--config=any")
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1] == "1 of 2 tasks failed"


def test_slurm_gets_one_array_with_what_was_asked_for(tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, line in (
        ("srun", ""),
        ("sbatch", f"cp $1 {tmp_path}/asked; echo Submitted batch job 77"),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    done = submitted(
        *("--shards=8", "--partition=gpu", "--minutes=120", "--gpus=1", "--cpus=4"),
        *("--memory_gb=16", "--slurm=account=abc", f"--logs={tmp_path / 'logs'}"),
        *("--", *SMALL),
        PATH=f"{programs}:{os.environ['PATH']}",
    )
    assert done.returncode == 0, done.stderr
    assert "8 tasks; what they print is in" in done.stdout
    assert [line.split(":")[0] for line in done.stdout.splitlines()[:-1]] == [
        f"77_{i}" for i in range(8)
    ]
    asked = (tmp_path / "asked").read_text()
    for option in (
        *("array=0-7%8", "partition=gpu", "time=120", "gpus-per-node=1"),
        *("cpus-per-task=4", "mem=16GB", "account=abc", "job-name=nfp-jax"),
    ):
        assert f"#SBATCH --{option}\n" in asked
    assert len(list((tmp_path / "logs").glob("77_*_submitted.pkl"))) == 8


def test_no_slurm_is_one_line(tmp_path):
    done = submitted("--shards=2", f"--logs={tmp_path}", "--", *SMALL, PATH="")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --executor=slurm: Could not detect")
    assert len(done.stderr.splitlines()) == 1


def test_no_submitit_is_one_line_that_names_the_extra(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert submit.main(["--shards=2", "--", *SMALL]) == 2
    missing = "error: submitit is missing, expected pip install 'nfp-jax[slurm]'\n"
    assert capsys.readouterr().err == missing


def test_no_launcher_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert submit.main(["--shards=2", "--launcher=mine.py", "--", *SMALL]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: --launcher is mine.py, which is not a file of")
    assert str(tmp_path) in printed and len(printed.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--", *SMALL], "the following arguments are required: --shards"),
        (["--shards=0", "--", *SMALL], "--shards: is '0', expected a whole number >="),
        (["--shards=2"], "the following arguments are required: FLAG"),
        (["--shards=2", "--slurm=abc", "--", "x"], "--slurm: is 'abc', expected NAME="),
        (["--shards=2", "--minute=1", "--", "x"], "unrecognized arguments: --minute=1"),
    ],
)
def test_mistaken_flags_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as refused:
        submit.main(arguments)
    assert refused.value.code == 2 and message in capsys.readouterr().err
