r"""Runs one experiment as an array of Slurm tasks, each with a shard of the cells.

    python -m nfp_jax.submit --shards=4 --partition=gpu --minutes=120 --gpus=1 -- \
        --config=configs/gaussian.py:paper

What follows ``--`` goes to ``launch.py``, with ``--shard=0/4`` to ``--shard=3/4``;
where this directory has none, to ``nfp run``. The same command, given again, runs the
cells that are missing. ``--executor=local`` runs all tasks at once on this machine and
waits for them. Depends on submitit, the extra ``nfp-jax[slurm]``, and on no other
module of nfp_jax.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(argv: Sequence[str] | None = None) -> int:
    """Submits the array and returns the exit code.

    0: the tasks were submitted, and with ``--executor=local`` all of them succeeded.
    1: a local task failed. 2: bad input; nothing was submitted.
    """
    options = _parser().parse_args(argv)
    if options.launcher and not Path(options.launcher).is_file():
        return _refuse(
            f"--launcher is {options.launcher}, which is not a file of {Path.cwd()}"
        )
    try:
        import submitit  # optional
    except ModuleNotFoundError:
        return _refuse("submitit is missing, expected pip install 'nfp-jax[slurm]'")
    try:
        jobs = _submit(options)
    # There is no srun or sbatch, or it refuses the partition or another option.
    except (RuntimeError, OSError, submitit.core.utils.FailedJobError) as error:
        return _refuse(f"--executor={options.executor}: {' '.join(str(error).split())}")
    for job in jobs:
        print(f"{job.job_id}: {job.paths.stdout}")
    print(f"{len(jobs)} tasks; what they print is in {Path(options.logs).resolve()}")
    if options.executor == "slurm":
        return 0
    failed = sum(job.exception() is not None for job in jobs)  # waits
    print(f"{failed} of {len(jobs)} tasks failed")
    return 1 if failed else 0


def _submit(options: argparse.Namespace) -> list[Any]:
    import submitit

    executor = submitit.AutoExecutor(folder=options.logs, cluster=options.executor)
    executor.update_parameters(
        name="nfp-jax",
        timeout_min=options.minutes,
        cpus_per_task=options.cpus,
        gpus_per_node=options.gpus,
        mem_gb=options.memory_gb,
        slurm_partition=options.partition,
        slurm_array_parallelism=options.shards,
        slurm_additional_parameters=dict(options.slurm),
    )
    launcher = ["-m", "nfp_jax.command", "run"]
    if options.launcher or Path("launch.py").is_file():
        launcher = [options.launcher or "launch.py"]
    command = [sys.executable, *launcher, *options.arguments]
    run = submitit.helpers.CommandFunction(command, cwd=Path.cwd())
    shards = [f"--shard={i}/{options.shards}" for i in range(options.shards)]
    return executor.map_array(run, shards)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m nfp_jax.submit",
        description="Submit an experiment to Slurm as an array of shards.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--shards", type=_positive, required=True, help="number of tasks")
    add("--minutes", type=_positive, default=60, help="time limit of a task")
    add("--partition", help="default: the cluster's")
    add("--gpus", type=_positive, help="of a task; default: none is asked for")
    add("--cpus", type=_positive, help="of a task")
    add("--memory_gb", type=_positive, help="of a task")
    add(
        "--slurm",
        type=_option,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any option of sbatch, as in --slurm=account=abc; may be repeated",
    )
    add("--executor", choices=("slurm", "local"), default="slurm")
    add("--logs", default="results/submitit", help="folder of what the tasks print")
    add("--launcher", help="default: launch.py of this directory, or else nfp run")
    add("arguments", nargs="+", metavar="FLAG", help="of launch.py, after --")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"is {text!r}, expected a whole number >= 1")
    return int(text)


def _option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"is {text!r}, expected NAME=VALUE")
    return name, value


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
