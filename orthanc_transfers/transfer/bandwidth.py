"""A limit on bytes per second, shared by threads."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from orthanc_transfers.transfer.cancellation import Cancellation
from orthanc_transfers.transfer.ports import Buffer, Clock

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
        if not self.limited:
            return
        with self._lock:
            now = self._clock.monotonic()
            self._free_at = max(self._free_at, now) + size * self._seconds_per_byte
            delay = self._free_at - now - BURST
        if delay > 0:
            (cancellation or Cancellation()).wait(delay)


def acquire_all(bandwidths: Sequence[Bandwidth], size: int, cancellation: Cancellation) -> None:
    """The turn of ``size`` bytes in every one of several limits."""
    for bandwidth in bandwidths:
        bandwidth.acquire(size, cancellation)


def blocks(piece: Buffer, size: int) -> list[memoryview]:
    """A piece cut into views of at most ``size`` bytes; nothing is copied."""
    view = memoryview(piece).cast("B")
    return [view[start : start + size] for start in range(0, len(view), size)]
