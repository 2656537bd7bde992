"""Repeats the requests of another ``PeerTransport`` where that may help.

Two kinds of failure, told apart:

- An *outage*: no response, or 502, 503, 504 of a proxy whose server is unreachable. Waited for, up to ``max_outage``
  seconds, by a circuit breaker with one prober. The first failure is repeated soon, for it may be one dropped
  connection. If the request fails again and no other succeeded in between, the circuit opens: all threads wait, one
  of them probes with exponential backoff and jitter, and its first response closes the circuit for all.
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
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from math import ceil
from typing import TypeVar

from orthanc_transfers.core.backoff import Backoff
from orthanc_transfers.core.errors import PeerError, PeerInvalidResponse, PeerStatus, PeerUnreachable
from orthanc_transfers.interfaces import Clock, PeerRequest, PeerResponse, PeerTransport
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

T = TypeVar("T")


class RetryingTransport:
    """See the module. Raises what the last attempt raised, and ``Canceled`` in the middle of any wait.

    ``on_waiting`` is called with one sentence for each wait that a user should know of, and with ``None`` when the
    peer responds again; it must not block. ``renew`` lets ``inner`` follow changes of its peer, returns whether there
    was one, and raises what is to end the wait: asked every few seconds while there is something to wait for, and then
    a changed peer is tried at once. ``jitter`` returns numbers from 0 to 1.
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
        self._changed = threading.Condition()
        self._outage: _Outage | None = None
        self._prober: int | None = None
        self._responses = 0
        self._reported = False
        self._forget = cancellation.on_cancel(self._wake)

    @property
    def round_trip(self) -> float | None:
        """See ``PeerTransport``."""
        return self.without_retries.round_trip

    def send(self, request: PeerRequest) -> PeerResponse:
        """See ``PeerTransport``."""
        retries = 0
        failures: _Failures | None = None
        try:
            while True:
                if self._wait_for_turn(failures):
                    failures = None
                try:
                    response = self.without_retries.send(request)
                except PeerError as error:
                    if _busy(request, error):
                        self._wait_for_slot(error)
                    elif _unreachable(error):
                        failures = self._failed(error, failures)
                    else:
                        self._responded()
                        delay = self._retry_backoff.delay(retries, error, self._jitter())
                        if delay is None:
                            raise
                        retries += 1
                        self._wait(delay)
                else:
                    self._responded()
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
        self.without_retries.close()

    def _wait_for_turn(self, failures: _Failures | None) -> bool:
        """Return when this thread should send: during an outage, as the only one that does.

        Returns whether the peer was changed, so that earlier failures say nothing of it.
        """
        me = threading.get_ident()
        with self._changed:
            while self._outage and self._prober not in (None, me) and not self._cancellation.requested:
                self._changed.wait()
            self._cancellation.check()
            outage = self._outage
            if outage:
                self._prober = me
            waited_for = outage or failures
            if waited_for is None:
                return False
            now = self._clock.monotonic()
            left = waited_for.began + self._max_outage - now
            if left <= 0:
                if failures or now - waited_for.last < MAX_DELAY:
                    raise self._final_error(waited_for.error)
                return False  # an outage of long ago, and a request that was not sent yet
            delay = self._outage_backoff.delay(waited_for.count - 1, waited_for.error, self._jitter())
            delay = left if delay is None else min(delay, left)
            if outage:
                self._report(
                    f"Waiting for peer {self.name!r} since {outage.since}, next attempt in {ceil(delay)} s:"
                    f" {outage.error}"
                )
        return self._wait(delay)

    def _wait(self, delay: float) -> bool:
        """Wait, but not for a peer that was changed. Returns whether it was."""
        if self._renew is None:
            self._cancellation.wait(delay)
            return False
        end = self._clock.monotonic() + delay
        while not self._renew():
            left = end - self._clock.monotonic()
            if left <= 0:
                return False
            self._cancellation.wait(min(left, RENEWAL_PERIOD))
        self.url = self.without_retries.url
        self._responded()
        return True

    def _failed(self, error: PeerError, failures: _Failures | None) -> _Failures:
        with self._changed:
            now = self._clock.monotonic()
            if failures is None:
                failures = _Failures(error, began=now, responses=self._responses)
            failures.add(error, now)
            if self._outage:
                if self._prober == threading.get_ident():
                    self._outage.add(error, now)
            elif failures.count > 1 and failures.responses == self._responses:
                since = datetime.fromtimestamp(self._clock.now()).strftime("%Y-%m-%d %H:%M:%S")
                self._outage = _Outage(error, failures.began, failures.responses, since=since)
                self._outage.add(error, now)
            return failures

    def _wait_for_slot(self, error: PeerError) -> None:
        delay = getattr(error, "retry_after", None) or MIN_BUSY_DELAY
        # Jitter, so that those who wait do not all come back at once.
        delay = min(max(delay, MIN_BUSY_DELAY), MAX_DELAY) * (1 + self._jitter() / 4)
        self._responded(f"Peer {self.name!r} is busy with other transfers, next attempt in {ceil(delay)} s")
        self._wait(delay)

    def _responded(self, sentence: str | None = None) -> None:
        with self._changed:
            self._responses += 1
            if self._outage:
                self._outage = None
                self._prober = None
                self._changed.notify_all()
            self._report(sentence)

    def _report(self, sentence: str | None) -> None:
        if sentence is not None or self._reported:
            self._reported = sentence is not None
            self._on_waiting(sentence)

    def _stop_probing(self) -> None:
        with self._changed:
            if self._prober == threading.get_ident():
                self._prober = None
                self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

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


@dataclass(slots=True)
class _Failures:
    """Consecutive failures of one request. Times in seconds of the monotonic clock."""

    error: PeerError
    began: float
    responses: int
    """Responses that this transport had received when they began."""
    count: int = 0
    last: float = 0.0

    def add(self, error: PeerError, now: float) -> None:
        # Its traceback would keep the request, which refers to these failures, with all its bytes.
        self.error = error.with_traceback(None)
        self.count += 1
        self.last = now


@dataclass(slots=True)
class _Outage(_Failures):
    """The same for all requests, while none gets a response."""

    since: str = ""


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
