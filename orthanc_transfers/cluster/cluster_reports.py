"""Commit reports of all nodes, in PostgreSQL: found by any of them, expired after some days."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from orthanc_transfers.cluster.database import FOREVER, Database
from orthanc_transfers.core.errors import TransferError
from orthanc_transfers.interfaces import Clock

log = logging.getLogger(__name__)

_DAY = 86400.0
_SWEEP_EVERY = 3600.0

# Rows deleted, or read, by one statement.
_BATCH = 5000


def key_of(identifier: str) -> uuid.UUID:
    """What a report is found by; identifiers may come from the network, of any length, with any characters."""
    return uuid.UUID(bytes=hashlib.blake2b(identifier.encode("utf-8", "replace"), digest_size=16).digest())


def compressed(report: Mapping[str, Any]) -> bytes:
    """As it is kept."""
    return zlib.compress(json.dumps(report, separators=(",", ":")).encode(), 6)


class ClusterReports:
    """The methods of ``receiver.reports.Reports``, with the same promises. All raise ``Busy`` unless it is said."""

    def __init__(self, database: Database, retention_days: float, clock: Clock) -> None:
        self._database = database
        self._retention = retention_days * _DAY
        self._clock = clock
        self._lock = threading.Lock()
        self._next_sweep = 0.0

    def write(self, report: Mapping[str, Any], aliases: Iterable[str] = ()) -> None:
        """Keep a report under its ``ID``, and let it be found by other identifiers too. Waits for the database."""
        self._database.query(
            "SELECT orthanc_transfers.keep_report(%s, %s, %s::uuid[])",
            (key_of(report["ID"]), compressed(report), [key_of(alias) for alias in aliases]),
            patience=FOREVER,
        )
        self.expire()

    def alias(self, identifier: str, alias: str) -> None:
        """Let the report ``identifier`` be found as ``alias``, too; without effect unless it is there.

        It never hides the report of another transfer: that is found first.
        """
        self._database.query(
            "INSERT INTO orthanc_transfers.report_names (name, report)"
            " SELECT %s, id FROM orthanc_transfers.reports WHERE id = %s"
            " ON CONFLICT (name) DO UPDATE SET report = excluded.report",
            (key_of(alias), key_of(identifier)),
        )

    def read(self, identifier: str) -> dict[str, Any] | None:
        """A report by its ``ID`` or an alias; ``None`` if there is none (any more)."""
        key = key_of(identifier)
        rows = self._database.query(
            "SELECT content FROM (SELECT 1 AS rank, content FROM orthanc_transfers.reports WHERE id = %s"
            " UNION ALL SELECT 2, content FROM orthanc_transfers.report_names JOIN orthanc_transfers.reports"
            " ON report = id WHERE name = %s) found ORDER BY rank LIMIT 1",
            (key, key),
        )
        return _read(rows[0][0]) if rows else None

    def exists(self, identifier: str) -> bool:
        """Whether ``read`` would find one."""
        key = key_of(identifier)
        ((found,),) = self._database.query(
            "SELECT EXISTS (SELECT FROM orthanc_transfers.reports WHERE id = %s)"
            " OR EXISTS (SELECT FROM orthanc_transfers.report_names WHERE name = %s)",
            (key, key),
        )
        return bool(found)

    def all(self, since: float) -> Iterator[dict[str, Any]]:
        """Each report that was written since then (seconds since the epoch), once, the oldest first."""
        after: tuple[float, uuid.UUID] = (since, uuid.UUID(int=0))
        while True:
            rows = self._database.query(
                "SELECT extract(epoch FROM ended), id, content FROM orthanc_transfers.reports"
                " WHERE (ended, id) > (to_timestamp(%s), %s) ORDER BY ended, id LIMIT %s",
                (*after, _BATCH // 10),
            )
            if not rows:
                return
            for _, _, content in rows:
                yield _read(content)
            after = rows[-1][:2]

    def expire(self) -> None:
        """Delete what is older than the retention; looks once an hour at most.

        Never raises: the next one will.
        """
        with self._lock:
            if self._clock.monotonic() < self._next_sweep:
                return
            self._next_sweep = self._clock.monotonic() + _SWEEP_EVERY
        try:
            self.sweep()
        except TransferError as error:
            log.info("what is too old in the cluster's database is deleted later: %s", error)

    def sweep(self) -> None:
        """Delete all that is older than the retention."""
        deleted = _BATCH
        while deleted == _BATCH:
            # Another node that does the same has others of them.
            ((deleted,),) = self._database.query(
                "WITH old AS (SELECT id FROM orthanc_transfers.reports"
                " WHERE ended < clock_timestamp() - make_interval(secs => %s) LIMIT %s FOR UPDATE SKIP LOCKED),"
                " gone AS (DELETE FROM orthanc_transfers.reports WHERE id IN (SELECT id FROM old) RETURNING 1)"
                " SELECT count(*) FROM gone",
                (self._retention, _BATCH),
            )


def _read(content: bytes) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(zlib.decompress(content))
    return report
