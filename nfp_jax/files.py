"""Files that appear whole or not at all, under names that nobody else makes."""

import contextlib
import errno
import itertools
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_SHARDS = itertools.count()
# As `unique_name` makes them.
_TEMPORARY = re.compile(r"\.(?P<time>\d+)-(?P<host>.+)-(?P<pid>\d+)-\d+\.tmp")
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


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


def sweep(directory: Path) -> None:
    """Removes the temporary files that killed writes left in a directory.

    Those of processes that live stay: on this machine by their number, and on others
    for a day.
    """
    for file in directory.glob(".*.tmp"):
        found = _TEMPORARY.fullmatch(file.name)
        if not found:
            continue
        if found["host"] == socket.gethostname():
            old = not _lives(int(found["pid"]))
        else:
            old = time.time_ns() - int(found["time"]) > 24 * 3600 * 10**9
        if old:
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    """Whether a process of this machine lives."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


@contextlib.contextmanager
def locked(path: Path, *, shared: bool, waits: Callable[[], None]) -> Iterator[None]:
    """Holds a lock among processes, which ends with the process that holds it.

    Args:
      path: of the lock's file; it is made, and stays.
      shared: whether others may hold it, too, if they ask for it as shared.
      waits: called once if another holds it, before waiting for it.

    Where the file system has no locks, nothing is held.
    """
    import fcntl  # not on Windows, where results can still be read

    try:
        file = open(path, "a")
    except OSError as error:
        raise ResultsError(f"can't write {path}: {error.strerror}") from error
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with file:  # closing it gives the lock back
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            waits()
            fcntl.flock(file, kind)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise ResultsError(f"can't lock {path}: {error.strerror}") from error
        yield


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
