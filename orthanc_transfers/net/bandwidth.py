"""Token bucket: a limit on bytes per second, shared by threads."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.interfaces import Clock
from orthanc_transfers.runtime.cancellation import Cancellation

# Bytes that are acquired at once: at 10 Mbit/s, they take 50 ms.
BLOCK = 64 * 1024

# Seconds by which the limit may be overdrawn, so that a fast link needs no wake-up for every block.
BURST = 0.02


class Bandwidth:
    """A token bucket of ``bits_per_second``; 0: no limit."""

    def __init__(self, bits_per_second: int, clock: Clock) -> None:
        self.limited = bits_per_second > 0
        self._seconds_per_byte = 8 / bits_per_second if self.limited else 0.0
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = 0.0

    def reserve(self, size: int) -> float:
        """Take ``size`` bytes from the bucket; returns the seconds to wait before sending them."""
        if not self.limited:
            return 0.0
        with self._lock:
            now = self._clock.monotonic()
            self._free_at = max(self._free_at, now) + size * self._seconds_per_byte
            return max(0.0, self._free_at - now - BURST)


def acquire_all(bandwidths: Sequence[Bandwidth], size: int, cancellation: Cancellation) -> None:
    """Take ``size`` bytes from each of several buckets, and wait. Raises ``Canceled``."""
    # One wait for all: waiting for one after the other would be slower than the slowest of them.
    if delay := max((bandwidth.reserve(size) for bandwidth in bandwidths), default=0.0):
        cancellation.wait(delay)


def blocks(piece: Buffer, size: int) -> list[memoryview]:
    """Views of at most ``size`` bytes of a piece; nothing is copied."""
    view = memoryview(piece).cast("B")
    return [view[start : start + size] for start in range(0, len(view), size)]
