"""How many requests run at once, and how much each carries: what the line gains from, found by trying.

One connection cannot fill a line that loses packets (at 100 ms and 0.1 % a cubic one carries 8 Mbit/s, whatever the
line could) or that is long and fat; many connections gain nothing where a processor or a disk is what limits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from orthanc_transfers.interfaces import Clock

MOST = 24
"""Requests at once. Orthanc's HTTP server has 50 threads (``HttpThreadsCount``) for everybody."""

GROWTH = 4
"""Times as many as were configured, at most: what is under way when a connection breaks is sent again."""

# Seconds that a request lasts at least where the network may be the limit: on a fast one it is over sooner.
_SLOW = 0.25
# Seconds of a round trip up to which a peer is near: few connections carry all that the network between can.
_NEAR = 0.005
# Seconds of a round trip from which on a line is long, ...
_FAR = 0.03
# and bytes a second from which on it is not slow: there, so many connections would only wait for each other.
_FAST = 2 * 1024 * 1024
# More connections must bring so many times the bytes to be kept, ...
_GAIN = 1.15
# ... and are tried again after so many rounds if they did not: the line may have changed.
_PATIENCE = 12


def far(round_trip: float | None) -> bool:
    """Whether a line is long, as far as that is known; ``round_trip`` in seconds."""
    return round_trip is not None and round_trip >= _FAR


def near(round_trip: float | None) -> bool:
    """Whether a line is known to be short: what lasts long there waits for a processor, or behind a proxy."""
    return round_trip is not None and round_trip <= _NEAR


def most_connections(start: int) -> int:
    """Requests at once at most, where ``start`` are configured."""
    return max(start, min(MOST, GROWTH * start))


class Concurrency:
    """The number of requests at once, from ``start`` on. Thread-safe; a call never blocks.

    Where requests last long there are soon twice as many: while one waits for its answer, another one sends. On a
    long line (``round_trip`` in seconds, once it is known) that is not slow there are from the beginning as many as
    may be: all of them begin slowly, and what one gives up after a loss or a rest is the smaller a part. For a near
    peer there are no more at first: what lasts long waits for a processor there, and would wait the longer.
    Then, a round lasts until each connection has carried a request or so; as long as twice the connections bring
    clearly more bytes a second, there are twice as many in the next round.
    """

    def __init__(
        self, start: int, clock: Clock, round_trip: Callable[[], float | None] = lambda: None
    ) -> None:
        self._clock = clock
        self._round_trip = round_trip
        self._lock = threading.Lock()
        self._most = most_connections(start)
        self._start = self._now = start
        self._asked = self._judged = False
        self._before: tuple[int, float] | None = None
        """Of the last round that there were fewer in: their number, and bytes a second."""
        self._resting = 0
        self._begin_round()

    def __call__(self) -> int:
        """The number wanted at this moment."""
        if not self._asked:
            with self._lock:
                # The first who asks has something to carry: by now the peer has answered this and that.
                if not self._asked and far(self._round_trip()):
                    self._now = self._most
                self._asked = True
        return self._now

    def settle(self, wire: int, seconds: float) -> None:
        """A request has ended well: bytes on the network, and how long it took."""
        with self._lock:
            self._requests += 1
            self._bytes += wire
            self._seconds += seconds
            if seconds >= _SLOW and not self._judged and not near(self._round_trip()):
                self._judged = True
                fast = wire * self._now >= _FAST * seconds
                self._now = self._most if fast else min(self._most, 2 * self._start)
                self._begin_round()
            elif self._requests >= self._now:
                self._end_round()

    def _begin_round(self) -> None:
        self._began = self._clock.monotonic()
        self._requests = 0
        self._bytes = 0
        self._seconds = 0.0

    def _end_round(self) -> None:
        rate = self._bytes / max(1e-6, self._clock.monotonic() - self._began)
        slow = self._seconds / self._requests >= _SLOW
        if self._before is not None and rate < self._before[1] * _GAIN:
            self._now = self._before[0]
            self._before = None
            self._resting = _PATIENCE
        elif self._resting:
            self._resting -= 1
        elif slow and self._now < self._most:
            self._before = (self._now, rate)
            self._now = min(self._most, 2 * self._now)
        else:
            self._before = None
        self._begin_round()


LONG = 0.6
"""Seconds that a request should last where the network is the limit: so long that waiting for its answer is a small
part of it, and no longer. A broken one is sent again; and the receiver must have dealt with it before TCP forgets how
fast it may send (after a pause of some 300 ms)."""

_TRIPS = 6
"""Or so many round trips, on a line where they are long: as many, for one that passes while nothing is sent."""

SHORT = 0.2
"""Seconds that the last requests should last."""

_GROWTH_OF_BUCKETS = 4
"""Times as large as the one before, at most."""

FIRST = 1024 * 1024
FIRST_TOGETHER = 8 * FIRST
SMALLEST = 128 * 1024
LAST = 32 * 1024
LARGEST = 16 * 1024 * 1024
"""Bytes of a bucket, before the codec; only the last ones, for which all wait, have less than ``SMALLEST``."""

TOGETHER = 96 * 1024 * 1024
"""Bytes of all buckets under way at once: both sides hold them in memory."""


class BucketSize:
    """Bytes that the next bucket of a worker should have, before the codec. Thread-safe; a call never blocks.

    ``round_trip`` is that of the line, in seconds, once it is known. The first ones have ``FIRST`` at most, and
    ``FIRST_TOGETHER`` all of them, to be on their way early, whatever the line may carry. Then they have as many as
    configured (``start``), unless requests last long: then so many that they last about ``LONG`` seconds, or several
    round trips. Each worker has its own measure, for its connection may be a slow one.
    The last buckets are small: all should end together.
    """

    def __init__(
        self,
        start: int,
        connections: Callable[[], int],
        most: int = LARGEST,
        round_trip: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._start = start
        self._connections = connections
        self._round_trip = round_trip
        self._most = most
        self._worker = threading.local()
        # Of all workers, lately: bytes of a bucket, and bytes a second of each. Assigned as a whole: no lock.
        self._usual = float(min(start, most, FIRST))
        self._rate: float | None = None

    def __call__(self, left: int) -> int:
        """The number of bytes wanted by the calling thread at this moment, when there are ``left`` in all."""
        connections = self._connections()
        wanted = getattr(self._worker, "wanted", self._usual)
        if self._rate is None:
            wanted = self._worker.wanted = min(wanted, FIRST_TOGETHER / connections)
        memory = max(self._start, TOGETHER // connections)
        return max(1, min(int(wanted), self._most, memory, self._end(left / (2 * connections))))

    def _end(self, share: float) -> int:
        rate = getattr(self._worker, "rate", None)
        if rate is None or self._rate is None:
            return max(FIRST, int(share))
        return max(LAST, int(SHORT * rate), int(share * min(1.0, rate / self._rate)))

    def settle(self, size: int, seconds: float) -> None:
        """A request of the calling thread for ``size`` bytes has ended well."""
        now = getattr(self._worker, "wanted", self._usual)
        if size < now / 2:
            return  # a rest
        rate = size / max(seconds, 1e-6)
        self._worker.rate = rate
        self._rate = rate if self._rate is None else 0.8 * self._rate + 0.2 * rate
        wanted = float(self._start)
        if seconds >= _SLOW:
            wait = self._round_trip() or 0.0
            # While the line waits for the answer it carries nothing: that says nothing of how much it carries.
            sending = size / max(seconds - wait, wait, 1e-6)
            wanted = min(LARGEST, max(SMALLEST, max(LONG, _TRIPS * wait) * sending))
        self._worker.wanted = self._usual = min(_GROWTH_OF_BUCKETS * now, max(now / 2, wanted))
