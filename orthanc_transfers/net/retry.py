"""Repeats the requests of another ``PeerTransport`` where that may help.

Two kinds of failure, told apart:

- An *outage*: no response, or 502, 503, 504 of a proxy whose server is unreachable. Waited for, up to ``max_outage``
  seconds, by a circuit breaker with one prober. The first failure is repeated soon, for it may be one dropped
  connection. If the request fails again and no other succeeded in between, the circuit opens: all threads wait, one
  of them probes with exponential backoff and jitter, and its first response closes the circuit for all. All jobs with
  a peer share its circuit; each waits ``max_outage`` seconds of its own.
- Any other error where a retry may help (a bad checksum, 500, 429…): ``retries`` times per request, with the same
  backoff.

A 503 with ``Retry-After`` to a POST is neither: the peer is reachable, and its slots for pushes are taken. It
is waited for as long as it takes, until canceled: the transfers before this one may take hours.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from itertools import count
from math import ceil
from typing import TypeVar

from orthanc_transfers.core.backoff import Backoff
from orthanc_transfers.core.errors import PeerError, PeerInvalidResponse, PeerStatus, PeerUnreachable
from orthanc_transfers.core.paths import CAPABILITIES
from orthanc_transfers.interfaces import Clock, PeerRequest, PeerResponse, PeerTransport
from orthanc_transfers.net.circuit import Circuit, Failures, Outage
from orthanc_transfers.runtime.cancellation import Cancellation

# Seconds between two attempts.
MAX_DELAY = 60.0

# Seconds before a busy peer is asked again.
MIN_BUSY_DELAY = 1.0

# Retries of an invalid response, whatever MaxHttpRetries says: damaged bytes are a matter of this
# protocol, not of HTTP.
MIN_INVALID_RETRIES = 2

# Seconds between two looks whether a peer that is waited for was changed or deleted.
RENEWAL_PERIOD = 2.0

# Seconds after which a first connection that is neither accepted nor refused counts as an outage.
PATIENCE = 0.5

T = TypeVar("T")


class RetryingTransport:
    """See the module. Raises what the last attempt raised, and ``Canceled`` in the middle of any wait.

    ``on_waiting`` is called with one sentence for each wait that a user should know of, and with ``None`` when the
    peer responds again; it must not block. ``renew`` lets ``inner`` follow changes of its peer, returns whether there
    was one, and raises what is to end the wait: asked every few seconds while there is something to wait for, and then
    a changed peer is tried at once. ``circuit`` is shared with other transports to the same peer. ``connecting`` tells
    whether ``inner`` has had no connection yet. ``gate`` is called
    before a request, and before a response is returned, unless the request is an attempt during an outage: it
    returns when the caller may go on. ``jitter`` returns numbers from 0 to 1.
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
        connecting: Callable[[], bool] = lambda: False,
        gate: Callable[[], None] = lambda: None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = inner.name
        self.url = inner.url
        self.without_retries = inner
        """The transport that sends each request once."""
        self._retry_backoff = Backoff(retries, ceiling=MAX_DELAY)
        self._invalid_backoff = Backoff(max(MIN_INVALID_RETRIES, retries), ceiling=MAX_DELAY)
        self._outage_backoff = Backoff(sys.maxsize, ceiling=MAX_DELAY)
        self._max_outage = max_outage
        self._clock = clock
        self._cancellation = cancellation
        self._on_waiting = on_waiting
        self._renew = renew
        self._jitter = jitter
        self._circuit = circuit or Circuit()
        self._circuit.join()
        self._connecting = connecting
        self._gate = gate
        self._began: float | None = None
        """When the first request was sent."""
        self._waits_since: float | None = None
        """When this transport began to wait through the present outage."""
        self._reported = False
        self._forget = cancellation.on_cancel(self._wake)

    @property
    def round_trip(self) -> float | None:
        """See ``PeerTransport``."""
        return self.without_retries.round_trip

    @property
    def peer_away(self) -> bool:
        """Whether there is nothing to do but to wait for the peer; ``on_waiting`` has said so."""
        self._doubt()
        return self._circuit.outage is not None and self._waits_since is not None

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
            while True:
                if self._wait_for_turn(failures):
                    failures = None
                if self._began is None:
                    self._began = self._clock.monotonic()
                try:
                    response = self.without_retries.send(request)
                except PeerError as error:
                    if _busy(request, error):
                        self._wait_for_slot(error)
                    elif _unreachable(error):
                        failures = self._failed(error, failures)
                    else:
                        self._responded()
                        self._gate()
                        delay = self._retry_backoff.delay(retries, error, self._jitter())
                        if delay is None:
                            raise
                        retries += 1
                        self._wait(delay)
                else:
                    self._responded()
                    self._gate()
                    return response
        finally:
            self._stop_probing()

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
        self._forget()
        self._circuit.leave()
        self.without_retries.close()

    def _wait_for_turn(self, failures: Failures | None) -> bool:
        """Return when this thread should send: during an outage, as the only one that does.

        Returns whether the peer was changed, so that earlier failures say nothing of it.
        """
        circuit = self._circuit
        waited = self._wait_for_prober(failures)
        delay: float | None = None
        with circuit.changed:
            outage = circuit.outage
            if outage and circuit.prober in (None, threading.get_ident()):
                circuit.prober = threading.get_ident()
            waited_for = outage or failures
            if waited_for is not None:
                now = self._clock.monotonic()
                left = self._left(failures)
                if left <= 0:
                    if failures or now - waited_for.last < MAX_DELAY:
                        raise self._final_error(waited_for.error)
                    return False  # an outage of long ago, and a request that was not sent yet
                delay = self._outage_backoff.delay(waited_for.count - 1, waited_for.error, self._jitter())
                delay = left if delay is None else min(delay, left)
                if outage:
                    self._say(outage, failures)
        if delay is not None:
            return self._wait(delay)
        self._gate()
        return waited and self._changed_meanwhile()

    def _wait_for_prober(self, failures: Failures | None) -> bool:
        """Wait as long as another thread tries the peer. Returns whether one did."""
        circuit = self._circuit
        waited = False
        with circuit.changed:
            while (outage := circuit.outage) and circuit.prober not in (None, threading.get_ident()):
                self._cancellation.check()
                self._say(outage, failures)
                left = self._left(failures)
                if left <= 0:
                    raise self._final_error(outage.error)
                waited = True
                circuit.changed.wait(left)
            self._cancellation.check()
            if waited and not circuit.outage:
                self._waits_since = None
                self._report(None)
        return waited

    def _left(self, failures: Failures | None) -> float:
        """Seconds until the wait is given up."""
        began = self._waits_since
        if began is None:
            began = self._clock.monotonic() if failures is None else failures.began
        return began + self._max_outage - self._clock.monotonic()

    def _say(self, outage: Outage, failures: Failures | None) -> None:
        # The sentence first: whoever sees that it waits may show it.
        self._report(f"Waiting for peer {self.name!r} since {outage.since}: {outage.error}")
        if self._waits_since is None:
            self._waits_since = self._clock.monotonic() if failures is None else failures.began

    def _wait(self, delay: float) -> bool:
        """Wait, but not for a peer that was changed, nor longer than a user wants. Returns whether it was changed."""
        if self._renew is None:
            self._cancellation.wait(delay)
            return False
        hurries = self._circuit.hurries
        end = self._clock.monotonic() + delay
        while not self._changed_meanwhile():
            left = end - self._clock.monotonic()
            if left <= 0 or self._circuit.hurries != hurries:
                return False
            self._cancellation.wait(min(left, RENEWAL_PERIOD))
        self._responded()
        return True

    def _changed_meanwhile(self) -> bool:
        if self._renew is None or not self._renew():
            return False
        self.url = self.without_retries.url
        return True

    def _failed(self, error: PeerError, failures: Failures | None) -> Failures:
        circuit = self._circuit
        with circuit.changed:
            now = self._clock.monotonic()
            if failures is None:
                failures = Failures(error, began=now, responses=circuit.responses)
            failures.add(error, now)
            if circuit.outage:
                if circuit.prober == threading.get_ident():
                    circuit.outage.add(error, now)
            elif failures.count > 1 and failures.responses == circuit.responses:
                self._open(error, failures.began)
            return failures

    def _open(self, error: PeerError, began: float) -> Outage:
        since = datetime.fromtimestamp(self._clock.now()).strftime("%Y-%m-%d %H:%M:%S")
        outage = self._circuit.outage = Outage(error, began, self._circuit.responses, since=since)
        outage.add(error, self._clock.monotonic())
        return outage

    def _doubt(self) -> None:
        """Call it an outage that the first connection is not accepted, long before that fails."""
        began, now = self._began, self._clock.monotonic()
        if began is None or now - began < PATIENCE or not self._max_outage or not self._connecting():
            return
        with self._circuit.changed:
            if self._waits_since is None:
                silent = PeerUnreachable(f"peer {self.name!r} accepts no connection at {self.url}", self.name)
                self._say(self._circuit.outage or self._open(silent, began), None)

    def _wait_for_slot(self, error: PeerError) -> None:
        delay = getattr(error, "retry_after", None) or MIN_BUSY_DELAY
        # Jitter, so that those who wait do not all come back at once.
        delay = min(max(delay, MIN_BUSY_DELAY), MAX_DELAY) * (1 + self._jitter() / 4)
        self._responded(f"Peer {self.name!r} is busy with other transfers, next attempt in {ceil(delay)} s")
        self._wait(delay)

    def _responded(self, sentence: str | None = None) -> None:
        circuit = self._circuit
        with circuit.changed:
            circuit.responses += 1
            self._waits_since = None
            if circuit.outage:
                circuit.outage = None
                circuit.prober = None
                circuit.changed.notify_all()
            self._report(sentence)

    def _report(self, sentence: str | None) -> None:
        if sentence is not None or self._reported:
            self._reported = sentence is not None
            self._on_waiting(sentence)

    def _stop_probing(self) -> None:
        circuit = self._circuit
        with circuit.changed:
            if circuit.prober == threading.get_ident():
                circuit.prober = None
                circuit.changed.notify_all()

    def _wake(self) -> None:
        with self._circuit.changed:
            self._circuit.changed.notify_all()

    def _final_error(self, error: PeerError) -> PeerError:
        if not self._max_outage:
            return error
        sentence = f"{error}; given up after {self._max_outage:g} s"
        if isinstance(error, PeerStatus):
            return PeerStatus(
                sentence,
                error.peer,
                error.peer_status,
                headers=error.headers,
                body=error.body,
                retry_after=error.retry_after,
            )
        return PeerUnreachable(sentence, error.peer)


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
