"""Files that appear whole or not at all, under names that nobody else makes."""

import contextlib
import itertools
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

_SHARDS = itertools.count()


class ResultsError(Exception):
    """Results can't be written or read; the message names the path."""


def write_file(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all: a temporary file, fsync, then a rename."""
    temporary = path.with_name(f".{unique_name()}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ResultsError(f"can't write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):  # on a file system that is read-only now
            temporary.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """What the JSON file holds; a missing or damaged one is a `ResultsError`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"can't read {path}: {error}") from error


def unique_name() -> str:
    """Returns a file name that no other process or thread makes; they sort by time."""
    host, shard = socket.gethostname(), next(_SHARDS)
    return f"{time.time_ns()}-{host}-{os.getpid()}-{shard:06}"
