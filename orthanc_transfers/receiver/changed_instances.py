"""What this server made of instances that it changed when it stored them: a script, IngestTranscoding.

A small SQLite database: for each instance that was stored with another MD5 than it was sent with, both. So an instance
that is sent again is known to be there, as long as Orthanc has what it made of it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

from orthanc_transfers.core.model import Instance

try:
    import sqlite3

    from orthanc_transfers.runtime.sqlite_file import connect
except ImportError:  # a Python without it: nothing is remembered
    sqlite3 = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

_MAX_ROWS = 1_000_000
"""The oldest go. A row takes some 150 bytes."""

_TABLE = (
    "CREATE TABLE IF NOT EXISTS changed (number INTEGER PRIMARY KEY AUTOINCREMENT,"
    " id TEXT UNIQUE NOT NULL, sent TEXT NOT NULL, stored TEXT NOT NULL)"
)
_ADD = "INSERT OR REPLACE INTO changed (id, sent, stored) VALUES (?, ?, ?)"
_FIND = "SELECT sent FROM changed WHERE id = ? AND stored = ?"
_EXPIRE = "DELETE FROM changed WHERE number <= (SELECT MAX(number) FROM changed) - ?"


class ChangedInstances:
    """Thread-safe. Errors are logged only: then less is known, as if nothing was recorded.

    ``shared``: ``folder`` is on storage that several machines share; no other object of this or another process has it.
    """

    def __init__(self, folder: Path, max_rows: int = _MAX_ROWS, *, shared: bool = False) -> None:
        self._path = folder / "changed.sqlite"
        self._max_rows = max_rows
        self._shared = shared
        self._lock = threading.Lock()
        """Held by who has a connection: there may be no locks of SQLite's."""

    def record(self, stored: Iterable[tuple[Instance, str]]) -> None:
        """Instances as they were sent, each with the MD5 that it was stored with; fsynced."""
        rows = [(instance.id, instance.md5, md5) for instance, md5 in stored]
        if not rows or sqlite3 is None:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._lock, closing(connect(self._path, "rwc", shared=self._shared)) as database, database:
                database.execute(_TABLE)
                database.executemany(_ADD, rows)
                database.execute(_EXPIRE, (self._max_rows,))
        except (sqlite3.Error, OSError) as error:
            self._complain(error)

    def announced_md5s(
        self, instances: Iterable[Instance], stored: Mapping[str, str | None]
    ) -> dict[str, str]:
        """The announced MD5s of those that are stored as this server changed them (``stored``: identifier -> MD5)."""
        announced = {one.id: one.md5 for one in instances}
        others = {one: md5 for one, md5 in stored.items() if md5 != announced.get(one)}
        return {one: md5 for one, md5 in self.sent_md5s(others).items() if md5 == announced.get(one)}

    def sent_md5s(self, stored: Mapping[str, str | None]) -> dict[str, str]:
        """For stored instances (identifier -> MD5) that this server changed, the MD5s that they were sent with."""
        if sqlite3 is None or not self._path.exists():
            return {}
        found: dict[str, str] = {}
        try:
            with self._lock, closing(connect(self._path, "rwc", shared=self._shared)) as database:
                for identifier, md5 in stored.items():
                    row = database.execute(_FIND, (identifier, md5)).fetchone()
                    if row is not None:
                        found[identifier] = str(row[0])
        except sqlite3.Error as error:
            self._complain(error)
        return found

    def _complain(self, error: Exception) -> None:
        log.warning(
            "what this server changes in what it stores is not remembered: %s: %s; delete it if it is damaged",
            self._path,
            error,
        )
