"""The rules of this Orthanc: all parts, put together, begun with the first rule and ended with Orthanc.

Without a rule there is no file, no thread and nothing to do at a change.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from orthanc_transfers.core.errors import Conflict, HostError, NoSpace
from orthanc_transfers.core.model import Resource
from orthanc_transfers.core.rule import Rule
from orthanc_transfers.core.rule_entry import Entry, EntryState
from orthanc_transfers.core.transfer_record import TransferRecord
from orthanc_transfers.core.webhook import hide_secrets
from orthanc_transfers.interfaces import JobQueue, ResourceFacts
from orthanc_transfers.jobs.services import Services
from orthanc_transfers.jobs.submission import Submission
from orthanc_transfers.net.webhook_post import post
from orthanc_transfers.rules import anonymized, comparison_runs, mirror_records, webhooks
from orthanc_transfers.rules.anonymized import AnonymizedCopies
from orthanc_transfers.rules.book import KnownRule, RuleBook
from orthanc_transfers.rules.by_hand import ByHand
from orthanc_transfers.rules.database import RuleDatabase
from orthanc_transfers.rules.dispatcher import Dispatcher
from orthanc_transfers.rules.events import Events
from orthanc_transfers.rules.finisher import Finisher
from orthanc_transfers.rules.finishing import Finishing
from orthanc_transfers.rules.followers import follow_rules
from orthanc_transfers.rules.intake import Intake
from orthanc_transfers.rules.matching import Matching
from orthanc_transfers.rules.metrics import metrics_of
from orthanc_transfers.rules.mirrors import Mirrors
from orthanc_transfers.rules.orthanc import LocalOrthanc
from orthanc_transfers.rules.problems import Problems
from orthanc_transfers.rules.processes import PeerProcesses
from orthanc_transfers.rules.queue import Queue
from orthanc_transfers.rules.running import RunningJobs
from orthanc_transfers.rules.scans import Scans
from orthanc_transfers.rules.unsettled import Unsettled
from orthanc_transfers.rules.webhooks import Webhooks
from orthanc_transfers.runtime import threads

log = logging.getLogger(__name__)


class RuleService:
    """Thread-safe. ``path`` is the file of its database. Methods for users raise ``TransferError``.

    ``shared``: see ``SqliteFile``.
    ``listen`` sets the callback of some changes of Orthanc, by their names.
    """

    def __init__(
        self,
        services: Services,
        jobs: JobQueue,
        submission: Submission,
        orthanc: LocalOrthanc,
        facts: ResourceFacts,
        path: Callable[[], Path],
        listen: Callable[[Collection[str], Callable[[], None]], None],
        stable_age: int,
        *,
        shared: bool = False,
    ) -> None:
        settings, clock = services.settings, services.clock
        self._orthanc = orthanc
        schemas = (webhooks.SCHEMA, anonymized.SCHEMA, mirror_records.SCHEMA, comparison_runs.SCHEMA)
        self._database = RuleDatabase(path, clock, schemas, shared=shared)
        self._book = RuleBook(settings.rules, self._database, clock.now)
        self._queue = Queue(self._database, clock)
        self._copies = AnonymizedCopies(
            self._database, services.store, clock, orthanc.get, orthanc.post, orthanc.delete
        )
        self._matching = Matching(
            facts, self._copies.is_copy, PeerProcesses(services.peers, services.capabilities, clock).of
        )
        self._problems = Problems(self._matching, services.peers.names, clock)
        self._intake = Intake(
            self._book,
            self._queue,
            self._database,
            orthanc,
            Unsettled(orthanc, clock, stable_age),
            mirror_records.MirrorRecords(self._database).disown,
        )
        self._webhooks = Webhooks(
            self._database, self._book.notify, post, clock, unreadable=self._book.unreadable
        )
        events = Events(self._queue, self._book, self._webhooks)
        self._dispatcher = Dispatcher(
            self._book,
            self._queue,
            self._database,
            lambda now, wake: RunningJobs(
                submission, jobs, services.reports, now, wake, self._copies, self._is_there
            ),
            self._matching,
            orthanc,
            Finisher(
                self._book,
                self._queue,
                Finishing(services.store, services.reports, orthanc, self._queue.siblings, self._mirrored),
                events,
            ),
            events,
            services.store,
            clock,
            max_jobs=settings.max_rule_jobs,
            retention_days=settings.report_retention,
            look=self._look,
            take_changes=self._take_changes,
        )
        self._scans = Scans(
            self._book, self._queue, self._database, self._matching, orthanc, clock, self._dispatcher.minute
        )
        self._mirrors = Mirrors(
            services,
            self._book,
            self._queue,
            self._database,
            self._matching,
            orthanc,
            self._dispatcher.minute,
            self._dispatcher.wake,
        )
        self._by_hand = ByHand(self._queue, self._scans, self._matching, orthanc)
        self._lock = threading.Lock()
        self._begun = False
        self._closed = False
        self._behind = False
        self._listen = listen

    # --- Orthanc's life

    def start(self) -> None:
        """Orthanc has started. Never blocks."""
        if self._book.has_configured or self._database.exists():
            threads.start("transfers-rules-start", self._start)

    def _start(self) -> None:
        try:
            with self._lock:
                self._begin()
        except (sqlite3.Error, OSError, HostError) as error:
            log.error("the rules cannot work: their queue cannot be used: %s", error)

    def _begin(self, *, first: bool = False) -> None:
        """With the rules of the configuration and of before, or with the ``first`` one."""
        if self._begun or self._closed:
            return
        self._database.open()
        last = self._intake.begin()
        self._book.load(last)
        self._intake.take_unsettled(last)
        self._begun = True
        self._rules_changed()
        if not first and not self._book.all() and not self._queue.rules():
            # The last rule is gone: nothing is to be done, until there is one again.
            self._begun = False
            self._database.close()
            return
        self._behind = True
        self._dispatcher.start()
        self._webhooks.start()

    def close(self) -> None:
        """Orthanc stops."""
        self._closed = True
        self._mirrors.close()
        self._webhooks.close()
        self._dispatcher.close()
        self._database.close()

    def _changed(self) -> None:
        """Orthanc tells of a change. Asks nothing of Orthanc, and waits for nothing.

        Its thread of changes holds a lock here for which the submission of a job waits, while that holds the one for
        which each question to Orthanc waits (1.10.1). Nothing is lost: the next start finds all changes since those in
        the queue.
        """
        self._behind = True
        self._dispatcher.wake()

    def _take_changes(self) -> bool:
        """Queue what has changed, in the dispatcher's thread; returns whether it concerns a rule."""
        if not self._behind:
            return False
        self._behind = False
        try:
            return self._intake.catch_up() > 0
        except (sqlite3.Error, OSError, HostError):
            self._behind = True
            raise

    def ended(self, record: TransferRecord) -> None:
        """A job of this Orthanc has ended. Never blocks."""
        self._dispatcher.ended(record)

    def _look(self) -> bool:
        """Now and then, in the dispatcher's thread."""
        self._intake.settle()
        self._copies.sweep_later()
        self._mirrors.look()
        self._problems.look(self._book.all())
        return self._scans.look()

    def _mirrored(self, entry: Entry) -> str | None:
        return self._mirrors.sent(entry)

    def _is_there(self, peer: str, resource: Resource) -> bool:
        return self._mirrors.is_there(peer, resource)

    def _rules_changed(self) -> None:
        follow_rules(self._book, self._queue, self._database)
        triggers = frozenset(
            one.rule.trigger
            for one in self._book.all()
            if one.rule is not None and one.rule.follows_changes()
        )
        if not triggers:
            self._intake.skip()
        self._listen(triggers, self._changed)
        self._problems.name_in_log(self._book.all())
        self._dispatcher.rules_changed()

    # --- for users

    def listing(self) -> list[dict[str, Any]]:
        """All rules, as they are shown."""
        counts = self._queue.counts() if self._begun else {}
        oldest = self._queue.oldest() if self._begun else {}
        return [self._shown(one, counts.get(one.name, {}), oldest.get(one.name)) for one in self._book.all()]

    def one(self, name: str) -> dict[str, Any]:
        """One rule."""
        known = self._book.known(name)
        with _usable():
            counts = self._queue.counts().get(name, {})
            return self._shown(known, counts, self._queue.oldest().get(name))

    def put(self, body: Any, *, new: bool) -> dict[str, Any]:
        """Add or change a rule, at run time."""
        with self._lock, _usable():
            if not self._begun:
                # A rule that is refused leaves nothing behind.
                Rule.parse(body)
            self._begin(first=True)
            rule = self._book.put(body, self._orthanc.last_change(), new=new)
            self._rules_changed()
        return self.one(rule.name)

    def delete(self, name: str) -> None:
        """Delete a rule, at run time."""
        with self._lock, _usable():
            self._book.delete(name)
            self._rules_changed()

    def run(self, name: str, resources: Sequence[Resource] | None, *, dry: bool) -> dict[str, Any]:
        """Run a rule by hand: for some resources, or for all that it has not sent yet."""
        known = self._book.known(name)
        if known.rule is None:
            raise Conflict(f"rule {name} cannot work: {known.problem}")
        with _usable():
            done = self._by_hand.run(known.rule, resources, dry=dry)
        if not dry:
            self._dispatcher.wake()
        return done

    def compare(self, name: str, *, dry: bool, since: int) -> dict[str, Any]:
        """Compare with the destinations of a mirror by hand, or tell what that would do."""
        known = self._book.known(name)
        if known.rule is None or known.rule.compare is None:
            raise Conflict(f"rule {name} cannot compare: {known.problem or 'it has no Compare'}")
        with _usable():
            if dry:
                return {"Rule": name, "DryRun": True, **self._mirrors.dry_run(known.rule, since)}
            self._mirrors.begin(known.rule)
        return {"Rule": name, "DryRun": False, "Started": True}

    def page(
        self, states: Sequence[EntryState], rule: str | None, limit: int, offset: int
    ) -> tuple[int, list[Entry]]:
        """How many entries there are in those states, and some of them."""
        if not self._begun:
            return 0, []
        with _usable():
            total, entries = self._queue.page(states, rule, limit, offset)
        return total, [replace(one, job=self._dispatcher.job(one)) for one in entries]

    @property
    def obstacle(self) -> str | None:
        """Why the queue is not worked off now, one sentence."""
        return self._dispatcher.obstacle

    def held_peers(self) -> list[str]:
        """Peers that are known not to be there."""
        return self._dispatcher.held_peers() if self._begun else []

    def metrics(self) -> dict[str, float]:
        """Present values, by the names of metrics; none without a rule."""
        if not self._begun:
            return {}
        try:
            return metrics_of(self._queue)
        except (sqlite3.Error, OSError):
            return {}

    def _shown(self, known: KnownRule, counts: dict[str, int], oldest: float | None) -> dict[str, Any]:
        return {
            "Name": known.name,
            "Source": known.source,
            "Rule": hide_secrets(known.body) if isinstance(known.body, dict) else known.body,
            "Problem": self._problems.of(known),
            "Counts": {state.value: counts.get(state.value, 0) for state in EntryState},
            "OldestSeconds": None if oldest is None else round(oldest),
            "Comparisons": self._mirrors.listing(known.name) if self._begun else [],
        }


@contextmanager
def _usable() -> Iterator[None]:
    """What a user is told where the database cannot be used."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise NoSpace(
            f"the queue of the rules cannot be read or written, nothing was changed: {error}"
        ) from error
