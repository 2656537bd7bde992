"""Time that passes only by waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable

from orthanc_transfers.runtime.cancellation import Cancellation


class FakeClock:
    """``interfaces.Clock``; starts in 2026."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._elapsed = 0.0

    def now(self) -> float:
        return 1_790_000_000.0 + self._elapsed

    def monotonic(self) -> float:
        return 1000.0 + self._elapsed

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._elapsed += seconds


class FakeWaiting(Cancellation):
    """Waits no time at all, but moves the clock. ``waits`` are the seconds of each."""

    def __init__(self, clock: FakeClock, on_wait: Callable[[float], None] = lambda seconds: None) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._clock = clock
        self._on_wait = on_wait

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self._clock.advance(seconds)
        self._on_wait(seconds)
        self.check()
