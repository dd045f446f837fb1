"""Runs that are killed while they write, and started again, until rows are whole.

    python tests/kills.py --kills=100 --question=swap

A life is a process with one run. SIGKILL ends it at one of its operations on files (it
opens one to write, makes a folder, renames or removes), or a moment later, by a seed.
Lives are forked from a server that has imported everything and has no JAX backend yet,
and they share compiled programs on disk, so that a life takes a second or two. What the
lives of a run leave in the end is compared with a run that nobody killed.
"""

import argparse
import functools
import itertools
import multiprocessing
import os
import random
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from nfp_jax import questions
from nfp_jax.results import read_rows

# The least that any question takes: small networks, masks before and through training.
SMALL = {
    "data": {"dim": 4},
    "model": {"widths": (8, 8)},
    "train": {"max_epochs": 6, "settle_from": 3, "settle_steps": 0},
    "engine": {"shrink_from": float("inf")},  # one program the less
    "grid": {
        "n": (24,),
        "pruner": ("random", "magnitude_trained"),
        "sparsity": (0.5, 0.75),
    },
}
SETTINGS = {
    "capacity": {"max_steps": 20, "precision": 1.0, "tries": 1},
    "information": {"datasets": 2},  # few to read: what is kept of them is the same
    "robustness": {"segments": 8, "ascents": 2, "steps": 2},
    "swap": {"pairs": 2},
}
# Pages are made of rows alone, and take as long as all else: one question's will do.
WITH_PAGE = "memorization"
# Columns that differ between any two runs: when it was, and how long it took.
CLOCKS = r"written|seconds"
OPERATIONS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")


class Died(NamedTuple):
    """How many kills there were, in how many runs, and how many left rows on file."""

    kills: int
    runs: int
    with_rows: int


def life(question, out, cache, last, pause):
    """A process that runs a question and dies ``pause`` s after its ``last`` operation.

    ``last`` counts operations on files under ``out``; with 0 it lives, and leaves
    their number beside the folder.
    """
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=1"
    )
    count, seen = itertools.count(1), 0

    def watch(event, arguments):
        nonlocal seen
        if event in OPERATIONS and is_write(event, arguments, str(out)):
            seen = next(count)
            if seen == last and pause:
                threading.Timer(pause, die).start()
            elif seen == last:
                die()

    import sys

    import jax

    import nfp_jax as nfp
    from nfp_jax import report, running
    from nfp_jax.row_writer import RowWriter

    for option, value in (
        ("jax_compilation_cache_dir", str(cache)),
        ("jax_persistent_cache_min_compile_time_secs", 0),
        ("jax_persistent_cache_min_entry_size_bytes", -1),
    ):
        jax.config.update(option, value)
    # Every two seconds is less often than such a run ends.
    running.RowWriter = functools.partial(RowWriter, seconds=0.02)
    if question != WITH_PAGE:
        report.write_report = lambda *_: None
    settings = {question: SETTINGS[question]} if question in SETTINGS else {}
    names = {"name": question, "question": question, "out": str(out)}
    sys.addaudithook(watch)
    outcome = nfp.run({**names, **SMALL, **settings})
    assert not outcome.failed, outcome
    Path(f"{out}-operations").write_text(str(seen))


def is_write(event, arguments, folder):
    """Whether an event of Python's audit changes what is in a folder."""
    path = arguments[0]
    if not (isinstance(path, str | os.PathLike) and os.fspath(path).startswith(folder)):
        return False
    return event != "open" or bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@functools.cache
def server():
    """Where lives are forked; it ends with this process."""
    context = multiprocessing.get_context("forkserver")
    parts = [
        f"nfp_jax.questions.{name}.{part}"
        for name in questions.names()
        for part in ("run", "figures")
    ]
    context.set_forkserver_preload(["nfp_jax.running", "nfp_jax.report", *parts])
    return context


def lived(*arguments):
    """The exit code of a life."""
    process = server().Process(target=life, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def numbers(out):
    """The rows of a run, but for the clocks."""
    [directory] = [path for path in out.iterdir() if path.is_dir()]
    rows = read_rows(directory)
    return rows.loc[:, ~rows.columns.str.contains(CLOCKS)]


def check(question, out, expected):
    """Asserts that a run which has ended left what a whole one does, and no more."""
    pd.testing.assert_frame_equal(numbers(out), expected, check_exact=True)
    assert not list(out.rglob("*.tmp"))  # of killed writes
    assert not list(out.glob("*/networks/*"))  # of rows that are on file now
    assert len(list(out.glob("*/report.html"))) == (question == WITH_PAGE)


def kill_often(question, folder, cache, *, kills, seed=0):
    """Kills runs of a question so often, and checks what each run left when it ended.

    Args:
      question: whose runs.
      folder: for them.
      cache: the folder of compiled programs, which all questions may share.
      kills: how many; a run that ends before is followed by another.
      seed: of when.

    Returns:
      A ``Died``.

    Raises:
      AssertionError: rows of a run differ from the whole one's, or are lost; it left
        files; a life ended by itself with an error.
    """
    whole, moments = folder / "whole", random.Random(f"{question} {seed}")
    assert lived(question, whole, cache, 0, 0.0) == 0
    expected = numbers(whole)
    operations = int(Path(f"{whole}-operations").read_text())
    killed = with_rows = 0
    for run in itertools.count(1):
        out, code = folder / f"run-{run}", -signal.SIGKILL
        while code:
            last = moments.randint(1, operations) if killed < kills else 0
            pause = moments.choice((0.0, moments.uniform(0.0, 0.05)))
            code = lived(question, out, cache, last, pause)
            assert code in (0, -signal.SIGKILL), code
            killed += code != 0
            with_rows += bool(code and list(out.glob("*/rows/*.parquet")))
        check(question, out, expected)
        if killed >= kills:
            return Died(killed, run, with_rows)


def main():
    """Kills by hand: more often than the tests do."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--question", choices=questions.names(), action="append")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for question in asked.question or questions.names():
            start, place = time.monotonic(), Path(folder) / question
            place.mkdir()
            cache = Path(folder) / "cache"
            died = kill_often(
                question, place, cache, kills=asked.kills, seed=asked.seed
            )
            print(
                f"{question}: {died.kills} kills, {died.with_rows} of them with rows "
                f"on file; {died.runs} runs, all whole in the end; "
                f"{time.monotonic() - start:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
