"""Keeps ended transfers: whoever ends one only queues it, a thread of the ledger writes it down.

So a transfer waits for nothing here, and transfers that end together are one transaction.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orthanc_transfers.core.errors import TransferError
from orthanc_transfers.core.model import Resource
from orthanc_transfers.core.transfer_query import TransferQuery
from orthanc_transfers.core.transfer_record import PUSH, TransferRecord
from orthanc_transfers.interfaces import Clock
from orthanc_transfers.ledger.past_transfers import Found, PastTransfer, PastTransfers
from orthanc_transfers.ledger.rebuild import from_report
from orthanc_transfers.ledger.received import push_record
from orthanc_transfers.ledger.shown import record_to_json, text_to_json
from orthanc_transfers.ledger.texts import Texts, first_resource
from orthanc_transfers.receiver.incoming import IncomingTransfer
from orthanc_transfers.receiver.registry import Registry
from orthanc_transfers.receiver.reports import Reports
from orthanc_transfers.receiver.unfinished_undo import retold
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.sqlite_file import is_damage
from orthanc_transfers.runtime.threads import Periodic

BATCH = 0.3
"""Seconds that an end waits for others, to be written with them."""

TEXTS_AT_ONCE = 5
"""Transfers whose texts are asked for after each batch: transfers that still run need Orthanc's index more."""

TEXTS_SHARE = 0.1
"""Of the time, at most, for such questions: where each walks through the archive (Orthanc 1.12 and 1.13: 40 ms of
100,000 instances, and three for each transfer), they would take more of its index than the transfers."""

RETRY = 5.0
"""Seconds until another attempt, after the disk refused one."""

# Ends that wait for a disk that does not take them.
_MAX_QUEUED = 10_000

REPORT_AGE = 60.0
"""Seconds before the last known end from which reports are looked through at a start."""

_MAX_TEXTLESS = 1000

_DAY = 86400.0
_EXPIRE_EVERY = 3600.0

log = logging.getLogger(__name__)

# Corrections that are remembered for jobs of which the end is told later.
_MAX_CORRECTIONS = 256


@dataclass(frozen=True, slots=True)
class _Correction:
    """What the error of a failed transfer is now, by the identifier of its report."""

    report: str
    error: str


_Event = TransferRecord | str | _Correction
"""A transfer that has ended, the identifier of one that was begun anew, or what one that failed says now."""


class Ledger:
    """The ended transfers of this server. Thread-safe; nothing raises but where it says so.

    ``folder`` is its own; ``shared``: see ``SqliteFile``.
    It asks the index of Orthanc, and writes, from ``start`` on; before, it queues.
    """

    def __init__(
        self,
        folder: Callable[[], Path],
        registry: Registry,
        reports: Reports,
        texts: Texts,
        clock: Clock,
        retention_days: float,
        *,
        shared: bool = False,
    ) -> None:
        self._reports = reports
        self._texts = texts
        self._clock = clock
        self._retention = retention_days * _DAY
        self._next_expiry = 0.0
        self._past = PastTransfers(lambda: folder() / "transfers.sqlite", shared=shared)
        self._events: deque[_Event] = deque(maxlen=_MAX_QUEUED)
        self._textless: deque[tuple[str, Resource]] = deque(maxlen=_MAX_QUEUED)
        """Transfers whose texts are still to be asked for, by what stands for them: many, if they end faster."""
        self._texts_from = 0.0
        """When texts may be asked for again, by the monotonic clock."""
        self._writing = threading.Lock()
        self._started = self._begun = self._closed = False
        self._obstacle: str | None = None
        self._thread = Periodic("transfers-ledger", self._delay, self._work)
        self._corrections: dict[str, str] = {}
        registry.on_end(self._incoming_ended)
        registry.on_correction(self.correct)

    # --- what happens to transfers

    def ended(self, record: TransferRecord) -> None:
        """A job has come to its end. Never blocks."""
        self._add(record)

    def begun_anew(self, identifier: str) -> None:
        """A job that had ended was resubmitted. Never blocks."""
        self._add(identifier)

    def correct(self, report: str, error: str) -> None:
        """What a failed transfer says of the instances still here has changed (see ``retold``). Never blocks."""
        self._add(_Correction(report, error))

    def _incoming_ended(self, transfer: IncomingTransfer) -> None:
        # Jobs tell of pulls; and an outcome that is forgotten was told before.
        if transfer.kind == PUSH and not (transfer.dropped and transfer.outcome is not None):
            self._add(push_record(transfer, self._clock.now()))

    def _add(self, event: _Event) -> None:
        self._events.append(event)
        if self._started:
            self._thread.start()

    # --- what is asked

    @property
    def obstacle(self) -> str | None:
        """Why the history may be incomplete, one sentence."""
        return self._obstacle

    def find(self, query: TransferQuery, limit: int, offset: int) -> Found:
        """A page of the ended transfers, the newest first. Whatever ended before the call is there."""
        self._flush()
        try:
            return self._past.find(query, limit, offset)
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
            return Found()

    def again(self, identifier: str) -> tuple[dict[str, Any], dict[str, Any] | None] | None:
        """See ``PastTransfers.again``; ``None`` too if the history cannot be read."""
        self._flush()
        try:
            return self._past.again(identifier)
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
            return None

    # --- the thread

    def start(self) -> None:
        """Orthanc has started: its index can be asked."""
        self._started = True
        threads.start("transfers-ledger-start", self._start)

    def _start(self) -> None:
        self._begin()
        self._begun = True

    def close(self) -> None:
        """Orthanc stops: write what is left, without texts."""
        self._thread.close()
        self._flush()
        self._closed = True
        self._past.close()

    def _delay(self) -> float | None:
        if self._obstacle is not None:
            return RETRY
        if self._events:
            return BATCH
        return max(BATCH, self._texts_from - self._clock.monotonic()) if self._textless else None

    def _work(self) -> None:
        self._flush()
        self._expire()
        self._add_texts()

    def _add_texts(self) -> None:
        began = self._clock.monotonic()
        if began < self._texts_from:
            return
        for _ in range(TEXTS_AT_ONCE):
            if self._closed or not self._textless:
                return
            self._add_text(*self._textless.popleft())
            spent = self._clock.monotonic() - began
            if spent > BATCH * TEXTS_SHARE:
                self._texts_from = began + spent / TEXTS_SHARE
                return

    def _flush(self) -> None:
        if self._closed:
            return
        with self._writing:
            try:
                if self._past.open() and self._begun:
                    # It was lost while Orthanc runs.
                    threads.start("transfers-ledger-rebuild", self._begin)
                self._write()
            except (sqlite3.Error, OSError) as error:
                self._failed(error)
            else:
                self._obstacle = None

    def _write(self) -> None:
        events: list[_Event] = []
        while self._events:
            events.append(self._events.popleft())
        if not events:
            return
        corrections = {one.report: one.error for one in events if isinstance(one, _Correction)}
        self._remember(corrections)
        ends = {
            one if isinstance(one, str) else one.id: one for one in events if not isinstance(one, _Correction)
        }
        rows = [self._row(one) for one in ends.values() if not isinstance(one, str)]
        try:
            self._past.write(rows, (name for name, one in ends.items() if isinstance(one, str)))
            for report, error in corrections.items():
                self._past.correct(report, error)
        except BaseException:
            self._events.extendleft(reversed(events))
            raise
        self._queue_texts(row.shown for row in rows)

    def _queue_texts(self, shown: Iterable[Mapping[str, Any]]) -> None:
        for one in shown:
            resource = first_resource(one)
            if one["Patient"] is None and resource is not None:
                self._textless.append((one["ID"], resource))

    def _remember(self, corrections: Mapping[str, str]) -> None:
        self._corrections |= corrections
        while len(self._corrections) > _MAX_CORRECTIONS:
            del self._corrections[next(iter(self._corrections))]

    def _row(self, record: TransferRecord) -> PastTransfer:
        now = self._corrections.get(record.transaction or "")
        if now is not None and record.error is not None:
            record = replace(record, error=retold(record.error, now))
        shown = record_to_json(record)
        resource = first_resource(shown)
        text = None if resource is None else self._texts.remembered(resource)[1]
        shown.update(text_to_json(text))
        shown["Report"] = record.transaction is not None and self._reports.exists(record.transaction)
        ended = self._clock.now() if record.ended is None else record.ended
        return PastTransfer(record.id, ended, shown, record.transaction, record.order)

    def _add_text(self, identifier: str, resource: Resource) -> None:
        with suppress(TransferError):
            text = self._texts.ask(resource)
            if text is not None:
                try:
                    self._past.amend(identifier, text_to_json(text))
                except (sqlite3.Error, OSError) as error:
                    self._failed(error)

    def _expire(self) -> None:
        now = self._clock.monotonic()
        if now < self._next_expiry or self._closed:
            return
        self._next_expiry = now + _EXPIRE_EVERY
        try:
            self._past.expire(self._clock.now() - self._retention)
        except (sqlite3.Error, OSError) as error:
            self._failed(error)

    def _rebuild(self) -> None:
        """Add what the reports tell of transfers that ended since the last one that is known, or of all."""
        since = self._past.newest() - REPORT_AGE
        # An earlier process may have had no time to ask for these.
        recent = self._past.since(since, _MAX_TEXTLESS)
        self._queue_texts(recent)
        for report in self._reports.all(since, self._past.reports_since(since - REPORT_AGE)):
            row = from_report(report)
            if self._closed or row is None:
                continue
            with self._writing:
                self._past.write([row])
            self._queue_texts([row.shown])

    def _begin(self) -> None:
        """After a start: what was not written before a kill, or with a lost index, is in the reports."""
        self._flush()
        try:
            self._rebuild()
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
        self._thread.start()

    def _failed(self, error: Exception) -> None:
        if isinstance(error, sqlite3.Error) and is_damage(error):
            # The next flush makes it anew.
            self._past.discard()
        if self._obstacle is None:
            log.warning("the history of transfers cannot be kept or read, transfers go on: %s", error)
        self._obstacle = f"the history of transfers cannot be kept or read: {error}"
        if self._started:
            self._thread.start()
