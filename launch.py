"""Runs an experiment: configuration, cells, networks, rows, table, figures, page.

    python launch.py --config=configs/gaussian.py
    python launch.py --config=configs/gaussian.py:smoke --config.grid.n="(200, 400)"
    python launch.py --config=configs/paper.py  # several experiments, one page

The same command again skips the rows on file. Several processes share the cells of one
results directory: ``--shard=i/n``, ``--cluster``, or ``--coordinator`` and the two
flags with it. Exit code 0: all rows, or all of this process's share, are there; 1: some
cells failed, or rows could not be written, the others are on file; 2: bad input,
nothing was run; 130 and 143: interrupted, by Ctrl-C and SIGTERM.
"""

import ast
import functools
import logging
import os
import re
import signal
import sys
from typing import Any

# Read when numpy is imported. Networks and masks share the cores among themselves;
# threads for the small matrices of each would only be in their way.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from absl import app, flags
from ml_collections import config_flags

from nfp_jax import ensemble, results
from nfp_jax.cluster import Place, UnreachableError, find_place
from nfp_jax.fields import SpecError
from nfp_jax.running import Run, as_spec, run
from nfp_jax.spec import check_field

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file(
    "config", None, "configs/NAME.py, with a preset as NAME.py:smoke", lock_config=True
)
flags.DEFINE_bool("progress", None, "show a progress bar; default: on a terminal")
flags.DEFINE_string("shard", None, "i/n: work share i of n, from 0")
flags.DEFINE_bool("cluster", False, "let JAX recognize Slurm, GKE or a TPU pod")
flags.DEFINE_string("coordinator", None, "host:port where process 0 listens")
flags.DEFINE_integer("num_processes", None, "how many processes there are")
flags.DEFINE_integer("process_id", None, "which of them this is, from 0")
flags.DEFINE_float("timeout", 120.0, "seconds to wait for the other processes")


def main(argv: list[str]) -> int:
    """Runs the experiment of ``--config`` and returns the exit code."""
    if len(argv) > 1:
        raise SpecError(f"unexpected argument {argv[1]!r}, expected flags only")
    if FLAGS.config is None:
        raise SpecError("--config is missing, as in --config=configs/gaussian.py")
    spec = as_spec(FLAGS.config)
    ensemble.use_all_cores()
    # JAX logs every kind of accelerator that it looks for and does not find.
    logging.getLogger("jax").setLevel(logging.WARNING)
    place = find_place(
        shard=FLAGS.shard,
        coordinator=FLAGS.coordinator,
        num_processes=FLAGS.num_processes,
        process_id=FLAGS.process_id,
        cluster=FLAGS.cluster,
        timeout=FLAGS.timeout,
    )
    ensemble.use_compilation_cache()

    from nfp_jax import data

    progress = sys.stderr.isatty() if FLAGS.progress is None else FLAGS.progress
    tell = functools.partial(_tell, place)
    try:
        outcome = run(spec, place=place, progress=progress, on_end=tell)
    except data.DataError as error:
        raise SpecError(str(error)) from error
    if outcome.parts and outcome.page:
        from nfp_jax import collection

        print(f"\n{collection.claims_text(collection.read_claims(outcome.directory))}")
        print(f"\nPage: {outcome.page}")
    return 1 if outcome.failed else 0


def _tell(place: Place, name: str, outcome: Run | Exception) -> None:
    """Prints what became of an experiment, or of a part."""
    if isinstance(outcome, Exception):
        print(f"failed: part {name!r}: {outcome}", file=sys.stderr)
        return
    from nfp_jax import report

    for failure in outcome.failures:
        print(f"failed: {failure.cell}: {failure.error}", file=sys.stderr)
    for problem in outcome.problems:
        print(f"failed: {problem}", file=sys.stderr)
    directory, cells = outcome.directory, outcome.cells
    if outcome.missing:
        done = outcome.new - len(outcome.failures)
        print(
            f"share {place}: {done} new rows; {outcome.missing} of {cells} rows of "
            "this grid are missing. Whoever ends last makes the page; by hand: "
            f"python -m nfp_jax.report {directory}"
        )
        return
    print(report.table(results.read_rows(directory)))
    print(
        f"\n{cells} rows of this grid, {outcome.new} of them new. Page: {outcome.page}"
    )


# An option of the optimizer: a configuration names none, so the flags know none.
_OPTION = re.compile(
    r"--?config\.(?P<group>(parts\.\w+\.)?train\.options)\.(?P<name>\w+)=(?P<value>.*)"
)


def _value(text: str) -> Any:
    """What a text on the command line stands for: a number, True, None, or itself."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def _parse(argv: list[str]) -> list[str]:
    """The flags; a mistake in them, or in the configuration file, is one line."""
    for argument in argv[1:]:
        if field := re.match(r"--?config\.([\w.]+)", argument):
            check_field(field[1])
    options = [option for x in argv[1:] if (option := _OPTION.fullmatch(x))]
    argv = [x for x in argv if not _OPTION.fullmatch(x)]
    whole, sys.argv = sys.argv, argv  # ml_collections looks there, too
    try:
        rest = FLAGS(argv)
        # A file that could not be loaded raises only now, when it is looked into.
        hasattr(FLAGS.config, "name")
        for option in options:
            group = FLAGS.config
            for name in option["group"].split("."):
                group = group[name]
            with group.unlocked():
                group[option["name"]] = _value(option["value"])
    except Exception as error:  # a configuration file may raise anything
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise SpecError(f"--config: {lines[-1] if lines else repr(error)}") from error
    finally:
        sys.argv = whole
    return list(rest)


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, so that a scheduler's kill writes the rows done as Ctrl-C does."""


def _terminate(signum: int, frame: Any) -> None:
    raise _TerminatedError


def _run() -> int:
    """Runs ``main`` under absl and returns the exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app.run(main, flags_parser=_parse)
    except (SpecError, results.ResultsError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        if isinstance(error, UnreachableError):
            os._exit(2)  # a thread still waits for the others
        return 2
    except KeyboardInterrupt as error:
        print("interrupted; the rows done are on file", file=sys.stderr, flush=True)
        number = signal.SIGINT
        if isinstance(error, _TerminatedError):
            number = signal.SIGTERM
        # Networks are still training, in threads that can't be ended.
        os._exit(128 + number)
    return 0


if __name__ == "__main__":
    sys.exit(_run())
