"""Works the queue off, in one thread: a few jobs at a time, by priority, within windows, while peers are there.

The thread sleeps until something changes, or the next attempt is due. What ended and what begins next is one
transaction.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from orthanc_transfers.core.errors import TransferError
from orthanc_transfers.core.rule import ALL, Rule
from orthanc_transfers.core.rule_entry import Entry, EntryState
from orthanc_transfers.core.transfer_record import TransferRecord, TransferState
from orthanc_transfers.core.weekly_hours import DAY, is_open
from orthanc_transfers.interfaces import Clock, InstanceStore, QueuedJob
from orthanc_transfers.rules.book import RuleBook
from orthanc_transfers.rules.database import RuleDatabase
from orthanc_transfers.rules.events import Events
from orthanc_transfers.rules.finisher import Finisher
from orthanc_transfers.rules.holds import Holds
from orthanc_transfers.rules.matching import ABSENT, Matching
from orthanc_transfers.rules.orthanc import LocalOrthanc
from orthanc_transfers.rules.outcomes import Ended, JobEnd, Outcomes
from orthanc_transfers.rules.queue import Changes, Queue
from orthanc_transfers.rules.running import Recall, RunningJob, RunningJobs
from orthanc_transfers.runtime import threads

AT_ONCE = 50
"""Entries whose filters are asked before anything else is done."""

LOOK = 5.0
"""Seconds between two looks at windows, times and lost jobs, while there is something to look after."""

HOUSEKEEPING = 600.0

RETRY = 5.0
"""Seconds until the next attempt, after the disk or Orthanc's index refused one."""

PATIENCE = 30.0
"""Seconds that a job may wait for its peer while another destination, or another entry, waits for its slot."""

log = logging.getLogger(__name__)


class Dispatcher:
    """``max_jobs`` of rules are in Orthanc's engine at most.

    ``look`` is called now and then, in the thread, and again at once as long as it returns true.
    """

    def __init__(
        self,
        book: RuleBook,
        queue: Queue,
        database: RuleDatabase,
        running: Callable[[Callable[[], float], Callable[[], None]], RunningJobs],
        matching: Matching,
        orthanc: LocalOrthanc,
        finisher: Finisher,
        events: Events,
        store: InstanceStore,
        clock: Clock,
        *,
        max_jobs: int,
        retention_days: float,
        look: Callable[[], bool],
        take_changes: Callable[[], object] = lambda: None,
    ) -> None:
        self._book = book
        self._queue = queue
        self._database = database
        self._matching = matching
        self._orthanc = orthanc
        self._finisher = finisher
        self._events = events
        self._store = store
        self._clock = clock
        self._max_jobs = max_jobs
        self._retention = retention_days * 86400
        self._look = look
        self._take_changes = take_changes
        self._holds = Holds(self._now)
        self._outcomes = Outcomes(self._holds, self._now)
        self._running = running(self._now, self.wake)
        self._woken = threading.Event()
        self._closed = False
        self._started = False
        self._recovered = False
        self._looking = True
        self._next_look = self._next_housekeeping = 0.0
        self.obstacle: str | None = None

    def _now(self) -> float:
        return self._database.now

    # --- from other threads

    def start(self) -> None:
        """Start the thread, once."""
        if not self._started:
            self._started = True
            threads.start("transfers-rules", self._run)

    def wake(self) -> None:
        """There may be something to do. Never blocks."""
        self._woken.set()

    def rules_changed(self) -> None:
        """Windows and times may be others than at the last look."""
        self._next_look = 0.0
        self.wake()

    def close(self) -> None:
        """Orthanc stops."""
        self._closed = True
        self._finisher.close()
        self._woken.set()

    def ended(self, record: TransferRecord) -> None:
        """A job of this Orthanc has ended. Never blocks."""
        if self._started:
            self._running.ended(record)

    def job(self, entry: Entry) -> str | None:
        """The job of an entry, also of one that runs."""
        return self._running.job(entry)

    def held_peers(self) -> list[str]:
        """Peers that are known not to be there."""
        return self._holds.names()

    # --- the thread

    def _run(self) -> None:
        while not self._closed:
            self._woken.clear()
            try:
                delay = self._turn()
                self.obstacle = None
            except (sqlite3.Error, OSError, TransferError) as error:
                if self._closed:
                    return
                if self.obstacle is None:
                    log.warning("the queue of rules cannot be worked off now, it is tried again: %s", error)
                self.obstacle = str(error)
                delay = RETRY
            except Exception:
                log.exception("the queue of rules cannot be worked off now, it is tried again")
                self.obstacle = "an internal error, see Orthanc's log"
                delay = RETRY
            self._woken.wait(delay)

    def _turn(self) -> float | None:
        """Do what can be done now; returns the seconds until there is more, ``None`` for an event only."""
        self._recover()
        self._take_changes()
        more = self._check_filters()
        now = self._now()
        due = now >= self._next_look
        if due or self._looking:
            self._looking = self._look()
        if due:
            self._next_look = now + LOOK
            self._look_after_jobs()
            self._events.long_waiting()
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + HOUSEKEEPING
            self._keep_house()
        more = self._work() or more
        self._finisher.work()
        return 0.0 if more or self._looking else self._delay()

    def _delay(self) -> float | None:
        now = self._now()
        moments = [self._queue.next_due(), self._holds.next_try()]
        # Rules by time, windows, and jobs whose end may be lost.
        moments.append(self._next_look)
        return max(0.0, min(one for one in moments if one is not None) - now)

    def _recover(self) -> None:
        """After a start: find the jobs again that an earlier process had submitted."""
        if self._recovered:
            return
        for entry in self._queue.in_state(EntryState.RUNNING):
            self._running.recover(entry)
        self._recovered = True

    # --- filters

    def _check_filters(self) -> bool:
        """Ask the filters of new entries; returns whether there are more of them."""
        entries = self._queue.unchecked(AT_ONCE, self._book.unreadable())
        if not entries:
            return False
        checked = [(entry, *self._check_filter(entry)) for entry in entries]
        with self._queue.changing(synced=False) as changes:
            for entry, why, stamp in checked:
                if why is None:
                    changes.set(entry.id, checked=1, stamp=stamp)
                elif why == ABSENT:
                    changes.end(entry.id, EntryState.DROPPED, "it was deleted here before it was sent")
                elif entry.stamp is None:
                    changes.remove([entry.id])
                else:
                    said = f'the rule was changed: the "{why}" of its filter does not fit'
                    changes.end(entry.id, EntryState.DROPPED, said)
        return len(entries) == AT_ONCE

    def _check_filter(self, entry: Entry) -> tuple[str | None, str | None]:
        """Why an entry is not to be sent, if so; and when its resource last changed."""
        # In this order: a change that comes in between is sent as well, at the latest the next time.
        stamp = self._orthanc.last_update(entry.resource)
        rule = self._book.rule(entry.rule)
        if stamp is None:
            return ABSENT, None
        return (None if rule is None else self._matching.mismatch(rule, entry.resource)), stamp

    # --- jobs

    def _work(self) -> bool:
        """Write down what ended and what begins, in one transaction; then begin. Returns whether there may be more."""
        ends = self._running.take_ends()
        news = [peer for peer in self._running.take_answering() if self._holds.there(peer)]
        if news:
            log.info("peers of rules are there again: %s", ", ".join(news))
        chosen = [] if ends else self._choose()
        if not ends and not chosen:
            return False
        begun = []
        again = False
        try:
            for one in ends:
                # In this order: who is to finish has the report, after a power failure too.
                if one.end.succeeded and self._finishes(one.job):
                    self._running.keep_report(one)
            with self._queue.changing(synced=any(self._deletes(one.job) for one in ends)) as changes:
                for one in ends:
                    again = self._record(changes, one.job, one.end) is EntryState.WAITING or again
                # What ended tells which peers are there.
                for entry, rule, peer in chosen or self._choose():
                    transfer = self._running.new_transfer(entry, peer)
                    begun.append((transfer, rule, entry, peer))
                    self._begin(changes, entry, peer, transfer)
        except BaseException:
            # A full disk, say: it is as before.
            self._running.restore(ends, [transfer for transfer, *_ in begun])
            raise
        for transfer, rule, entry, peer in begun:
            self._running.submit(transfer, rule, entry, peer)
        self._events.flush()
        return again

    def _deletes(self, job: RunningJob) -> bool:
        """Whether what was sent is deleted next, as far as is known: then it must be known that it was sent."""
        rule = self._book.rule(job.rule)
        return rule is None or rule.after.delete

    def _finishes(self, job: RunningJob) -> bool:
        """Whether something is done with what was sent, as far as is known, for which its report is read."""
        rule = self._book.rule(job.rule)
        return rule is None or rule.finishes

    def _begin(self, changes: Changes, entry: Entry, peer: str, transfer: str) -> None:
        changes.set(
            entry.id,
            state=EntryState.RUNNING.value,
            attempts=entry.attempts + 1,
            peer=peer,
            transfer=transfer,
            job=None,
            first_try=self._now() if entry.first_try is None else entry.first_try,
        )

    def _record(self, changes: Changes, job: RunningJob, end: JobEnd) -> EntryState | None:
        entry = self._queue.entry(job.entry)
        if entry is None:
            return None
        if job.job is not None:
            changes.set(entry.id, job=job.job)
            entry = replace(entry, job=job.job)
        rule = self._book.rule(entry.rule)
        stored = end.succeeded or self._store.exists(entry.resource)
        unreadable = entry.rule in self._book.unreadable()
        ended = self._outcomes.record(changes, entry, rule, end, stored=stored, unreadable=unreadable)
        finishes = unreadable if rule is None else rule.finishes
        if ended.state is EntryState.FINISHING and not finishes:
            changes.end(entry.id, EntryState.DONE, None)
            ended = Ended(EntryState.DONE)
        self._events.ended(changes, entry, ended.state, ended.said)
        if ended.state is EntryState.WAITING and rule is not None and entry.destination not in rule.places:
            self._queue.follow(changes, rule)  # it ran as the rule was changed
        return ended.state

    def _open_rules(self) -> list[Rule]:
        minute = self.minute()
        return [rule for rule in self._book.working() if is_open(rule.window, minute)]

    def minute(self) -> int:
        """The minute of the week now, in local time."""
        local = time.localtime(self._clock.now())
        return local.tm_wday * DAY + local.tm_hour * 60 + local.tm_min

    def _choose(self) -> list[tuple[Entry, Rule, str]]:
        """What is to begin now: entries, their rules and peers."""
        found: list[tuple[Entry, Rule, str]] = []
        free = self._max_jobs - self._running.active()
        for rule in self._open_rules():
            if len(found) >= free:
                break
            if not any(self._holds.may_try(peer) for peer in rule.destinations):
                continue
            # Some may wait for a destination that is not there.
            for destination in self._destinations(rule):
                for entry in self._queue.due(rule.name, destination, free - len(found)):
                    peer = self._peer(rule, entry)
                    if peer is None:
                        break
                    self._holds.trying(peer)
                    found.append((entry, rule, peer))
        return found

    def _destinations(self, rule: Rule) -> list[str]:
        if rule.deliver != ALL:
            return [""]
        return [peer for peer in rule.destinations if self._holds.may_try(peer)]

    def _peer(self, rule: Rule, entry: Entry) -> str | None:
        """Where an entry goes now; ``None`` if no peer of it is there."""
        if entry.destination:
            return entry.destination if self._holds.may_try(entry.destination) else None
        count = len(rule.destinations)
        in_turn = [rule.destinations[(entry.turn + more) % count] for more in range(count)]
        there = [peer for peer in in_turn if not self._holds.holds(peer)]
        return next((peer for peer in (*there, *in_turn) if self._holds.may_try(peer)), None)

    # --- now and then

    def _look_after_jobs(self) -> None:
        self._running.look()
        for peer in self._holds.names():
            if not self._running.tries(peer):
                self._holds.untold(peer)  # who was to find out about it was paused, say
        minute = self.minute()

        def open_now(name: str) -> bool | None:
            rule = self._book.rule(name)
            if rule is None:
                return None
            # What a disabled one has paused is not to go on.
            return is_open(rule.window, minute) and (rule.enabled or None)

        held = self._running.hold(open_now)
        if held:
            with self._queue.changing() as changes:
                for identifier, paused in held:
                    changes.set(identifier, held=int(paused))
        full = self._running.active() >= self._max_jobs
        self._running.recall(lambda job, queued: self._why_recalled(job, queued, full=full))

    def _why_recalled(self, job: RunningJob, queued: QueuedJob, *, full: bool) -> Recall | None:
        record = queued.job.record()
        if record is None:
            return None
        since = record.waiting_since
        waits = since is not None and (queued.parked or record.state is TransferState.WAITING)
        if (waits or job.held_since is not None) and self._is_unwanted(job):
            return Recall.RULE
        if since is None or not waits or self._clock.now() - since < PATIENCE:
            return None
        return Recall.PEER if self._is_in_the_way(job, full=full) else None

    def _is_unwanted(self, job: RunningJob) -> bool:
        """Whether its rule was changed, and would not begin it now."""
        rule = self._book.rule(job.rule)
        if rule is None:
            return job.rule not in self._book.unreadable()
        entry = self._queue.entry(job.entry)
        asked = entry is None or entry.checked
        return not rule.enabled or job.peer not in rule.destinations or not asked

    def _is_in_the_way(self, job: RunningJob, *, full: bool) -> bool:
        """Whether something else could go while it waits for its peer."""
        rule = self._book.rule(job.rule)
        others = () if rule is None or rule.deliver == ALL else rule.destinations
        if any(peer != job.peer and self._holds.may_try(peer) for peer in others):
            return True
        # One stays, which finds out whether the peer is back.
        return full and self._running.to(job.peer) > 1

    def _keep_house(self) -> None:
        with self._queue.changing() as changes:
            changes.expire(self._clock.now() - self._retention)
