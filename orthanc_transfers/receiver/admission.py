"""Admission of pushes: a FIFO semaphore with a bounded queue, and the slots that idle pushes lend to others."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from orthanc_transfers.core.errors import Busy

_RETRY_AFTER = 2.0


class FifoSemaphore:
    """``limit`` slots, for which ``max_queued`` callers may wait at once. Thread-safe."""

    def __init__(self, limit: int, max_queued: int) -> None:
        self._limit = limit
        self._max_queued = max_queued
        self._lock = threading.Lock()
        self._taken = 0
        self._queue: deque[threading.Event] = deque()
        self._closed = False

    @property
    def available(self) -> int:
        """Number of free slots."""
        return max(0, self._limit - self._taken)

    @property
    def queued(self) -> int:
        """Number of callers that wait."""
        return len(self._queue)

    def occupy(self) -> None:
        """Take a slot even if none is free."""
        with self._lock:
            self._taken += 1

    def take(self, timeout: float) -> bool:
        """Take a slot, waiting up to ``timeout`` seconds for one. Returns whether there was one.

        No caller overtakes those that wait already.
        """
        with self._lock:
            if self._closed:
                return False
            if not self._queue and self._taken < self._limit:
                self._taken += 1
                return True
            if timeout <= 0 or len(self._queue) >= self._max_queued:
                return False
            turn = threading.Event()
            self._queue.append(turn)
        turn.wait(timeout)
        with self._lock:
            if turn in self._queue:
                self._queue.remove(turn)
                return False
            # The slot was handed over, even if that was after the timeout.
            return not self._closed

    def free(self) -> None:
        """Give a slot back, to the caller that has waited longest."""
        with self._lock:
            self._taken -= 1
            while self._queue and self._taken < self._limit:
                self._taken += 1
                self._queue.popleft().set()

    def close(self) -> None:
        """Turn all waiting callers away, and all later ones."""
        with self._lock:
            self._closed = True
            while self._queue:
                self._queue.popleft().set()


class SlotHolder(Protocol):
    """A push, as far as its slot goes."""

    has_slot: bool
    live: bool
    """It has not ended."""


class Admission:
    """The slots of all pushes. Thread-safe. ``changed`` is called with the number of free ones after each change.

    What a ``SlotHolder`` says is read and written under one lock here, so that each slot is given back once.
    """

    def __init__(self, limit: int, max_queued: int, changed: Callable[[int], None]) -> None:
        self._limit = limit
        self._semaphore = FifoSemaphore(limit, max_queued)
        self._changed = changed
        self._lock = threading.Lock()
        changed(self._semaphore.available)

    @property
    def queued(self) -> int:
        """Number of creations that wait for a slot."""
        return self._semaphore.queued

    def take(self, patience: float) -> None:
        """Take a slot, waiting up to ``patience`` seconds for one. Raises ``Busy``."""
        if not self._semaphore.take(patience):
            raise Busy(
                f"{self._limit} pushes are being received (MaxPushTransactions), try again later",
                _RETRY_AFTER,
            )
        self._changed(self._semaphore.available)

    def occupy(self) -> None:
        """Take a slot even if none is free: the push is here already."""
        self._semaphore.occupy()
        self._changed(self._semaphore.available)

    def free(self) -> None:
        """Give back a slot that no push has."""
        self._semaphore.free()
        self._changed(self._semaphore.available)

    def reclaim(self, push: SlotHolder) -> None:
        """A push that lent its slot is in use again: at once, even if there is one too many then."""
        with self._lock:
            if push.has_slot or not push.live:
                return
            push.has_slot = True
        self.occupy()

    def lend(self, push: SlotHolder) -> None:
        """Give the slot of an idle push to others, until it is in use again."""
        with self._lock:
            had, push.has_slot = push.has_slot, False
        if had:
            self.free()

    def end(self, push: SlotHolder) -> bool:
        """Give the slot of a push back for good. Returns whether it was live until now."""
        with self._lock:
            had, push.has_slot = push.has_slot, False
            was_live, push.live = push.live, False
        if had:
            self.free()
        return was_live

    def close(self) -> None:
        """Turn all waiting creations away."""
        self._semaphore.close()
