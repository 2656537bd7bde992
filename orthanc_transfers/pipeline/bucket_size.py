"""How large the next bucket is: so large that a request lasts about a second, or several round trips."""

from __future__ import annotations

import threading
from collections.abc import Callable

from orthanc_transfers.pipeline.link import slow

MAX_SIZE = 16 * 1024 * 1024
MIN_SIZE = 128 * 1024
MIN_LAST_SIZE = 32 * 1024
"""Bytes of a bucket, before the codec; only the last ones, for which all workers wait, are below ``MIN_SIZE``."""

USUAL_SIZE = 4 * 1024 * 1024
"""The default of ``BucketSize``. One below says that requests are to be small, near peers or not."""

NEAR_SIZE = 32 * 1024 * 1024
"""Bytes of a transfer that is one request with a near peer: a radiograph or two, which need no area on disk."""

FIRST_SIZE = 1024 * 1024
FIRST_TOTAL = 8 * FIRST_SIZE
"""Bytes of a first bucket, and of the first buckets of all workers together."""

MAX_IN_FLIGHT = 96 * 1024 * 1024
"""Bytes of all buckets in flight at once: both sides hold them in memory."""

# Seconds that a request should last where the network is the limit: so long that waiting for its response is a small
# part of it, and no longer. A broken one is sent again; and the receiver must have dealt with it before TCP forgets
# how fast it may send (after a pause of some 300 ms).
_SECONDS = 0.6

# Or so many round trips, on a link where they are long: as many, for one that passes while nothing is sent.
_ROUND_TRIPS = 6

# Seconds that the last requests should last.
_LAST_SECONDS = 0.2

# At most so many times the size of the bucket before.
_GROWTH = 4


class BucketSize:
    """Bytes that the next bucket of a worker should have, before the codec. Thread-safe; a call never blocks.

    ``round_trip`` is that of the link, in seconds, once it is known. The first buckets have ``FIRST_SIZE`` at most,
    and ``FIRST_TOTAL`` together, so that they leave early, whatever the link can carry. From then on they have the
    configured size (``start``), unless requests last long: then so many bytes that a request lasts about
    ``_SECONDS``, or several round trips. None is larger than ``limit`` returns at that moment.
    Each worker has its own measure, for its connection may be a slow one.
    The last buckets are small, so that all workers end together.
    """

    def __init__(
        self,
        start: int,
        connections: Callable[[], int],
        max_size: int = MAX_SIZE,
        round_trip: Callable[[], float | None] = lambda: None,
        limit: Callable[[], int] = lambda: MAX_SIZE,
    ) -> None:
        self._limit = limit
        self._start = start
        self._connections = connections
        self._round_trip = round_trip
        self._max_size = max_size
        self._worker = threading.local()
        # Of all workers, lately: bytes of a bucket, and bytes per second of each. Assigned in one step: no lock.
        self._usual = float(min(start, max_size, FIRST_SIZE))
        self._rate: float | None = None

    def __call__(self, left: int) -> int:
        """The number of bytes wanted by the calling thread at this moment, when ``left`` bytes are left in all."""
        connections = self._connections()
        wanted = getattr(self._worker, "wanted", self._usual)
        if self._rate is None:
            wanted = self._worker.wanted = min(wanted, FIRST_TOTAL / connections)
        memory = max(self._start, MAX_IN_FLIGHT // connections)
        return max(1, min(int(wanted), self._most(), memory, self._max_near_end(left / (2 * connections))))

    def _most(self) -> int:
        return min(self._max_size, self._limit())

    def _max_near_end(self, share: float) -> int:
        rate = getattr(self._worker, "rate", None)
        if rate is None or self._rate is None:
            return max(FIRST_SIZE, int(share))
        return max(MIN_LAST_SIZE, int(_LAST_SECONDS * rate), int(share * min(1.0, rate / self._rate)))

    def record(self, size: int, seconds: float) -> None:
        """A request of the calling thread for ``size`` bytes succeeded."""
        now = min(getattr(self._worker, "wanted", self._usual), self._most())
        if size < now / 2:
            return  # the end of a range
        rate = size / max(seconds, 1e-6)
        self._worker.rate = rate
        self._rate = rate if self._rate is None else 0.8 * self._rate + 0.2 * rate
        wanted = float(self._start)
        if slow(seconds):
            wait = self._round_trip() or 0.0
            # While the link waits for the response it carries nothing: that says nothing of how much it carries.
            sending = size / max(seconds - wait, wait, 1e-6)
            wanted = min(MAX_SIZE, max(MIN_SIZE, max(_SECONDS, _ROUND_TRIPS * wait) * sending))
        self._worker.wanted = self._usual = min(_GROWTH * now, max(now / 2, wanted))
