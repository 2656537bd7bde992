"""One transfer being received, whoever brings the bytes: from the first byte to the outcome.

    receiving ──▶ committing ──▶ committed
        ▲             │    └───▶ failed       (everything undone)
        └─────────────┘
         bytes are missing after all, or the commit was canceled (everything undone)

What a commit does in detail, and what happens if the process dies meanwhile, is in ``commit.py``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any

from orthanc_transfers.core.commit_report import CommitReport
from orthanc_transfers.core.errors import (
    Busy,
    Canceled,
    Conflict,
    Corrupted,
    ImportRefused,
    TransferError,
    UnknownTransaction,
)
from orthanc_transfers.core.model import Manifest, PushState
from orthanc_transfers.core.ranges import Range
from orthanc_transfers.interfaces import Clock, InstanceStore
from orthanc_transfers.receiver.area import Area
from orthanc_transfers.receiver.commit import Commit, CommitSummary
from orthanc_transfers.receiver.reports import Reports
from orthanc_transfers.receiver.shared_instances import SharedInstances
from orthanc_transfers.receiver.writer import AreaWriter
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.cancellation import Cancellation

log = logging.getLogger(__name__)

TRANSITIONS = {
    PushState.RECEIVING: {PushState.COMMITTING},
    PushState.COMMITTING: {PushState.RECEIVING, PushState.COMMITTED, PushState.FAILED},
    PushState.COMMITTED: set[PushState](),
    PushState.FAILED: set[PushState](),
}
"""Which state may follow which."""

FINISHED = (PushState.COMMITTED, PushState.FAILED)

GROWING = "growing"
"""Key of what is kept of a reception on disk."""

# Seconds between looks at the caller's own cancellation while another thread commits.
_GLANCE = 0.2


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all receptions of this server have in common."""

    store: InstanceStore
    reports: Reports
    clock: Clock
    threads: int
    """That import, or verify, at a commit."""
    closing: Cancellation
    """The server stops."""
    overlaps: SharedInstances
    ended: Callable[[IncomingTransfer], None]
    """Called once when a reception is committed, failed or discarded."""


class IncomingTransfer:
    """One transfer being received. Thread-safe.

    ``resumable``: its sender can send missing bytes again, and understands a refusal (everything but a push
    of version 1).
    """

    def __init__(self, area: Area, surroundings: Surroundings) -> None:
        self._area = area
        self._measure()
        self.growth = threading.Lock()
        """To be held by who lets it grow."""
        self._surroundings = surroundings
        self._lock = threading.Lock()
        self._state = PushState.RECEIVING
        self._attempt: Future[CommitSummary] | None = None
        self._running: Commit | None = None
        self._dropped = False
        self._report: CommitSummary | None = None
        self._error: str | None = None
        self._opened = self._commit_began = surroundings.clock.monotonic()
        self.commit_seconds = 0.0
        """That the commit took, once it has ended."""
        self.last_used = surroundings.clock.monotonic()
        """When somebody last had to do with it, by the monotonic clock."""
        outcome = area.history.outcome
        if outcome is not None:
            self._reopen_finished(outcome)
            area.close()
        elif area.absent is not None:
            self._state = PushState.COMMITTING
        self._intake = AreaWriter(area)
        if self._state in FINISHED:
            self._forget_instances()

    def _measure(self) -> None:
        manifest = self._area.manifest
        self.count, self.size = len(manifest), manifest.size
        """Of the instances; bytes."""
        self.fingerprint = manifest.fingerprint()
        """Of the manifest."""

    def _reopen_finished(self, outcome: dict[str, Any]) -> None:
        self._state = PushState(outcome["State"])
        self._error = outcome.get("Error")
        if self._state is PushState.COMMITTED:
            self._report = CommitSummary.parse(outcome["Report"])

    # --- what it is

    @property
    def id(self) -> str:
        """32 random hex digits, chosen here."""
        return self._area.id

    @property
    def kind(self) -> str:
        """``push`` or ``pull``."""
        return str(self._area.meta["kind"])

    @property
    def token(self) -> str:
        """By which whoever brings the bytes finds it again."""
        return str(self._area.meta["token"])

    def take_meta(self) -> dict[str, Any]:
        """What its opener wanted to be kept, once: from then on it is kept on disk only."""
        meta: dict[str, Any] = self._area.meta.pop("meta")
        return meta

    @property
    def resumable(self) -> bool:
        """Whether missing bytes can be asked for again."""
        return bool(self._area.meta["resumable"])

    @property
    def manifest(self) -> Manifest:
        """What is to be received; empty once it has been."""
        return self._area.manifest

    @property
    def dropped(self) -> bool:
        """Whether it was discarded."""
        return self._dropped

    @property
    def growing(self) -> bool:
        """Whether further instances are still to be announced; it cannot be committed before."""
        return bool(self._area.meta.get(GROWING))

    # --- where it stands

    @property
    def reception_seconds(self) -> float:
        """From its opening to the beginning of the commit."""
        return self._commit_began - self._opened

    @property
    def state(self) -> PushState:
        """See the top of this file."""
        return self._state

    @property
    def error(self) -> str | None:
        """Why it failed, one sentence."""
        return self._error

    @property
    def report(self) -> CommitSummary | None:
        """Once it is committed."""
        return self._report

    @property
    def imported(self) -> int:
        """Number of instances that the commit is done with."""
        if self._state is PushState.COMMITTED:
            return self.count
        running = self._running
        return running.done if running is not None else 0

    @property
    def already_stored(self) -> tuple[int, int]:
        """Number and bytes of the instances that need not be sent."""
        return self._intake.stored_count

    def missing(self) -> list[Range]:
        """The ranges that are still to be sent, in order; none once the commit has begun."""
        self.touch()
        return self._intake.missing() if self._state is PushState.RECEIVING else []

    def touch(self) -> None:
        """Say that somebody is still interested."""
        self.last_used = self._surroundings.clock.monotonic()

    # --- bytes

    def skip(self, places: frozenset[int]) -> None:
        """Say which instances Orthanc has already, before anything is written: they are not missing."""
        if places:
            self._intake.skip(places)

    def grow(self, manifest: Manifest, stored: frozenset[int], *, growing: bool) -> None:
        """Expect also the instances that ``manifest`` has behind those of its own.

        ``stored`` are the places of those of them that Orthanc has already. Raises ``Conflict`` unless it is
        receiving, ``NoSpace``.
        """
        self.touch()
        self._require_receiving()
        self._area.grow(manifest, {GROWING: growing})
        self._intake.grow()
        self.skip(stored)
        self._measure()
        # Last: from now on it can be committed.
        self._area.meta[GROWING] = growing

    def write(self, ranges: Sequence[Range], data: memoryview) -> None:
        """Put ``data`` into the area, scattered over ``ranges`` in their order.

        Raises ``Conflict`` unless it is receiving, ``NoSpace``; ``Busy`` while the server stops.
        """
        self.touch()
        self._intake.write(ranges, data, self._require_receiving)

    def _require_receiving(self) -> None:
        if self._dropped:
            raise UnknownTransaction(f"transfer {self.id} was dropped")
        if self._state is not PushState.RECEIVING:
            raise Conflict(f"transfer {self.id} is {self._state.value}, it takes no more bytes")
        if self._surroundings.closing.requested:
            raise Busy("this server stops; the transfer goes on when it has started again")

    # --- commit

    def commit(self, cancellation: Cancellation | None = None) -> CommitSummary:
        """Verify all, import all, or undo; answers when done. Asked again, the same outcome again.

        Several callers wait for the same commit, which the first one's cancellation stops.
        Raises ``Corrupted``, naming an instance, if bytes are missing or wrong: it is receiving again then,
        and ``missing`` says what to send. Raises ``ImportRefused`` if it failed: everything was undone.
        Raises ``Canceled``: everything was undone and it is receiving again, with all its bytes; unless the
        server stops, then the commit goes on at the next start.
        """
        attempt, mine = self._claim()
        if mine:
            self._perform(attempt, cancellation or Cancellation())
        while not attempt.done():
            wait([attempt], _GLANCE)
            if cancellation is not None:
                cancellation.check()
        return attempt.result()

    def commit_in_background(self) -> None:
        """Let a commit begin, unless one has begun or the end is reached; answers at once."""
        attempt, mine = self._claim()
        if mine:
            threads.start(f"transfers-commit-{self.id[:8]}", lambda: self._perform(attempt, Cancellation()))

    def await_commit(self, seconds: float) -> None:
        """Wait until the commit that is running, if any, has ended, or so many seconds."""
        with self._lock:
            attempt = self._attempt
        if attempt is not None and seconds:
            wait([attempt], seconds)

    def _claim(self) -> tuple[Future[CommitSummary], bool]:
        """The commit that is running, or the outcome; and whether the caller is to perform it."""
        self.touch()
        with self._lock:
            if self._dropped:
                raise UnknownTransaction(f"transfer {self.id} was dropped")
            if self.growing:
                raise Conflict(f"transfer {self.id} waits for the rest of its list of instances")
            if self._attempt is not None:
                return self._attempt, False
            attempt = Future[CommitSummary]()
            if self._state in FINISHED:
                if self._report is not None:
                    attempt.set_result(self._report)
                else:
                    attempt.set_exception(ImportRefused(self._error or "the commit failed"))
                return attempt, False
            self._attempt = attempt
            self._become(PushState.COMMITTING)
            return attempt, True

    def _become(self, state: PushState) -> None:
        if state is not self._state:
            assert state in TRANSITIONS[self._state], f"{self._state} cannot become {state}"
            self._state = state

    def _perform(self, attempt: Future[CommitSummary], cancellation: Cancellation) -> None:
        # Two may stop it: its caller, and the end of the server.
        both = Cancellation()
        take_back = [cancellation.on_cancel(both.cancel), self._surroundings.closing.on_cancel(both.cancel)]
        self._commit_began = self._surroundings.clock.monotonic()
        try:
            report = self._commit(both)
        except BaseException as error:  # noqa: BLE001  whatever it is, those who wait must hear of it
            self._release()
            attempt.set_exception(error)
        else:
            self._release()
            attempt.set_result(report)
        finally:
            for forget in take_back:
                forget()

    def _release(self) -> None:
        with self._lock:
            self._attempt = None
        self.touch()

    def _commit(self, cancellation: Cancellation) -> CommitSummary:
        commit = self._running = Commit(
            self._area,
            self._intake,
            self._surroundings.store,
            resumable=self.resumable,
            threads=self._surroundings.threads,
            closing=self._surroundings.closing,
            overlaps=self._surroundings.overlaps,
        )
        try:
            report = commit.run(cancellation)
        except (Canceled, Corrupted):
            if not commit.begun:
                with self._lock:
                    self._become(PushState.RECEIVING)
            raise
        except Exception as error:
            self._finish(PushState.FAILED, commit, error=str(error) or type(error).__name__)
            raise
        else:
            self._finish(PushState.COMMITTED, commit, report=report)
            return report
        finally:
            self._running = None

    def _finish(
        self,
        state: PushState,
        commit: Commit,
        *,
        report: CommitSummary | None = None,
        error: str | None = None,
    ) -> None:
        meta = self._area.meta
        outcome: dict[str, Any] = {"State": state.value, "Finished": self._surroundings.clock.now()}
        if report is not None:
            outcome["Report"] = report.to_json()
        if error is not None:
            outcome["Error"] = error
        try:
            self._area.note_outcome(outcome)
        except TransferError as trouble:
            # The next start will roll forward and come to the same end.
            log.warning("the outcome of transfer %s cannot be noted: %s", self.id, trouble)
        try:
            report_of_all = CommitReport(
                self.id, self.kind, meta["peer"], meta["created"], outcome, commit.outcomes()
            )
            self._surroundings.reports.write(report_of_all.to_json(), meta["aliases"])
        except OSError as trouble:
            log.warning("the report of transfer %s cannot be written: %s", self.id, trouble)
        self.commit_seconds = self._surroundings.clock.monotonic() - self._commit_began
        self._report, self._error = report, error
        with self._lock:
            self._become(state)
        self._forget_instances()
        self._surroundings.ended(self)

    def _forget_instances(self) -> None:
        # It is remembered for a while, with many others: what was to be received is not.
        self._intake.forget_instances()
        self._area.forget_instances()

    # --- the end

    def discard(self) -> None:
        """Delete everything. Raises ``Conflict`` while a commit is under way."""
        with self._lock:
            if self._dropped:
                return
            if self._state is PushState.COMMITTING:
                raise Conflict(f"transfer {self.id} is being committed")
            self._dropped = True
        self._surroundings.ended(self)
        self._area.discard()

    def close(self, deadline: float) -> None:
        """Give the files back; everything stays on disk. Waits for a commit, by the monotonic clock."""
        with self._lock:
            attempt = self._attempt
        if attempt is not None:
            wait([attempt], max(0.0, deadline - time.monotonic()))
        self._area.close()
