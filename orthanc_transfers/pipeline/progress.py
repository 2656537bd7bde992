"""Progress of a transfer: buckets, bytes before and after the codecs, speed, seconds left."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable

from orthanc_transfers.core.codec import Codec
from orthanc_transfers.interfaces import Clock

WINDOW = 20.0
"""Seconds over which the speed is measured: longer than a bucket takes on a slow link."""


class Progress:
    """Counts buckets as they arrive. Thread-safe; never blocks. Sizes are in bytes, times in seconds.

    ``floor`` is the fraction that was shown before a restart: progress never goes back.
    """

    def __init__(self, clock: Clock, floor: float = 0.0) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._scheduled: Callable[[], int] | int = 0
        self._completed = 0
        self._left = 0
        self._planned = False
        self._floor = floor
        self._size = 0
        self._wire = 0
        self._codecs: Counter[str] = Counter()
        self._running_since: float | None = None
        self._ran_for = 0.0
        self._recent: deque[tuple[float, int, int]] | None = None
        """While bytes are moved. Even an empty deque takes 600 bytes."""

    def plan(self, scheduled: Callable[[], int], completed: int, left: int) -> None:
        """Set the buckets of the whole transfer, how many of them are done already, and the bytes left to move.

        ``scheduled`` may change, and is called again and again until ``stop``. ``plan`` may be called again: after a
        pause, or when bytes have to be moved once more.
        """
        with self._lock:
            self._floor = self._fraction()
            self._planned = True
            self._scheduled = scheduled
            self._completed = completed
            self._left = left

    def correct(self, completed: int, left: int) -> None:
        """Add buckets that are done already, and bytes left to move (negative for fewer), to what was planned."""
        with self._lock:
            self._completed += completed
            self._left = max(0, self._left + left)

    def start(self, since: float | None = None) -> None:
        """Bytes are moved from now on, or have been ``since`` then, by the monotonic clock."""
        with self._lock:
            self._running_since = self._clock.monotonic() if since is None else since
            self._recent = deque()

    def stop(self) -> None:
        """No bytes are moved until the next ``start``: the speed becomes the mean so far; drops the plan."""
        with self._lock:
            # Orthanc keeps jobs that have ended: they must not keep the instances of their plan.
            self._scheduled = self._buckets()
            self._recent = None
            if self._running_since is not None:
                self._ran_for += self._clock.monotonic() - self._running_since
                self._running_since = None

    def bucket_done(self, size: int, wire: int, codec: Codec) -> None:
        """One bucket arrived: ``size`` bytes, which took ``wire`` bytes on the network."""
        with self._lock:
            self._completed += 1
            self._left = max(0, self._left - size)
            self._size += size
            self._wire += wire
            self._codecs[codec.value] += 1
            if self._recent is not None:
                now = self._clock.monotonic()
                self._recent.append((now, size, wire))
                self._forget_before(self._recent, now - WINDOW)

    @property
    def planned(self) -> bool:
        """Whether the number of buckets is known."""
        return self._planned

    @property
    def completed(self) -> int:
        """Buckets of the plan that need nothing more."""
        return self._completed

    @property
    def left(self) -> int | None:
        """Bytes of the plan that are still to be moved; ``None`` before there is a plan."""
        return self._left if self._planned else None

    @property
    def wire(self) -> int:
        """Bytes on the network since the start of the job, without headers."""
        return self._wire

    @property
    def ratio(self) -> float | None:
        """Compression ratio: bytes before the codecs by bytes after; ``None`` before there are any."""
        with self._lock:
            return self._size / self._wire if self._wire else None

    @property
    def codecs(self) -> dict[str, int]:
        """Number of buckets by codec."""
        with self._lock:
            return dict(sorted(self._codecs.items()))

    def fraction(self) -> float:
        """0 to 1; never goes back."""
        with self._lock:
            return self._fraction()

    def speed(self) -> float:
        """Bytes per second on the network over the last ``WINDOW``; the mean of all runs while nothing is moved."""
        with self._lock:
            seconds, _, wire = self._rates()
            return wire / seconds if seconds else 0.0

    def seconds_left(self) -> float | None:
        """Until the last bucket, at the present speed; ``None`` if unknown."""
        with self._lock:
            if self._running_since is None:
                return None
            seconds, size, _ = self._rates()
            return self._left * seconds / size if size else None

    def _fraction(self) -> float:
        if not self._planned:
            return self._floor
        # What is left may turn out to be more buckets than it seemed.
        self._floor = max(self._floor, (1 + self._completed) / (2 + self._buckets()))
        return self._floor

    def _buckets(self) -> int:
        return self._scheduled if isinstance(self._scheduled, int) else self._scheduled()

    def _rates(self) -> tuple[float, int, int]:
        """Seconds, and the bytes moved in them, before and after the codecs."""
        recent = self._recent
        if self._running_since is None or recent is None:
            return self._ran_for, self._size, self._wire
        now = self._clock.monotonic()
        self._forget_before(recent, now - WINDOW)
        return (
            min(WINDOW, now - self._running_since),
            sum(size for _, size, _ in recent),
            sum(wire for _, _, wire in recent),
        )

    @staticmethod
    def _forget_before(recent: deque[tuple[float, int, int]], moment: float) -> None:
        while recent and recent[0][0] < moment:
            recent.popleft()
