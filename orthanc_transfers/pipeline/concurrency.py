"""How many requests run at once: hill climbing on the bytes per second.

One connection cannot fill a link that loses packets (at 100 ms and 0.1 % loss, cubic carries 8 Mbit/s on any link)
or one that is both long and fast; where a CPU or a disk is the limit, many connections gain nothing.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from orthanc_transfers.interfaces import Clock
from orthanc_transfers.pipeline.link import far, near, slow

MAX_REQUESTS = 24
"""Requests at once. Orthanc's HTTP server has 50 threads (``HttpThreadsCount``) for all its clients."""

MAX_GROWTH = 4
"""At most so many times the configured number: what is in flight when a connection breaks is sent again."""

# Bytes per second from which on a long link is not slow: on a slow one, many connections only wait for each other.
_FAST = 2 * 1024 * 1024
# More connections are kept if they bring so many times the bytes per second, ...
_GAIN = 1.15
# ... and are tried again after so many rounds if they did not: the link may have changed.
_PATIENCE = 12


def max_requests(start: int) -> int:
    """Upper limit of requests at once, where ``start`` are configured."""
    return max(start, min(MAX_REQUESTS, MAX_GROWTH * start))


class Concurrency:
    """The number of requests at once, beginning with ``start``. Thread-safe; a call never blocks.

    Where requests last long, the number soon doubles: while one waits for its response, another sends. On a link that
    is long (``round_trip`` in seconds, once it is known) and not slow, it is at the upper limit from the beginning:
    every connection begins slowly, and what one of many loses after a packet loss or a rest is a smaller part of the
    whole. For a near peer it does not grow at first: a request that lasts long there waits for a CPU, and would wait
    longer.
    From then on it climbs in rounds. A round lasts until each connection has carried about one request; as long as
    twice the connections bring clearly more bytes per second, the next round has twice as many.
    It is never above ``limit()``, what the peer can spare, whatever that is at the moment.
    """

    def __init__(
        self,
        start: int,
        clock: Clock,
        round_trip: Callable[[], float | None] = lambda: None,
        limit: Callable[[], int] = lambda: sys.maxsize,
    ) -> None:
        self._clock = clock
        self._round_trip = round_trip
        self._limit = limit
        self._lock = threading.Lock()
        self._max = max_requests(start)
        self._start = self._now = start
        self._asked = self._judged = False
        self._before: tuple[int, float] | None = None
        """Number of requests and bytes per second of the last round that had fewer."""
        self._resting = 0
        self._begin_round()

    def __call__(self) -> int:
        """The number wanted at this moment."""
        if not self._asked:
            with self._lock:
                # The first call comes when there are bytes to move: by then the peer has responded to some requests,
                # and the round trip is known.
                if not self._asked and far(self._round_trip()):
                    self._now = self._max
                self._asked = True
        return self._within_limit()

    def _within_limit(self) -> int:
        return max(1, min(self._now, self._limit()))

    def record(self, wire: int, seconds: float) -> None:
        """A request succeeded: bytes on the network, and how long it took."""
        with self._lock:
            self._requests += 1
            self._bytes += wire
            self._seconds += seconds
            if slow(seconds) and not self._judged and not near(self._round_trip()):
                self._judged = True
                fast = wire * self._within_limit() >= _FAST * seconds
                self._now = self._max if fast else min(self._max, 2 * self._start)
                self._begin_round()
            elif self._requests >= self._within_limit():
                self._end_round()

    def _begin_round(self) -> None:
        self._began = self._clock.monotonic()
        self._requests = 0
        self._bytes = 0
        self._seconds = 0.0

    def _end_round(self) -> None:
        rate = self._bytes / max(1e-6, self._clock.monotonic() - self._began)
        if self._before is not None and rate < self._before[1] * _GAIN:
            self._now = self._before[0]
            self._before = None
            self._resting = _PATIENCE
        elif self._resting:
            self._resting -= 1
        elif slow(self._seconds / self._requests) and self._now < self._max:
            self._before = (self._now, rate)
            self._now = min(self._max, 2 * self._now)
        else:
            self._before = None
        self._begin_round()
