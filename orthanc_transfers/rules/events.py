"""Tells what became of entries: in the log, and to whom their rules want it told."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Mapping
from typing import Any, Protocol

from orthanc_transfers.core.rule_entry import Entry, EntryState
from orthanc_transfers.core.webhook import Event
from orthanc_transfers.rules.book import RuleBook
from orthanc_transfers.rules.queue import Changes, Queue

_EVENTS = {
    EntryState.DONE: Event.SUCCESS,
    EntryState.FAILED: Event.FAILURE,
    EntryState.GIVEN_UP: Event.FAILURE,
    EntryState.DROPPED: Event.FAILURE,
}

log = logging.getLogger(__name__)


class Notifier(Protocol):
    """``webhooks.Webhooks``."""

    def add(self, writer: sqlite3.Connection, rule: str, event: Event, details: Mapping[str, Any]) -> bool:
        """Queue an event within a transaction, if its rule wants it told. Returns whether it does."""

    def queued(self) -> None:
        """Something was added, and its transaction has ended."""


class Events:
    """Thread-safe."""

    def __init__(self, queue: Queue, book: RuleBook, notifier: Notifier | None = None) -> None:
        self._queue = queue
        self._book = book
        self._notifier = notifier
        self._added: set[int] = set()
        """Threads that added something of which the notifier does not know yet."""

    def ended(self, changes: Changes, entry: Entry, state: EntryState, said: str | None) -> None:
        """An entry has come to a state, within a transaction; it is told once that is an end."""
        event = _EVENTS.get(state)
        if event is None:
            return
        what = f"{entry.resource.level.value.lower()} {entry.resource.id}"
        level = logging.INFO if event is Event.SUCCESS else logging.WARNING
        log.log(level, "rule %s: %s is %s%s", entry.rule, what, state.value, f": {said}" if said else "")
        self._tell(changes, entry, event, state, said)

    def long_waiting(self) -> None:
        """Tell of entries that have waited for longer than their rules find normal, once of each."""
        for rule in self._book.working():
            if rule.notify is None or Event.WAITING not in rule.notify.events:
                continue
            entries = self._queue.long_waiting(rule.name, rule.notify.waiting)
            if not entries:
                continue
            with self._queue.changing() as changes:
                for entry in entries:
                    log.warning(
                        "rule %s: %s %s still waits: %s",
                        *(entry.rule, entry.resource.level.value.lower(), entry.resource.id, entry.said),
                    )
                    changes.set(entry.id, told=1)
                    self._tell(changes, entry, Event.WAITING, entry.state, entry.said)
        self.flush()

    def flush(self) -> None:
        """To be called after each transaction in which something ended."""
        thread = threading.get_ident()
        if self._notifier is not None and thread in self._added:
            self._added.discard(thread)
            self._notifier.queued()

    def _tell(
        self, changes: Changes, entry: Entry, event: Event, state: EntryState, said: str | None
    ) -> None:
        if self._notifier is None:
            return
        details = {
            "Level": entry.resource.level.value,
            "Resource": entry.resource.id,
            "Peer": entry.peer,
            "State": state.value,
            "Attempts": entry.attempts,
            "Queued": round(entry.queued, 3),
            "Job": entry.job,
            "Said": said,
        }
        if self._notifier.add(changes.writer, entry.rule, event, details):
            self._added.add(threading.get_ident())
