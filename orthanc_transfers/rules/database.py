"""The database of the rules: their queue, the rules changed at run time, how far Orthanc's changes were seen.

What is to be sent is synced before it counts, and survives kill -9 and power failures. Times that decide something
are in *queue time*: the seconds that the queue has been worked off in all its life, by the monotonic clock. A clock
of the wall that is wrong, or jumps, moves nothing; nor does the time without Orthanc.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orthanc_transfers.interfaces import Clock
from orthanc_transfers.runtime.sqlite_file import SqliteFile

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    rule TEXT NOT NULL,
    destination TEXT NOT NULL,   -- a peer; empty: the destinations of the rule in turn
    level TEXT NOT NULL,
    resource TEXT NOT NULL,
    epoch INTEGER NOT NULL,      -- which life of Orthanc's list of changes
    change INTEGER,              -- its sequence number; NULL: not triggered by a change
    origin TEXT NOT NULL,        -- what triggered it
    state TEXT NOT NULL,
    checked INTEGER NOT NULL DEFAULT 0,   -- the filter was asked
    attempts INTEGER NOT NULL DEFAULT 0,
    refusals INTEGER NOT NULL DEFAULT 0,  -- attempts that failed although its peer was there
    turn INTEGER NOT NULL DEFAULT 0,      -- which destination is the next
    peer TEXT,                   -- where it was sent to last
    transfer TEXT,               -- SenderTransferID of its last job
    job TEXT,
    stamp TEXT,                  -- when the resource had last changed, as Orthanc says
    held INTEGER NOT NULL DEFAULT 0,      -- its job was paused by us
    first_try REAL,              -- queue time, as next_try
    next_try REAL NOT NULL DEFAULT 0,
    queued REAL NOT NULL,        -- seconds since the epoch, to be shown, as ended
    queued_at REAL NOT NULL,     -- queue time
    told INTEGER NOT NULL DEFAULT 0,      -- that it has waited for long
    ended REAL,
    said TEXT                    -- the last error, or how it ended
);
CREATE UNIQUE INDEX once ON entries (rule, destination, epoch, change, resource);
CREATE INDEX due ON entries (state, rule, destination, id);
CREATE INDEX next_due ON entries (state, next_try);
CREATE INDEX by_resource ON entries (rule, resource, state);
CREATE INDEX by_transfer ON entries (transfer);
CREATE INDEX by_end ON entries (ended);
CREATE TABLE rules (
    name TEXT NOT NULL PRIMARY KEY,
    since INTEGER,               -- Orthanc's changes up to this one do not concern it; NULL: not known yet
    fired REAL,                  -- seconds since the epoch: the last time of a timed rule that is dealt with
    body TEXT,                   -- JSON, as set at run time; NULL: as configured
    deleted INTEGER NOT NULL DEFAULT 0,   -- at run time
    configured TEXT              -- JSON of the configuration when that was done
);
CREATE TABLE scans (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    rule TEXT NOT NULL,
    origin TEXT NOT NULL,
    position INTEGER NOT NULL DEFAULT 0   -- how many resources were looked at
);
CREATE TABLE facts (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL);
"""

_LATER = """
CREATE INDEX IF NOT EXISTS unchecked ON entries (id) WHERE state = 'Waiting' AND checked = 0
"""
"""Each turn asks for these, however many wait."""

_QUEUE_TIME = "QueueTime"

_SET_ASIDE = "damaged.sqlite"

log = logging.getLogger(__name__)


class RuleDatabase:
    """Thread-safe. Methods raise ``sqlite3.Error``, ``OSError``.

    ``more`` are schemas of further tables, each made unless it is there. ``shared``: see ``SqliteFile``.
    """

    def __init__(
        self, path: Callable[[], Path], clock: Clock, more: Iterable[str] = (), *, shared: bool = False
    ) -> None:
        self._file = SqliteFile(
            path, _SCHEMA, SCHEMA_VERSION, synced=True, set_aside=_SET_ASIDE, later=_LATER, shared=shared
        )
        self._more = tuple(more)
        self._clock = clock
        self._began = clock.monotonic()
        self._before = 0.0

    def exists(self) -> bool:
        """Whether there were rules before."""
        return self._file.exists()

    def open(self) -> bool:
        """Make it usable; returns whether it is new. Queue time goes on from here."""
        damaged = self._file.exists()
        new = self._file.open()
        if new and damaged:
            log.error(
                "the queue of the rules is damaged: it is kept as %s, and a new one is begun; run each rule by hand"
                " to send what had waited",
                _SET_ASIDE,
            )
        with self._file.writing() as writer:
            for statement in ";".join(self._more).split(";"):
                writer.execute(statement)
        self._before = float(self.fact(_QUEUE_TIME) or 0.0)
        self._began = self._clock.monotonic()
        return new

    def close(self) -> None:
        """Nothing is written any more."""
        self._file.close()

    @property
    def now(self) -> float:
        """Queue time."""
        return self._before + self._clock.monotonic() - self._began

    @contextmanager
    def writing(self, *, synced: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction, synced at its end or with a later one; the queue time is kept with it."""
        with self._file.writing(synced=synced) as writer:
            yield writer
            put_fact(writer, _QUEUE_TIME, self.now)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one state, with rows that have names."""
        with self._file.reading() as reader:
            reader.row_factory = sqlite3.Row
            yield reader

    def fact(self, name: str) -> Any:
        """One of the single values; ``None`` if it is not known."""
        with self.reading() as reader:
            row = reader.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])


def put_fact(writer: sqlite3.Connection, name: str, value: Any) -> None:
    """Set one of the single values."""
    writer.execute("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", (name, json.dumps(value)))
