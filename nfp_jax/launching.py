"""Launches an experiment from flags: ``launch.py`` and ``nfp run``.

The same command again skips the rows on file. Several processes share the cells of one
results directory: ``--shard=i/n``, ``--cluster``, or ``--coordinator`` and the two
flags with it. Exit code 0: all rows, or all of this process's share, are there; 1: some
cells failed, or rows could not be written, the others are on file; 2: bad input,
nothing was run; 130 and 143: interrupted, by Ctrl-C and SIGTERM.

`nfp_jax.command` sets the environment before it imports this. JAX is loaded when an
experiment is run.
"""

from __future__ import annotations

import ast
import functools
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from absl import app, flags
from ml_collections import config_flags

from nfp_jax import configurations
from nfp_jax.fields import SpecError
from nfp_jax.spec import check_field

if TYPE_CHECKING:
    from nfp_jax.cluster import Place
    from nfp_jax.running import Run

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file(
    "config", None, "a name or a file; with a preset as NAME:smoke", lock_config=True
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
    from nfp_jax import data, ensemble
    from nfp_jax.cluster import find_place
    from nfp_jax.running import as_spec, run

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
    from nfp_jax import report, results

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


def _found(arguments: Sequence[str]) -> Iterator[str]:
    """The arguments, with the file of a configuration for its name."""
    is_config = False
    for argument in arguments:
        flag, equals, text = argument.partition("=")
        if is_config:
            yield configurations.find(argument)
        elif equals and flag in ("--config", "-config"):
            yield f"{flag}={configurations.find(text)}"
        else:
            yield argument
        is_config = argument in ("--config", "-config") and not is_config


def _parse(argv: list[str]) -> list[str]:
    """The flags; a mistake in them, or in the configuration file, is one line."""
    argv = [argv[0], *_found(argv[1:])]
    configurations.make_importable()
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


def launch(argv: Sequence[str]) -> int:
    """Runs the experiment of ``--config`` and returns the exit code.

    Args:
      argv: the program's name and its flags.
    """
    from nfp_jax.cluster import UnreachableError
    from nfp_jax.results import ResultsError

    signal.signal(signal.SIGTERM, _terminate)
    try:
        app.run(main, argv=list(argv), flags_parser=_parse)
    except (SpecError, ResultsError) as error:
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
