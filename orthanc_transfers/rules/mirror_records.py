"""What each destination of a mirror is known to have had: one row for each study, on disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from orthanc_transfers.core.mirror import Record
from orthanc_transfers.rules.database import RuleDatabase

SCHEMA = """
CREATE TABLE IF NOT EXISTS mirrored (
    destination TEXT NOT NULL,
    study TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    ours INTEGER NOT NULL,       -- all of it was sent by this server
    tried TEXT,                  -- the fingerprint of what was queued although it is there, with other bytes
    PRIMARY KEY (destination, study)
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
        return None if row is None else Record(row["fingerprint"], bool(row["ours"]))

    @staticmethod
    def keep(writer: sqlite3.Connection, destination: str, study: str, record: Record) -> None:
        """All of it is there now."""
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
        with self._database.writing() as writer:
            writer.executemany(
                "DELETE FROM mirrored WHERE destination = ? AND study = ?",
                ((destination, one) for one in studies),
            )

    def page(self, destination: str, after: str, limit: int) -> list[str]:
        """Some studies that were sent by this server alone, in the order of their identifiers."""
        with self._database.reading() as reader:
            rows = reader.execute(
                "SELECT study FROM mirrored WHERE destination = ? AND study > ? AND ours AND fingerprint != ''"
                " ORDER BY study LIMIT ?",
                (destination, after, limit),
            ).fetchall()
        return [row["study"] for row in rows]
