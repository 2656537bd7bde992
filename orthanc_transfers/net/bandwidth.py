"""Token bucket: a limit on bytes per second, shared by threads, that may change while they wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.interfaces import Clock
from orthanc_transfers.runtime.cancellation import Cancellation

# Bytes that are acquired at once: at 10 Mbit/s, they take 50 ms.
BLOCK = 64 * 1024

# Seconds by which the limit may be overdrawn, so that a fast link needs no wake-up for every block.
BURST = 0.02

LOOK = 0.5
"""Seconds after which a limit that may change is looked at again."""


class Bandwidth:
    """A token bucket of ``bits_per_second``, or of what a function says now and then; 0: no limit."""

    def __init__(self, bits_per_second: float | Callable[[], float], clock: Clock) -> None:
        self._rate_now = bits_per_second if callable(bits_per_second) else None
        self._clock = clock
        self._lock = threading.Lock()
        self._rate = 0.0 if callable(bits_per_second) else bits_per_second / 8
        """Bytes a second."""
        self._look_at = float("-inf") if callable(bits_per_second) else float("inf")
        self._reserved = 0
        """Bytes that were ever asked for."""
        self._passed = 0.0
        """Those of them whose time has come."""
        self._at = clock.monotonic()
        """When ``_passed`` was computed."""

    @property
    def limited(self) -> bool:
        """Whether there is a limit now."""
        if self._clock.monotonic() >= self._look_at:
            with self._lock:
                self._settle()
        return self._rate > 0

    def look_again(self) -> None:
        """The limit has changed: it counts from the next byte on."""
        with self._lock:
            if self._rate_now is not None:
                self._look_at = float("-inf")

    @property
    def variable(self) -> bool:
        """Whether the limit may change."""
        return self._rate_now is not None

    def reserve(self, size: int) -> int:
        """Take ``size`` bytes from the bucket; returns a ticket for ``delay``."""
        with self._lock:
            self._settle()
            self._reserved += size
            return self._reserved

    def delay(self, ticket: int) -> float:
        """Seconds to wait, as things are now, before sending the bytes of a ticket."""
        with self._lock:
            self._settle()
            if not self._rate:
                return 0.0
            return max(0.0, (ticket - self._passed) / self._rate - BURST)

    def _settle(self) -> None:
        now = self._clock.monotonic()
        if self._rate:
            # Time without traffic is not saved up.
            self._passed = min(self._reserved, self._passed + (now - self._at) * self._rate)
        else:
            self._passed = self._reserved
        self._at = now
        if self._rate_now is not None and now >= self._look_at:
            self._rate = self._rate_now() / 8
            self._look_at = now + LOOK


def acquire_all(bandwidths: Sequence[Bandwidth], size: int, cancellation: Cancellation) -> None:
    """Take ``size`` bytes from each of several buckets, and wait. Raises ``Canceled``."""
    tickets = [(bandwidth, bandwidth.reserve(size)) for bandwidth in bandwidths if bandwidth.limited]
    variable = any(bandwidth.variable for bandwidth, _ in tickets)
    # One wait for all: waiting for one after the other would be slower than the slowest of them.
    while delay := max((bandwidth.delay(ticket) for bandwidth, ticket in tickets), default=0.0):
        cancellation.wait(min(delay, LOOK) if variable else delay)
        if not variable:
            return


def any_limited(bandwidths: Sequence[Bandwidth]) -> bool:
    """Whether one of them has a limit now."""
    return any(bandwidth.limited for bandwidth in bandwidths)


def blocks(piece: Buffer, size: int) -> list[memoryview]:
    """Views of at most ``size`` bytes of a piece; nothing is copied."""
    view = memoryview(piece).cast("B")
    return [view[start : start + size] for start in range(0, len(view), size)]
