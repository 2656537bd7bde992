"""The time of the system."""

from __future__ import annotations

import time


class SystemClock:
    """``interfaces.Clock`` as the operating system tells it."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never jump."""
        return time.monotonic()
