"""A transfer as a job of Orthanc's jobs engine: a state machine whose work runs in a thread of its own.

Orthanc steps a job again and again, and looks at pause and cancel between two steps only. So a step starts the
worker thread if none runs, and waits for it a little.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from orthanc_transfers.core.errors import TransferError
from orthanc_transfers.core.messages_v1 import TransferRequest
from orthanc_transfers.core.transfer_record import TransferRecord
from orthanc_transfers.interfaces import StepOutcome, StopReason
from orthanc_transfers.jobs.content import describe, with_types
from orthanc_transfers.jobs.context import RunContext
from orthanc_transfers.jobs.record import record_of
from orthanc_transfers.jobs.resume import ResumeState, order_to_json
from orthanc_transfers.jobs.runner import Attempt, Runner
from orthanc_transfers.jobs.services import Services
from orthanc_transfers.jobs.states import Event, State, after
from orthanc_transfers.pipeline.progress import Progress
from orthanc_transfers.runtime import threads

POLLS = (0.03, *[0.02] * 8)
"""Seconds before each look of a step for news of the worker thread, at most 200 ms together. Not at once, for most
transfers are over by then: each step makes Orthanc save the job, and ask it for all that it shows."""

RELEASE = 1.0
"""Seconds that a stopping Orthanc waits for the worker thread."""

UNDO = 10.0
"""Seconds that deleting what was transferred waits for the worker thread."""

log = logging.getLogger(__name__)

# Key of a saved job for its last content: Orthanc keeps jobs that ended, and asks for their content.
_ENDED = "Ended"

# Keys of a saved job: seconds since the epoch.
_CREATED = "Created"
_BEGAN = "Began"

# Key of a saved job that handed over to another one.
_SUPERSEDED = "Superseded"

_ENDS = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELED})

_OUTCOMES = {
    State.READY: StepOutcome.CONTINUE,
    State.RUNNING: StepOutcome.CONTINUE,
    State.SUCCEEDED: StepOutcome.SUCCESS,
    State.FAILED: StepOutcome.FAILURE,
    State.CANCELED: StepOutcome.FAILURE,
    State.RELEASED: StepOutcome.CONTINUE,
}

_REASONS = {
    StopReason.PAUSED: Event.PAUSE,
    # Should Orthanc fail a job that does not know of it: nothing goes on in the background.
    StopReason.FAILURE: Event.PAUSE,
    StopReason.CANCELED: Event.CANCEL,
}


class TransferJob(ABC):
    """Implements ``interfaces.Job``; subclasses implement ``work`` and ``undo``."""

    type: ClassVar[str]
    bytes_key: ClassVar[str]
    """Key of the content for the bytes on the network."""

    def __init__(
        self, services: Services, order: TransferRequest, saved: Mapping[str, Any] | None = None
    ) -> None:
        saved = saved or {}
        self.services = services
        self.order = order
        self._resources = with_types(order.resources_json)
        self._lock = threading.Lock()
        self._state = State.READY
        self._runner: Runner | None = None
        """Only while its thread runs: Orthanc keeps hundreds of jobs that have ended."""
        self._undoings: list[threading.Event] = []
        """Of this and earlier attempts, those that go on; each is set at its end."""
        self._identifier: str | None = None
        ended = saved.get(_ENDED)
        self._ended: dict[str, Any] = ended if isinstance(ended, dict) else {}
        """The content of a job that had ended before a restart."""
        floor = saved.get("Progress")
        self._attempt = Attempt(
            ResumeState(saved, services.ack_logs),
            Progress(services.clock, float(floor) if isinstance(floor, (int, float)) else 0.0),
        )
        self._superseded = saved.get(_SUPERSEDED) is True
        """Another job carries on."""
        self._created = _moment(saved.get(_CREATED)) or services.clock.now()
        self._attempt.status.began = _moment(saved.get(_BEGAN))

    @abstractmethod
    def work(self, context: RunContext) -> None:
        """The whole transfer, from where it stands to its end. Raises ``Canceled`` and any other error."""

    @abstractmethod
    def undo(self, resume: ResumeState, *, failed: bool) -> None:
        """Delete what was transferred so far, after a cancel or (``failed``) after an error of ``work``."""

    @property
    def token(self) -> str:
        """Names the transfer to the receiver, also if that is this server."""
        return self._attempt.resume.token

    # --- interfaces.Job

    def step(self) -> StepOutcome:
        with self._lock:
            if self._state is State.READY and self._unfinished() is None:
                self._fire(Event.START)
                self._ended = {}
                status = self._attempt.status
                status.started = True
                status.began = status.began or self.services.clock.now()
                self._runner = Runner(
                    self.type,
                    self.services,
                    self.order,
                    self._attempt,
                    self.work,
                    self._on_transaction,
                    self._on_end,
                )
                self._runner.start()
            if self._runner is not None:
                self._runner.go_on()
            unfinished = self._unfinished()
            over = self._state not in (State.READY, State.RUNNING)
        if unfinished is not None and not over:
            self._await_news(unfinished)
        with self._lock:
            return _OUTCOMES[self._state]

    def _await_news(self, end: threading.Event) -> None:
        """Wait for the end, for a new phase or for the first bucket: Orthanc shows a job as of its last step."""
        attempt = self._attempt
        before = self._news(attempt)
        for seconds in POLLS:
            if end.wait(seconds) or self._news(attempt) != before or self.waits:
                return

    @staticmethod
    def _news(attempt: Attempt) -> tuple[str | None, bool]:
        return attempt.status.phase, attempt.progress.wire > 0

    @property
    def waits(self) -> bool:
        runner = self._runner
        return self._state is State.RUNNING and runner is not None and runner.waits

    def rest(self) -> None:
        with self._lock:
            if self._runner is not None and self._state is State.RUNNING:
                self._runner.rest()

    def hurry(self) -> None:
        runner = self._runner
        if runner is not None:
            runner.hurry()

    def _unfinished(self) -> threading.Event | None:
        """The end of the run, or of an undoing, that still goes on for this job."""
        runner = self._runner
        ends = [*([] if runner is None else [runner.ended]), *self._undoings]
        return next((end for end in ends if not end.is_set()), None)

    def stop(self, reason: StopReason) -> None:
        with self._lock:
            if reason in _REASONS:
                self._fire(_REASONS[reason])
            runner, attempt, state = self._runner, self._attempt, self._state
            undoing = None
            if state is State.CANCELED or (state is State.FAILED and not attempt.undone):
                attempt.undone = True
                undoing = threading.Event()
                self._undoings.append(undoing)
        if state is not State.RUNNING and runner is not None:
            runner.cancel()
        if state is State.CANCELED:
            self._tell_end()
        if undoing is not None:
            failed = state is State.FAILED
            threads.start(f"{self.type}-undo", lambda: self._undo(runner, attempt, undoing, failed))

    def set_identifier(self, identifier: str) -> None:
        self._identifier = identifier
        self._alias_report(self._attempt)
        self._tell_end()

    def reset(self) -> None:
        with self._lock:
            canceled = self._state is State.CANCELED
            self._fire(Event.RESET)
            resume = self._attempt.resume
            # What a cancel deletes must not be what the new attempt uses.
            renewed = ResumeState(ack_logs=self.services.ack_logs) if canceled else resume
            runner = self._runner
            self._attempt = Attempt(renewed, Progress(self.services.clock))
            self._ended = {}
            self._created = self.services.clock.now()
        if runner is not None:
            runner.cancel()
        if self._identifier is not None:
            self.services.begun_anew(self._identifier)

    def content(self) -> dict[str, Any]:
        attempt = self._attempt
        if not attempt.status.started:
            return self._ended
        return describe(self.order, self._resources, attempt.status, attempt.progress, self.bytes_key)

    def serialized(self) -> dict[str, Any]:
        saved = {
            **order_to_json(self.order),
            "Progress": round(self.progress(), 4),
            _CREATED: self._created,
        }
        if self._superseded:
            saved[_SUPERSEDED] = True
        if self._attempt.status.began is not None:
            saved[_BEGAN] = self._attempt.status.began
        if self._state is not State.CANCELED:
            # After a restart, nothing belongs to a canceled job that its process had no time to delete.
            saved.update(self._attempt.resume.to_json())
        if self._ended or self._state in _ENDS:
            saved[_ENDED] = self.content()
        return saved

    def progress(self) -> float:
        return 1.0 if self._state is State.SUCCEEDED else self._attempt.progress.fraction()

    def failure(self) -> str | None:
        return self._attempt.status.error

    def record(self) -> TransferRecord | None:
        attempt, identifier = self._attempt, self._identifier
        if identifier is None or self._ended or self._superseded or self._state is State.RELEASED:
            return None
        return record_of(
            identifier, self.type, self.order, self._state, attempt.status, attempt.progress, self._created
        )

    def release(self) -> None:
        with self._lock:
            self._fire(Event.RELEASE)
            runner = self._runner
        if runner is not None:
            runner.cancel()
            runner.ended.wait(RELEASE)

    def hand_over(self) -> dict[str, Any]:
        saved = self.serialized()
        self.release()
        self._superseded = True
        # Its cancel must not delete what the other job goes on with.
        self._attempt.resume = ResumeState()
        return saved

    # --- what the worker thread tells

    def _on_transaction(self, attempt: Attempt, transaction: str) -> None:
        attempt.status.transaction = transaction

    def _on_end(self, attempt: Attempt, event: Event | None, error: str | None) -> None:
        # Before a user sees the end, who may ask for the report then.
        self._alias_report(attempt)
        with self._lock:
            self._runner = None
            # The end of an attempt that was canceled or resubmitted meanwhile changes nothing.
            counts = event is not None and self._attempt is attempt and self._state is not State.CANCELED
            if counts and event is not None:
                attempt.status.waiting = None
                attempt.status.error = error
                if event is Event.DONE:
                    attempt.status.phase = "Done"
                self._fire(event)
        if counts:
            self._tell_end()

    def _tell_end(self) -> None:
        """To the ledger. It is told once more by who tells the identifier, if that comes later."""
        with self._lock:
            if self._state not in _ENDS:
                return
            status = self._attempt.status
            status.ended = status.ended or self.services.clock.now()
            record = self.record()
        if record is not None:
            self.services.ended(record)

    def _fire(self, event: Event) -> None:
        self._state = after(self._state, event)

    def _alias_report(self, attempt: Attempt) -> None:
        """Let the report of a transfer, if there is one, be found by the identifier of this job."""
        # The queue may tell the identifier after the end of a short transfer: the later of the two finds both.
        transaction = attempt.status.transaction
        if self._identifier is None or transaction is None:
            return
        try:
            self.services.reports.alias(transaction, self._identifier)
        except OSError as error:
            log.warning(
                "the report of job %s will not be found by its identifier: %s", self._identifier, error
            )

    def _undo(self, runner: Runner | None, attempt: Attempt, undone: threading.Event, failed: bool) -> None:
        # The worker thread may be creating just now what has to be deleted.
        if runner is not None:
            runner.ended.wait(UNDO)
        try:
            self.undo(attempt.resume, failed=failed)
        except TransferError as error:
            log.warning("what %s transferred could not be deleted: %s", self.type, error)
        finally:
            undone.set()
            with self._lock:
                self._undoings.remove(undone)


def _moment(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
