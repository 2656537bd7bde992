"""The jobs that rules have in Orthanc's engine: submitted, found again after a restart, paused outside their window."""

from __future__ import annotations

import enum
import logging
import sqlite3
import threading
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from orthanc_transfers.core.anonymize import Anonymization
from orthanc_transfers.core.errors import HostError, TransferError
from orthanc_transfers.core.messages_v1 import TransferRequest
from orthanc_transfers.core.model import Resource
from orthanc_transfers.core.rule import Rule
from orthanc_transfers.core.rule_entry import Entry
from orthanc_transfers.core.transfer_record import ENDED_STATES, TransferRecord, TransferState
from orthanc_transfers.interfaces import JobQueue, QueuedJob
from orthanc_transfers.jobs.submission import Submission
from orthanc_transfers.receiver.reports import Reports
from orthanc_transfers.rules.anonymized import AnonymizedCopies
from orthanc_transfers.rules.outcomes import JobEnd
from orthanc_transfers.runtime import threads

SETTLED = 5.0
"""Seconds after which a job that we paused, and that runs, was resumed by a user."""

_PAUSE, _RESUME, _CANCEL = "pause", "resume", "cancel"

log = logging.getLogger(__name__)


class Recall(enum.Enum):
    """Why a job is canceled by us."""

    PEER = "its peer did not answer"
    RULE = "it was called back, as its rule was changed"


@dataclass(slots=True)
class RunningJob:
    """A job of an entry."""

    entry: int
    rule: str
    peer: str
    job: str | None = None
    paused: bool = False
    """At the last look."""
    held_since: float | None = None
    """Queue time at which we paused it."""
    left_alone: bool = False
    """A user resumed it outside its window."""
    recalled: Recall | None = None
    submitting: bool = False
    """A thread hands it to Orthanc: its end is told once its identifier is known."""


@dataclass(frozen=True, slots=True)
class EndedJob:
    """The end of a job."""

    transfer: str
    job: RunningJob
    end: JobEnd


class RunningJobs:
    """By the name of the transfer. Used by one thread, but for ``ended``. ``now`` is the queue time.

    Jobs are submitted in threads of ``start``: Orthanc asks for the Python interpreter several times at each, which it
    gets late while transfers run.
    """

    def __init__(
        self,
        submission: Submission,
        jobs: JobQueue,
        reports: Reports,
        now: Callable[[], float],
        wake: Callable[[], None],
        copies: AnonymizedCopies,
        is_there: Callable[[str, Resource], bool],
        start: Callable[[str, Callable[[], None]], object] = threads.start,
    ) -> None:
        self._submission = submission
        self._jobs = jobs
        self._reports = reports
        self._now = now
        self._wake = wake
        self._copies = copies
        self._is_there = is_there
        self._start = start
        self._lock = threading.Lock()
        self._running: dict[str, RunningJob] = {}
        self._seen: list[tuple[RunningJob, QueuedJob]] = []
        self._ends: deque[tuple[str, JobEnd]] = deque()
        self._answering: deque[str] = deque(maxlen=1000)

    # --- ends

    def ended(self, record: TransferRecord) -> None:
        """A job of this Orthanc has ended, one of ours or another. Never blocks."""
        if record.state is TransferState.SUCCESS and record.peer is not None:
            self._answering.append(record.peer)
        transfer = (record.order or {}).get("SenderTransferID")
        with self._lock:
            known = self._running.get(transfer) if isinstance(transfer, str) else None
        if known is None or not isinstance(transfer, str):
            return
        canceled = record.state is TransferState.CANCELED
        recall = known.recalled if canceled else None
        self._tell(
            transfer,
            JobEnd(
                succeeded=record.state is TransferState.SUCCESS,
                canceled=canceled and recall is None,
                recalled=recall is Recall.PEER,
                lost=recall is Recall.RULE,
                peer_failed=record.peer_failed and recall is not Recall.RULE,
                error=record.error if recall is None else recall.value,
            ),
        )

    def _tell(self, transfer: str, end: JobEnd) -> None:
        self._ends.append((transfer, end))
        self._wake()

    def restore(self, ends: list[EndedJob], begun: list[str]) -> None:
        """What ended could not be written down, and is told again; what was to begin does not."""
        with self._lock:
            for one in ends:
                self._running[one.transfer] = one.job
            for transfer in begun:
                self._running.pop(transfer, None)
        self._ends.extendleft((one.transfer, one.end) for one in reversed(ends))

    def take_ends(self) -> list[EndedJob]:
        """Those jobs that have ended since the last call."""
        found, early = [], []
        # As a whole: a submission that is over meanwhile finds what was left for it, and wakes.
        with self._lock:
            while self._ends:
                transfer, end = self._ends.popleft()
                known = self._running.get(transfer)
                if known is not None and known.submitting:
                    early.append((transfer, end))
                elif known is not None:
                    del self._running[transfer]
                    found.append(EndedJob(transfer, known, end))
            self._ends.extend(early)
        return found

    def keep_report(self, ended: EndedJob) -> None:
        """Let the report of a job that succeeded survive a power failure. Raises ``OSError``.

        A push does not wait for the disk; whoever relies on its report does.
        """
        report = self._reports.read(ended.transfer)
        if report is not None:
            self._reports.sync(ended.transfer)
            self._reports.sync(report["ID"])  # another file where there are no hard links

    def take_answering(self) -> set[str]:
        """Peers with which a transfer has succeeded since the last call."""
        found = set()
        while self._answering:
            found.add(self._answering.popleft())
        return found

    # --- beginnings

    def new_transfer(self, entry: Entry, peer: str) -> str:
        """A name for a transfer that is about to begin: its end will be heard of."""
        transfer = str(uuid.uuid4())
        self.track(transfer, RunningJob(entry.id, entry.rule, peer))
        return transfer

    def track(self, transfer: str, job: RunningJob) -> None:
        """Listen for the end of a job."""
        with self._lock:
            self._running[transfer] = job

    def submit(self, transfer: str, rule: Rule, entry: Entry, peer: str) -> None:
        """Hand the job to Orthanc, in a thread; if that fails, it is told as its end."""
        if rule.anonymization is not None:
            submit = partial(self._submit_copy, transfer, rule, entry, peer, rule.anonymization)
        elif rule.compare is not None:
            submit = partial(self._mirror, transfer, rule, entry, peer)
        else:
            submit = partial(self._submit, transfer, rule, [entry.resource], peer)
        with self._lock:
            self._running[transfer].submitting = True
        work = partial(self._submitting, transfer, submit)
        try:
            self._start("transfers-rules-submit", work)
        except RuntimeError:
            work()  # there are no more threads

    def _submitting(self, transfer: str, submit: Callable[[], None]) -> None:
        try:
            submit()
        except TransferError as error:
            self._tell(transfer, JobEnd(peer_failed=error.concerns_peer, error=str(error)))
        except Exception:
            log.exception("a job of a rule cannot be submitted")
            self._tell(transfer, JobEnd(error="an internal error, see Orthanc's log"))
        finally:
            with self._lock:
                known = self._running.get(transfer)
                if known is not None:
                    known.submitting = False
            if self._ends:
                self._wake()

    def _mirror(self, transfer: str, rule: Rule, entry: Entry, peer: str) -> None:
        # What came from there need not go back.
        if self._is_there(peer, entry.resource):
            self._tell(transfer, JobEnd(succeeded=True))
        else:
            self._submit(transfer, rule, [entry.resource], peer)

    def _submit_copy(self, transfer: str, rule: Rule, entry: Entry, peer: str, wanted: Anonymization) -> None:
        try:
            copy = self._copies.make(entry.id, entry.resource.id, wanted)
        except TransferError as error:
            self._tell(transfer, JobEnd(error=str(error)))
        except (sqlite3.Error, OSError) as error:
            self._tell(transfer, JobEnd(lost=True, error=f"its copy cannot be kept: {error}"))
        else:
            self._submit(transfer, rule, copy, peer)

    def _submit(self, transfer: str, rule: Rule, resources: Sequence[Resource], peer: str) -> None:
        wanted = TransferRequest.parse(rule.request(resources, peer, transfer))
        # The queue knows what is to be sent, should a power failure take the job.
        job = str(self._submission.send(wanted, follow=True, durable=False)["ID"])
        with self._lock:
            known = self._running.get(transfer)
            if known is not None:
                known.job = job

    def recover(self, entry: Entry) -> None:
        """After a restart: go on with the job of an entry, or tell how it ended."""
        transfer = entry.transfer or ""
        self.track(transfer, RunningJob(entry.id, entry.rule, entry.peer or "", entry.job))
        live = next((one for one in self._jobs.jobs() if _transfer_of(one) == transfer), None)
        if live is not None:
            with self._lock:
                known = self._running[transfer]
                known.job = live.identifier
                known.held_since = self._now() if entry.held else None
            return
        report = self._reports.read(transfer) or (self._reports.read(entry.job) if entry.job else None)
        if report is not None and report.get("State") == "committed":
            self._tell(transfer, JobEnd(succeeded=True))
        else:
            self._tell(transfer, JobEnd(lost=True, error="Orthanc was stopped, or lost its job"))

    # --- what runs

    def active(self) -> int:
        """How many are in Orthanc's engine, and were not paused at the last look."""
        with self._lock:
            return sum(not one.paused for one in self._running.values())

    def look(self) -> None:
        """Look at them: which are there, which are paused, by a user or by us. The methods below know what this saw.

        Tells of jobs that are not there any more, and whose end was not told.
        """
        self._seen = []
        # In this order: what is submitted meanwhile is not taken for lost.
        with self._lock:
            running = [(name, one) for name, one in self._running.items() if one.job is not None]
        jobs = {one.identifier: one for one in self._jobs.jobs()} if running else {}
        for transfer, one in running:
            queued = jobs.get(one.job or "")
            one.paused = queued is not None and queued.paused
            if queued is None:
                self._tell(transfer, JobEnd(lost=True, error="its job is not there any more"))
            elif _transfer_of(queued) == transfer:
                self._seen.append((one, queued))

    def job(self, entry: Entry) -> str | None:
        """The job of an entry: of one that runs, it is written down with its end. Thread-safe."""
        with self._lock:
            known = self._running.get(entry.transfer or "")
        return entry.job if known is None else known.job

    def to(self, peer: str) -> int:
        """How many go to a peer."""
        with self._lock:
            return sum(one.peer == peer for one in self._running.values())

    def tries(self, peer: str) -> bool:
        """Whether one that goes to a peer was not paused at the last look."""
        with self._lock:
            return any(one.peer == peer and not one.paused for one in self._running.values())

    def __len__(self) -> int:
        return len(self._running)

    def hold(self, is_open: Callable[[str], bool | None]) -> list[tuple[int, bool]]:
        """Pause what runs outside the window of its rule, and resume it within: by us alone, never a user's pause.

        ``None``: there is no such rule, or it does nothing, and its jobs are left as they are.
        Returns entries, each with whether it is held by us now, where that changed.
        """
        changed = []
        for one, queued in self._seen:
            opened = is_open(one.rule)
            if opened is None:
                continue
            if opened:
                one.left_alone = False
                if one.held_since is not None and (not queued.paused or self._command(queued, _RESUME)):
                    one.held_since = None
                    changed.append((one.entry, False))
            elif one.held_since is None:
                if not queued.paused and not one.left_alone and self._command(queued, _PAUSE):
                    one.held_since = self._now()
                    changed.append((one.entry, True))
            elif not queued.paused and self._now() - one.held_since > SETTLED:
                one.held_since, one.left_alone = None, True
                changed.append((one.entry, False))
        return changed

    def recall(self, wanted: Callable[[RunningJob, QueuedJob], Recall | None]) -> None:
        """Cancel jobs that wait, so that their entries go another way, or none, or another entry goes."""
        for one, queued in self._seen:
            before = one.recalled
            # Before its end is told. Again at each look: one that was about to pause forgets it (1.10.1).
            one.recalled = before or wanted(one, queued)
            if one.recalled and not self._command(queued, _CANCEL):
                one.recalled = before

    def _command(self, queued: QueuedJob, name: str) -> bool:
        try:
            self._jobs.command(queued.identifier, name)
        except (HostError, TransferError) as error:
            log.info("job %s of a rule: %s failed: %s", queued.identifier, name, error)
            return False
        return True


def _transfer_of(queued: QueuedJob) -> str | None:
    """The name of a transfer that has not ended."""
    record = queued.job.record()
    if record is None or record.state in ENDED_STATES:
        return None
    transfer = (record.order or {}).get("SenderTransferID")
    return transfer if isinstance(transfer, str) else None
