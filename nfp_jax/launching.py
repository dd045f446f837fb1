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
import importlib.machinery
import itertools
import logging
import os
import re
import signal
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from nfp_jax import configurations
from nfp_jax.fields import SpecError
from nfp_jax.spec import check_field

if TYPE_CHECKING:
    from nfp_jax.cluster import Place
    from nfp_jax.running import Run

_MISSING = "--config is missing, as in --config=configs/gaussian.py"
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
flags.DEFINE_list("formats", ["svg"], "of figures: some of svg,pdf,png")
flags.DEFINE_float("timeout", 120.0, "seconds to wait for the other processes")


def main(argv: list[str]) -> int:
    """Runs the experiment of ``--config`` and returns the exit code."""
    if len(argv) > 1:
        raise SpecError(f"unexpected argument {argv[1]!r}, expected flags only")
    if FLAGS.config is None:
        raise SpecError(_MISSING)
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
        outcome = run(
            spec, place=place, progress=progress, on_end=tell, formats=FLAGS.formats
        )
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


# What ml_collections can't set: an option of the optimizer, since a configuration names
# none, and fields that are called as methods of ConfigDict are, as data.values is.
_METHODS = "|".join(name for name in dir(ConfigDict) if not name.startswith("_"))
_OPTION = re.compile(
    rf"--?config\.(?P<group>(parts\.\w+\.)?train\.options|[\w.]+(?=\.({_METHODS})=))"
    r"\.(?P<name>\w+)=(?P<value>.*)",
    re.DOTALL,
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
    log = logging.getLogger("absl")
    log.addFilter(_is_news)
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
    # A configuration file may raise anything, and end the program; so does --help.
    except (Exception, SystemExit) as error:
        _check_file(argv)
        if isinstance(error, SystemExit):
            raise
        raise SpecError(f"--config: {str(error) or repr(error)}") from error
    finally:
        sys.argv = whole
        log.removeFilter(_is_news)
    if not _has_fields(FLAGS.config):
        _check_file(argv)
    return list(rest)


def _check_file(argv: list[str]) -> None:
    """Raises where the file of --config is to blame: ml_collections says it less well.

    Raises:
      SpecError: names the file, which raises, or returns no fields, or not a field that
        a flag sets.
    """
    files = [x.partition("=")[2] for x in argv if re.match(r"--?config=", x)]
    files += [
        x for flag, x in itertools.pairwise(argv) if flag in ("--config", "-config")
    ]
    if not files:
        if any(re.match(r"--?config\.", x) for x in argv):
            raise SpecError(_MISSING)
        return
    path, *preset = files[-1].split(":", 1)
    loader = importlib.machinery.SourceFileLoader("config_file", path)
    module = types.ModuleType(loader.name)
    try:
        loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise SpecError("it has no function get_config")
        config = module.get_config(*preset)
    except SpecError as error:
        raise SpecError(f"--config: {path}: {error}") from error
    except OSError as error:
        raise SpecError(f"--config: {error}") from error
    except (Exception, SystemExit) as error:
        what = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise SpecError(f"--config: {path} raises {what}") from error
    if not _has_fields(config):
        raise SpecError(
            f"--config: get_config of {path} returns {config!r}, expected a "
            "ConfigDict, as that of configs/gaussian.py"
        )
    for argument in argv:
        if field := re.match(r"--?config\.([\w.]+)", argument):
            group, names = config, field[1].split(".")
            for depth, name in enumerate(names):
                if not _has_fields(group):
                    break
                if name not in group:
                    absent = ".".join(names[: depth + 1])
                    known = ", ".join(map(str, group))
                    raise SpecError(
                        f"--config.{absent}: {path} has no such field; known: {known}"
                    )
                group = group[name]


def _is_news(record: logging.LogRecord) -> bool:
    """Not what ml_collections says of a configuration that is None: we refuse it."""
    return "get_config() returned None" not in str(record.msg)


def _has_fields(config: Any) -> bool:
    return isinstance(config, (Mapping, ConfigDict))


def _one_line(error: Exception, most: int = 800) -> str:
    """What an error says, in one line, and not the whole of a value that is long."""
    line = " ".join(str(error).split())
    line = "".join(x if x.isprintable() else ascii(x)[1:-1] for x in line)
    if len(line) <= most:
        return line
    return f"{line[: most // 2]} […] {line[-most // 2 :]}"


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
        print(f"error: {_one_line(error)}", file=sys.stderr, flush=True)
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
