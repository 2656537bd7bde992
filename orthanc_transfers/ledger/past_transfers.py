"""Ended transfers in SQLite: a list of them needs no reading of reports, and costs the same after years.

One row for each, with the JSON that is shown and what it is found by. SQLite releases the GIL while it works.
What is lost with the file is found again in the commit reports (``rebuild.py``): so no commit waits for its disk.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orthanc_transfers.core.transfer_query import TransferQuery
from orthanc_transfers.ledger.search import condition, words_of
from orthanc_transfers.receiver.unfinished_undo import retold
from orthanc_transfers.runtime.sqlite_file import SqliteFile

SCHEMA_VERSION = 1

_SCHEMA = """
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
"""

# Files of before lack it. A search reads this alone: a fifth of what the rows take.
_WORDS = "CREATE INDEX IF NOT EXISTS by_words ON transfers (ended, words, state, direction, peer, id)"

COUNT = "SELECT COUNT(*) FROM transfers{where}"
PAGE = "SELECT shown FROM transfers{where} ORDER BY ended DESC LIMIT ? OFFSET ?"
WITH_WORDS = "SELECT rowid FROM transfers INDEXED BY by_words{where} ORDER BY ended DESC"

# Bytes of a request that is kept to be made again.
_MAX_AGAIN = 256 * 1024


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
    """The index in one file, wherever ``path`` says that it is. Thread-safe. ``shared``: see ``SqliteFile``.

    Methods raise ``sqlite3.Error``, ``OSError``.
    """

    def __init__(self, path: Callable[[], Path], *, shared: bool = False) -> None:
        # What the last second before a power failure brought is found again in the reports.
        self._file = SqliteFile(path, _SCHEMA, SCHEMA_VERSION, synced=False, later=_WORDS, shared=shared)

    def open(self) -> bool:
        """Make it usable: a file that is not there, or damaged, becomes an empty one. Returns whether it is new."""
        return self._file.open()

    def discard(self) -> None:
        """It is damaged: ``open`` makes a new one."""
        self._file.discard()

    def close(self) -> None:
        """Nothing is written any more."""
        self._file.close()

    def write(self, transfers: Iterable[PastTransfer], begun_anew: Iterable[str] = ()) -> None:
        """Remove the rows of those that were begun anew, then add rows, or replace them."""
        rows = list(transfers)
        with self._file.writing() as writer:
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
        with self._file.writing() as writer:
            row = writer.execute("SELECT shown FROM transfers WHERE id = ?", (identifier,)).fetchone()
            if row is not None:
                shown = {**json.loads(row[0]), **values}
                writer.execute(
                    "UPDATE transfers SET shown = ?, words = ? WHERE id = ?",
                    (_text(shown), words_of(shown), identifier),
                )

    def correct(self, report: str, error: str) -> None:
        """Let the transfers of a report say what a failed commit says now (see ``unfinished_undo.retold``)."""
        with self._file.writing() as writer:
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
        with self._file.writing() as writer:
            writer.execute("DELETE FROM transfers WHERE ended < ?", (before,))

    def find(self, query: TransferQuery, limit: int, offset: int) -> Found:
        """The newest first."""
        # Only names of columns and question marks.
        where, values = condition(query)
        with self._file.reading() as reader:
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
        with self._file.reading() as reader:
            row = reader.execute("SELECT shown, again FROM transfers WHERE id = ?", (identifier,)).fetchone()
        if row is None:
            return None
        shown, again = row
        return json.loads(shown), None if again is None else json.loads(again)

    def reports_since(self, moment: float) -> frozenset[str]:
        """The identifiers of the reports of all that ended since then."""
        with self._file.reading() as reader:
            rows = reader.execute(
                "SELECT report FROM transfers WHERE ended >= ? AND report IS NOT NULL", (moment,)
            )
            return frozenset(report for (report,) in rows)

    def since(self, moment: float, limit: int) -> list[dict[str, Any]]:
        """What is shown of those that ended since then, the newest first."""
        with self._file.reading() as reader:
            rows = reader.execute(
                "SELECT shown FROM transfers WHERE ended >= ? ORDER BY ended DESC LIMIT ?", (moment, limit)
            ).fetchall()
        return [json.loads(shown) for (shown,) in rows]

    def newest(self) -> float:
        """When the last one ended; 0 if there is none."""
        with self._file.reading() as reader:
            (newest,) = reader.execute("SELECT MAX(ended) FROM transfers").fetchone()
        return float(newest or 0.0)


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
