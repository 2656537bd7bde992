"""Whether compression pays with a near peer: learned over all transfers with it, since a small one is over at once.

Plain bytes come first: the network in between is most often faster than a codec, and a file is there before it would
be encoded. Where they turn out to be slow (a tunnel, a radio link), encoded ones are tried at once, otherwise rarely.
"""

from __future__ import annotations

import threading

# Bytes a second, of all connections together, below which the network may be the limit: 1 Gbit/s.
_FAST = 120_000_000
# Bytes a second below which a request should not be large.
_SLOW = 20_000_000
# Buckets of the other way by which it is judged; and that are tried at most, for data that no codec shrinks go plain.
_SAMPLES = 3
_MAX_TRIES = 12
# Buckets until the other way is tried again: at first, after each time that it was no better, at most.
_FIRST_PATIENCE = 64
_MORE_PATIENCE = 2
_MAX_PATIENCE = 1024
# Encoded bytes must bring so many times the bytes per second to be chosen, and to be kept: busy processors make
# single requests last long by chance, and on plain bytes no processor is spent.
_GAIN = 1.25
_KEPT = 1.05
# Weight of what was known before, at each bucket.
_MEMORY = 0.8


class _Rate:
    """Bytes per second, of late."""

    def __init__(self) -> None:
        self._size = self._seconds = 0.0

    def add(self, size: float, seconds: float) -> None:
        self._size = _MEMORY * self._size + size
        self._seconds = _MEMORY * self._seconds + seconds

    @property
    def value(self) -> float | None:
        return self._size / self._seconds if self._seconds else None


class NearCompression:
    """Whether to encode the next bucket to, or from, one near peer. Thread-safe; a call never blocks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._encodes = False
        self._current, self._other = _Rate(), _Rate()
        self._patience = _FIRST_PATIENCE
        self._waited = 0
        """Buckets since the other way was judged."""
        self._judged = False
        self._samples: int | None = None
        """Of the other way, while it is tried."""
        self._tries = 0
        self._turn = False

    def __call__(self) -> bool:
        """Whether to encode the next bucket."""
        with self._lock:
            if self._samples is None:
                self._waited += 1
                if self._waited > self._patience or self._urgent:
                    self._samples, self._tries, self._other, self._turn = 0, 0, _Rate(), False
            if self._samples is None:
                return self._encodes
            self._turn = not self._turn
            if self._turn:
                self._tries += 1
                if self._tries > _MAX_TRIES:
                    self._stay()
                    return self._encodes
            return self._encodes is not self._turn

    @property
    def encodes(self) -> bool:
        """Whether encoded bytes are known to arrive sooner."""
        return self._encodes

    @property
    def slow(self) -> bool:
        """Whether buckets were slow of late."""
        rate = self._current.value
        return rate is not None and rate < _SLOW

    def record(self, encoded: bool, size: int, seconds: float) -> None:
        """A bucket arrived: bytes before the codec; seconds of its request, divided by the number of connections."""
        with self._lock:
            if encoded is self._encodes:
                self._current.add(size, max(seconds, 1e-6))
            elif self._samples is not None:
                self._other.add(size, max(seconds, 1e-6))
                self._samples += 1
                self._judge(self._samples)

    @property
    def _urgent(self) -> bool:
        """Whether encoded bytes were never tried though plain ones are slow."""
        rate = self._current.value
        return not self._judged and rate is not None and rate < _FAST

    def _judge(self, samples: int) -> None:
        current, other = self._current.value, self._other.value
        if samples < _SAMPLES or current is None or other is None:
            return
        self._stay()
        if current * (1 / _KEPT if self._encodes else _GAIN) < other:
            self._encodes = not self._encodes
            self._current, self._other = self._other, self._current
            self._patience = _FIRST_PATIENCE

    def _stay(self) -> None:
        self._samples, self._waited, self._judged = None, 0, True
        self._patience = min(_MORE_PATIENCE * self._patience, _MAX_PATIENCE)


class NearCompressions:
    """Those of all peers, shared by all jobs. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str, bool], NearCompression] = {}

    def of(self, peer: str, url: str, *, sends: bool) -> NearCompression:
        """That of one peer, for what is sent to it or fetched from it."""
        with self._lock:
            return self._known.setdefault((peer, url, sends), NearCompression())
