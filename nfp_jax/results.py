"""The directory of a run: open it, add rows to it, read it back, resume.

``<root>/<name>-<digest>/`` holds ``config.json``, ``rows/*.parquet`` (a shard a
finished piece of work), ``run.json`` (one entry a launch) and what a resumed run need
not do again: for the question of information ``masks/*.npz`` (one a cell, packed), and
where a row takes many networks ``networks/*.jsonl`` (one a cell, a line a network,
until the row is on file). Any number of processes may write at once, and a killed one
does no harm: files appear whole or not at all, shards under names of their own;
networks are appended, and a torn line is skipped. Knows nothing of JAX: a row is a dict
of Python numbers, strings and lists. A row written twice is kept twice on
file, and the later one counts when it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from nfp_jax import questions
from nfp_jax.files import (
    ResultsError,
    locked,
    read_json,
    sweep,
    unique_name,
    write_file,
)
from nfp_jax.grid import BUT_SEEDS, COORDINATES, SEEDS

# Types are fixed for the columns that this package writes, those of questions as their
# cards say, so that a shard where one is empty agrees with the others. A row may lack
# columns of these, and have others.
_COLUMNS = {
    **dict.fromkeys(("pruner", "label", "sees", "settings", "version"), "str"),
    **dict.fromkeys(("select", "resume", "ablation"), "str"),
    **dict.fromkeys(("n", *SEEDS, "kept", "classes", "out_of_budget"), "int"),
    **dict.fromkeys(("sparsity", "noise", "seconds"), "float"),
    **dict.fromkeys(("diverged", "collapsed"), "bool"),
}
_KINDS = {
    "str": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "bytes": pa.binary(),
}
_KINDS |= {f"list[{name}]": pa.list_(kind) for name, kind in _KINDS.items()}
_TYPES = {
    column: _KINDS[kind]
    for columns in (
        _COLUMNS,
        *(questions.card(name).columns for name in questions.names()),
    )
    for column, kind in columns.items()
}
# Label, and what it sees, of the pruners whose rows have no such columns: those written
# before pruners had cards.
_WITHOUT_CARD = {
    "dense": ("dense", ""),
    "random": ("random", "nothing"),
    "magnitude_init": ("magnitude at init", "nothing"),
    "snip": ("SNIP", "labels"),
    "grasp": ("GraSP", "labels"),
    "synflow": ("SynFlow", "nothing"),
    "magnitude_trained": ("magnitude after training", "training"),
    "imp": ("IMP", "training"),
}
# Coordinates that rows have had from the first version on.
_NEEDED = set(COORDINATES) - {"settings", "version"}
_FOLDERS = ("masks", "figures")
_LOG = logging.getLogger(__name__)

# Of the files of figures.
FORMATS = ("svg", "pdf", "png")


def check_formats(formats: Iterable[str]) -> tuple[str, ...]:
    """The formats of files, SVG always among them.

    Raises:
      ResultsError: one of them is unknown.

    >>> check_formats(["png"])
    ('svg', 'png')
    """
    given = set(formats)
    if unknown := sorted(given - set(FORMATS)):
        known = ", ".join(FORMATS)
        raise ResultsError(
            f"formats: {unknown[0]!r} is unknown, expected some of {known}"
        )
    return tuple(name for name in FORMATS if name == "svg" or name in given)


def row_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The row's coordinates, in the order of `COORDINATES`.

    Raises:
      ValueError: a coordinate is missing or None.
    """
    for name in COORDINATES:
        if row.get(name) is None:
            raise ValueError(f"a row needs the coordinate {name!r}, got {dict(row)}")
    return tuple(row[name] for name in COORDINATES)


def read_rows(directory: str | os.PathLike[str]) -> pd.DataFrame:
    """All rows of a run, each once, sorted by `COORDINATES`.

    The coordinates come first; the package's own columns are there even if no shard
    has them. ``written`` is larger in rows that were written later. Integers and
    booleans have pandas' nullable types, so what a shard lacks is null and the rest
    stays an integer; lists come as NumPy arrays.

    Raises:
      ResultsError: there is no such directory. A shard that is damaged, or of another
        program, is warned of and left out: a resumed run does its cells again.
    """
    return _read(Path(directory), None)


def open_results(
    root: str | os.PathLike[str], name: str, digest: str, config: Mapping[str, Any]
) -> Results:
    """The run's directory, made if it is not there: ``<root>/<name>-<digest>``.

    ``config`` is what the digest stands for, and fits in JSON. More seeds or
    sparsities extend the directory, so they don't belong in it.

    Raises:
      ResultsError: the directory can't be written, or holds another configuration.
    """
    root = Path(root)
    made = tuple(folder for folder in (root, *root.parents) if not folder.exists())
    results = Results(root / f"{name}-{digest}", config, made)
    rows, file = results.directory / "rows", results.directory / "config.json"
    try:
        rows.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=rows).close()
    except OSError as error:
        raise ResultsError(f"can't write to {rows}: {error.strerror}") from error
    for folder in (results.directory, rows, *map(results.directory.joinpath, _FOLDERS)):
        sweep(folder)
    if not file.exists():
        write_file(file, results.config_json.encode())
    if differences := _differences(read_json(file), json.loads(results.config_json)):
        raise ResultsError(
            f"{file} is of another configuration: {'; '.join(differences)}"
        )
    return results


@dataclass(frozen=True)
class Results:
    """A run's directory, open for writing; `open_results` makes and checks it."""

    directory: Path
    config: Mapping[str, Any]
    made: tuple[Path, ...] = ()  # the folders above that were not there, deepest first
    launch: str = field(default_factory=lambda: unique_name())

    @property
    def config_json(self) -> str:
        """The configuration as it stands in ``config.json`` and in every shard."""
        return json.dumps(self.config, sort_keys=True, indent=2) + "\n"

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes the rows as one new shard; no rows, no shard.

        Raises:
          ValueError: a row lacks a coordinate, or a value is not of its column's type.
          ResultsError: the file can't be written.
        """
        if rows:
            table = table_of(rows).replace_schema_metadata({"config": self.config_json})
            buffer = pa.BufferOutputStream()
            pq.write_table(table, buffer)
            shard = self.directory / "rows" / f"{unique_name()}.parquet"
            write_file(shard, buffer.getvalue())

    def done(self) -> set[tuple[Any, ...]]:
        """The `row_key` of every row on file: what a resumed run skips."""
        rows = _read(self.directory, COORDINATES)
        return set(rows.itertuples(index=False, name=None))

    def epochs(self) -> dict[tuple[Any, ...], float]:
        """Returns the mean epochs of networks on file, by coordinates but for seeds.

        What others of a cell will take, about.
        """
        rows = _read(self.directory, (*COORDINATES, "epochs"))
        means = rows.groupby(list(BUT_SEEDS), dropna=False)["epochs"].mean().dropna()
        return dict(zip(means.index.tolist(), means.astype(float), strict=True))

    def write_masks(self, cell: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        """Writes the arrays of a cell to ``masks/``, in place of earlier ones.

        Raises:
          ResultsError: the file can't be written.
        """
        path = self.masks_path(cell)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise ResultsError(f"can't write {path}: {error.strerror}") from error
        write_file(path, buffer.getvalue())

    def read_masks(self, cell: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
        """The arrays of a cell, or None where there are none on file.

        Raises:
          ResultsError: the file is damaged.
        """
        path = self.masks_path(cell)
        try:
            with open(path, "rb") as file, np.load(file) as arrays:
                return dict(arrays)
        except FileNotFoundError:
            return None
        # zipfile and numpy raise these, and others, of what is not an archive.
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ResultsError(f"can't read {path}: {error}") from error

    def add_network(self, cell: Mapping[str, Any], network: Mapping[str, Any]) -> None:
        """Keeps what is known of one network of a cell until the cell's row is there.

        Raises:
          ResultsError: the file can't be written.
        """
        path = self.networks_path(cell)
        # First what ends the line before, which may be torn.
        line = ("\n" + json.dumps(network)).encode()
        try:
            path.parent.mkdir(exist_ok=True)
            with open(path, "ab", buffering=0) as file:
                written = file.write(line)  # in one piece: processes may share the file
        except OSError as error:
            raise ResultsError(f"can't write {path}: {error.strerror}") from error
        if written != len(line):
            raise ResultsError(f"can't write {path}: no space for all of a line")

    def read_networks(self, cell: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What was kept of a cell's networks, oldest first.

        A torn line, as a lost machine may leave, counts as not written.

        Raises:
          ResultsError: the file can't be read.
        """
        path = self.networks_path(cell)
        try:
            lines = path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ResultsError(f"can't read {path}: {error.strerror}") from error
        found = []
        for line in lines:
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    def drop_networks(self) -> None:
        """Removes the networks of cells whose rows are on file, where it may."""
        if (self.directory / "networks").is_dir():
            rows: Any = _read(self.directory, COORDINATES).to_dict("records")
            for cell in rows:  # other processes do the same
                with contextlib.suppress(OSError):
                    self.networks_path(cell).unlink(missing_ok=True)

    def masks_path(self, cell: Mapping[str, Any]) -> Path:
        """Returns where the arrays of a cell are, or will be."""
        return self._path("masks", cell, "npz")

    def networks_path(self, cell: Mapping[str, Any]) -> Path:
        """Returns where the networks of a cell are, or will be."""
        return self._path("networks", cell, "jsonl")

    def _path(self, folder: str, cell: Mapping[str, Any], ending: str) -> Path:
        digest = hashlib.sha256(json.dumps(row_key(cell)).encode()).hexdigest()[:16]
        return self.directory / folder / f"{digest}.{ending}"

    @contextlib.contextmanager
    def held(self, *, shared: bool) -> Iterator[None]:
        """Holds the directory, while rows are made: another process waits, and says so.

        Args:
          shared: this process does a share: others that do one go on beside it.
        """

        def waits() -> None:
            _LOG.warning(
                "another process runs in %s: waiting until it ends, for what it leaves "
                "undone; several share a grid by --shard=i/n",
                self.directory,
            )

        with locked(self.directory / ".lock", shared=shared, waits=waits):
            yield

    def discard(self) -> None:
        """Removes the directory if it has neither rows nor anything else of a run.

        With the folders above that were made for it.
        """
        with contextlib.suppress(OSError):
            (self.directory / "rows").rmdir()  # fails where there are rows
            for name in ("run.json", ".run.lock", ".lock", "config.json"):
                (self.directory / name).unlink(missing_ok=True)
            for folder in (self.directory, *self.made):
                folder.rmdir()

    def write_run(self, info: Mapping[str, Any]) -> None:
        """Writes this launch's facts to ``run.json``, beside those of other launches.

        Called again, it replaces what it wrote: once at the start and once at the end
        leave one entry, and a killed launch leaves what was known at its start.

        Raises:
          ResultsError: the file can't be written.
        """
        path, lock = self.directory / "run.json", self.directory / ".run.lock"
        with locked(lock, shared=False, waits=lambda: None):
            runs = read_launches(self.directory)
            runs = [run for run in runs if run.get("launch") != self.launch]
            runs.append({"launch": self.launch, **info})
            write_file(path, (json.dumps({"runs": runs}, indent=2) + "\n").encode())


def read_launches(directory: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Returns what the launches into a directory said of themselves, oldest first.

    A ``run.json`` that is damaged, or of another shape, is warned of and counts as
    empty: rows do not depend on it.
    """
    path = Path(directory) / "run.json"
    if not path.exists():
        return []
    try:
        runs = read_json(path)["runs"]
        if all(isinstance(run, dict) for run in runs):
            return list(runs)
        _warn(path, "its launches are not objects")
    except (ResultsError, KeyError, TypeError) as error:
        _warn(path, error)
    return []


def _warn(path: Path, what: object) -> None:
    _LOG.warning("%s is damaged and left out: %s", path, what)


def _read(directory: Path, columns: Sequence[str] | None) -> pd.DataFrame:
    if not (directory / "rows").is_dir():
        raise ResultsError(f"{directory} holds no results: it has no folder rows/")
    tables = [pa.schema({**_TYPES, "written": pa.int64()}).empty_table()]
    shards = sorted((directory / "rows").glob("*.parquet"))  # oldest first
    for place, shard in enumerate(shards):
        try:
            file = pq.ParquetFile(shard)
            missing = _NEEDED - set(file.schema_arrow.names)
            if missing:
                _warn(shard, f"it has no column {min(missing)!r}, so it is of no run")
                continue
            table = file.read(columns)
            written = pa.array([place] * len(table), pa.int64())
            table = table.append_column("written", written)
            # What does not go together is of another program.
            pa.concat_tables([tables[0], table], promote_options="permissive")
            tables.append(table)
        except (OSError, pa.ArrowException) as error:
            _warn(shard, error)
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise ResultsError(f"the shards of {directory} disagree: {error}") from error
    nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    names = columns or dict.fromkeys([*COORDINATES, *table.column_names])
    rows: pd.DataFrame = table.select(names).to_pandas(types_mapper=nullable.get)
    for i, name in enumerate(("label", "sees") if columns is None else ()):
        before = {pruner: told[i] for pruner, told in _WITHOUT_CARD.items()}
        rows[name] = rows[name].fillna(rows["pruner"].map(before))
    for name in ("settings", "version"):  # of rows from before they were coordinates
        rows[name] = rows[name].fillna("")
    by = list(COORDINATES)
    return rows.drop_duplicates(by, keep="last").sort_values(by, ignore_index=True)


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The rows as columns; a column unknown to `_TYPES` has its values' type."""
    columns = {}
    for row in rows:
        row_key(row)
    for name in dict.fromkeys(name for row in rows for name in row):
        values: list[Any] = [row.get(name) for row in rows]
        # Arrays and their scalars, of NumPy or JAX, know how to be plain.
        plain = [v.tolist() if hasattr(v, "tolist") else v for v in values]
        try:
            columns[name] = pa.array(plain)
            if name in _TYPES:  # a cast refuses 1.5 for an integer
                columns[name] = columns[name].cast(_TYPES[name])
        except pa.ArrowException as error:
            raise ValueError(f"column {name!r} of a row: {error}") from error
    return pa.table(columns)


def _differences(stored: Any, asked: Any, path: str = "") -> list[str]:
    if isinstance(stored, dict) and isinstance(asked, dict):
        pairs = {
            key: (stored.get(key, "absent"), asked.get(key, "absent"))
            for key in sorted(stored.keys() | asked.keys())
        }
        parts = (_differences(*pair, f"{path}.{key}") for key, pair in pairs.items())
        return [line for part in parts for line in part]
    if stored == asked:
        return []
    return [f"{path[1:]} is {stored!r} there, {asked!r} here"]
