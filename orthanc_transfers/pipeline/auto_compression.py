"""Whether encoding pays: on a fast line, sending bytes as they are may take less time than making them fewer.

Tried, not computed: what a line, two processors and two disks do together is known by measuring it alone.
Nothing is tried where requests last long, or encoding takes a small part of their time: there the network is
the limit, and a trial would cost what it cannot win. Unless the peer is near: where processors are busy, requests
last long as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from orthanc_transfers.core.codec import Compression
from orthanc_transfers.interfaces import Clock
from orthanc_transfers.pipeline.concurrency import near

# Buckets by which a way is judged, at least.
_WINDOW = 8
# A trial is worth it where a request takes so many seconds at most, and encoding such a share of them at least.
_QUICK = 0.25
_SHARE = 0.2
# Plain bytes must bring so many times as many a second: they cost more of the network, which others use too.
_GAIN = 1.1
# Windows until the next trial; and until encoded bytes are looked at again where plain ones did better.
_PATIENCE = 16
_PLAIN_PATIENCE = 32


class AutoCompression:
    """What to ask of the codec for the next bucket: what the user wants; if that is ``AUTO``, maybe nothing.

    ``round_trip`` is that of the line, in seconds, once it is known. Thread-safe; a call never blocks.
    """

    def __init__(
        self,
        wanted: Compression,
        connections: Callable[[], int],
        clock: Clock,
        round_trip: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._wanted = wanted
        self._connections = connections
        self._clock = clock
        self._round_trip = round_trip
        self._lock = threading.Lock()
        self._plain = self._trying = False
        self._encoded_rate = 0.0
        """Bytes a second, before the codec, in the last window of encoded buckets before a trial."""
        self._resting = 0
        self._begin(skipped=0)

    def __call__(self) -> Compression:
        """For the next bucket."""
        return Compression.NONE if self._plain else self._wanted

    def settle(self, size: int, seconds: float, encoding: float) -> None:
        """A request has ended well: bytes before the codec, how long it took, and encoding as a part of that."""
        if self._wanted is not Compression.AUTO:
            return
        with self._lock:
            if self._skipped:  # begun before the way changed
                self._skipped -= 1
                if not self._skipped:
                    self._began = self._clock.monotonic()
                return
            self._requests += 1
            self._bytes += size
            self._seconds += seconds
            self._encoding += encoding
            if self._requests >= self._window():
                self._judge(self._bytes / max(1e-6, self._clock.monotonic() - self._began))

    def _window(self) -> int:
        # A trial costs what plain bytes cost: as few as tell something.
        connections = self._connections()
        return connections if self._trying else max(_WINDOW, 2 * connections)

    def _begin(self, skipped: int) -> None:
        self._skipped = skipped
        self._began = self._clock.monotonic()
        self._requests = self._bytes = 0
        self._seconds = self._encoding = 0.0

    def _quick(self) -> bool:
        return near(self._round_trip()) or self._seconds < _QUICK * self._requests

    def _judge(self, rate: float) -> None:
        tried, self._trying = self._trying, False
        changes = False
        if self._plain:
            if rate < _GAIN * self._encoded_rate:
                changes, self._resting = True, _PATIENCE
            elif tried:
                self._resting = _PLAIN_PATIENCE
            elif self._resting:
                self._resting -= 1
            else:
                # Processors may be free by now: both ways are compared anew.
                changes = True
        elif self._resting:
            self._resting -= 1
        elif self._encoding > _SHARE * self._seconds and self._quick():
            changes = self._trying = True
            self._encoded_rate = rate
        self._plain = self._plain is not changes
        self._begin(self._connections() if changes else 0)
