"""A limit on bytes per second, shared by threads."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.interfaces import Clock
from orthanc_transfers.runtime.cancellation import Cancellation

# Bytes that are acquired at once: at 10 Mbit/s, 50 ms of the line.
BLOCK = 64 * 1024

# Seconds of the line that may be used ahead, so that a fast line needs no wake-up for every block.
BURST = 0.02


class Bandwidth:
    """A token bucket of ``bits_per_second``; 0: no limit."""

    def __init__(self, bits_per_second: int, clock: Clock) -> None:
        self.limited = bits_per_second > 0
        self._seconds_per_byte = 8 / bits_per_second if self.limited else 0.0
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = 0.0

    def acquire(self, size: int, cancellation: Cancellation | None = None) -> None:
        """Wait for the turn of ``size`` bytes, in the order of asking. Raises ``Canceled``."""
        acquire_all([self], size, cancellation or Cancellation())

    def reserve(self, size: int) -> float:
        """The turn of ``size`` bytes: seconds to wait for it."""
        if not self.limited:
            return 0.0
        with self._lock:
            now = self._clock.monotonic()
            self._free_at = max(self._free_at, now) + size * self._seconds_per_byte
            return max(0.0, self._free_at - now - BURST)


def acquire_all(bandwidths: Sequence[Bandwidth], size: int, cancellation: Cancellation) -> None:
    """The turn of ``size`` bytes in every one of several limits. Raises ``Canceled``."""
    # One wait for all: waiting for one after the other would be slower than the slowest of them.
    if delay := max((bandwidth.reserve(size) for bandwidth in bandwidths), default=0.0):
        cancellation.wait(delay)


def blocks(piece: Buffer, size: int) -> list[memoryview]:
    """A piece cut into views of at most ``size`` bytes; nothing is copied."""
    view = memoryview(piece).cast("B")
    return [view[start : start + size] for start in range(0, len(view), size)]
