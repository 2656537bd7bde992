"""Notifications that wait for their server, on disk: told at least once, in their order, server by server.

What is queued survives a restart. A server that does not take one is tried again, after twice as long each time; the
notifications behind it wait with it, those to other servers do not.
"""

from __future__ import annotations

import json
import logging
import random
import sqlite3
import threading
import uuid
from collections.abc import Callable, Collection, Mapping
from typing import Any

from orthanc_transfers.core.backoff import Backoff
from orthanc_transfers.core.webhook import Event, Notify
from orthanc_transfers.interfaces import Clock
from orthanc_transfers.rules.database import RuleDatabase
from orthanc_transfers.runtime.threads import Periodic

MAX_QUEUED = 10_000
"""Notifications that wait; beyond that, the oldest one is dropped for a new one."""

GIVE_UP = 7 * 24 * 3600.0
"""Seconds, of queue time, after which a notification is dropped."""

BACKOFF = Backoff(retries=0, first=5.0, ceiling=900.0)

_BATCH = 100
# Seconds between two looks at the queue: what is queued meanwhile waits no longer.
_SOON, _LATER = 0.05, 1.0
_AFTER_TROUBLE = 5.0

SCHEMA = """
CREATE TABLE IF NOT EXISTS notifications (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    rule TEXT NOT NULL,
    event TEXT NOT NULL,
    body TEXT NOT NULL,          -- JSON
    queued REAL NOT NULL,        -- queue time, as next_try
    attempts INTEGER NOT NULL DEFAULT 0,
    next_try REAL NOT NULL DEFAULT 0,
    said TEXT                    -- the last error
);
CREATE INDEX IF NOT EXISTS notifications_of_rule ON notifications (rule, id);
"""

log = logging.getLogger(__name__)

Post = Callable[[str, Mapping[str, str], bytes], str | None]
"""``net.webhook_post.post``."""


class Webhooks:
    """Thread-safe. ``notify`` returns where a rule's events go now; ``None``: nowhere.

    Nobody knows that of the rules that are ``unreadable`` now: their notifications wait until they are mended.
    """

    def __init__(
        self,
        database: RuleDatabase,
        notify: Callable[[str], Notify | None],
        post: Post,
        clock: Clock,
        jitter: Callable[[], float] = random.random,
        unreadable: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        self._database = database
        self._notify = notify
        self._post = post
        self._clock = clock
        self._jitter = jitter
        self._unreadable = unreadable
        self._closed = threading.Event()
        self._trouble = False
        self._due: float | None = 0.0
        self._thread = Periodic("transfers-webhooks", self._delay, self.deliver)

    def start(self) -> None:
        """The database is open: deliver what an earlier process left."""
        self._wake()

    def close(self) -> None:
        """Orthanc stops: what waits is delivered after its next start."""
        self._closed.set()
        self._thread.close()

    def add(self, writer: sqlite3.Connection, rule: str, event: Event, details: Mapping[str, Any]) -> bool:
        """Queue an event within a transaction of the caller, if its rule wants it told. Returns whether it does.

        ``queued`` is to be called after the transaction.
        """
        notify = self._notify(rule)
        if notify is None or event not in notify.events:
            return False
        body = {
            "ID": str(uuid.uuid4()),
            "Event": event.value,
            "Rule": rule,
            "Time": round(self._clock.now(), 3),
            **details,
        }
        writer.execute(
            "INSERT INTO notifications (rule, event, body, queued) VALUES (?, ?, ?, ?)",
            (rule, event.value, json.dumps(body), self._database.now),
        )
        dropped = writer.execute(
            "DELETE FROM notifications WHERE id <= (SELECT MAX(id) FROM notifications) - ?", (MAX_QUEUED,)
        ).rowcount
        if dropped > 0:
            log.warning("%d notifications of rules were dropped: more than %d waited", dropped, MAX_QUEUED)
        return True

    def queued(self) -> None:
        """Something was added."""
        self._wake()

    def waiting(self) -> int:
        """How many wait."""
        with self._database.reading() as reader:
            (count,) = reader.execute("SELECT COUNT(*) FROM notifications").fetchone()
        return int(count)

    # --- the thread

    def _wake(self) -> None:
        self._due = 0.0
        self._thread.start()

    def _delay(self) -> float | None:
        if self._closed.is_set():
            return None
        if self._trouble:
            return _AFTER_TROUBLE
        return None if self._due is None else max(_SOON, min(self._due - self._database.now, _LATER))

    def deliver(self) -> None:
        """Try all that are due, once."""
        try:
            self._due = None
            self._deliver()
        except (sqlite3.Error, OSError) as error:
            if not self._trouble and not self._closed.is_set():
                log.warning("notifications of rules cannot be read or written: %s", error)
            self._trouble = True
        else:
            self._trouble = False

    def _deliver(self) -> None:
        # Of each rule the first one: those behind it wait for it.
        while rows := self._heads():
            progress = False
            for row in rows:
                if self._closed.is_set():
                    return
                progress = self._try(row) or progress
            if not progress:
                break
        with self._database.reading() as reader:
            (due,) = reader.execute(f"SELECT MIN(next_try) FROM ({_HEADS})").fetchone()  # noqa: S608
        if due is not None and (self._due is None or due < self._due):
            self._due = due

    def _heads(self) -> list[sqlite3.Row]:
        with self._database.reading() as reader:
            return reader.execute(
                f"SELECT * FROM ({_HEADS}) WHERE next_try <= ? ORDER BY id LIMIT ?",  # noqa: S608
                (self._database.now, _BATCH),
            ).fetchall()

    def _try(self, row: sqlite3.Row) -> bool:
        """Whether it is out of the queue."""
        notify = self._notify(row["rule"])
        reason = None
        if notify is not None:
            body = row["body"].encode()
            reason = self._post(notify.url, notify.headers(row["event"], body, self._clock.now()), body)
        elif row["rule"] in self._unreadable():
            reason = "the rule cannot be read"
        if reason is not None:
            late = self._database.now - row["queued"] > GIVE_UP
            if late or not row["attempts"]:
                log.warning(
                    "the notification %s of rule %s was not taken by %s: %s; it is %s",
                    row["event"],
                    row["rule"],
                    "its server" if notify is None else notify.where,
                    reason,
                    "dropped" if late else "tried again",
                )
            if not late:
                delay = BACKOFF.seconds(row["attempts"], self._jitter())
                with self._database.writing() as writer:
                    writer.execute(
                        "UPDATE notifications SET attempts = attempts + 1, next_try = ?, said = ? WHERE id = ?",
                        (self._database.now + delay, reason, row["id"]),
                    )
                return False
        with self._database.writing() as writer:
            writer.execute("DELETE FROM notifications WHERE id = ?", (row["id"],))
        return True


_HEADS = "SELECT * FROM notifications WHERE id IN (SELECT MIN(id) FROM notifications GROUP BY rule)"
