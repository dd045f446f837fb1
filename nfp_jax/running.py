"""One experiment, or several, from specification to rows and page: ``nfp.run``.

What ``launch.py`` does, for a notebook or a script: the cells that have no row yet are
done, rows go to ``<out>/<name>-<hash>/``, and the page is made. Depends on experiments,
report, collection and what these depend on.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime
import importlib.metadata
import itertools
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import logging

from nfp_jax import results
from nfp_jax.cluster import Place
from nfp_jax.fields import SpecError
from nfp_jax.grid import Cell, share
from nfp_jax.listing import read_collection, write_collection
from nfp_jax.row_writer import RowWriter, UnwrittenError
from nfp_jax.spec import Collection, Spec

if TYPE_CHECKING:
    import pandas as pd

    from nfp_jax.experiments import Failure

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "nfp-jax")


class Run(NamedTuple):
    """What became of an experiment in this process.

    Attributes:
      directory: of its results; of several experiments that of their collection.
      page: the page, where one was made.
      cells: how many rows the grid has.
      new: how many of them this process had to do.
      missing: how many other processes still owe.
      failures: the cells that raised, and what; and those whose rows are not on file.
      parts: of several experiments each one's run, by name.
      refused: of several experiments the errors of those that could not run, by name.
      problems: what else could not be written, once rows had been made.
    """

    directory: Path
    page: Path | None
    cells: int
    new: int
    missing: int
    failures: list[Failure]
    parts: Mapping[str, Run] = {}
    refused: Mapping[str, str] = {}
    problems: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether a cell or a whole part failed, or a file could not be written."""
        return bool(self.failures or self.refused or self.problems)


OnEnd = Callable[[str, "Run | Exception"], None]


def run(
    what: Spec | Collection | Any,
    *,
    place: Place | None = None,
    progress: bool = False,
    on_end: OnEnd | None = None,
    formats: Sequence[str] = ("svg",),
) -> Run:
    """Runs what is not on file yet of an experiment, or of several; makes the page.

    The same call again does what is missing, no more. For one CPU device a core call
    ``nfp_jax.ensemble.use_all_cores()`` before JAX is first used.

    Args:
      what: a ``Spec`` or ``Collection``, or a configuration of either: a nested mapping
        or a ``ConfigDict``, as the files of ``configs/`` return it.
      place: this process among several; ``None``: it is alone.
      progress: whether to show a bar.
      on_end: called with the name of each of several experiments (of one: "") and its
        ``Run``, or the error that refused it, as soon as it has ended.
      formats: of figures, some of "svg", "pdf" and "png"; SVG is always written.

    Returns:
      A ``Run``. A cell that raises is among its ``failures``; the others are on file.

    Raises:
      SpecError: a wrong field (names it), an unknown name, an ``n`` that the set has
        not.
      ResultsError: the directory can't be written, or is of another specification;
        a format is unknown.
      DataError: the set can't be read or downloaded. Of several experiments, all of
        these are among ``refused``, but for wrong fields and names.
    """
    from nfp_jax import experiments

    formats = results.check_formats(formats)
    whole = as_spec(what)
    place = place or Place(0, 1)
    specs = whole.parts if isinstance(whole, Collection) else {"": whole}
    for spec in specs.values():
        experiments.check_names(spec)
    if isinstance(whole, Collection):
        return _run_parts(whole, place, progress, on_end, formats)
    outcome = _run_one(whole, place, progress, formats)
    if on_end:
        on_end("", outcome)
    return outcome


def as_spec(what: Spec | Collection | Any) -> Spec | Collection:
    """Returns the specification, or collection, of a configuration.

    Raises:
      SpecError: a wrong field; names it.

    >>> as_spec({"seed": 1}).seed
    1
    """
    if isinstance(what, (Spec, Collection)):
        return what
    if not (isinstance(what, Mapping) or hasattr(what, "to_dict")):
        raise SpecError(f"the configuration is {what!r}, expected a group of fields")
    if "parts" in what:
        return Collection.from_config(what)
    return Spec.from_config(what)


def read(directory: str | os.PathLike[str]) -> pd.DataFrame:
    """Returns the rows of a run, a ``pandas.DataFrame`` with a row a network.

    Of a collection those of all parts, with their names in the column ``part``.

    Raises:
      ResultsError: the directory holds neither a run nor a collection.
    """
    import pandas as pd

    listed = read_collection(directory)
    if listed is None:
        return results.read_rows(directory)
    tables = [
        results.read_rows(path).assign(part=name) for name, path in listed.parts.items()
    ]
    return pd.concat(tables, ignore_index=True)


def _run_parts(
    together: Collection,
    place: Place,
    progress: bool,
    on_end: OnEnd | None,
    formats: Sequence[str],
) -> Run:
    """Runs the parts one after the other; makes the page where all rows are there."""
    from nfp_jax import collection, data
    from nfp_jax.engine import programs

    parts: dict[str, Run] = {}
    refused: dict[str, str] = {}
    for name, spec in together.parts.items():
        outcome: Run | Exception
        try:
            outcome = parts[name] = _run_one(spec, place, progress, formats)
        except (data.DataError, SpecError, results.ResultsError) as error:
            outcome, refused[name] = error, str(error)
        if on_end:
            on_end(name, outcome)
        programs.free()  # the next part needs none of them
    directories = {name: one.directory for name, one in parts.items()}
    missing = sum(one.missing for one in parts.values())
    directory, page = Path(together.out), None
    if parts and not missing:
        directory = write_collection(
            together.out,
            together.name,
            together.digest(),
            directories,
            together.shown,
            pruners=_pruners_of(together),
            failed=_failed(parts, refused),
        )
        page = collection.write_page(directory, formats)
    problems = (x for one in parts.values() for x in one.problems)
    return Run(
        directory,
        page,
        sum(one.cells for one in parts.values()),
        sum(one.new for one in parts.values()),
        missing,
        [failure for one in parts.values() for failure in one.failures],
        parts,
        refused,
        tuple(problems),
    )


def _pruners_of(together: Collection) -> list[str]:
    """Of the card of a pruner its name, and those of its grids; else none."""
    from nfp_jax import experiments

    if not together.pruner:
        return []
    cells = itertools.chain(*map(experiments.all_cells, together.parts.values()))
    return list(dict.fromkeys([together.pruner, *(cell["pruner"] for cell in cells)]))


def _failed(
    parts: Mapping[str, Run], refused: Mapping[str, str]
) -> dict[str, list[str]]:
    """What failed in each part, a line each: the part itself, or a pruner's cells."""
    failed = {name: [f"not run: {error}"] for name, error in refused.items()}
    for name, one in parts.items():
        counts = collections.Counter(
            (failure.cell["pruner"], failure.error) for failure in one.failures
        )
        if counts:
            failed[name] = [
                f"{pruner}: {count} of its rows failed: {error}"
                for (pruner, error), count in counts.items()
            ]
    return failed


def _run_one(spec: Spec, place: Place, progress: bool, formats: Sequence[str]) -> Run:
    """Does this process's share of an experiment; the last to end makes its page."""
    from nfp_jax import data, experiments

    cells = experiments.all_cells(spec)
    store = results.open_results(spec.out, spec.name, spec.digest(), spec.identity())
    try:
        with store.held(shared=place.processes > 1):
            return _run_held(spec, place, progress, cells, store, formats)
    except (SpecError, data.DataError):
        store.discard()  # a start that is refused leaves nothing
        raise


def _run_held(
    spec: Spec,
    place: Place,
    progress: bool,
    cells: list[Cell],
    store: results.Results,
    formats: Sequence[str],
) -> Run:
    """The same, where no other process does the same cells."""
    import jax

    from nfp_jax import experiments, report
    from nfp_jax.engine import programs

    through = experiments.through_training(spec)
    mine = share(cells, place.process, place.processes, through=through)
    todo = _missing(mine, store)
    logging.info(
        "%d of %d rows to do in %s%s",
        len(todo),
        len(cells),
        store.directory,
        f"; the share of {place} is {len(mine)}" if place.processes > 1 else "",
    )
    failures: list[Any] = []
    problems: list[str] = []
    if todo:
        facts, before = _facts(spec, place, jax.local_devices()), programs.so_far()
        store.write_run(facts)
        unwritten: list[Any] = []
        try:
            with RowWriter(store) as writer:
                failures, stats = experiments.run(
                    spec, todo, writer.add, progress=progress, store=store
                )
        except UnwrittenError as error:
            keys, text = set(map(results.row_key, error.rows)), str(error.error)
            unwritten = [
                experiments.Failure(cell, f"its row is not on file: {text}")
                for cell in todo
                if results.row_key(cell) in keys
            ]
        made = programs.so_far().since(before)
        logging.info(
            "%d programs compiled in %.1f s, %d of them from the cache on disk", *made
        )
        facts |= {"programs": made.programs, "programs_from_cache": made.from_cache}
        facts |= {**stats._asdict(), "failures": len(failures)}
        failures += unwritten
        with _noting(problems):
            store.write_run(facts)
    store.drop_networks()
    missing = len(_missing(cells, store)) if place.processes > 1 else 0
    page = None
    if not missing:
        with _noting(problems):
            page = report.write_report(store.directory, formats)
    return Run(
        store.directory,
        page,
        len(cells),
        len(todo),
        missing,
        failures,
        problems=tuple(problems),
    )


@contextlib.contextmanager
def _noting(problems: list[str]) -> Iterator[None]:
    """Notes what can't be written, where rows are there and nothing is to be lost."""
    try:
        yield
    except (results.ResultsError, OSError) as error:
        problems.append(str(error))


def _missing(cells: list[Cell], store: results.Results) -> list[Cell]:
    done = store.done()
    return [cell for cell in cells if results.row_key(cell) not in done]


def _facts(spec: Spec, place: Place, devices: list[Any]) -> dict[str, Any]:
    """What is known of a launch before it runs."""
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "grid": dataclasses.asdict(spec.grid),
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "device": f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})",
        "processor": processor(),
        "host": platform.node(),
        "process": str(place),
    }


def _commit() -> str | None:
    """The commit of the checkout that this file is part of; None: it is installed."""
    root = Path(__file__).parent.parent
    if not (root / "launch.py").exists():
        return None
    git = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return git.stdout.strip() or None


def _version(package: str) -> str | None:
    """Its version; None where it runs from a checkout that is not installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def processor() -> str:
    """Returns what this machine computes with, and on how many cores."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        if found := re.search(r"^model name\s*: (.+)$", text, re.MULTILINE):
            name = found[1].strip()
    return f"{os.cpu_count()} cores, {name}"
