"""Runs an experiment: configuration, cells, networks, rows, table, figures, page.

    python launch.py --config=configs/gaussian.py
    python launch.py --config=configs/gaussian.py:smoke --config.grid.n="(200, 400)"
    python launch.py --config=configs/paper.py  # several experiments, one page

The same command again skips the rows on file. Several processes share the cells of one
results directory: ``--shard=i/n``, ``--cluster``, or ``--coordinator`` and the two
flags with it. Exit code 0: all rows, or all of this process's share, are there; 1: some
cells failed, the others are on file; 2: bad input, nothing was run.
"""

import contextlib
import dataclasses
import datetime
import gc
import importlib.metadata
import logging
import os
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from nfp_jax import ensemble, results
from nfp_jax.cluster import Place, UnreachableError, find_place
from nfp_jax.spec import Cell, Collection, Spec, SpecError, check_field, share

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
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "nfp-jax")


def main(argv: list[str]) -> int:
    """Runs the experiment of ``--config`` and returns the exit code."""
    if len(argv) > 1:
        raise SpecError(f"unexpected argument {argv[1]!r}, expected flags only")
    if FLAGS.config is None:
        raise SpecError("--config is missing, as in --config=configs/gaussian.py")
    together = None
    if "parts" in FLAGS.config:
        together = Collection.from_config(FLAGS.config)
    specs = together.parts if together else {"": Spec.from_config(FLAGS.config)}
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

    import jax

    from nfp_jax import data, experiments

    for spec in specs.values():
        experiments.check_names(spec)
    outcomes = {}
    for name, spec in specs.items():
        try:
            outcomes[name] = _run_spec(spec, place)
        except (data.DataError, SpecError, results.ResultsError) as error:
            if together is None:
                raise SpecError(str(error)) from error
            print(f"failed: part {name!r}: {error}", file=sys.stderr)
        if together:
            # The next part needs none of its programs, and of some thousands the system
            # can map no more.
            jax.clear_caches()
            gc.collect()  # what cycles hold, too
    failed = len(outcomes) < len(specs) or any(x.failures for x in outcomes.values())
    if together and outcomes and not any(x.missing for x in outcomes.values()):
        _write_together(together, outcomes)
    return 1 if failed else 0


def _write_together(together: Collection, outcomes: dict[str, "_Outcome"]) -> None:
    """Makes the page of a collection from the parts that ran, and shows its claims."""
    from nfp_jax import collection

    parts = {name: outcome.directory for name, outcome in outcomes.items()}
    directory = results.write_collection(
        together.out, together.name, together.digest(), parts, together.shown
    )
    page = collection.write_page(directory)
    print(f"\n{collection.claims_text(collection.read_claims(directory))}")
    print(f"\nPage: {page}")


class _Outcome(NamedTuple):
    """What became of an experiment in this process."""

    directory: Path
    failures: int
    missing: int  # rows that other processes still owe


def _run_spec(spec: Spec, place: Place) -> _Outcome:
    """Does this process's share of an experiment; the last to end makes its page."""
    import jax

    from nfp_jax import experiments, report

    store = results.open_results(spec.out, spec.name, spec.digest(), spec.identity())
    cells = experiments.all_cells(spec)
    mine = share(cells, *place, in_training=experiments.TRAINED)
    todo = _missing(mine, store)
    absl_logging.info(
        "%d of %d rows to do in %s%s",
        *(len(todo), len(cells), store.directory),
        f"; the share of {place} is {len(mine)}" if place.processes > 1 else "",
    )
    failures: list[Any] = []
    if todo:
        facts = _facts(spec, place, jax.local_devices())
        store.write_run(facts)
        progress = sys.stderr.isatty() if FLAGS.progress is None else FLAGS.progress
        with results.RowWriter(store) as writer:
            failures, stats = experiments.run(
                spec, todo, writer.add, progress=progress, store=store
            )
        store.write_run({**facts, **stats._asdict(), "failures": len(failures)})
    store.drop_networks()

    for failure in failures:
        print(f"failed: {failure.cell}: {failure.error}", file=sys.stderr)
    missing = len(_missing(cells, store)) if place.processes > 1 else 0
    if missing:
        print(
            f"share {place}: {len(todo) - len(failures)} new rows; {missing} of "
            f"{len(cells)} rows of this grid are missing. Whoever ends last makes the "
            f"page; by hand: python -m nfp_jax.report {store.directory}"
        )
        return _Outcome(store.directory, len(failures), missing)
    page = report.write_report(store.directory)
    print(report.table(results.read_rows(store.directory)))
    print(f"\n{len(cells)} rows of this grid, {len(todo)} of them new. Page: {page}")
    return _Outcome(store.directory, len(failures), 0)


def _missing(cells: list[Cell], store: results.Results) -> list[Cell]:
    done = store.done()
    return [cell for cell in cells if results.row_key(cell) not in done]


def _facts(spec: Spec, place: Place, devices: list[Any]) -> dict[str, Any]:
    """What is known of a launch before it runs."""
    git = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
        "grid": dataclasses.asdict(spec.grid),
        "commit": git.stdout.strip() or None,
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})",
        "processor": _processor(),
        "host": platform.node(),
        "process": str(place),
    }


def _processor() -> str:
    """What this machine computes with, and on how many cores."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        if found := re.search(r"^model name\s*: (.+)$", text, re.MULTILINE):
            name = found[1].strip()
    return f"{os.cpu_count()} cores, {name}"


def _parse(argv: list[str]) -> list[str]:
    """The flags; a mistake in them, or in the configuration file, is one line."""
    for argument in argv[1:]:
        if field := re.match(r"--?config\.([\w.]+)", argument):
            check_field(field[1])
    try:
        rest = FLAGS(argv)
        # A file that could not be loaded raises only now, when it is looked into.
        hasattr(FLAGS.config, "name")
    except Exception as error:  # a configuration file may raise anything
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise SpecError(f"--config: {lines[-1] if lines else repr(error)}") from error
    return list(rest)


def _terminate(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt  # so that a scheduler's kill writes the rows done


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
    except KeyboardInterrupt:
        print("interrupted; the rows done are on file", file=sys.stderr, flush=True)
        os._exit(130)  # networks are still training, in threads that can't be ended
    return 0


if __name__ == "__main__":
    sys.exit(_run())
