"""How many connections this server can spare for transfers, all together, and the share of each.

Orthanc's HTTP server serves each connection by a thread of its own (``HttpThreadsCount``), from its first request until
it was idle for a second: a kept-alive connection keeps that thread from all other clients.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

from orthanc_transfers.core.messages_v2 import CONNECTIONS_HEADER
from orthanc_transfers.interfaces import Clock

DEFAULT_HTTP_THREADS = 50
"""Orthanc's own default of ``HttpThreadsCount``."""

ACTIVE = 5.0
"""Seconds since its last request that a transfer has a share."""


SETTLING = 1.5
"""Seconds after which a transfer that was told a smaller share holds no more: an idle connection lasts for one."""

ENOUGH = 16
"""Connections that are enough for one transfer on any link: the rest is for those that come."""


@dataclass(slots=True)
class _Share:
    seen: float
    """When its last request came."""
    size: int = 0
    before: int = 0
    """What it may hold still, ..."""
    until: float = -math.inf
    """... up to this time."""

    def held(self, now: float) -> int:
        return max(self.size, self.before) if now < self.until else self.size

    def change(self, size: int, now: float) -> None:
        if size < self.size:
            self.before, self.until = self.held(now), now + SETTLING
        self.size = size


class ConnectionBudget:
    """Half of the ``threads`` of the HTTP server, in equal shares for the transfers that are active. Thread-safe.

    Who comes gets what the others have left, at first: all together never hold more, but for one connection of each
    that has no share yet.
    """

    def __init__(self, threads: int, clock: Clock) -> None:
        self.total = max(1, threads) // 2
        """Connections; 0: none is to be kept alive, for the only thread has other clients too."""
        self._clock = clock
        self._lock = threading.Lock()
        self._shares: dict[str, _Share] = {}

    def share(self, transfer: str) -> int:
        """The connections that a transfer may have now, as one that is active; 0: one, and not kept alive."""
        now = self._clock.monotonic()
        with self._lock:
            self._shares = {name: one for name, one in self._shares.items() if now - one.seen < ACTIVE}
            mine = self._shares.setdefault(transfer, _Share(now))
            mine.seen = now
            others = sum(one.held(now) for one in self._shares.values() if one is not mine)
            count = len(self._shares)
            fair = min(self.total // count, max(self.total // (count + 1), ENOUGH))
            mine.change(max(0, min(fair, self.total - others)), now)
            return mine.size

    def leave(self, transfer: str) -> None:
        """It has come to its end."""
        with self._lock:
            self._shares.pop(transfer, None)

    def headers(self, transfer: str | None) -> dict[str, str]:
        """Those that tell a client; without a ``transfer``, what there is in all."""
        return {CONNECTIONS_HEADER: str(self.total if transfer is None else self.share(transfer))}
