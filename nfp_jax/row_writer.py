"""Rows on their way to the directory of a run: from any thread, a shard at a time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from nfp_jax.results import Results, ResultsError, row_key, table_of

_LOG = logging.getLogger(__name__)


class UnwrittenError(ResultsError):
    """Rows that were computed are not on file.

    Attributes:
      rows: all of them.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], error: Exception) -> None:
        super().__init__(f"{len(rows)} rows are not on file: {error}")
        self.rows, self.error = tuple(rows), error


class RowWriter:
    """Takes rows from any thread and writes a shard of them every few seconds.

    What can't be written is kept in memory, warned of once, and tried again. Leaving
    the ``with`` block writes the rest, also on an exception or Ctrl-C. A process that
    is killed (SIGTERM too, unless handled) loses at most the rows of the last
    ``seconds``::

        with RowWriter(results) as writer:
            writer.add(row)

    Args:
      results: where rows go.
      seconds: between two shards.
      tries: how often the rest is tried on leaving, one second apart.

    Raises:
      UnwrittenError: on leaving, rows that can't be written; has them. Where another
        error leaves the block they are logged, and that error goes on.
    """

    def __init__(
        self, results: Results, *, seconds: float = 2.0, tries: int = 3
    ) -> None:
        self._results = results
        self._seconds, self._tries = seconds, tries
        self._rows: list[Mapping[str, Any]] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._flush_often, daemon=True)

    def add(self, row: Mapping[str, Any]) -> None:
        """Takes one row.

        Raises:
          ValueError: as `Results.write`; the row is not taken.
        """
        table_of([row])  # refused here, where the caller is, and not with its neighbors
        with self._lock:
            self._rows.append(dict(row))

    def flush(self) -> None:
        """Writes the rows taken so far; where that fails, they are kept.

        Raises:
          ResultsError: the file can't be written.
        """
        with self._lock:
            self._results.write(self._rows)
            self._rows, self._error = [], None

    def _tried(self) -> bool:
        """Whether the rows taken so far are on file now."""
        try:
            self.flush()
        # Whatever is wrong with a file, rows that are in memory must outlive it.
        except Exception as error:
            if self._error is None:
                _LOG.warning("rows are kept in memory and tried again: %s", error)
            self._error = error
            return False
        return True

    def _flush_often(self) -> None:
        while not self._closed.wait(self._seconds):
            self._tried()

    def __enter__(self) -> RowWriter:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed.set()
        self._thread.join()
        for left in reversed(range(self._tries)):
            if self._tried():
                return
            if left:
                time.sleep(1.0)
        assert self._error is not None  # it was tried, and failed
        unwritten = UnwrittenError(self._rows, self._error)
        if error is None:
            raise unwritten
        _LOG.error("%s: %s", unwritten, [row_key(row) for row in self._rows])
