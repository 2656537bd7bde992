"""Does, entry by entry and in a thread of its own, what rules want done with what was sent: it may take long."""

from __future__ import annotations

import logging
import sqlite3
import threading

from orthanc_transfers.core.errors import TransferError
from orthanc_transfers.core.rule_entry import Entry, EntryState
from orthanc_transfers.rules.book import RuleBook
from orthanc_transfers.rules.events import Events
from orthanc_transfers.rules.finishing import Finishing
from orthanc_transfers.rules.queue import Queue
from orthanc_transfers.runtime import threads

log = logging.getLogger(__name__)


class Finisher:
    """What is not done when the process dies is done by the next one: the entries are in their state until then."""

    def __init__(self, book: RuleBook, queue: Queue, finishing: Finishing, events: Events) -> None:
        self._book = book
        self._queue = queue
        self._finishing = finishing
        self._events = events
        self._working = threading.Lock()
        self._closed = False

    def work(self) -> None:
        """Start the thread if there is something to do. Raises ``sqlite3.Error``, ``OSError``."""
        if not self._working.locked() and self._entries(1):
            threads.start("transfers-rules-after", self._work)

    def close(self) -> None:
        """Orthanc stops."""
        self._closed = True

    def _work(self) -> None:
        if not self._working.acquire(blocking=False):
            return
        try:
            for entry in self._entries():
                if self._closed:
                    return
                self._finish(entry)
        except (sqlite3.Error, OSError) as error:
            log.warning("what rules want done with what was sent is tried again: %s", error)
        finally:
            self._working.release()

    def _entries(self, limit: int = -1) -> list[Entry]:
        """Those whose rules rest stay as they are: their rules may be mended, or enabled again."""
        return self._queue.in_state(EntryState.FINISHING, limit, self._book.resting())

    def _finish(self, entry: Entry) -> None:
        if entry.rule in self._book.resting():
            return  # since the look
        rule = self._book.rule(entry.rule)
        try:
            said = (
                "sent; its rule was deleted before it did what was to be done then"
                if rule is None
                else self._finishing.finish(rule, entry, lambda: not self._closed)
            )
        except TransferError as error:
            if self._closed:
                return
            said = f"sent, but what was to be done afterwards failed: {error}"
            log.warning("rule %s, %s: %s", entry.rule, entry.resource.id, said)
        with self._queue.changing() as changes:
            changes.end(entry.id, EntryState.DONE, said)
            self._events.ended(changes, entry, EntryState.DONE, said)
        self._events.flush()
