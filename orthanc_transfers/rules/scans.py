"""Walks through all that Orthanc has, for rules by time and rules run by hand.

Page by page, and after a restart from where it was.
"""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any

from orthanc_transfers.core.model import Resource
from orthanc_transfers.core.rule import AT_A_TIME, Rule, TimeOfWeek
from orthanc_transfers.interfaces import Clock
from orthanc_transfers.rules.book import RuleBook
from orthanc_transfers.rules.database import RuleDatabase
from orthanc_transfers.rules.matching import Matching
from orthanc_transfers.rules.orthanc import LocalOrthanc
from orthanc_transfers.rules.queue import Queue

PAGE = 50
"""Resources that are looked at in one turn of the dispatcher."""

DRY_RESULTS = 1000
DRY_SECONDS = 20.0
"""Limits of a dry run."""

# Seconds by which two times of a rule are apart at least: less, and the clock was put back.
_APART = 2 * 3600.0
_DAY = 86400.0


class Scans:
    """Used by the dispatcher's thread, but for ``begin`` and ``dry_run``. ``minute`` is that of the week, now."""

    def __init__(
        self,
        book: RuleBook,
        queue: Queue,
        database: RuleDatabase,
        matching: Matching,
        orthanc: LocalOrthanc,
        clock: Clock,
        minute: Callable[[], int],
    ) -> None:
        self._book = book
        self._queue = queue
        self._database = database
        self._matching = matching
        self._orthanc = orthanc
        self._clock = clock
        self._minute = minute

    def look(self) -> bool:
        """Begin what it is time for, go on with what was begun; returns whether there is more."""
        self._fire()
        with self._database.reading() as reader:
            rows = reader.execute("SELECT * FROM scans ORDER BY id").fetchall()
        unreadable = self._book.unreadable()
        row = next((one for one in rows if one["rule"] not in unreadable), None)
        if row is None:
            return False
        self._go_on(row)
        return True

    def begin(self, writer: sqlite3.Connection, rule: str, origin: str) -> None:
        """Walk through all, for a rule, unless that is about to begin anyway."""
        writer.execute("DELETE FROM scans WHERE rule = ? AND position = 0", (rule,))
        writer.execute("INSERT INTO scans (rule, origin) VALUES (?, ?)", (rule, origin))

    def dry_run(self, rule: Rule) -> dict[str, Any]:
        """What a run by hand would send, without sending it."""
        end = time.monotonic() + DRY_SECONDS
        found: list[Resource] = []
        looked = 0
        for since in itertools.count(0, PAGE):
            identifiers = self._orthanc.page(rule.level, since, PAGE)
            found += [resource for resource, *_ in self._unsent(rule, identifiers)]
            looked += len(identifiers)
            whole = len(identifiers) < PAGE
            if whole or len(found) >= DRY_RESULTS or time.monotonic() > end:
                break
        return {
            "WouldSend": [{"Level": one.level.value, "ID": one.id} for one in found[:DRY_RESULTS]],
            "Count": len(found),
            "LookedAt": looked,
            "Complete": whole,
        }

    def _fire(self) -> None:
        now = self._clock.now()
        for known in self._book.all():
            rule = known.rule
            if rule is None or rule.time is None or not rule.enabled:
                continue
            due = due_moment(rule.time, known.fired, now, self._minute())
            if due is not None:
                moment, real = due
                with self._database.writing() as writer:
                    self._book.fire(writer, rule.name, moment)
                    if real:
                        self.begin(writer, rule.name, AT_A_TIME)

    def _go_on(self, row: sqlite3.Row) -> None:
        rule = self._book.rule(row["rule"])
        identifiers = [] if rule is None else self._orthanc.page(rule.level, row["position"], PAGE)
        matching = [] if rule is None else list(self._unsent(rule, identifiers))
        with self._database.writing() as writer:
            for resource, stamp, places in matching:
                assert rule is not None
                for place in places:
                    self._queue.add(writer, rule, resource, row["origin"], stamp=stamp, only=place)
            if len(identifiers) < PAGE:
                writer.execute("DELETE FROM scans WHERE id = ?", (row["id"],))
            else:
                # What is deleted meanwhile moves others to the front: those are found by the next scan.
                position = row["position"] + len(identifiers)
                writer.execute("UPDATE scans SET position = ? WHERE id = ?", (position, row["id"]))

    def _unsent(self, rule: Rule, identifiers: list[str]) -> Iterator[tuple[Resource, str, tuple[str, ...]]]:
        """Each with when it last changed, and the places that do not have it so."""
        for identifier in identifiers:
            resource = Resource(rule.level, identifier)
            stamp = self._orthanc.last_update(resource)
            places = () if stamp is None else self._queue.unsent(rule, resource, stamp)
            if stamp is not None and places and self._matching.mismatch(rule, resource) is None:
                yield resource, stamp, places


def due_moment(at: TimeOfWeek, fired: float, now: float, minute: int) -> tuple[float, bool] | None:
    """The moment (seconds since the epoch) of a time that is to be dealt with now, ``minute`` of the week.

    ``None``: there is none. ``fired``: up to that moment all is dealt with. ``False`` with it: nothing is to be done,
    for the clock was wrong when ``fired`` was written.
    """
    moment = now // 60 * 60 - at.since(minute) * 60
    if fired > now + _DAY:
        return now, False
    return (moment, True) if moment > fired + _APART or fired < moment <= now < moment + 60 else None
