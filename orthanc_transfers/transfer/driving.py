"""A transfer as a job of Orthanc's engine: a state machine whose work runs on a thread of its own.

Orthanc steps a job again and again, and looks at pause and cancel between two steps only. So a step starts
the driver thread if none runs, and waits for it a little.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from orthanc_transfers.core.errors import Canceled, PeerError, TransferError
from orthanc_transfers.core.protocol import TransferRequest
from orthanc_transfers.transfer import workers
from orthanc_transfers.transfer.cancellation import Cancellation
from orthanc_transfers.transfer.content import Facts, describe, with_types
from orthanc_transfers.transfer.environment import Environment
from orthanc_transfers.transfer.ports import PeerTransport, StepOutcome, StopReason
from orthanc_transfers.transfer.progress import Progress
from orthanc_transfers.transfer.retrying import Retrying
from orthanc_transfers.transfer.saved import Continuation, order_to_json
from orthanc_transfers.transfer.states import Event, State, after

STEP = 0.2
"""Seconds that a step waits for the driver."""

RELEASE = 1.0
"""Seconds that the end of Orthanc waits for the driver."""

CLEAN_UP = 10.0
"""Seconds that deleting what was transferred waits for the driver."""

log = logging.getLogger(__name__)

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

    continuation: Continuation
    progress: Progress
    facts: Facts = field(default_factory=Facts)
    cleaned_up: bool = False


@dataclass(slots=True)
class Stretch:
    """Work without a break: from a step to a pause, or to the end."""

    attempt: Attempt
    cancellation: Cancellation = field(default_factory=Cancellation)
    ended: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class Drive:
    """What the driver of one stretch works with.

    ``once`` does each request once, ``peer`` does it again where that helps.
    """

    environment: Environment
    order: TransferRequest
    continuation: Continuation
    progress: Progress
    facts: Facts
    cancellation: Cancellation
    once: PeerTransport
    peer: PeerTransport


class TransferJob(ABC):
    """Implements ``ports.Job``; what is to be done is said by ``work`` and ``undo``."""

    type: ClassVar[str]
    bytes_key: ClassVar[str]
    """Key of the content for the bytes on the network."""

    def __init__(
        self, environment: Environment, order: TransferRequest, saved: Mapping[str, Any] | None = None
    ) -> None:
        saved = saved or {}
        self.environment = environment
        self.order = order
        self._resources = with_types(order.resources_json)
        self._lock = threading.Lock()
        self._state = State.READY
        self._stretch: Stretch | None = None
        floor = saved.get("Progress")
        self._attempt = Attempt(
            Continuation(saved),
            Progress(environment.clock, float(floor) if isinstance(floor, (int, float)) else 0.0),
        )

    @abstractmethod
    def work(self, drive: Drive) -> None:
        """The whole transfer, from where it stands to its end. Raises ``Canceled`` and any other error."""

    @abstractmethod
    def undo(self, continuation: Continuation, *, failed: bool) -> None:
        """Delete what was transferred so far, after a cancel or (``failed``) after an error of ``work``."""

    # --- ports.Job

    def step(self) -> StepOutcome:
        with self._lock:
            if self._state is State.READY and (self._stretch is None or self._stretch.ended.is_set()):
                self._fire(Event.START)
                self._attempt.facts.started = True
                stretch = self._stretch = Stretch(self._attempt)
                workers.start(f"{self.type}-driver", lambda: self._drive(stretch))
            running = self._stretch
        if running is not None and self._state in (State.READY, State.RUNNING):
            running.ended.wait(STEP)
        with self._lock:
            return _OUTCOMES[self._state]

    def stop(self, reason: StopReason) -> None:
        with self._lock:
            if reason in _REASONS:
                self._fire(_REASONS[reason])
            stretch, attempt, state = self._stretch, self._attempt, self._state
            clean_up = state in (State.CANCELED, State.FAILED) and not attempt.cleaned_up
            attempt.cleaned_up = attempt.cleaned_up or clean_up
        if state is not State.RUNNING and stretch is not None:
            stretch.cancellation.cancel()
        if clean_up:
            failed = state is State.FAILED
            workers.start(f"{self.type}-undo", lambda: self._clean_up(stretch, attempt, failed))

    def reset(self) -> None:
        with self._lock:
            canceled = self._state is State.CANCELED
            self._fire(Event.RESET)
            continuation = self._attempt.continuation
            # What a cancel deletes must not be what the new attempt uses.
            renewed = Continuation() if canceled else continuation
            stretch = self._stretch
            self._attempt = Attempt(renewed, Progress(self.environment.clock))
        if stretch is not None:
            stretch.cancellation.cancel()

    def content(self) -> dict[str, Any]:
        attempt = self._attempt
        return describe(self.order, self._resources, attempt.facts, attempt.progress, self.bytes_key)

    def serialized(self) -> dict[str, Any]:
        attempt = self._attempt
        return {
            **order_to_json(self.order),
            **attempt.continuation.to_json(),
            "Progress": round(self.progress(), 4),
        }

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

    def _drive(self, stretch: Stretch) -> None:
        error: str | None = None
        event: Event | None = Event.DONE
        try:
            self._work(stretch)
        except Canceled as canceled:
            event = None if stretch.cancellation.requested else Event.BROKE
            error = str(canceled)
        except TransferError as failure:
            event, error = Event.BROKE, str(failure)
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

    def _work(self, stretch: Stretch) -> None:
        environment, attempt = self.environment, stretch.attempt
        transport = environment.peers.connect(self.order.peer, environment.settings.threads)
        forget = stretch.cancellation.on_cancel(transport.abort)
        try:
            self.work(
                Drive(
                    environment,
                    self.order,
                    attempt.continuation,
                    attempt.progress,
                    attempt.facts,
                    stretch.cancellation,
                    transport,
                    self._retrying(transport, stretch),
                )
            )
        finally:
            forget()
            transport.close()

    def _retrying(self, transport: PeerTransport, stretch: Stretch) -> PeerTransport:
        def wait(sentence: str | None) -> None:
            stretch.attempt.facts.waiting = sentence

        return Retrying(
            transport,
            retries=self.environment.settings.max_http_retries,
            max_outage=self.environment.settings.max_outage,
            clock=self.environment.clock,
            cancellation=stretch.cancellation,
            on_waiting=wait,
        )

    def _clean_up(self, stretch: Stretch | None, attempt: Attempt, failed: bool) -> None:
        # The driver may be creating just now what has to be deleted.
        if stretch is not None:
            stretch.ended.wait(CLEAN_UP)
        try:
            self.undo(attempt.continuation, failed=failed)
        except TransferError as error:
            log.warning("what %s transferred could not be deleted: %s", self.type, error)
