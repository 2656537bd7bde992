"""Mirrors: the comparisons of rules with their destinations, at their times and by hand.

    studies here ─▶ page by page: compare ─▶ queue what is missing there
                                     │
    MirrorDeletes: studies that this server sent, and that are here no longer ─▶ delete them there

How far one has come is on disk: it goes on after a restart, an outage of the peer, and when its window opens again.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from orthanc_transfers.core.backoff import Backoff
from orthanc_transfers.core.errors import Canceled, TransferError
from orthanc_transfers.core.mirror import Difference, Record, after_sending
from orthanc_transfers.core.model import Instance, Level, Manifest, Resource
from orthanc_transfers.core.rule import Rule
from orthanc_transfers.core.rule_entry import Entry
from orthanc_transfers.core.weekly_hours import is_open
from orthanc_transfers.jobs.services import Services
from orthanc_transfers.rules.book import RuleBook
from orthanc_transfers.rules.comparison import Comparison, Gone
from orthanc_transfers.rules.comparison_runs import ComparisonRuns, Run
from orthanc_transfers.rules.database import RuleDatabase
from orthanc_transfers.rules.matching import Matching
from orthanc_transfers.rules.mirror_records import MirrorRecords
from orthanc_transfers.rules.orthanc import LocalOrthanc
from orthanc_transfers.rules.queue import Queue
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.cancellation import Cancellation

PAGE = 20
"""Studies that are compared at once."""

ORIGIN = "Comparison"
"""What triggered entries that a comparison queued."""

BACKOFF = Backoff(retries=0, first=10.0, ceiling=900.0)

DRY_SECONDS = 20.0
DRY_RESULTS = 1000
"""Limits of a dry run: it says where it ended."""

RECYCLES = (
    "nothing is deleted there: this Orthanc itself deletes what is old (MaximumStorageSize or MaximumPatientCount),"
    " which looks like deletions"
)

log = logging.getLogger(__name__)


class Mirrors:
    """``minute`` is that of the week now, in local time; ``wake`` wakes the dispatcher. Thread-safe."""

    def __init__(
        self,
        services: Services,
        book: RuleBook,
        queue: Queue,
        database: RuleDatabase,
        matching: Matching,
        orthanc: LocalOrthanc,
        minute: Callable[[], int],
        wake: Callable[[], None],
    ) -> None:
        self._services = services
        self._book = book
        self._queue = queue
        self._database = database
        self._matching = matching
        self._orthanc = orthanc
        self._minute = minute
        self._wake = wake
        self._records = MirrorRecords(database)
        self._runs = ComparisonRuns(database, services.clock)
        self._stopped = Cancellation()
        self._running = threading.Lock()
        self._next_try = 0.0
        self._failures = 0

    def close(self) -> None:
        """Orthanc stops."""
        self._stopped.cancel()

    # --- what was sent

    def is_there(self, peer: str, study: Resource) -> bool:
        """Whether a peer has all of a study already; ``False`` if that is not known. Keeps what is there."""
        try:
            with self._comparison(peer) as comparison:
                found = comparison.studies([study.id])
            if not found or not found[0].equal:
                return False
            with self._database.writing() as writer:
                self._keep_equal(writer, peer, found[0], deletes=False)
        except (TransferError, sqlite3.Error, OSError):
            return False  # sending it says what is wrong
        return True

    def sent(self, entry: Entry) -> str | None:
        """An entry of a mirror was sent: keep what is there now, and return what is to be said of that.

        Raises ``TransferError``, ``sqlite3.Error``, ``OSError``.
        """
        if entry.job is None:
            return "all of it was there already"
        reports = self._services.reports
        report = (reports.read(entry.job) if entry.job else None) or reports.read(entry.transfer or "")
        if report is None or entry.peer is None:
            return None
        rows = sorted(report["Instances"], key=lambda row: str(row["ID"]))
        there = Manifest(Instance(row["ID"], row["Size"], row["MD5"]) for row in rows)
        before = frozenset(row["ID"] for row in rows if row["Outcome"] != "stored")
        record = after_sending(there, self._records.record(entry.peer, entry.resource.id), before)
        # What a power failure takes from the index here must not look as if it was deleted.
        self._services.store.sync()
        with self._database.writing() as writer:
            self._records.keep(writer, entry.peer, entry.resource.id, record)
        return None

    # --- comparisons

    def look(self) -> None:
        """Begin what it is time for, and go on with what was begun, in a thread of its own."""
        rules = [rule for rule in self._book.working() if rule.compare is not None]
        if not rules and not self._runs.any():
            return
        self._runs.follow({(rule.name, peer) for rule in rules for peer in rule.destinations})
        for rule in rules:
            assert rule.compare is not None
            self._runs.fire(rule.name, rule.destinations, rule.compare, self._minute())
        if self._database.now >= self._next_try and self._open_runs() and not self._running.locked():
            threads.start("transfers-rules-compare", self._run_all)

    def begin(self, rule: Rule) -> None:
        """By hand."""
        self._runs.begin(rule.name, rule.destinations)
        self._next_try = 0.0
        self._wake()

    def listing(self, rule: str) -> list[dict[str, Any]]:
        """The last comparison with each destination, as it is shown."""
        return [run.to_json() for run in self._runs.all() if run.rule == rule and run.began is not None]

    def _open_runs(self) -> list[tuple[Run, Rule]]:
        minute = self._minute()
        found = []
        for run in self._runs.all():
            rule = self._book.rule(run.rule)
            if run.running and rule is not None and rule.enabled and is_open(rule.window, minute):
                found.append((run, rule))
        return found

    def _run_all(self) -> None:
        if not self._running.acquire(blocking=False):
            return
        try:
            for run, rule in self._open_runs():
                self._run(run, rule)
        finally:
            self._running.release()

    def _run(self, run: Run, rule: Rule) -> None:
        try:
            with self._comparison(run.destination) as comparison:
                comparison.prepare()
                if self._compare(run, rule, comparison):
                    said = self._mirror_deletes(run, rule, comparison) if rule.mirror_deletes else None
                    self._runs.end(run, said)
                    log.info("rule %s: compared with peer %s: %s", rule.name, run.destination, run.summary)
            self._failures = 0
        except Canceled:
            return
        except (TransferError, sqlite3.Error, OSError) as error:
            self._next_try = self._database.now + BACKOFF.seconds(self._failures, 1.0)
            self._failures += 1
            if run.said is None:
                log.warning("rule %s: the comparison waits: %s", rule.name, error)
            self._runs.say(run, str(error))

    @contextmanager
    def _comparison(self, peer: str) -> Iterator[Comparison]:
        transport = self._services.peers.connect(peer, 1)
        forget = self._stopped.on_cancel(transport.abort)
        try:
            yield Comparison(self._services.store, transport, self._records, self._stopped)
        finally:
            forget()
            transport.close()

    def _compare(self, run: Run, rule: Rule, comparison: Comparison) -> bool:
        """Whether it came to its end: its window may close, or its rule change."""
        while run.position is not None:
            if self._book.rule(rule.name) != rule or not is_open(rule.window, self._minute()):
                return False
            page = self._orthanc.page(Level.STUDY, run.position, PAGE)
            found = comparison.studies(self._fitting(rule, page))
            deletes = rule.mirror_deletes and not self._services.registry.limited
            for one in found:
                if one.deleted and deletes:
                    comparison.delete(one.study, one.deleted)
                    run.deleted += len(one.deleted)
            with self._database.writing() as writer:
                for one in found:
                    run.queued += self._decide(writer, run, rule, one, deletes=deletes)
                run.compared += len(found)
                run.position = run.position + len(page) if len(page) == PAGE else None
                self._runs.keep(writer, run)
            self._wake()
        return True

    def _fitting(self, rule: Rule, studies: Sequence[str]) -> list[str]:
        return [one for one in studies if self._matching.mismatch(rule, Resource(Level.STUDY, one)) is None]

    def _decide(
        self, writer: sqlite3.Connection, run: Run, rule: Rule, one: Difference, *, deletes: bool
    ) -> bool:
        """Queue a study if it is to be sent; returns whether it is."""
        peer = run.destination
        if one.equal:
            self._keep_equal(writer, peer, one, deletes=deletes)
            return False
        if not self._wanted(rule, peer, one):
            return False
        if not one.missing:
            self._records.keep_tried(writer, peer, one.study, one.fingerprint)
        resource = Resource(Level.STUDY, one.study)
        stamp = self._orthanc.last_update(resource)
        if stamp is not None:
            self._queue.add(writer, rule, resource, ORIGIN, stamp=stamp, only=peer)
        return stamp is not None

    def _keep_equal(self, writer: sqlite3.Connection, peer: str, one: Difference, *, deletes: bool) -> None:
        """``deletes``: what was deleted here was deleted there by now; else it is there still, as it is known."""
        if one.deleted and not deletes:
            return
        known = self._records.record(peer, one.study)
        if one.deleted or known is None or known.fingerprint != one.fingerprint:
            self._records.keep(writer, peer, one.study, Record(one.fingerprint, bool(one.deleted)))
        elif not known.ours:
            self._records.own_again(writer, peer, one.study)

    def _wanted(self, rule: Rule, peer: str, one: Difference) -> bool:
        if one.gone and rule.mirror_deletes:
            return False  # it was deleted there
        # Other bytes are sent once: a receiver that changes what it stores would get them every night.
        return bool(one.missing) or self._records.tried(peer, one.study) != one.fingerprint

    def _mirror_deletes(self, run: Run, rule: Rule, comparison: Comparison) -> str | None:
        """Delete there what was deleted here; returns what is to be said of it."""
        if self._services.registry.limited:
            return RECYCLES
        gone = self._gone(comparison)
        if gone.suspicious:
            return _lost(gone)
        changed = 0
        for study in gone.gone:
            if self._book.rule(rule.name) != rule:
                return None
            found = comparison.deleted(study)
            changed += found.changed
            comparison.delete(study, found.instances)
            run.deleted += len(found.instances)
            if found.instances:
                self._records.forget(run.destination, [study])
                log.warning(
                    "rule %s: study %s was deleted here, and now on peer %s",
                    rule.name,
                    study,
                    run.destination,
                )
        if not changed:
            return None
        return f"{changed} studies that were deleted here are kept there: something else came to them since"

    def _gone(self, comparison: Comparison) -> Gone:
        gone, after = Gone(), ""
        while (following := comparison.sent_studies(after, 500, gone)) is not None:
            after = following
        return gone

    # --- dry runs

    def dry_run(self, rule: Rule, since: int) -> dict[str, Any]:
        """What a comparison would do, without doing it; from study number ``since`` on."""
        end = time.monotonic() + DRY_SECONDS
        rows: list[dict[str, Any]] = []
        position: int | None = since
        compared = 0
        while position is not None and len(rows) < DRY_RESULTS and time.monotonic() < end:
            page = self._orthanc.page(Level.STUDY, position, PAGE)
            fitting = self._fitting(rule, page)
            for peer in rule.destinations:
                with self._comparison(peer) as comparison:
                    if position == since:
                        comparison.prepare()
                    for one in comparison.studies(fitting):
                        row = self._dry_row(rule, peer, one)
                        rows += [] if row is None else [row]
            compared += len(fitting)
            position = position + len(page) if len(page) == PAGE else None
        answer: dict[str, Any] = {"Studies": rows, "Compared": compared, "Next": position}
        if position is None and rule.mirror_deletes:
            answer["Deletions"] = [self._dry_deletions(peer) for peer in rule.destinations]
        return answer

    def _dry_row(self, rule: Rule, peer: str, one: Difference) -> dict[str, Any] | None:
        send = not one.equal and self._wanted(rule, peer, one)
        delete = len(one.deleted) if rule.mirror_deletes else 0
        return {"Peer": peer, "Send": send, **one.to_json()} if send or delete else None

    def _dry_deletions(self, peer: str) -> dict[str, Any]:
        with self._comparison(peer) as comparison:
            gone = self._gone(comparison)
            said = _lost(gone) if gone.suspicious else None
            if self._services.registry.limited:
                said = RECYCLES
            studies = [] if said else [comparison.deleted(one) for one in gone.gone[:DRY_RESULTS]]
        return {
            "Peer": peer,
            "Studies": [one.study for one in studies if one.instances],
            "Kept": [one.study for one in studies if one.changed],
            "Said": said,
        }


def _lost(gone: Gone) -> str:
    return (
        f"nothing is deleted there: {len(gone.gone)} of the {gone.sent} studies that were sent are missing here, which"
        " looks like a lost index rather than deletions; delete on the peer by hand if they are"
    )
