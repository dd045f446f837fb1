"""The fair part of every benchmark: contenders in their own processes, by turns.

A contender is a function of a script that runs in one process or several, each with
its own thread counts and XLA flags. For each setting it prepares (starts, compiles,
warms up), says so, waits for "go" blocked on a pipe, and answers with its own seconds
and the work that it did; then it frees its arrays. Only one contender runs at a time,
and they alternate: A B C, A B C. Speed is a ratio to the baseline in the same round;
the median over rounds is reported, with the smallest and the largest.
Depends on the standard library alone, so that the parent claims no device.
"""

import argparse
import contextlib
import dataclasses
import datetime
import gc
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Setting = dict[str, Any]
Answer = dict[str, Any]
# What a script offers: ``prepare(setting, part)`` returns the run to be timed.
Prepare = Callable[[Setting, "Part"], Callable[[], Answer]]

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "nfp-jax")
# Threads that wait by spinning have gone to sleep after that.
SETTLE_SECONDS = 0.3


@dataclasses.dataclass(frozen=True)
class Part:
    """Which of a contender's processes this is; ``threads`` are those of each."""

    index: int
    processes: int
    threads: int
    options: Mapping[str, Any]

    def mine(self, items: Sequence[Any]) -> list[Any]:
        """Returns this process's share, dealt out one by one.

        >>> Part(1, 2, 1, {}).mine(range(5))
        [1, 3]
        """
        return list(items[self.index :: self.processes])


@dataclasses.dataclass(frozen=True)
class Contender:
    """One row of the table.

    Attributes:
      name: its key in the JSON file.
      label: its name in the table.
      worker: the key of its function among the script's workers.
      processes: number of processes that share the work.
      threads: threads of each process; ``None``: all cores.
      options: handed to the function in ``Part``.
      environment: variables of its processes.
      torch: whether it needs PyTorch.
      rounds: at most so many rounds; ``None``: as many as the others.
    """

    name: str
    label: str
    worker: str
    processes: int = 1
    threads: int | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    torch: bool = False
    rounds: int | None = None


@dataclasses.dataclass
class Record:
    """What one contender did in one setting: an entry of each list a round.

    ``seconds`` are the slowest process's own, ``wall_seconds`` those from "go" to the
    last answer as the parent saw them; ``work`` is summed over processes.
    """

    label: str
    seconds: list[float] = dataclasses.field(default_factory=list)
    wall_seconds: list[float] = dataclasses.field(default_factory=list)
    work: list[float] = dataclasses.field(default_factory=list)
    answers: list[list[Answer]] = dataclasses.field(default_factory=list)
    prepare_seconds: list[float] = dataclasses.field(default_factory=list)
    error: str | None = None

    def rates(self) -> list[float]:
        """Returns the work done a second, in each round."""
        return [w / s for w, s in zip(self.work, self.seconds, strict=True)]


# Numbers


def summary(values: Sequence[float]) -> dict[str, float]:
    """Returns the median, smallest and largest of some values.

    >>> summary([4.0, 1.0, 2.0])
    {'median': 2.0, 'min': 1.0, 'max': 4.0}
    """
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
    }


def ratios(values: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """Returns value by baseline of each round, as far as both have been measured.

    >>> ratios([2.0, 9.0], [1.0, 3.0, 5.0])
    [2.0, 3.0]
    """
    return [a / b for a, b in zip(values, baseline, strict=False)]


def step_flops(dim: int, classes: int, *, width: int = 200, batch: int = 64) -> int:
    """Returns the floating-point operations of the matrix products of a training step.

    ``2·B·P`` each for the forward pass and the weight gradient, ``2·B·(P - d·width)``
    for the gradient of the inputs, which the first layer does not need; P weights of
    d-width-width-classes.

    >>> step_flops(1, 1, width=1, batch=1)
    16
    """
    first = dim * width
    weights = first + width * width + width * classes
    return 2 * batch * (3 * weights - first)


# The parent


class Contest:
    """Contenders of a script, started when first needed and alive until the end."""

    def __init__(self, script: str, *, settle: float = SETTLE_SECONDS) -> None:
        self.script, self.settle = script, settle
        self.teams: dict[str, _Team] = {}

    def __enter__(self) -> "Contest":
        return self

    def __exit__(self, *_: Any) -> None:
        for team in self.teams.values():
            team.end()

    def log(self, text: str) -> None:
        """Prints what is under way, apart from the tables."""
        print(text, file=sys.stderr, flush=True)

    def run(
        self, setting: Setting, contenders: Sequence[Contender], rounds: int
    ) -> dict[str, Record]:
        """Returns the records of one setting, contenders by turns, by name.

        One that fails is marked and left out of later rounds; its processes are
        started anew for the next setting.
        """
        records = {c.name: Record(c.label) for c in contenders}
        for turn in range(rounds):
            for contender in contenders:
                record = records[contender.name]
                if record.error or turn >= (contender.rounds or rounds):
                    continue
                try:
                    self._turn(contender, setting, record)
                except _WorkerError as error:
                    record.error = str(error)
                    self.log(f"  {contender.label}: {record.error}")
                    self.teams.pop(contender.name).end()
        return records

    def _turn(self, contender: Contender, setting: Setting, record: Record) -> None:
        if contender.name not in self.teams:
            self.teams[contender.name] = _Team(self.script, contender)
        team = self.teams[contender.name]
        begin = time.perf_counter()
        team.ask({"setting": setting})
        record.prepare_seconds.append(time.perf_counter() - begin)
        time.sleep(self.settle)
        begin = time.perf_counter()
        answers = team.ask({"go": True})
        record.wall_seconds.append(time.perf_counter() - begin)
        record.seconds.append(max(answer["seconds"] for answer in answers))
        record.work.append(sum(answer["work"] for answer in answers))
        record.answers.append(answers)
        self.log(f"  {contender.label}: {record.seconds[-1]:.2f} s")
        time.sleep(self.settle)


class _WorkerError(Exception):
    pass


class _Team:
    """The processes of one contender."""

    def __init__(self, script: str, contender: Contender) -> None:
        threads = contender.threads or cores()
        environment = {
            **os.environ,
            "XLA_FLAGS": "",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            **dict.fromkeys(
                ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
                str(threads),
            ),
            **contender.environment,
        }
        self.processes, self.logs = [], []
        for index in range(contender.processes):
            part = Part(index, contender.processes, threads, contender.options)
            request = {"worker": contender.worker, "part": dataclasses.asdict(part)}
            log = tempfile.TemporaryFile("w+")
            self.logs.append(log)
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, script, "--worker", json.dumps(request)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env=environment,
                )
            )

    def ask(self, message: dict[str, Any]) -> list[Answer]:
        """The answers of all processes to a message."""
        for process in self.processes:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(message) + "\n")
                process.stdin.flush()
        lines = [process.stdout.readline() for process in self.processes]
        answers = [json.loads(line) if line else None for line in lines]
        for answer, process, log in zip(
            answers, self.processes, self.logs, strict=True
        ):
            if answer is None:
                log.seek(0)
                last = log.read().strip().splitlines()[-1:]
                raise _WorkerError(
                    f"ended with exit code {process.wait()}: {''.join(last)[:200]}"
                )
            if "error" in answer:
                raise _WorkerError(answer["error"])
        return answers

    def end(self) -> None:
        for process in self.processes:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        for process, log in zip(self.processes, self.logs, strict=True):
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
            log.close()


# The worker


def serve(workers: Mapping[str, Prepare], request: str) -> int:
    """Answers the parent until it closes the pipe; returns the exit code."""
    # What a library prints must not reach the parent as an answer.
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    plain = json.loads(request)
    part = Part(**plain["part"])
    prepare = workers[plain["worker"]]
    run: Callable[[], Answer] | None = None
    for line in sys.stdin:
        message = json.loads(line)
        answer: Answer
        try:
            if run is None:
                run = prepare(message["setting"], part)
                gc.collect()
                answer = {"ready": True}
            else:
                begin = time.perf_counter()
                answer = run()
                answer.setdefault("seconds", time.perf_counter() - begin)
                run = None  # frees its arrays
                gc.collect()
        except Exception as error:
            run = None
            first = (str(error).strip().splitlines() or [""])[0]
            answer = {"error": f"{type(error).__name__}: {first[:200]}"}
        pipe.write(json.dumps(answer) + "\n")
        pipe.flush()
    return 0


# Arguments, machine, results


def start(script: str, arguments: argparse.Namespace) -> Contest:
    """Returns the contest of a script, in a hurry where it is only tried out."""
    return Contest(script, settle=0.0 if arguments.quick else SETTLE_SECONDS)


def parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser with the options that every script has."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--quick", action="store_true", help="tiny, to try it out")
    options.add_argument("--rounds", type=int, help="turns of each contender")
    options.add_argument("--machine", help="name of the results file")
    options.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parent / "results",
        help="folder of the results file",
    )
    options.add_argument(
        "--no-torch", action="store_true", help="leave PyTorch's rows out"
    )
    options.add_argument("--worker", help=argparse.SUPPRESS)
    return options


def numbers(kind: type) -> Callable[[str], list[Any]]:
    """Returns the type of an option that takes a list, as in ``--dims=50,784``.

    >>> numbers(int)("50,784")
    [50, 784]
    """
    return lambda text: [kind(part) for part in text.split(",")]


def cores() -> int:
    """Returns the number of cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class Machine:
    """The devices that JAX and PyTorch find here; ``torch`` is cpu, cuda or None."""

    platform: str
    kind: str
    devices: int
    cores: int
    torch: str | None

    @property
    def loop(self) -> tuple[int, int | None]:
        """Processes and threads of PyTorch's loop: one of each a core, one on a GPU."""
        return (1, None) if self.torch == "cuda" else (self.cores, 1)

    def name(self) -> str:
        """Returns a short name for a file."""
        if self.platform == "cpu":
            return _slug(f"{self.kind} {self.cores} cores")
        many = f" x{self.devices}" if self.devices > 1 else ""
        return _slug(self.kind + many)


def find_machine(arguments: argparse.Namespace) -> Machine:
    """Returns what is here, looked up in a process that claims it for a moment."""
    has_torch = not arguments.no_torch and importlib.util.find_spec("torch") is not None
    code = (
        "import jax, json; d = jax.local_devices();"
        "print(json.dumps([d[0].platform, d[0].device_kind, len(d)]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    where, kind, devices = json.loads(found.stdout.splitlines()[-1])
    kind = _cpu_model() if where == "cpu" else kind
    torch = _torch_device() if has_torch else None
    return Machine(where, kind, devices, cores(), torch)


def _torch_device() -> str:
    code = "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def present(contenders: Sequence[Contender], machine: Machine) -> list[Contender]:
    """Returns the contenders that can run here."""
    return [c for c in contenders if machine.torch or not c.torch]


def torch_note(machine: Machine) -> str:
    """Returns the line under a table that has no rows of PyTorch, or nothing."""
    return "" if machine.torch else "PyTorch's rows are left out: it is not installed."


def write(
    key: str, arguments: argparse.Namespace, machine: Machine, found: Any
) -> Path:
    """Writes what a script found under its key of the machine's file; returns it."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    options = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(arguments).items()
        if name not in ("worker", "out")
    }
    entry = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "arguments": options,
        "machine": dataclasses.asdict(machine),
        "python": platform.python_version(),
        "versions": versions,
        **found,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{arguments.machine or machine.name()}.json"
    whole = json.loads(path.read_text()) if path.exists() else {}
    whole[key] = entry
    with tempfile.NamedTemporaryFile(
        "w", dir=arguments.out, suffix=".json", delete=False
    ) as file:
        json.dump(whole, file, indent=1)
        file.write("\n")
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)
    return path


def entry(
    setting: Setting, records: Mapping[str, Record], baseline: str
) -> dict[str, Any]:
    """Returns one setting as the JSON file has it: raw numbers, medians, ratios."""
    contenders = {}
    base = records[baseline].rates() if baseline in records else []
    for name, record in records.items():
        row = dataclasses.asdict(record)
        if record.seconds:
            row["rate"] = summary(record.rates())
            row["median_seconds"] = statistics.median(record.seconds)
        if record.seconds and base:
            row["ratio"] = summary(ratios(record.rates(), base))
        contenders[name] = row
    return {"setting": setting, "baseline": baseline, "contenders": contenders}


def rows(found: Mapping[str, Any], unit: str) -> list[list[str]]:
    """Returns the table of one setting: a head, and a row for each contender."""
    table = [["", unit, "ratio", "min-max", "rounds", "prepared in"]]
    for row in found["contenders"].values():
        if row["error"]:
            table.append([row["label"], row["error"]])
            continue
        ratio = row.get("ratio")
        table.append(
            [
                row["label"],
                f"{row['rate']['median']:,.4g}",
                f"{ratio['median']:.2f}" if ratio else "-",
                f"{ratio['min']:.2f}-{ratio['max']:.2f}" if ratio else "-",
                str(len(row["seconds"])),
                f"{row['prepare_seconds'][0]:.1f} s",
            ]
        )
    return table


def show(title: str, table: Sequence[Sequence[str]], note: str = "") -> None:
    """Prints a table, its columns aligned; a short row (an error) runs on."""
    full = [row for row in table if len(row) == len(table[0])]
    widths = [max(len(row[i]) for row in full) for i in range(len(table[0]))]
    widths[0] = max(len(row[0]) for row in table)
    print(f"\n{title}")
    for row in table:
        cells = [row[0].ljust(widths[0])]
        if len(row) == len(table[0]):
            cells += [
                cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)
            ]
        else:
            cells += row[1:]
        print("  ".join(cells).rstrip())
    if note:
        print(note)
    sys.stdout.flush()
