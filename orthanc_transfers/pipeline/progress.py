"""How far a transfer is: buckets, bytes before and after the codecs, speed, time left."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable

from orthanc_transfers.core.codec import Codec
from orthanc_transfers.interfaces import Clock

WINDOW = 20.0
"""Seconds over which the speed is taken: longer than a bucket takes on a slow line."""


class Progress:
    """Thread-safe; nothing in it blocks. Sizes are in bytes, times in seconds."""

    def __init__(self, clock: Clock, floor: float = 0.0) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._scheduled: Callable[[], int] = lambda: 0
        self._completed = 0
        self._left = 0
        self._planned = False
        self._floor = floor
        self._size = 0
        self._wire = 0
        self._codecs: Counter[str] = Counter()
        self._carrying_since: float | None = None
        self._carried_for = 0.0
        self._recent: deque[tuple[float, int, int]] = deque()

    def plan(self, scheduled: Callable[[], int], completed: int, left: int) -> None:
        """Buckets of the whole transfer, how many of them are settled already, bytes still to carry.

        The first may change, and is asked for again and again, until ``stop``. May be called again: after a pause,
        or when bytes have to be carried once more.
        """
        with self._lock:
            self._floor = self._fraction()
            self._planned = True
            self._scheduled = scheduled
            self._completed = completed
            self._left = left

    def correct(self, completed: int, left: int) -> None:
        """So many more buckets are settled already than was planned, so many more bytes (or fewer) still to carry."""
        with self._lock:
            self._completed += completed
            self._left = max(0, self._left + left)

    def start(self) -> None:
        """Bytes flow from now on."""
        with self._lock:
            self._carrying_since = self._clock.monotonic()
            self._recent.clear()

    def stop(self) -> None:
        """No bytes flow until the next ``start``: the speed becomes the mean so far, and the plan is let go."""
        with self._lock:
            scheduled = self._scheduled()
            # Orthanc keeps jobs that have ended: they must not keep the instances of their plan.
            self._scheduled = lambda: scheduled
            if self._carrying_since is not None:
                self._carried_for += self._clock.monotonic() - self._carrying_since
                self._carrying_since = None

    def settle(self, size: int, wire: int, codec: Codec) -> None:
        """One bucket arrived whole: ``size`` bytes, which took ``wire`` bytes on the network."""
        with self._lock:
            self._completed += 1
            self._left = max(0, self._left - size)
            self._size += size
            self._wire += wire
            self._codecs[codec.value] += 1
            now = self._clock.monotonic()
            self._recent.append((now, size, wire))
            self._forget_before(now - WINDOW)

    @property
    def planned(self) -> bool:
        """Whether it is known how many buckets there are."""
        return self._planned

    @property
    def completed(self) -> int:
        """Buckets of the plan that need nothing more."""
        return self._completed

    @property
    def wire(self) -> int:
        """Bytes that went over the network since the start of the job, without headers."""
        return self._wire

    @property
    def ratio(self) -> float | None:
        """How many times smaller the codecs made the bytes; ``None`` before there are any."""
        with self._lock:
            return self._size / self._wire if self._wire else None

    @property
    def codecs(self) -> dict[str, int]:
        """How many buckets each codec carried."""
        with self._lock:
            return dict(sorted(self._codecs.items()))

    def fraction(self) -> float:
        """0 to 1; never goes back."""
        with self._lock:
            return self._fraction()

    def speed(self) -> float:
        """Bytes per second on the network, lately; on the average once nothing flows any more."""
        with self._lock:
            seconds, _, wire = self._rates()
            return wire / seconds if seconds else 0.0

    def seconds_left(self) -> float | None:
        """Until the last bucket, at the present speed; ``None`` if that cannot be said."""
        with self._lock:
            if self._carrying_since is None:
                return None
            seconds, size, _ = self._rates()
            return self._left * seconds / size if size else None

    def _fraction(self) -> float:
        if not self._planned:
            return self._floor
        # What is left may turn out to be more buckets than it seemed.
        self._floor = max(self._floor, (1 + self._completed) / (2 + self._scheduled()))
        return self._floor

    def _rates(self) -> tuple[float, int, int]:
        """Seconds, and the bytes that they brought before and after the codecs."""
        if self._carrying_since is None:
            return self._carried_for, self._size, self._wire
        now = self._clock.monotonic()
        self._forget_before(now - WINDOW)
        return (
            min(WINDOW, now - self._carrying_since),
            sum(size for _, size, _ in self._recent),
            sum(wire for _, _, wire in self._recent),
        )

    def _forget_before(self, moment: float) -> None:
        while self._recent and self._recent[0][0] < moment:
            self._recent.popleft()
