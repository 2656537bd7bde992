"""Whether compression pays: on a fast link, plain bytes may take less time than compressing them.

Decided by trial, since link, CPUs and disks interact.
Nothing is tried where requests last long, or where encoding is a small part of their time: there the network is
the limit, and a trial would cost more than it can win. A near peer is the exception: where CPUs are busy, requests
last long as well, and what is faster is learned over all transfers (see ``near_compression.py``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from orthanc_transfers.core.codec import Compression
from orthanc_transfers.interfaces import Clock
from orthanc_transfers.pipeline.link import near, slow
from orthanc_transfers.pipeline.near_compression import NearCompression

# Buckets by which a way is judged, at least.
_WINDOW = 8
# A trial is worth it where encoding takes at least this share of a request's time.
_MIN_SHARE = 0.2
# Plain bytes must bring so many times the bytes per second: they also take more of a network that others use.
_GAIN = 1.1
# Windows until the next trial; and until encoded bytes are tried again where plain ones did better.
_PATIENCE = 16
_PLAIN_PATIENCE = 32


class AutoCompression:
    """The compression of the next bucket: what the user wants; if that is ``AUTO``, maybe none.

    ``round_trip`` is that of the link, in seconds, once it is known. Thread-safe; a call never blocks.
    """

    def __init__(
        self,
        wanted: Compression,
        connections: Callable[[], int],
        clock: Clock,
        round_trip: Callable[[], float | None] = lambda: None,
        near_peer: NearCompression | None = None,
    ) -> None:
        self._wanted = wanted
        self._near_peer = near_peer or NearCompression()
        self._connections = connections
        self._clock = clock
        self._round_trip = round_trip
        self._lock = threading.Lock()
        self._plain = self._trying = False
        self._encoded_rate = 0.0
        """Bytes per second, before the codec, in the last window of encoded buckets before a trial."""
        self._resting = 0
        self._begin_window(skipped=0)

    def __call__(self) -> Compression:
        """For the next bucket."""
        if self._is_near:
            return self._wanted if self._near_peer() else Compression.NONE
        return Compression.NONE if self._plain else self._wanted

    def settled(self) -> Compression:
        """For what is no bucket among others, and tells nothing of how fast they are: it is no trial."""
        if self._is_near:
            return self._wanted if self._near_peer.encodes else Compression.NONE
        return Compression.NONE if self._plain else self._wanted

    @property
    def _is_near(self) -> bool:
        return self._wanted is Compression.AUTO and near(self._round_trip())

    def record(self, size: int, seconds: float, encoding_seconds: float, *, encoded: bool) -> None:
        """A request succeeded: bytes before the codec, how long it took, and how much of that was encoding."""
        if self._wanted is not Compression.AUTO:
            return
        if self._is_near:
            self._near_peer.record(encoded, size, seconds / max(1, self._connections()))
            return
        with self._lock:
            if self._skipped:  # begun before the last change
                self._skipped -= 1
                if not self._skipped:
                    self._began = self._clock.monotonic()
                return
            self._requests += 1
            self._bytes += size
            self._seconds += seconds
            self._encoding_seconds += encoding_seconds
            if self._requests >= self._window():
                self._judge(self._bytes / max(1e-6, self._clock.monotonic() - self._began))

    def _window(self) -> int:
        # A trial costs what plain bytes cost: as few buckets as tell something.
        connections = self._connections()
        return connections if self._trying else max(_WINDOW, 2 * connections)

    def _begin_window(self, skipped: int) -> None:
        self._skipped = skipped
        self._began = self._clock.monotonic()
        self._requests = self._bytes = 0
        self._seconds = self._encoding_seconds = 0.0

    def _worth_a_trial(self) -> bool:
        return self._encoding_seconds > _MIN_SHARE * self._seconds and not slow(
            self._seconds / self._requests
        )

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
                # CPUs may be free by now: both ways are compared anew.
                changes = True
        elif self._resting:
            self._resting -= 1
        elif self._worth_a_trial():
            changes = self._trying = True
            self._encoded_rate = rate
        self._plain = self._plain is not changes
        self._begin_window(self._connections() if changes else 0)
