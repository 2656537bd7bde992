"""One incoming transfer, push or pull: its state (``states.py``) and its bytes, from the first byte to the outcome.

What a commit does in detail, and what happens if the process dies meanwhile, is in ``commit.py``.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager

from orthanc_transfers.core.errors import (
    Busy,
    Canceled,
    Conflict,
    Corrupted,
    UnknownTransaction,
)
from orthanc_transfers.core.model import Manifest, PushState
from orthanc_transfers.core.ranges import Range
from orthanc_transfers.receiver.announced import GROWING, Announced
from orthanc_transfers.receiver.area import Area
from orthanc_transfers.receiver.commit import Commit
from orthanc_transfers.receiver.commit_runner import CommitRunner
from orthanc_transfers.receiver.commit_summary import CommitSummary
from orthanc_transfers.receiver.disk_errors import lost_with_lease
from orthanc_transfers.receiver.extras_inbox import ExtrasInbox
from orthanc_transfers.receiver.late_imports import settle_late_imports
from orthanc_transfers.receiver.outcome import Outcome, keep_outcome, restore_report, settle_report
from orthanc_transfers.receiver.ownership import Fenced
from orthanc_transfers.receiver.receiver_services import ReceiverServices
from orthanc_transfers.receiver.recovery import InterruptedCommit
from orthanc_transfers.receiver.states import FINISHED, TRANSITIONS
from orthanc_transfers.receiver.writer import AreaWriter
from orthanc_transfers.runtime.cancellation import Cancellation


class IncomingTransfer(Announced):
    """One transfer being received, or its remembered outcome. Thread-safe."""

    def __init__(self, area: Area, services: ReceiverServices) -> None:
        super().__init__(area)
        self._services = services
        self.growth = threading.Lock()
        """Held while it grows, or is compared with a manifest."""
        self._lock = threading.Lock()
        self._state = PushState.RECEIVING
        self._commits: CommitRunner | None = CommitRunner(
            self._lock, self._admit_commit, self._commit, closing=services.closing, ended=self._used
        )
        """Until it has ended."""
        self._running: Commit | None = None
        self._lost = False
        self.dropped = False
        """Whether it was discarded."""
        self._outcome: Outcome | None = None
        self._opened = self._commit_began = services.clock.monotonic()
        self.commit_seconds = 0.0
        """Duration of the commit, once it has ended."""
        self.wire_size = 0
        """Bytes of its buckets on the network, since this process opened it."""
        self.codecs: Counter[str] = Counter()
        """Number of those buckets by codec."""
        self.last_used = services.clock.monotonic()
        """When a client last used it, by the monotonic clock."""
        if area.history.outcome is not None:
            restore_report(area, services.reports)
            self._outcome = Outcome.parse(area.history.outcome)
            self._state = self._outcome.state
            area.close()
        elif area.absent is not None:
            self._state = PushState.COMMITTING
        self._writer: AreaWriter | None = AreaWriter(area)
        """Until it has ended."""
        self._already_stored = (0, 0)
        """Once it has ended."""
        self._extras: ExtrasInbox | None = self._new_inbox()
        """Until it has ended."""
        if self._state in FINISHED:
            self._forget()

    # --- progress

    @property
    def reception_seconds(self) -> float:
        """From its opening to the beginning of the commit."""
        return self._commit_began - self._opened

    @property
    def state(self) -> PushState:
        """See ``states.py``."""
        return self._state

    @property
    def outcome(self) -> Outcome | None:
        """Once it is committed or has failed."""
        return self._outcome

    @property
    def imported(self) -> int:
        """Number of instances that the commit has settled."""
        if self._state is PushState.COMMITTED:
            return self.count
        running = self._running
        return running.done if running is not None else 0

    @property
    def already_stored(self) -> tuple[int, int]:
        """Number and bytes of the instances that need not be sent."""
        writer = self._writer
        return self._already_stored if writer is None else writer.stored_count

    @property
    def in_memory(self) -> bool:
        """Whether its bytes are in memory only, and asked for again after a restart."""
        return self._area.in_memory

    @property
    def received_size(self) -> int:
        """Bytes that have arrived, also before a restart."""
        return self._area.written

    def carried(self, codec: str, wire_size: int) -> None:
        """Count a bucket, as it was on the network."""
        with self._lock:
            self.wire_size += wire_size
            self.codecs[codec] += 1

    def missing(self) -> list[Range]:
        """The ranges that are still to be sent, in order; none once the commit has begun."""
        self.touch()
        writer = self._writer
        return [] if writer is None or self._state is not PushState.RECEIVING else writer.missing()

    def touch(self) -> None:
        """Postpone its expiry: a client is still interested.

        Raises ``Fenced`` if a commit found that another node of the cluster has it: what is known here is out of date.
        """
        if self._lost:
            raise Fenced
        self._used()

    def _used(self) -> None:
        self.last_used = self._services.clock.monotonic()

    # --- bytes

    def skip(self, indices: frozenset[int]) -> None:
        """Mark instances that Orthanc has already, before anything is written: they are not missing."""
        if indices:
            with self._guarded():
                self._open_writer().skip(indices)

    def grow(self, manifest: Manifest, stored: frozenset[int], *, growing: bool) -> None:
        """Expect also the instances that ``manifest`` has behind those of its own.

        ``stored`` are the indices of those of them that Orthanc has already. Raises ``Conflict`` unless it is
        receiving, ``NoSpace``.
        """
        self.touch()
        self._require_receiving()
        with self._guarded():
            self._area.grow(manifest, {GROWING: growing})
        self._open_writer().grow()
        self.skip(stored)
        self._measure()
        # Last: from now on it can be committed.
        self._area.meta[GROWING] = growing

    def write(self, ranges: Sequence[Range], data: memoryview) -> None:
        """Put ``data`` into the area, scattered over ``ranges`` in their order.

        Raises ``Conflict`` unless it is receiving, ``NoSpace``; ``Busy`` while the server stops.
        """
        self.touch()
        with self._guarded():
            self._open_writer().write(ranges, data, self._require_receiving)

    def _guarded(self) -> AbstractContextManager[None]:
        return lost_with_lease(self._services.ownership)

    @property
    def extras(self) -> ExtrasInbox:
        """What comes beside DICOM."""
        return self._extras or self._new_inbox()

    def _new_inbox(self) -> ExtrasInbox:
        services = self._services
        return ExtrasInbox(self._area, services.extras, services.reserve, self._admit_extras, self._guarded)

    def lending(self, data: memoryview) -> AbstractContextManager[None]:
        """``data``, all bytes, may be read from during it although they were written: they need not be copied."""
        return self._area.lending(data)

    def _admit_extras(self) -> None:
        self.touch()
        self._require_receiving()

    def _require_receiving(self) -> None:
        self._require_not_dropped()
        if self._state is not PushState.RECEIVING:
            raise self._takes_no_more()
        if self._services.closing.requested:
            raise Busy("this server stops; the transfer goes on when it has started again")

    def _open_writer(self) -> AreaWriter:
        writer = self._writer
        if writer is None:
            self._require_not_dropped()
            raise self._takes_no_more()
        return writer

    def _takes_no_more(self) -> Conflict:
        return Conflict(f"transfer {self.id} is {self._state.value}, it takes no more bytes")

    def _require_not_dropped(self) -> None:
        if self.dropped:
            raise UnknownTransaction(f"transfer {self.id} was dropped")

    # --- commit

    def commit(self, cancellation: Cancellation | None = None) -> CommitSummary:
        """Verify all, import all, or undo; returns when done. Later calls return the same outcome.

        Several callers wait for the same commit, which the first one's cancellation stops.
        Raises ``Corrupted``, naming an instance, if bytes are missing or wrong: it is receiving again then,
        and ``missing`` says what to send. Raises ``ImportRefused`` if it failed: everything was undone.
        Raises ``Canceled``: everything was undone and it is receiving again, with all its bytes; unless the
        server stops, then the commit goes on at the next start.
        """
        self.touch()
        commits = self._commits
        return self._remembered().result() if commits is None else commits.run(cancellation)

    def commit_within(self, seconds: float) -> CommitSummary | None:
        """The same; ``None`` if it goes on, in the background, after so many seconds."""
        self.touch()
        commits = self._commits
        return (
            self._remembered().result()
            if commits is None
            else commits.run_within(seconds, self._commit_thread)
        )

    def commit_in_background(self) -> None:
        """Begin a commit, unless one is running or the transfer has ended; returns at once."""
        self.touch()
        commits = self._commits
        if commits is None:
            self._remembered()
        else:
            commits.start(self._commit_thread)

    @property
    def _commit_thread(self) -> str:
        return f"transfers-commit-{self.id[:8]}"

    def await_commit(self, seconds: float) -> None:
        """Wait until the commit that is running, if any, has ended; for so many seconds at most."""
        commits = self._commits
        if commits is not None:
            commits.wait(seconds)

    def _remembered(self) -> Future[CommitSummary]:
        with self._lock:
            outcome = self._admit_commit()
        assert outcome is not None
        return outcome

    def _admit_commit(self) -> Future[CommitSummary] | None:
        self._require_not_dropped()
        if self.growing:
            raise Conflict(f"transfer {self.id} waits for the rest of its list of instances")
        if self._outcome is not None:
            return self._outcome.as_future()
        self.extras.check_whole()
        self._become(PushState.COMMITTING)
        return None

    def _become(self, state: PushState) -> None:
        if state is not self._state:
            assert state in TRANSITIONS[self._state], f"{self._state} cannot become {state}"
            self._state = state

    def _commit(self, cancellation: Cancellation) -> CommitSummary:
        self._commit_began = self._services.clock.monotonic()
        kind = Commit if self._area.absent is None else InterruptedCommit
        commit = self._running = kind(
            self._area,
            self._open_writer(),
            self._services.store,
            resumable=bool(self._area.meta["resumable"]),
            threads=self._services.threads,
            closing=self._services.closing,
            shared=self._services.shared_instances,
            recycling=self._services.recycling,
            changed=self._services.changed_instances,
            accept_renamed=self._services.accept_renamed,
            undo_retries=self._services.undo_retries,
            fatal=self._services.fatal,
            ownership=self._services.ownership,
            extras=self.extras.new_commit(),
        )
        try:
            summary = commit.run(cancellation)
        except (Canceled, Corrupted, Fenced) as error:
            self._lost = isinstance(error, Fenced)
            if isinstance(error, Fenced) and commit.late:
                services = self._services
                settle_late_imports(self.id, commit.late, services.ownership, services.store, services.ending)
            if not commit.begun:
                with self._lock:
                    self._become(PushState.RECEIVING)
            raise
        except Exception as error:
            self._finish(commit, Outcome.failure(error))
            raise
        else:
            self._finish(commit, Outcome(summary))
            return summary
        finally:
            self._running = None

    def _finish(self, commit: Commit, outcome: Outcome) -> None:
        keep_outcome(
            self._area,
            commit,
            outcome,
            self._services.reports,
            self._services.clock,
            self._services.ownership,
        )
        self.commit_seconds = self._services.clock.monotonic() - self._commit_began
        with self._lock:
            self._outcome = outcome
            self._become(outcome.state)
        self.extras.delete()
        self._forget()
        self._services.ended(self)
        # Last: it may be corrected from now on.
        self._services.undo_retries.release(self.id)

    def correct(self, error: str, finished: float) -> None:
        """Its commit failed, and less of it is still here: from now on that is its ``error``."""
        with self._lock:
            if self._outcome is None or self._outcome.error is None or self.dropped:
                return
            self._outcome = Outcome(error=error)
            # Not once it is dropped, or it would be remembered for good.
            self._area.journal_correction(self._outcome.to_json(finished))

    def _forget(self) -> None:
        # It is remembered for a while, with thousands of others: only for its outcome.
        self._already_stored = self.already_stored
        self._writer = self._commits = self._extras = None
        self._area.forget_instances()

    # --- the end

    def discard(self) -> None:
        """Delete everything. Raises ``Conflict`` while a commit is under way."""
        with self._lock:
            if self.dropped:
                return
            if self._state is PushState.COMMITTING:
                raise Conflict(f"transfer {self.id} is being committed")
            self.dropped = True
        self._services.ended(self)
        if self._state is PushState.COMMITTED:
            settle_report(self._area, self._services.reports)
        self._area.discard()

    def delete_bytes(self) -> None:
        """Delete everything, and tell nobody: another node of the cluster has the transfer."""
        self.dropped = True
        self._area.discard()

    def close(self, deadline: float) -> None:
        """Close the files; everything stays on disk. Waits for a commit until then, by the monotonic clock."""
        self.await_commit(deadline - time.monotonic())
        self._area.close()
