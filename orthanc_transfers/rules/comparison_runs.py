"""How far the comparisons of mirrors have come, on disk: the last one of each rule with each destination."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from orthanc_transfers.core.rule import TimeOfWeek
from orthanc_transfers.interfaces import Clock
from orthanc_transfers.ledger.shown import orthanc_time
from orthanc_transfers.rules.database import RuleDatabase
from orthanc_transfers.rules.scans import due_moment

SCHEMA = """
CREATE TABLE IF NOT EXISTS comparisons (
    rule TEXT NOT NULL,
    destination TEXT NOT NULL,
    fired REAL NOT NULL,             -- seconds since the epoch: the last time that is dealt with
    running INTEGER NOT NULL DEFAULT 0,
    position INTEGER,                -- the next study (NULL: all were compared)
    compared INTEGER NOT NULL DEFAULT 0,
    queued INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0,   -- instances, there
    began REAL,                      -- seconds since the epoch, as ended
    ended REAL,
    said TEXT,
    PRIMARY KEY (rule, destination)
) WITHOUT ROWID;
"""


@dataclass(slots=True)
class Run:
    """One comparison."""

    rule: str
    destination: str
    fired: float
    running: bool
    position: int | None
    compared: int
    queued: int
    deleted: int
    began: float | None
    ended: float | None
    said: str | None

    @property
    def summary(self) -> str:
        """What it did, in words."""
        return f"{self.compared} studies, {self.queued} queued, {self.deleted} instances deleted there"

    def to_json(self) -> dict[str, Any]:
        """As it is shown."""
        return {
            "Peer": self.destination,
            "Running": self.running,
            "Compared": self.compared,
            "Queued": self.queued,
            "Deleted": self.deleted,
            "Began": orthanc_time(self.began),
            "Ended": orthanc_time(self.ended),
            "Said": self.said,
        }


class ComparisonRuns:
    """Thread-safe. Methods raise ``sqlite3.Error``, ``OSError``."""

    def __init__(self, database: RuleDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def all(self) -> list[Run]:
        """Of all rules, the one that began first first."""
        with self._database.reading() as reader:
            rows = reader.execute("SELECT * FROM comparisons ORDER BY began").fetchall()
        return [Run(**{**dict(row), "running": bool(row["running"])}) for row in rows]

    def any(self) -> bool:
        """Whether there are any."""
        with self._database.reading() as reader:
            return reader.execute("SELECT 1 FROM comparisons LIMIT 1").fetchone() is not None

    def follow(self, wanted: Collection[tuple[str, str]]) -> None:
        """Forget those of rules and destinations that are no more, and know new ones: as if just done."""
        known = {(run.rule, run.destination) for run in self.all()}
        if known == set(wanted):
            return
        with self._database.writing() as writer:
            writer.executemany(
                "DELETE FROM comparisons WHERE rule = ? AND destination = ?", known - set(wanted)
            )
            writer.executemany(
                "INSERT INTO comparisons (rule, destination, fired) VALUES (?, ?, ?)",
                ((*one, self._clock.now()) for one in set(wanted) - known),
            )

    def fire(self, rule: str, destinations: Sequence[str], time: TimeOfWeek, minute: int) -> None:
        """Begin if it is time, ``minute`` of the week."""
        now = self._clock.now()
        for run in self.all():
            if run.rule == rule and run.destination in destinations:
                due = due_moment(time, run.fired, now, minute)
                if due is not None:
                    self._begin(rule, run.destination, due[0], anew=due[1])

    def begin(self, rule: str, destinations: Sequence[str]) -> None:
        """Begin now; one that runs begins anew."""
        for destination in destinations:
            self._begin(rule, destination, None, anew=True)

    def _begin(self, rule: str, destination: str, fired: float | None, *, anew: bool) -> None:
        with self._database.writing() as writer:
            writer.execute(
                "INSERT OR IGNORE INTO comparisons (rule, destination, fired) VALUES (?, ?, ?)",
                (rule, destination, self._clock.now()),
            )
            if fired is not None:
                writer.execute(
                    "UPDATE comparisons SET fired = ? WHERE rule = ? AND destination = ?",
                    (fired, rule, destination),
                )
            if anew:
                writer.execute(
                    "UPDATE comparisons SET running = 1, position = 0, compared = 0, queued = 0, deleted = 0,"
                    " began = ?, ended = NULL, said = NULL WHERE rule = ? AND destination = ?",
                    (self._clock.now(), rule, destination),
                )

    @staticmethod
    def keep(writer: sqlite3.Connection, run: Run) -> None:
        """How far it is."""
        writer.execute(
            "UPDATE comparisons SET position = ?, compared = ?, queued = ?, deleted = ?, said = NULL"
            " WHERE rule = ? AND destination = ?",
            (run.position, run.compared, run.queued, run.deleted, run.rule, run.destination),
        )

    def end(self, run: Run, said: str | None) -> None:
        """It has ended."""
        with self._database.writing() as writer:
            self.keep(writer, run)
            writer.execute(
                "UPDATE comparisons SET running = 0, ended = ?, said = ? WHERE rule = ? AND destination = ?",
                (self._clock.now(), said, run.rule, run.destination),
            )

    def say(self, run: Run, said: str) -> None:
        """Why it waits."""
        with self._database.writing() as writer:
            writer.execute(
                "UPDATE comparisons SET said = ? WHERE rule = ? AND destination = ?",
                (said, run.rule, run.destination),
            )
