"""A ``PeerTransport`` around another that does not give up at once.

Two kinds of trouble, told apart:

- An *outage*: no answer, or 502, 503, 504 of a proxy whose server is away. Waited for, up to ``max_outage``
  seconds. The first failure is repeated soon, for it may be one dropped connection. If the request fails
  again and no other succeeded in between, the peer is taken for away: then all threads wait, one of them
  tries, less and less often, and as soon as it gets an answer all go on.
- Any other error where trying again may help (a bad checksum, 500, 429…): ``retries`` times a request.

A 503 with ``Retry-After`` to a POST is neither: the peer is there, and its places for pushes are taken. It
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

# Seconds; the most that two attempts are apart.
CEILING = 60.0

# Seconds; the least that a busy peer is left alone.
PAUSE = 1.0

# Retries of an invalid response, whatever MaxHttpRetries says: damaged bytes are a matter of this
# protocol, not of HTTP.
MIN_INVALID_RETRIES = 2

T = TypeVar("T")


class RetryingTransport:
    """See the module. Raises what the last attempt did, and ``Canceled`` in the middle of any wait.

    ``on_waiting`` gets one sentence for each wait that a user should know of, and ``None`` when the peer
    answers again; it must not block. ``jitter`` gives numbers from 0 to 1.
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
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = inner.name
        self.url = inner.url
        self.without_retries = inner
        """The transport that sends each request once."""
        self._retries = Backoff(retries, ceiling=CEILING)
        self._invalid = Backoff(max(MIN_INVALID_RETRIES, retries), ceiling=CEILING)
        self._patience = Backoff(sys.maxsize, ceiling=CEILING)
        self._max_outage = max_outage
        self._clock = clock
        self._cancellation = cancellation
        self._on_waiting = on_waiting
        self._jitter = jitter
        self._changed = threading.Condition()
        self._outage: _Outage | None = None
        self._prober: int | None = None
        self._answers = 0
        self._told = False
        self._forget = cancellation.on_cancel(self._wake)

    @property
    def round_trip(self) -> float | None:
        """See ``ports.PeerTransport``."""
        return self.without_retries.round_trip

    def send(self, request: PeerRequest) -> PeerResponse:
        """See ``ports.PeerTransport``."""
        retries = 0
        trouble: _Trouble | None = None
        try:
            while True:
                self._wait_for_turn(trouble)
                try:
                    answer = self.without_retries.send(request)
                except PeerError as error:
                    if _busy(request, error):
                        self._wait_for_place(error)
                    elif _away(error):
                        trouble = self._failed(error, trouble)
                    else:
                        self._answered()
                        delay = self._retries.delay(retries, error, self._jitter())
                        if delay is None:
                            raise
                        retries += 1
                        self._cancellation.wait(delay)
                else:
                    self._answered()
                    return answer
        finally:
            self._step_back()

    def until_valid(self, attempt: Callable[[], T]) -> T:
        """What ``attempt`` returns, repeated while it raises ``PeerInvalidResponse``.

        Then the page of a proxy came instead of the response, or bytes were damaged. Raises what the last attempt
        did; ``Canceled``.
        """
        for failures in count():
            try:
                return attempt()
            except PeerInvalidResponse as error:
                delay = self._invalid.delay(failures, error, self._jitter())
                if delay is None:
                    raise
            self._cancellation.wait(delay)
        raise AssertionError("a count has no end")

    def prepare(self) -> None:
        """See ``ports.PeerTransport``."""
        self.without_retries.prepare()

    def abort(self) -> None:
        """See ``ports.PeerTransport``."""
        self.without_retries.abort()

    def close(self) -> None:
        """See ``ports.PeerTransport``."""
        self._forget()
        self.without_retries.close()

    def _wait_for_turn(self, trouble: _Trouble | None) -> None:
        """Return when this thread should try: as the only one that does if the peer is away."""
        me = threading.get_ident()
        with self._changed:
            while self._outage and self._prober not in (None, me) and not self._cancellation.requested:
                self._changed.wait()
            self._cancellation.check()
            outage = self._outage
            if outage:
                self._prober = me
            suffered = outage or trouble
            if suffered is None:
                return
            now = self._clock.monotonic()
            left = suffered.began + self._max_outage - now
            if left <= 0:
                if trouble or now - suffered.tried < CEILING:
                    raise self._given_up(suffered.error)
                return  # an outage of long ago, and a request that has not been tried yet
            delay = self._patience.delay(suffered.failures - 1, suffered.error, self._jitter())
            delay = left if delay is None else min(delay, left)
            if outage:
                self._tell(
                    f"Waiting for peer {self.name!r} since {outage.since}, next attempt in {ceil(delay)} s:"
                    f" {outage.error}"
                )
        self._cancellation.wait(delay)

    def _failed(self, error: PeerError, trouble: _Trouble | None) -> _Trouble:
        with self._changed:
            now = self._clock.monotonic()
            if trouble is None:
                trouble = _Trouble(error, began=now, answers=self._answers)
            trouble.happened(error, now)
            if self._outage:
                if self._prober == threading.get_ident():
                    self._outage.happened(error, now)
            elif trouble.failures > 1 and trouble.answers == self._answers:
                since = datetime.fromtimestamp(self._clock.now()).strftime("%Y-%m-%d %H:%M:%S")
                self._outage = _Outage(error, trouble.began, trouble.answers, since=since)
                self._outage.happened(error, now)
            return trouble

    def _wait_for_place(self, error: PeerError) -> None:
        wished = getattr(error, "retry_after", None) or PAUSE
        # Not all that wait at the same moment.
        delay = min(max(wished, PAUSE), CEILING) * (1 + self._jitter() / 4)
        self._answered(f"Peer {self.name!r} is busy with other transfers, next attempt in {ceil(delay)} s")
        self._cancellation.wait(delay)

    def _answered(self, sentence: str | None = None) -> None:
        with self._changed:
            self._answers += 1
            if self._outage:
                self._outage = None
                self._prober = None
                self._changed.notify_all()
            self._tell(sentence)

    def _tell(self, sentence: str | None) -> None:
        if sentence is not None or self._told:
            self._told = sentence is not None
            self._on_waiting(sentence)

    def _step_back(self) -> None:
        with self._changed:
            if self._prober == threading.get_ident():
                self._prober = None
                self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _given_up(self, error: PeerError) -> PeerError:
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
class _Trouble:
    """Failures of one request in a row. Times in seconds of the monotonic clock."""

    error: PeerError
    began: float
    answers: int
    """How many answers this transport had had when it began."""
    failures: int = 0
    tried: float = 0.0

    def happened(self, error: PeerError, now: float) -> None:
        # Its traceback would keep the request, which has this trouble, with all its bytes.
        self.error = error.with_traceback(None)
        self.failures += 1
        self.tried = now


@dataclass(slots=True)
class _Outage(_Trouble):
    """The same for all requests, while none gets an answer."""

    since: str = ""


def _busy(request: PeerRequest, error: PeerError) -> bool:
    return (
        request.method == "POST"
        and isinstance(error, PeerStatus)
        and error.peer_status == 503
        and error.retry_after is not None
    )


def _away(error: PeerError) -> bool:
    if isinstance(error, PeerStatus):
        return error.outage
    return isinstance(error, PeerUnreachable) and error.retryable
