"""Ended transfers in SQLite: a list of them needs no reading of reports, and costs the same after years.

One row for each, with the JSON that is shown and what it is found by. SQLite releases the GIL while it works.
What is lost with the file is found again in the commit reports (``rebuild.py``): so no commit waits for its disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orthanc_transfers.core.transfer_query import TransferQuery
from orthanc_transfers.ledger.search import condition, words_of
from orthanc_transfers.receiver.unfinished_undo import retold

SCHEMA_VERSION = 1

_SCHEMA = f"""
CREATE TABLE transfers (
    id TEXT NOT NULL PRIMARY KEY,
    report TEXT,              -- the identifier of the commit report
    state TEXT NOT NULL,
    direction TEXT NOT NULL,
    peer TEXT,
    ended REAL NOT NULL,      -- seconds since the epoch
    words TEXT NOT NULL,      -- what a text is looked for in, case-folded
    shown TEXT NOT NULL,      -- JSON, as GET /transfers/status shows it
    again TEXT                -- JSON of the request that makes the same transfer again
);
CREATE INDEX by_end ON transfers (ended);
CREATE INDEX by_state ON transfers (state, ended);
CREATE INDEX by_direction ON transfers (direction, ended);
CREATE INDEX by_peer ON transfers (peer, ended);
CREATE INDEX by_report ON transfers (report);
PRAGMA user_version = {SCHEMA_VERSION};
"""

# Files of before lack it. A search reads this alone: a fifth of what the rows take.
_WORDS = "CREATE INDEX IF NOT EXISTS by_words ON transfers (ended, words, state, direction, peer, id)"

COUNT = "SELECT COUNT(*) FROM transfers{where}"
PAGE = "SELECT shown FROM transfers{where} ORDER BY ended DESC LIMIT ? OFFSET ?"
WITH_WORDS = "SELECT rowid FROM transfers INDEXED BY by_words{where} ORDER BY ended DESC"

# Seconds that a connection waits for another one.
_BUSY = 5.0

# Bytes of a request that is kept to be made again.
_MAX_AGAIN = 256 * 1024

_DAMAGED = (
    "file is not a database",
    "malformed",
    "disk image",
    "no such table",
    "no such column",
    "no such index",
)


@dataclass(frozen=True, slots=True)
class PastTransfer:
    """One row. ``shown`` has the keys of ``shown.py``."""

    id: str
    ended: float
    shown: Mapping[str, Any]
    report: str | None = None
    again: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A page of rows, and how many there are in all."""

    total: int = 0
    shown: list[dict[str, Any]] = field(default_factory=list)


class PastTransfers:
    """The index in one file, wherever ``path`` says that it is. Thread-safe.

    One connection writes, each reader has its own. Methods raise ``sqlite3.Error``, ``OSError``.
    """

    def __init__(self, path: Callable[[], Path]) -> None:
        self._where = path
        self._lock = threading.Lock()
        self._writer: sqlite3.Connection | None = None

    @property
    def _path(self) -> Path:
        return self._where()

    def open(self) -> bool:
        """Make it usable: a file that is not there, or damaged, becomes an empty one. Returns whether it is new."""
        with self._lock:
            return self._open()

    def _open(self) -> bool:
        if self._writer is not None and self._path.exists():
            return False
        self._close()
        if self._path.exists():
            try:
                self._connect_writer()
                return False
            except sqlite3.DatabaseError as error:
                self._close()
                if not is_damage(error):
                    raise
        self._create()
        return True

    def _connect_writer(self) -> None:
        writer = self._connect()
        self._writer = writer
        writer.execute("PRAGMA journal_mode = WAL").fetchall()
        # What the last second before a power failure brought is found again in the reports.
        writer.execute("PRAGMA synchronous = NORMAL")
        (version,) = writer.execute("PRAGMA user_version").fetchone()
        (verdict,) = writer.execute("PRAGMA quick_check(1)").fetchone()
        if version != SCHEMA_VERSION or verdict != "ok":
            raise sqlite3.DatabaseError(f"malformed: version {version}, {verdict}")
        writer.execute(_WORDS)

    def _create(self) -> None:
        self._path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        for suffix in ("", "-wal", "-shm", "-journal"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        # It holds names of patients. SQLite gives its other files the same mode.
        os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        writer = self._connect()
        self._writer = writer
        writer.execute("PRAGMA journal_mode = WAL").fetchall()
        writer.execute("PRAGMA synchronous = NORMAL")
        writer.executescript(_SCHEMA)
        writer.execute(_WORDS)

    def _connect(self) -> sqlite3.Connection:
        # Threads take turns at the connection that writes. No file is made by connecting.
        return sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=_BUSY,
            isolation_level=None,
            check_same_thread=False,
        )

    def discard(self) -> None:
        """It is damaged: ``open`` makes a new one."""
        with self._lock:
            self._close()
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing is written any more."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(sqlite3.Error):
                self._writer.close()
            self._writer = None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction."""
        with self._lock:
            if self._writer is None:
                raise sqlite3.OperationalError("the index of past transfers is not open")
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")

    def write(self, transfers: Iterable[PastTransfer], begun_anew: Iterable[str] = ()) -> None:
        """Remove the rows of those that were begun anew, then add rows, or replace them."""
        rows = list(transfers)
        with self._writing() as writer:
            # A job knows more than its report told before.
            writer.executemany(
                "DELETE FROM transfers WHERE id = ? AND direction = ?",
                ((one.report, one.shown["Direction"]) for one in rows if one.report not in (None, one.id)),
            )
            writer.executemany("DELETE FROM transfers WHERE id = ?", ((one,) for one in begun_anew))
            writer.executemany(
                "INSERT OR REPLACE INTO transfers (id, report, state, direction, peer, ended, words, shown, again)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                map(_row, rows),
            )

    def amend(self, identifier: str, values: Mapping[str, Any]) -> None:
        """Change keys of what is shown of one, if it is there."""
        with self._writing() as writer:
            row = writer.execute("SELECT shown FROM transfers WHERE id = ?", (identifier,)).fetchone()
            if row is not None:
                shown = {**json.loads(row[0]), **values}
                writer.execute(
                    "UPDATE transfers SET shown = ?, words = ? WHERE id = ?",
                    (_text(shown), words_of(shown), identifier),
                )

    def correct(self, report: str, error: str) -> None:
        """Let the transfers of a report say what a failed commit says now (see ``unfinished_undo.retold``)."""
        with self._writing() as writer:
            rows = writer.execute("SELECT id, shown FROM transfers WHERE report = ?", (report,)).fetchall()
            for identifier, text in rows:
                shown = json.loads(text)
                if shown["Error"] is not None:
                    shown["Error"] = retold(shown["Error"], error)
                    writer.execute(
                        "UPDATE transfers SET shown = ?, words = ? WHERE id = ?",
                        (_text(shown), words_of(shown), identifier),
                    )

    def expire(self, before: float) -> None:
        """Delete what ended before that time."""
        with self._writing() as writer:
            writer.execute("DELETE FROM transfers WHERE ended < ?", (before,))

    def find(self, query: TransferQuery, limit: int, offset: int) -> Found:
        """The newest first."""
        # Only names of columns and question marks.
        where, values = condition(query)
        with closing(self._connect()) as reader:
            # All statements see the same state.
            reader.execute("BEGIN")
            if query.words:
                # One pass over an index that has all that a query is about; then the rows of the page alone.
                matching = [row for (row,) in reader.execute(WITH_WORDS.format(where=where), values)]
                total, page = len(matching), matching[offset : offset + limit]
                where, values, offset = f" WHERE rowid IN ({', '.join('?' * len(page))})", tuple(page), 0
            else:
                (total,) = reader.execute(COUNT.format(where=where), values).fetchone()
            rows = []
            if limit and offset < total:
                rows = reader.execute(PAGE.format(where=where), (*values, limit, offset)).fetchall()
        return Found(total, [json.loads(shown) for (shown,) in rows])

    def again(self, identifier: str) -> tuple[dict[str, Any], dict[str, Any] | None] | None:
        """What is shown of a transfer, and the request that makes it again; ``None`` if there is no such transfer."""
        with closing(self._connect()) as reader:
            row = reader.execute("SELECT shown, again FROM transfers WHERE id = ?", (identifier,)).fetchone()
        if row is None:
            return None
        shown, again = row
        return json.loads(shown), None if again is None else json.loads(again)

    def reports_since(self, moment: float) -> frozenset[str]:
        """The identifiers of the reports of all that ended since then."""
        with closing(self._connect()) as reader:
            rows = reader.execute(
                "SELECT report FROM transfers WHERE ended >= ? AND report IS NOT NULL", (moment,)
            )
            return frozenset(report for (report,) in rows)

    def since(self, moment: float, limit: int) -> list[dict[str, Any]]:
        """What is shown of those that ended since then, the newest first."""
        with closing(self._connect()) as reader:
            rows = reader.execute(
                "SELECT shown FROM transfers WHERE ended >= ? ORDER BY ended DESC LIMIT ?", (moment, limit)
            ).fetchall()
        return [json.loads(shown) for (shown,) in rows]

    def newest(self) -> float:
        """When the last one ended; 0 if there is none."""
        with closing(self._connect()) as reader:
            (newest,) = reader.execute("SELECT MAX(ended) FROM transfers").fetchone()
        return float(newest or 0.0)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is broken, or gone: it is to be made anew."""
    return any(sign in str(error) for sign in _DAMAGED)


def _row(one: PastTransfer) -> tuple[Any, ...]:
    again = None if one.again is None else _text(one.again)
    if again is not None and len(again) > _MAX_AGAIN:
        again = None
    shown = one.shown
    return (
        one.id,
        one.report,
        shown["State"],
        shown["Direction"],
        shown["Peer"],
        one.ended,
        words_of(shown),
        _text(shown),
        again,
    )


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
