"""The worker thread of a job: one run of its work, from start or resume to pause or end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from orthanc_transfers.core.errors import PeerError, TransferError
from orthanc_transfers.core.messages_v1 import TransferRequest
from orthanc_transfers.jobs.content import TransferStatus
from orthanc_transfers.jobs.context import RunContext
from orthanc_transfers.jobs.resume import ResumeState
from orthanc_transfers.jobs.services import Services
from orthanc_transfers.jobs.states import Event
from orthanc_transfers.net.current_transport import CurrentTransport
from orthanc_transfers.net.extras_client import ExtrasClient
from orthanc_transfers.net.retry import RetryingTransport
from orthanc_transfers.pipeline.concurrency import MAX_REQUESTS
from orthanc_transfers.pipeline.progress import Progress
from orthanc_transfers.runtime import threads

GATE = 1.0
"""Seconds between two looks for a cancellation, of a run that may not go on."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Attempt:
    """All that is known of one transfer since its start, or since it was resubmitted."""

    resume: ResumeState
    progress: Progress
    status: TransferStatus = field(default_factory=TransferStatus)
    undone: bool = False
    """Whether what this attempt transferred is, or is being, deleted."""


class Runner:
    """One run of an ``attempt``.

    ``work`` is called in a thread of its own; ``on_transaction`` with the receiver's identifier of the transfer;
    ``on_end`` with what happened and the error, if any. What happened is ``None`` after a cancellation. ``name`` is
    that of the thread, and of the job in the log.
    """

    def __init__(
        self,
        name: str,
        services: Services,
        order: TransferRequest,
        attempt: Attempt,
        work: Callable[[RunContext], None],
        on_transaction: Callable[[Attempt, str], None],
        on_end: Callable[[Attempt, Event | None, str | None], None],
    ) -> None:
        self.attempt = attempt
        self.ended = threading.Event()
        self._name = name
        self._services = services
        self._order = order
        self._work = work
        self._on_transaction = on_transaction
        self._on_end = on_end
        self._cancellation = services.new_cancellation()
        self._retrying: RetryingTransport | None = None
        self._go_on = threading.Event()
        self._go_on.set()

    @property
    def waits(self) -> bool:
        """Whether there is nothing to do but to wait for the peer."""
        transport = self._retrying
        return transport is not None and transport.waits and not self.ended.is_set()

    def rest(self) -> None:
        """Once the peer responds, wait for ``go_on``."""
        self._go_on.clear()

    def go_on(self) -> None:
        """See ``rest``."""
        self._go_on.set()

    def hurry(self) -> None:
        """Let the peer be tried soon."""
        if self._retrying is not None:
            self._retrying.hurry()

    def start(self) -> None:
        """Start the thread."""
        threads.start(f"{self._name}-runner", self._run)

    def cancel(self) -> None:
        """Ask the thread to end: cuts its requests, does not wait."""
        self._cancellation.cancel()
        self._go_on.set()

    def _run(self) -> None:
        error: str | None = None
        event: Event | None = Event.DONE
        try:
            self._transfer()
        except TransferError as failure:
            # What is cut may end with any error; a true one comes again after the pause.
            event = None if self._cancellation.requested else Event.BROKE
            error = str(failure)
            self.attempt.status.peer_failed = failure.concerns_peer
            if isinstance(failure, PeerError):
                self._services.capabilities.forget(self._order.peer)
        except Exception as unexpected:
            log.exception("%s to or from peer %s failed unexpectedly", self._name, self._order.peer)
            event, error = Event.BROKE, f"internal error: {unexpected!r}"
        self._on_end(self.attempt, event, error)
        self.ended.set()

    def _transfer(self) -> None:
        services, attempt = self._services, self.attempt
        connections = max(MAX_REQUESTS, services.settings.threads)
        transport = CurrentTransport(services.peers, self._order.peer, connections)
        forget = self._cancellation.on_cancel(transport.abort)
        retrying = self._retrying = self._new_retrying(transport)
        try:
            # With a peer that is away, nothing is listed in vain.
            retrying.wait_for_peer()
            self._work(
                RunContext(
                    services,
                    self._order,
                    attempt.resume,
                    attempt.progress,
                    attempt.status,
                    self._cancellation,
                    retrying,
                    ExtrasClient(retrying, self._order.sender_transfer_id, lambda: attempt.resume.cookie),
                    lambda identifier: self._on_transaction(attempt, identifier),
                )
            )
        finally:
            forget()
            # No caller waits any more for what a background thread still requests.
            transport.abort()
            retrying.close()

    def _gate(self) -> None:
        while not self._go_on.wait(GATE):
            self._cancellation.check()

    def _new_retrying(self, transport: CurrentTransport) -> RetryingTransport:
        status, clock = self.attempt.status, self._services.clock

        def wait(sentence: str | None) -> None:
            if sentence is None or status.waiting is None:
                status.waiting_since = None if sentence is None else clock.now()
            status.waiting = sentence

        settings = self._services.settings
        return RetryingTransport(
            transport,
            retries=settings.max_http_retries,
            max_outage=settings.max_outage,
            clock=clock,
            cancellation=self._cancellation,
            on_waiting=wait,
            renew=transport.renew,
            circuit=self._services.circuits.of(self._order.peer),
            gate=self._gate,
        )
