"""How large a body may be on its way to a peer: learned from the 413s of what is in front of it, kept per peer."""

from __future__ import annotations

import threading

from orthanc_transfers.core.errors import BodyRefused
from orthanc_transfers.interfaces import Clock, PeerTransport

MIN_LIMIT = 128 * 1024
"""Bytes. A body of that size, or less, that is refused is not sent in smaller parts."""

MAX_AGE = 3600.0
"""Seconds that a limit is remembered: the proxy may be configured better at any time."""


class BodyLimits:
    """The limits of all peers, shared by all jobs. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], tuple[float, int]] = {}
        """By name and address of the peer: until when, and bytes."""

    def of(self, transport: PeerTransport, lowest: int = MIN_LIMIT) -> BodyLimit:
        """That of one peer, which goes no lower than ``lowest`` bytes."""
        return BodyLimit(self, transport, min(lowest, MIN_LIMIT))

    def get(self, key: tuple[str, str]) -> int | None:
        """Bytes; ``None`` if no limit is known."""
        with self._lock:
            until, limit = self._known.get(key, (0.0, None))
        return limit if self._clock.monotonic() < until else None

    def lower(self, key: tuple[str, str], limit: int) -> None:
        """Remember a limit, unless a lower one is known."""
        known = self.get(key)
        with self._lock:
            self._known[key] = (
                self._clock.monotonic() + MAX_AGE,
                limit if known is None else min(known, limit),
            )


class BodyLimit:
    """The limit of one peer. A call never blocks."""

    def __init__(self, limits: BodyLimits, transport: PeerTransport, lowest: int) -> None:
        self._limits = limits
        self._transport = transport
        self._lowest = lowest

    @property
    def _key(self) -> tuple[str, str]:
        # A peer's address may change while Orthanc runs.
        return self._transport.name, self._transport.url

    @property
    def known(self) -> int | None:
        """Bytes; ``None`` as long as nothing was refused."""
        limit = self._limits.get(self._key)
        return None if limit is None else max(limit, self._lowest)

    def allows(self, size: int) -> bool:
        """Whether to try a body of ``size`` bytes."""
        limit = self.known
        return limit is None or size <= limit

    def refused(self, error: BodyRefused) -> None:
        """Halve the limit after a 413. Raises ``error`` if the body was as small as it gets."""
        if error.sent <= self._lowest:
            raise error
        self._limits.lower(self._key, max(self._lowest, error.sent // 2))
