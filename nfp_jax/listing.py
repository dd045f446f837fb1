"""What a collection reads: the directories of its parts, in ``collection.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nfp_jax.files import ResultsError, read_json, write_file

_COLLECTION = "collection.json"


def write_collection(
    root: str | os.PathLike[str],
    name: str,
    digest: str,
    parts: Mapping[str, os.PathLike[str]],
    shown: Sequence[str] = (),
    *,
    pruners: Sequence[str] = (),
    failed: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Writes which directories a collection reads; returns its own.

    ``<root>/<name>-<digest>/collection.json`` has the parts' directories by name,
    relative to it, and the names of those whose claims are shown and not judged. Of
    the card of a pruner it has the pruners, that one first, and of every collection
    what failed, by part.

    Raises:
      ResultsError: the directory can't be written.
    """
    directory = Path(root) / f"{name}-{digest}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(f"can't write to {directory}: {error.strerror}") from error
    relative = {part: os.path.relpath(path, directory) for part, path in parts.items()}
    content: dict[str, Any] = {
        "parts": relative,
        "shown": [part for part in shown if part in parts],
    }
    if pruners:
        content["pruners"] = list(pruners)
    if failed:
        content["failed"] = {part: list(lines) for part, lines in failed.items()}
    text = json.dumps(content, indent=2) + "\n"
    write_file(directory / _COLLECTION, text.encode())
    return directory


class Listed(NamedTuple):
    """What a collection reads.

    Attributes:
      parts: the parts' directories by name.
      shown: the names of those whose claims are shown and not judged.
      pruners: of the card of a pruner its name, and those beside it; else none.
      failed: what failed in the last launch, a line each, by part.
    """

    parts: dict[str, Path]
    shown: tuple[str, ...]
    pruners: tuple[str, ...] = ()
    failed: Mapping[str, Sequence[str]] = {}


def read_collection(directory: str | os.PathLike[str]) -> Listed | None:
    """The directories of a collection's parts; None: it is no collection.

    Raises:
      ResultsError: the file that lists them is damaged.
    """
    file = Path(directory) / _COLLECTION
    if not file.exists():
        return None
    try:
        content = read_json(file)
        parts, shown = dict(content["parts"]), tuple(content.get("shown", ()))
        pruners, failed = tuple(content.get("pruners", ())), content.get("failed", {})
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"can't read {file}: it has no parts") from error
    paths = {part: Path(directory) / path for part, path in parts.items()}
    return Listed(paths, shown, pruners, failed)
