"""What each destination of a mirror is known to have had: one row for each study, on disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from orthanc_transfers.core.mirror import Record
from orthanc_transfers.core.model import Instance
from orthanc_transfers.rules.database import RuleDatabase

SCHEMA = """
CREATE TABLE IF NOT EXISTS mirrored (
    destination TEXT NOT NULL,
    study TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    ours INTEGER NOT NULL,       -- all of it was sent by this server (2: by an earlier index, until it is seen here)
    tried TEXT,                  -- the fingerprint of what was queued although it is there, with other bytes
    PRIMARY KEY (destination, study)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS mirror_deletions (   -- instances that are being deleted there
    destination TEXT NOT NULL,
    study TEXT NOT NULL,
    instance TEXT NOT NULL,
    size INTEGER NOT NULL,
    md5 TEXT NOT NULL,
    PRIMARY KEY (destination, study, instance)
) WITHOUT ROWID;
"""


class MirrorRecords:
    """Thread-safe. Methods raise ``sqlite3.Error``, ``OSError``."""

    def __init__(self, database: RuleDatabase) -> None:
        self._database = database

    def record(self, destination: str, study: str) -> Record | None:
        """What is known of a study there."""
        with self._database.reading() as reader:
            row = reader.execute(
                "SELECT fingerprint, ours FROM mirrored WHERE destination = ? AND study = ? AND fingerprint != ''",
                (destination, study),
            ).fetchone()
        return None if row is None else Record(row["fingerprint"], row["ours"] == 1)

    @staticmethod
    def keep(writer: sqlite3.Connection, destination: str, study: str, record: Record) -> None:
        """All of it is there now."""
        _forget_deletions(writer, destination, [study])
        writer.execute(
            "INSERT INTO mirrored (destination, study, fingerprint, ours) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET fingerprint = excluded.fingerprint, ours = excluded.ours",
            (destination, study, record.fingerprint, record.ours),
        )

    def tried(self, destination: str, study: str) -> str | None:
        """The fingerprint of what was sent last because its bytes differ there."""
        with self._database.reading() as reader:
            row = reader.execute(
                "SELECT tried FROM mirrored WHERE destination = ? AND study = ?", (destination, study)
            ).fetchone()
        return None if row is None else row["tried"]

    @staticmethod
    def keep_tried(writer: sqlite3.Connection, destination: str, study: str, fingerprint: str) -> None:
        """It is queued because its bytes differ there."""
        writer.execute(
            "INSERT INTO mirrored (destination, study, fingerprint, ours, tried) VALUES (?, ?, '', 0, ?)"
            " ON CONFLICT DO UPDATE SET tried = excluded.tried",
            (destination, study, fingerprint),
        )

    def forget(self, destination: str, studies: Iterable[str]) -> None:
        """They are there no longer."""
        names = list(studies)
        with self._database.writing() as writer:
            _forget_deletions(writer, destination, names)
            writer.executemany(
                "DELETE FROM mirrored WHERE destination = ? AND study = ?",
                ((destination, one) for one in names),
            )

    def disown(self) -> None:
        """Orthanc's index is another one than before: what it lacks was not deleted by anyone."""
        with self._database.writing() as writer:
            writer.execute("UPDATE mirrored SET ours = 2 WHERE ours = 1")

    @staticmethod
    def own_again(writer: sqlite3.Connection, destination: str, study: str) -> None:
        """The index of now has it as it was sent."""
        writer.execute(
            "UPDATE mirrored SET ours = 1 WHERE destination = ? AND study = ? AND ours = 2",
            (destination, study),
        )

    def keep_deletions(self, destination: str, study: str, instances: Iterable[Instance]) -> None:
        """These are about to be deleted there."""
        with self._database.writing() as writer:
            writer.executemany(
                "INSERT OR REPLACE INTO mirror_deletions VALUES (?, ?, ?, ?, ?)",
                ((destination, study, one.id, one.size, one.md5) for one in instances),
            )

    def deletions(self, destination: str, study: str) -> list[Instance]:
        """What was to be deleted there since its record was kept: some of it may be there still."""
        with self._database.reading() as reader:
            rows = reader.execute(
                "SELECT instance, size, md5 FROM mirror_deletions WHERE destination = ? AND study = ?",
                (destination, study),
            ).fetchall()
        return [Instance(*row) for row in rows]

    def page(self, destination: str, after: str, limit: int) -> list[str]:
        """Some studies that were sent by this server alone, in the order of their identifiers."""
        with self._database.reading() as reader:
            rows = reader.execute(
                "SELECT study FROM mirrored WHERE destination = ? AND study > ? AND ours = 1 AND fingerprint != ''"
                " ORDER BY study LIMIT ?",
                (destination, after, limit),
            ).fetchall()
        return [row["study"] for row in rows]


def _forget_deletions(writer: sqlite3.Connection, destination: str, studies: Iterable[str]) -> None:
    writer.executemany(
        "DELETE FROM mirror_deletions WHERE destination = ? AND study = ?",
        ((destination, one) for one in studies),
    )
