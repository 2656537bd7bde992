"""How many connections this server can spare for transfers, all together, and the share of each.

Orthanc's HTTP server serves each connection by a thread of its own (``HttpThreadsCount``), from its first request until
it was idle for a second: a kept-alive connection keeps that thread from all other clients.
"""

from __future__ import annotations

import threading

from orthanc_transfers.core.messages_v2 import CONNECTIONS_HEADER
from orthanc_transfers.interfaces import Clock

DEFAULT_HTTP_THREADS = 50
"""Orthanc's own default of ``HttpThreadsCount``."""

ACTIVE = 5.0
"""Seconds since its last request that a transfer has a share."""


class ConnectionBudget:
    """Half of the ``threads`` of the HTTP server, in equal shares for the transfers that are active. Thread-safe."""

    def __init__(self, threads: int, clock: Clock) -> None:
        self.total = max(1, threads) // 2
        """Connections; 0: none is to be kept alive, for the only thread has other clients too."""
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, float] = {}

    def share(self, transfer: str) -> int:
        """The connections that a transfer may have now, as one that is active; 0: one, and not kept alive."""
        now = self._clock.monotonic()
        with self._lock:
            self._seen[transfer] = now
            self._seen = {name: seen for name, seen in self._seen.items() if now - seen < ACTIVE}
            return self.total // len(self._seen)

    def leave(self, transfer: str) -> None:
        """It has come to its end."""
        with self._lock:
            self._seen.pop(transfer, None)

    def headers(self, transfer: str | None) -> dict[str, str]:
        """Those that tell a client; without a ``transfer``, what there is in all."""
        return {CONNECTIONS_HEADER: str(self.total if transfer is None else self.share(transfer))}
