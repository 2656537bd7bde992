"""A transfer as a job of Orthanc's engine: a state machine whose work runs on a thread of its own.

Orthanc steps a job again and again, and looks at pause and cancel between two steps only. So a step starts
the driver thread if none runs, and waits for it a little.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from orthanc_transfers.core.errors import PeerError, TransferError
from orthanc_transfers.core.messages_v1 import TransferRequest
from orthanc_transfers.core.messages_v2 import Capabilities
from orthanc_transfers.interfaces import PeerTransport, StepOutcome, StopReason
from orthanc_transfers.jobs.content import Facts, describe, with_types
from orthanc_transfers.jobs.resume import ResumeState, order_to_json
from orthanc_transfers.jobs.services import Services
from orthanc_transfers.jobs.states import Event, State, after
from orthanc_transfers.net.peer_client import PeerClient
from orthanc_transfers.net.retry import RetryingTransport
from orthanc_transfers.pipeline.auto_compression import AutoCompression
from orthanc_transfers.pipeline.bucket_size import MAX_SIZE, BucketSize
from orthanc_transfers.pipeline.concurrency import MAX_REQUESTS, Concurrency
from orthanc_transfers.pipeline.executor import BucketExecutor
from orthanc_transfers.pipeline.progress import Progress
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.cancellation import Cancellation

STEP = 0.2
"""Seconds that a step waits for the driver."""

GLANCE = 0.02
"""Seconds between two looks of a step for news of the driver."""

RELEASE = 1.0
"""Seconds that the end of Orthanc waits for the driver."""

UNDO = 10.0
"""Seconds that deleting what was transferred waits for the driver."""

log = logging.getLogger(__name__)

# Key of a saved job for what it showed in the end: Orthanc keeps jobs that ended, their content it asks for.
_ENDED = "Ended"

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


@dataclass(slots=True)
class Attempt:
    """All that is known of one transfer since its start, or since it was resubmitted."""

    continuation: ResumeState
    progress: Progress
    facts: Facts = field(default_factory=Facts)
    undoing: threading.Event | None = None
    """Set once what this attempt transferred is deleted, if it ever has to be."""


@dataclass(slots=True)
class Run:
    """Work without a break: from a step to a pause, or to the end."""

    attempt: Attempt
    cancellation: Cancellation = field(default_factory=Cancellation)
    ended: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class RunContext:
    """What the driver of one stretch works with.

    ``peer`` repeats requests where that helps; ``peer.without_retries`` does not.
    """

    environment: Services
    order: TransferRequest
    continuation: ResumeState
    progress: Progress
    facts: Facts
    cancellation: Cancellation
    peer: RetryingTransport
    client: PeerClient
    """What to ask of the peer, over ``peer``."""
    enter: Callable[[str], None]
    """To be told by which identifier the receiver knows the transfer."""

    def executor(self, name: str, capabilities: Capabilities | None) -> BucketExecutor:
        """Moves the buckets of this run to or from a peer of these capabilities; ``name`` is that of its threads."""
        settings, clock = self.environment.settings, self.environment.clock
        max_size = MAX_SIZE if capabilities is None else capabilities.max_bucket_target

        def round_trip() -> float | None:
            return self.peer.round_trip

        connections = Concurrency(settings.threads, clock, round_trip)
        return BucketExecutor(
            name,
            connections,
            BucketSize(settings.bucket_size, connections, max_size, round_trip),
            AutoCompression(self.order.compression, connections, clock, round_trip),
            self.progress,
            self.cancellation,
            clock,
        )


class TransferJob(ABC):
    """Implements ``interfaces.Job``; what is to be done is said by ``work`` and ``undo``."""

    type: ClassVar[str]
    bytes_key: ClassVar[str]
    """Key of the content for the bytes on the network."""

    def __init__(
        self, environment: Services, order: TransferRequest, saved: Mapping[str, Any] | None = None
    ) -> None:
        saved = saved or {}
        self.environment = environment
        self.order = order
        self._resources = with_types(order.resources_json)
        self._lock = threading.Lock()
        self._state = State.READY
        self._stretch: Run | None = None
        self._identifier: str | None = None
        shown = saved.get(_ENDED)
        self._shown: dict[str, Any] = shown if isinstance(shown, dict) else {}
        floor = saved.get("Progress")
        self._attempt = Attempt(
            ResumeState(saved, environment.sent),
            Progress(environment.clock, float(floor) if isinstance(floor, (int, float)) else 0.0),
        )

    @abstractmethod
    def work(self, drive: RunContext) -> None:
        """The whole transfer, from where it stands to its end. Raises ``Canceled`` and any other error."""

    @abstractmethod
    def undo(self, continuation: ResumeState, *, failed: bool) -> None:
        """Delete what was transferred so far, after a cancel or (``failed``) after an error of ``work``."""

    @property
    def token(self) -> str:
        """Names the transfer to the receiver, also if that is this server."""
        return self._attempt.continuation.token

    # --- ports.Job

    def step(self) -> StepOutcome:
        with self._lock:
            if self._state is State.READY and self._previous() is None:
                self._fire(Event.START)
                self._shown = {}
                self._attempt.facts.started = True
                stretch = self._stretch = Run(self._attempt)
                threads.start(f"{self.type}-driver", lambda: self._drive(stretch))
            running = self._previous()
            over = self._state not in (State.READY, State.RUNNING)
        if running is not None and not over:
            self._await_news(running)
        with self._lock:
            return _OUTCOMES[self._state]

    def _await_news(self, running: threading.Event) -> None:
        """Wait for an end, or for a new phase or the first bucket: what is shown is as of the last step."""
        attempt = self._attempt
        before = self._news(attempt)
        for _ in range(round(STEP / GLANCE)):
            if running.wait(GLANCE) or self._news(attempt) != before:
                return

    @staticmethod
    def _news(attempt: Attempt) -> tuple[str | None, bool]:
        return attempt.facts.phase, attempt.progress.wire > 0

    def _previous(self) -> threading.Event | None:
        """The end of what still goes on for this job."""
        stretch = self._stretch
        events = [] if stretch is None else [stretch.ended, stretch.attempt.undoing]
        return next((event for event in events if event is not None and not event.is_set()), None)

    def stop(self, reason: StopReason) -> None:
        with self._lock:
            if reason in _REASONS:
                self._fire(_REASONS[reason])
            stretch, attempt, state = self._stretch, self._attempt, self._state
            undoing = None
            if state is State.CANCELED or (state is State.FAILED and attempt.undoing is None):
                undoing = attempt.undoing = threading.Event()
        if state is not State.RUNNING and stretch is not None:
            stretch.cancellation.cancel()
        if undoing is not None:
            failed = state is State.FAILED
            threads.start(f"{self.type}-undo", lambda: self._undo(stretch, attempt, undoing, failed))

    def set_identifier(self, identifier: str) -> None:
        self._identifier = identifier
        self._name_report(self._attempt.facts.transaction)

    def reset(self) -> None:
        with self._lock:
            canceled = self._state is State.CANCELED
            self._fire(Event.RESET)
            continuation = self._attempt.continuation
            # What a cancel deletes must not be what the new attempt uses.
            renewed = ResumeState(sent=self.environment.sent) if canceled else continuation
            stretch = self._stretch
            self._attempt = Attempt(renewed, Progress(self.environment.clock))
            self._shown = {}
        if stretch is not None:
            stretch.cancellation.cancel()

    def content(self) -> dict[str, Any]:
        attempt = self._attempt
        if not attempt.facts.started:
            return self._shown
        return describe(self.order, self._resources, attempt.facts, attempt.progress, self.bytes_key)

    def serialized(self) -> dict[str, Any]:
        saved = {**order_to_json(self.order), "Progress": round(self.progress(), 4)}
        if self._state is not State.CANCELED:
            # After a restart, nothing belongs to a canceled job that its process had no time to delete.
            saved.update(self._attempt.continuation.to_json())
        if self._shown or self._state in (State.SUCCEEDED, State.FAILED, State.CANCELED):
            saved[_ENDED] = self.content()
        return saved

    def progress(self) -> float:
        return 1.0 if self._state is State.SUCCEEDED else self._attempt.progress.fraction()

    def failure(self) -> str | None:
        return self._attempt.facts.error

    def release(self) -> None:
        with self._lock:
            self._fire(Event.RELEASE)
            stretch = self._stretch
        if stretch is not None:
            stretch.cancellation.cancel()
            stretch.ended.wait(RELEASE)

    # --- the driver

    def _fire(self, event: Event) -> None:
        self._state = after(self._state, event)

    def _drive(self, stretch: Run) -> None:
        error: str | None = None
        event: Event | None = Event.DONE
        try:
            self._work(stretch)
        except TransferError as failure:
            # What is cut may end with any error; a true one comes again after the pause.
            event = None if stretch.cancellation.requested else Event.BROKE
            error = str(failure)
            if isinstance(failure, PeerError):
                self.environment.negotiation.forget(self.order.peer)
        except Exception as unexpected:
            log.exception("%s to or from peer %s failed unexpectedly", self.type, self.order.peer)
            event, error = Event.BROKE, f"internal error: {unexpected!r}"
        with self._lock:
            # A canceled or resubmitted job is no longer interested.
            if event is not None and self._attempt is stretch.attempt and self._state is not State.CANCELED:
                stretch.attempt.facts.waiting = None
                stretch.attempt.facts.error = error
                if event is Event.DONE:
                    stretch.attempt.facts.phase = "Done"
                self._fire(event)
        stretch.ended.set()

    def _work(self, stretch: Run) -> None:
        environment, attempt = self.environment, stretch.attempt
        transport = environment.peers.connect(
            self.order.peer, max(MAX_REQUESTS, environment.settings.threads)
        )
        forget = stretch.cancellation.on_cancel(transport.abort)
        retrying = self._retrying(transport, stretch)
        try:
            self.work(
                RunContext(
                    environment,
                    self.order,
                    attempt.continuation,
                    attempt.progress,
                    attempt.facts,
                    stretch.cancellation,
                    retrying,
                    PeerClient(
                        retrying,
                        self.order.sender_transfer_id,
                        lambda: attempt.continuation.cookie,
                    ),
                    lambda identifier: self._enter(attempt, identifier),
                )
            )
        finally:
            forget()
            # What still asks in the background asks for nobody.
            transport.abort()
            retrying.close()

    def _enter(self, attempt: Attempt, transaction: str) -> None:
        attempt.facts.transaction = transaction
        self._name_report(transaction)

    def _name_report(self, transaction: str | None) -> None:
        """Let the report of a transfer be found by the identifier of this job."""
        # Whoever comes second, the queue or the driver, knows both.
        if self._identifier is None or transaction is None:
            return
        try:
            self.environment.reports.alias(transaction, self._identifier)
        except OSError as error:
            log.warning(
                "the report of job %s will not be found by its identifier: %s", self._identifier, error
            )

    def _retrying(self, transport: PeerTransport, stretch: Run) -> RetryingTransport:
        def wait(sentence: str | None) -> None:
            stretch.attempt.facts.waiting = sentence

        return RetryingTransport(
            transport,
            retries=self.environment.settings.max_http_retries,
            max_outage=self.environment.settings.max_outage,
            clock=self.environment.clock,
            cancellation=stretch.cancellation,
            on_waiting=wait,
        )

    def _undo(self, stretch: Run | None, attempt: Attempt, undone: threading.Event, failed: bool) -> None:
        # The driver may be creating just now what has to be deleted.
        if stretch is not None:
            stretch.ended.wait(UNDO)
        try:
            self.undo(attempt.continuation, failed=failed)
        except TransferError as error:
            log.warning("what %s transferred could not be deleted: %s", self.type, error)
        finally:
            undone.set()
