"""A limited number of places, given in the order in which they were asked for."""

from __future__ import annotations

import threading
from collections import deque


class FifoSemaphore:
    """``limit`` places, of which ``waiting`` askers may wait for one at once. Thread-safe."""

    def __init__(self, limit: int, waiting: int) -> None:
        self._limit = limit
        self._waiting = waiting
        self._lock = threading.Lock()
        self._taken = 0
        self._queue: deque[threading.Event] = deque()
        self._closed = False

    @property
    def available(self) -> int:
        """Places that are free."""
        return max(0, self._limit - self._taken)

    @property
    def queued(self) -> int:
        """How many are waiting."""
        return len(self._queue)

    def occupy(self) -> None:
        """Take a place even if there is none: it was taken before a restart."""
        with self._lock:
            self._taken += 1

    def take(self, timeout: float) -> bool:
        """Take a place, waiting up to ``timeout`` seconds for one. Whether there was one.

        Nobody overtakes those who wait already.
        """
        with self._lock:
            if self._closed:
                return False
            if not self._queue and self._taken < self._limit:
                self._taken += 1
                return True
            if timeout <= 0 or len(self._queue) >= self._waiting:
                return False
            turn = threading.Event()
            self._queue.append(turn)
        turn.wait(timeout)
        with self._lock:
            if turn in self._queue:
                self._queue.remove(turn)
                return False
            # The place was handed over, even if that was after the time had run out.
            return not self._closed

    def free(self) -> None:
        """Give a place back, to the one who has waited longest."""
        with self._lock:
            self._taken -= 1
            while self._queue and self._taken < self._limit:
                self._taken += 1
                self._queue.popleft().set()

    def close(self) -> None:
        """Send all who wait away."""
        with self._lock:
            self._closed = True
            while self._queue:
                self._queue.popleft().set()
