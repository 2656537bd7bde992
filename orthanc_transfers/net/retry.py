"""Repeats the requests of another ``PeerTransport`` where that may help.

Three kinds of failure, told apart:

- An *outage*: no response, or 502, 503, 504 of a proxy whose server is unreachable. Waited for up to ``max_outage``
  seconds, together with all other jobs: see ``outage.py``.
- A *busy* peer: 503 with ``Retry-After`` to a POST. It is reachable, and its slots for pushes are taken. Waited for
  as long as it takes, until canceled, for the transfers before this one may take hours; in line with other jobs: see
  ``slot_line.py``.
- Any other error where a retry may help (a bad checksum, 500, 429…): ``retries`` times per request, with exponential
  backoff and jitter.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count
from typing import TypeVar

from orthanc_transfers.core.backoff import Backoff
from orthanc_transfers.core.errors import PeerError, PeerInvalidResponse, PeerStatus, PeerUnreachable
from orthanc_transfers.core.paths import CAPABILITIES, PUSH_V1
from orthanc_transfers.interfaces import Clock, PeerRequest, PeerResponse, PeerTransport
from orthanc_transfers.net.circuit import Circuit, Failures
from orthanc_transfers.net.outage import MAX_DELAY, RENEWAL_PERIOD, OutageWait, local_time
from orthanc_transfers.net.slot_line import Ticket
from orthanc_transfers.runtime.cancellation import Cancellation

# Seconds before a busy peer is asked again.
MIN_BUSY_DELAY = 1.0

# Seconds between two looks whether a transfer of ours gave a slot back.
SLOT_PERIOD = 0.2

# Seconds after which a creation of version 1 that has no response is taken for one that is held.
MAX_CREATION = 1.0

# Retries of an invalid response, whatever MaxHttpRetries says: damaged bytes are a matter of this
# protocol, not of HTTP.
MIN_INVALID_RETRIES = 2

T = TypeVar("T")


class RetryingTransport:
    """See the module. Raises what the last attempt raised, and ``Canceled`` in the middle of any wait.

    ``on_waiting`` is called with one sentence for each wait that a user should know of, and with ``None`` when the
    peer responds again; it must not block. ``renew`` lets ``inner`` follow changes of its peer, returns whether there
    was one, and raises what is to end the wait: asked every few seconds while there is something to wait for, and then
    a changed peer is tried at once. ``circuit`` is shared with other transports to the same peer. ``gate`` is called
    before a request, and before a response is returned, unless the request is an attempt during an outage or while the
    peer is busy: it returns when the caller may go on. ``jitter`` returns numbers from 0 to 1.
    """

    def __init__(
        self,
        inner: PeerTransport,
        *,
        retries: int,
        max_outage: float,
        clock: Clock,
        cancellation: Cancellation,
        on_waiting: Callable[[str | None], None] = lambda sentence: None,
        renew: Callable[[], bool] | None = None,
        circuit: Circuit | None = None,
        gate: Callable[[], None] = lambda: None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = inner.name
        self.without_retries = inner
        """The transport that sends each request once."""
        self._retry_backoff = Backoff(retries, ceiling=MAX_DELAY)
        self._invalid_backoff = Backoff(max(MIN_INVALID_RETRIES, retries), ceiling=MAX_DELAY)
        self._clock = clock
        self._cancellation = cancellation
        self._on_waiting = on_waiting
        self._jitter = jitter
        self._circuit = circuit or Circuit()
        self._gate = gate
        self._outage = OutageWait(
            inner,
            self._circuit,
            max_outage=max_outage,
            clock=clock,
            cancellation=cancellation,
            say=self._report,
            renew=renew,
            jitter=jitter,
        )
        self._busy_since: str | None = None
        """When this transport began to wait for a slot; ``None``: it does not."""
        self._asked: tuple[Ticket, float] | None = None
        """What asks for a push of version 1, and since when."""
        self._reported = False

    @property
    def url(self) -> str:
        """See ``PeerTransport``; may change with the peer."""
        return self.without_retries.url

    @property
    def round_trip(self) -> float | None:
        """See ``PeerTransport``."""
        return self.without_retries.round_trip

    @property
    def silence(self) -> str | None:
        """See ``PeerTransport``."""
        return self.without_retries.silence

    @property
    def users(self) -> int:
        """Jobs of this server with that peer, this one included."""
        return max(1, self._circuit.users)

    @property
    def waits(self) -> bool:
        """Whether there is nothing to do but to wait for the peer; ``on_waiting`` has said so."""
        self._look_for_hold()
        return self._busy_since is not None or self._outage.waits

    def hurry(self) -> None:
        """Let the peer be tried soon, if it is waited for."""
        self._circuit.hurry()

    def wait_for_peer(self) -> None:
        """If the peer is known to be away, return once it responds. Raises what ``send`` does."""
        if self._circuit.outage is None:
            return
        try:
            self.send(PeerRequest("GET", CAPABILITIES))
        except PeerError as error:
            if _unreachable(error):
                raise
            # It responds, whatever it says: the transfer itself will meet that again, and report it.

    def send(self, request: PeerRequest) -> PeerResponse:
        """See ``PeerTransport``."""
        retries = 0
        failures: Failures | None = None
        try:
            with Ticket(self._circuit) as ticket:
                if request.takes_slot:
                    ticket.queue_up(behind_others=True)
                while True:
                    self._wait_in_line(ticket)
                    turn = self._outage.turn(failures)
                    if turn.changed:
                        failures = None
                    if not turn.probes:
                        if ticket.must_wait:
                            continue  # an outage is over, and others were in line before it
                        if self._busy_since is None:
                            self._gate()
                    if request.path == PUSH_V1:
                        self._asked = (ticket, self._clock.monotonic())
                    try:
                        response = self.without_retries.send(request)
                    except PeerError as error:
                        if _busy(request, error):
                            self._wait_for_slot(ticket, error)
                        elif _unreachable(error):
                            failures = self._outage.failed(error, failures)
                        else:
                            self._responded()
                            delay = self._retry_backoff.delay(retries, error, self._jitter())
                            if delay is None:
                                raise
                            retries += 1
                            self._outage.wait(delay)
                    else:
                        self._responded()
                        return response
        finally:
            self._asked = self._busy_since = None
            self._outage.request_ends()

    def until_valid(self, attempt: Callable[[], T]) -> T:
        """What ``attempt`` returns, repeated while it raises ``PeerInvalidResponse``.

        Then the page of a proxy came instead of the response, or bytes were damaged. Raises what the last attempt
        did; ``Canceled``.
        """
        for failures in count():
            try:
                return attempt()
            except PeerInvalidResponse as error:
                delay = self._invalid_backoff.delay(failures, error, self._jitter())
                if delay is None:
                    raise
            self._cancellation.wait(delay)
        raise AssertionError("count() has no end")

    def prepare(self) -> None:
        """See ``PeerTransport``."""
        self.without_retries.prepare()

    def abort(self) -> None:
        """See ``PeerTransport``."""
        self.without_retries.abort()

    def close(self) -> None:
        """See ``PeerTransport``."""
        self._outage.close()
        self.without_retries.close()

    def _responded(self) -> None:
        """The peer has responded, and not that it is busy. Returns when the caller may go on."""
        self._asked = self._busy_since = None
        self._outage.responded()
        self._gate()

    def _wait_for_slot(self, ticket: Ticket, error: PeerError) -> None:
        """Return when the peer may be asked again for a slot."""
        delay = getattr(error, "retry_after", None) or MIN_BUSY_DELAY
        # Jitter, so that servers which wait do not all come back at once.
        delay = min(max(delay, MIN_BUSY_DELAY), MAX_DELAY) * (1 + self._jitter() / 4)
        ticket.queue_up()
        since = self._busy_since or local_time(self._clock)
        self._outage.responded(self._busy_sentence(since))
        self._busy_since = since
        if not ticket.must_wait:
            self._wait_as_first(delay)

    def _wait_as_first(self, delay: float) -> None:
        """Wait before the peer is asked again: less if a transfer of ours ends, which gives its slot back."""
        circuit = self._circuit
        ended, hurries = circuit.ended, circuit.hurries
        end = self._clock.monotonic() + delay
        look = self._clock.monotonic()
        while (circuit.ended, circuit.hurries) == (ended, hurries):
            now = self._clock.monotonic()
            if now >= end:
                return
            if now >= look:
                look = now + RENEWAL_PERIOD
                if self._outage.renew():
                    return
            self._cancellation.wait(min(end - now, SLOT_PERIOD))

    def _wait_in_line(self, ticket: Ticket) -> None:
        """Return when no other request waits before this one, or the peer is away."""
        while ticket.must_wait and self._circuit.outage is None:
            self._call_busy()
            self._cancellation.check()
            self._outage.renew()
            ticket.wait(RENEWAL_PERIOD)

    def _call_busy(self) -> None:
        # The sentence first: whoever sees that it waits may show it.
        if self._busy_since is None:
            since = local_time(self._clock)
            self._report(self._busy_sentence(since))
            self._busy_since = since

    def _busy_sentence(self, since: str) -> str:
        return f"Waiting for peer {self.name!r} since {since}: it is busy with other transfers"

    def _look_for_hold(self) -> None:
        """A receiver holds the creation of a push of version 1 until it has a slot for it."""
        asked = self._asked
        if asked is not None and self._clock.monotonic() - asked[1] >= MAX_CREATION:
            asked[0].queue_up()
            self._call_busy()

    def _report(self, sentence: str | None) -> None:
        if sentence is not None or self._reported:
            self._reported = sentence is not None
            self._on_waiting(sentence)


def _busy(request: PeerRequest, error: PeerError) -> bool:
    return (
        request.method == "POST"
        and isinstance(error, PeerStatus)
        and error.peer_status == 503
        and error.retry_after is not None
    )


def _unreachable(error: PeerError) -> bool:
    if isinstance(error, PeerStatus):
        return error.outage
    return isinstance(error, PeerUnreachable) and error.retryable
