"""Copies that are sent in place of their originals: by Orthanc's ``/anonymize`` or ``/modify``; deleted afterwards.

    row with a new StudyInstanceUID ─▶ Orthanc makes the copy ─▶ its identifier ─▶ sent ─▶ the entry ends ─▶ deleted
                 │                            │
      a process that dies from here on leaves a copy that is found by that UID, and deleted

A copy is kept until its entry ends: another attempt sends the very same instances, so that nothing arrives twice. They
are named one by one, since an Orthanc that is killed within 10 s makes them once more after its restart, as others:
its jobs engine saves so late that it has ended (1.10.1).
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import threading
import uuid
from collections.abc import Callable
from typing import Any

from orthanc_transfers.core.anonymize import UID, Anonymization
from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.errors import BadRequest, HostError, TransferError
from orthanc_transfers.core.model import IDENTIFIER, Level, Resource
from orthanc_transfers.interfaces import Clock, InstanceStore
from orthanc_transfers.rules.database import RuleDatabase
from orthanc_transfers.runtime import threads

SCHEMA = """
CREATE TABLE IF NOT EXISTS copies (
    uid TEXT NOT NULL PRIMARY KEY,   -- StudyInstanceUID, chosen before the copy is made
    entry INTEGER NOT NULL,
    original TEXT NOT NULL,          -- the fingerprint of what it was made of, and how
    study TEXT,                      -- Orthanc's identifier of the copy, once it is whole
    instances TEXT,                  -- JSON, those of the copy
    unwanted INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0,
    made REAL NOT NULL               -- seconds since the epoch
);
CREATE INDEX IF NOT EXISTS copies_of_entry ON copies (entry);
"""

REMEMBERED = 24 * 3600.0
"""Seconds that an unwanted copy is known after it was made: Orthanc may tell of it late, or go on making it."""

MADE_AGAIN = 300.0
"""Seconds after the start of Orthanc within which its jobs engine may make copies once more."""

SEARCH = 60.0
"""Seconds between two looks for copies that an earlier process began."""

log = logging.getLogger(__name__)


class AnonymizedCopies:
    """``get``, ``post`` and ``delete`` are Orthanc's own, and raise ``HostError``. Thread-safe.

    Methods raise ``sqlite3.Error``, ``OSError``.
    """

    def __init__(
        self,
        database: RuleDatabase,
        store: InstanceStore,
        clock: Clock,
        get: Callable[[str], bytes],
        post: Callable[[str, Buffer], bytes],
        delete: Callable[[str], None],
    ) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._get, self._post, self._delete = get, post, delete
        self._lock = threading.Lock()
        self._began = clock.monotonic()
        self._next_search = 0.0
        self._known: tuple[frozenset[str], frozenset[str]] | None = None
        """Studies and UIDs of all copies."""

    def make(self, entry: int, study: str, wanted: Anonymization) -> list[Resource]:
        """The instances of a copy for an entry: a new one, or that of an earlier attempt.

        That one if neither the study nor what its rule wants has changed since.

        Takes as long as Orthanc does. Raises ``TransferError``.
        """
        original = self._store.manifest([Resource(Level.STUDY, study)])
        how = json.dumps([wanted.action, wanted.body], sort_keys=True)
        fingerprint = hashlib.sha256(f"{original.fingerprint()} {how}".encode()).hexdigest()
        row = self._row(entry)
        if row is not None:
            kept = None if row["study"] is None else Resource(Level.STUDY, row["study"])
            if kept is not None and row["original"] == fingerprint and self._store.exists(kept):
                return [Resource(Level.INSTANCE, one) for one in json.loads(row["instances"])]
            self._change("UPDATE copies SET unwanted = 1 WHERE entry = ?", entry)
            self.sweep()
        uid = f"2.25.{uuid.uuid4().int}"
        self._change(
            "INSERT INTO copies (uid, entry, original, made) VALUES (?, ?, ?, ?)",
            *(uid, entry, fingerprint, self._clock.now()),
        )
        copy = self._make(study, wanted, uid)
        made = [one.id for one in self._store.manifest([copy])]
        if len(made) != len(original):
            raise BadRequest(f"the copy of study {study} for {wanted.action} does not have all its instances")
        self._change(
            "UPDATE copies SET study = ?, instances = ? WHERE uid = ?", copy.id, json.dumps(made), uid
        )
        return [Resource(Level.INSTANCE, one) for one in made]

    def _make(self, study: str, wanted: Anonymization, uid: str) -> Resource:
        body = json.dumps(wanted.request(uid)).encode()
        try:
            answer = json.loads(self._post(f"/studies/{study}/{wanted.action}", body))
        except HostError as error:
            raise HostError(
                f"Orthanc cannot {wanted.action} study {study} as its rule says: {error}", error.code
            ) from error
        if not isinstance(answer, dict) or not IDENTIFIER.fullmatch(str(answer.get("ID"))):
            raise BadRequest(f"Orthanc did not tell which study it made of {study}")
        if answer.get("FailedInstancesCount"):
            raise BadRequest(
                f"Orthanc could not {wanted.action} {answer['FailedInstancesCount']} instances of study {study}"
            )
        return Resource(Level.STUDY, answer["ID"])

    def is_copy(self, resource: Resource) -> bool:
        """Whether it is a copy, or a part of one: no rule is to send it by itself. Raises ``HostError``."""
        studies, uids = self._all()
        if not uids or resource.level is Level.PATIENT:
            return False
        path, study = f"/{_COLLECTIONS[resource.level]}/{resource.id}", resource.id
        try:
            if resource.level is not Level.STUDY:
                # Orthanc knows the ways up (1.0.0 and later).
                path += "/study"
                study = str(json.loads(self._get(path)).get("ID"))
            return study in studies or self._tag(path) in uids
        except HostError as error:
            if not error.absent:
                raise
            return study in studies

    def _tag(self, path: str) -> str:
        described: Any = json.loads(self._get(path))
        return str(described.get("MainDicomTags", {}).get(UID))

    # --- deleting

    def sweep_later(self) -> None:
        """``sweep``, in a thread of its own, if there is something to do."""
        now = self._clock.monotonic()
        if now >= self._next_search and now - self._began < MADE_AGAIN and self._all()[1]:
            # What Orthanc made once more after its restart has the UID of a copy that was deleted before.
            self._change("UPDATE copies SET deleted = 0")
        if not self._rows(
            _UNWANTED + ("" if now >= self._next_search else " AND study IS NOT NULL") + " LIMIT 1"
        ):
            return
        if not self._lock.locked():
            self._next_search = now + SEARCH
            threads.start("transfers-rules-copies", self.sweep)

    def sweep(self) -> None:
        """Delete the copies of entries that have ended, and what a crash left. Logs what fails; it is tried again."""
        with self._lock:
            for row in self._rows(_UNWANTED):
                try:
                    self._remove(row)
                except TransferError as error:
                    log.warning("the copy %s that a rule made cannot be deleted now: %s", row["uid"], error)
            before = self._clock.now() - REMEMBERED
            # A clock that was wrong then must not keep it for ever.
            self._change(
                f"DELETE FROM copies WHERE {_NOT_ACTIVE} AND (made < ? OR made > ?)",  # noqa: S608
                *(before, self._clock.now() + REMEMBERED),
            )

    def _remove(self, row: sqlite3.Row) -> None:
        studies = self._found(row["uid"])
        for study in studies:
            try:
                self._delete(f"/studies/{study}")
            except HostError as error:
                if not error.absent:
                    raise
        if row["study"] is not None:
            # Whole: nothing is added to it any more. Others are looked for until they are forgotten.
            self._change("UPDATE copies SET deleted = 1 WHERE uid = ?", row["uid"])

    def _found(self, uid: str) -> list[str]:
        found = json.loads(self._post("/tools/lookup", uid.encode()))
        return [str(one["ID"]) for one in found if one.get("Type") == Level.STUDY.value]

    # --- rows

    def _row(self, entry: int) -> sqlite3.Row | None:
        rows = self._rows("SELECT * FROM copies WHERE entry = ? AND NOT unwanted", entry)
        return rows[0] if rows else None

    def _rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._database.reading() as reader:
            return reader.execute(query, values).fetchall()

    def _change(self, statement: str, *values: Any) -> None:
        with self._database.writing() as writer:
            writer.execute(statement, values)
        self._known = None

    def _all(self) -> tuple[frozenset[str], frozenset[str]]:
        known = self._known
        if known is None:
            rows = self._rows("SELECT uid, study FROM copies")
            known = (
                frozenset(row["study"] for row in rows if row["study"] is not None),
                frozenset(row["uid"] for row in rows),
            )
            self._known = known
        return known


_COLLECTIONS = {Level.STUDY: "studies", Level.SERIES: "series", Level.INSTANCE: "instances"}
_NOT_ACTIVE = (
    "(unwanted OR NOT EXISTS (SELECT 1 FROM entries WHERE entries.id = copies.entry"
    " AND entries.state IN ('Waiting', 'Running')))"
)
_UNWANTED = f"SELECT * FROM copies WHERE NOT deleted AND {_NOT_ACTIVE}"  # noqa: S608
