"""Takes Orthanc's changes into the queue, from Orthanc's own list: so none is lost with a process or taken twice.

Orthanc's callback only says that there is something new in the list. What is read is queued, and how far it was read
is kept in the same synced transaction, by the thread that works the queue off; what came meanwhile is in the next one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from orthanc_transfers.core.model import Resource
from orthanc_transfers.core.rule import CHANGES, Rule
from orthanc_transfers.rules.book import RuleBook
from orthanc_transfers.rules.database import RuleDatabase, put_fact
from orthanc_transfers.rules.orthanc import Change, LocalOrthanc
from orthanc_transfers.rules.queue import Position, Queue
from orthanc_transfers.rules.unsettled import Unsettled

PAGE = 500
"""Changes that are read at once."""

KEEP_EVERY = 20_000
"""Changes that concern no rule, after which it is kept how far was read."""

SETTLE_EVERY = 60.0
"""Seconds between two notes of what is settled."""

_SEEN, _EPOCH, _SETTLED = "Seen", "Epoch", "Settled"

log = logging.getLogger(__name__)


class Intake:
    """Thread-safe. Methods raise ``sqlite3.Error``, ``OSError``, ``HostError``."""

    def __init__(
        self,
        book: RuleBook,
        queue: Queue,
        database: RuleDatabase,
        orthanc: LocalOrthanc,
        unsettled: Unsettled,
        on_other_index: Callable[[], object] = lambda: None,
    ) -> None:
        """``on_other_index`` is called at the start of Orthanc if its list of changes is another one than before."""
        self._book = book
        self._queue = queue
        self._database = database
        self._orthanc = orthanc
        self._lock = threading.Lock()
        self._epoch = 0
        self._seen = 0
        self._kept = 0
        self._unsettled = unsettled
        self._on_other_index = on_other_index
        self._next_settled = 0.0

    def begin(self) -> int:
        """After the start of Orthanc: find out where to go on; returns the last change of now."""
        with self._lock:
            last = self._orthanc.last_change()
            seen = self._database.fact(_SEEN)
            self._epoch = int(self._database.fact(_EPOCH) or 0)
            self._seen = self._kept = last if seen is None else int(seen)
            if last < self._seen:
                log.warning(
                    "Orthanc's list of changes is another one than before (it ends at %d, not at %d): what it brought"
                    " before now is sent by no rule unless the rule is run by hand",
                    *(last, self._seen),
                )
                self._epoch, self._seen = self._epoch + 1, last
                self._book.begin_anew()
                self._on_other_index()
            self._keep()
            return last

    def skip(self) -> None:
        """No rule follows changes: none of those until now will concern one."""
        with self._lock:
            self._seen = self._orthanc.last_change()
            self._keep()

    def _keep(self) -> None:
        with self._database.writing() as writer:
            put_fact(writer, _EPOCH, self._epoch)
            put_fact(writer, _SEEN, self._seen)
        self._kept = self._seen

    def take_unsettled(self, until: int) -> None:
        """After a start: queue what has become stable by it, up to a change that was the last one then."""
        settled = self._database.fact(_SETTLED)
        if settled is None or until < int(settled):
            self._keep_settled(until)
            return
        missing = [
            Change(number, type_, id) for type_, id, number in self._unsettled.find(int(settled), until)
        ]
        with self._lock:
            if missing:
                self._queue_all(sorted(missing, key=lambda one: one.number), self._seen)
            self._keep_settled(int(settled))

    def settle(self) -> None:
        """To be called now and then: remember what need not be looked through after the next start."""
        settled = self._unsettled.settled()
        if settled is not None and self._database.now >= self._next_settled:
            self._keep_settled(settled)

    def _keep_settled(self, settled: int) -> None:
        if settled != self._database.fact(_SETTLED):
            with self._database.writing() as writer:
                put_fact(writer, _SETTLED, settled)
        self._next_settled = self._database.now + SETTLE_EVERY

    def catch_up(self) -> int:
        """Queue all that changed since the last call; returns how many changes concern a rule."""
        taken = 0
        with self._lock:
            done = False
            while not done:
                changes, done = self._orthanc.changes(self._seen, PAGE)
                if not changes:
                    break
                taken += self._take(changes)
        return taken

    def _take(self, changes: list[Change]) -> int:
        last = changes[-1].number
        taken = self._queue_all(changes, last)
        self._seen = last
        return taken

    def _queue_all(self, changes: list[Change], last: int) -> int:
        """Queue what concerns a rule; ``last``: the changes up to this one were seen. Returns how many did."""
        following = [
            (known.rule, known.since)
            for known in self._book.all()
            if known.rule is not None and known.rule.follows_changes()
        ]
        items = [
            (rule, one, resource)
            for one in changes
            for rule, since in following
            if one.type == rule.trigger and one.number > since
            # Deleted meanwhile: there is nothing to send.
            if (resource := self._lifted(rule, one)) is not None
        ]
        if items or last - self._kept >= KEEP_EVERY:
            with self._database.writing() as writer:
                for rule, one, resource in items:
                    self._queue.add(writer, rule, resource, one.type, Position(self._epoch, one.number))
                put_fact(writer, _SEEN, last)
            self._kept = last
        return len(items)

    def _lifted(self, rule: Rule, change: Change) -> Resource | None:
        return self._orthanc.lifted(Resource(CHANGES[change.type], change.resource), rule.level)
