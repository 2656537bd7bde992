"""How many connections this server can spare for transfers, all together, and the share of each.

Orthanc's HTTP server serves each connection by a thread of its own (``HttpThreadsCount``), from its first request until
it was idle for a second: a kept-alive connection keeps that thread from all other clients.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, replace

from orthanc_transfers.core.connection_share import CONNECTIONS_HEADER, Sender, Share
from orthanc_transfers.interfaces import Clock

DEFAULT_HTTP_THREADS = 50
"""Orthanc's own default of ``HttpThreadsCount``."""

ACTIVE = 5.0
"""Seconds since its last request that a transfer, or a sender, has a share."""

LEASE = 4.0
"""Seconds that a sender may count on its share: fewer, for its next request takes a moment to arrive."""

SETTLING = 1.5
"""Seconds after which a transfer that was told a smaller share holds no more: an idle connection lasts for one."""

SHORT_LEASE = 1.0
"""The same as ``LEASE`` for a sender whose last transfer has ended: fewer than ``SETTLING``."""

ENOUGH = 16
"""Connections that are enough for one transfer on any link: the rest is for those that come."""

TURN = 2.0
"""Seconds that a sender has a connection while others wait for one."""

WAIT = 0.3
"""Seconds between two questions of a sender whether it is its turn."""

# Seconds since its last question that a sender is known to wait.
_PRESENT = 1.5


@dataclass(slots=True)
class _Share:
    seen: float
    """When its last request came."""
    transfers: int = 1
    """That it is for."""
    size: int = 0
    before: int = 0
    """What it may hold still, ..."""
    until: float = -math.inf
    """... up to this time."""
    turn: float = 0.0
    """When it got its first connection."""
    waits: float | None = None
    """Since when it waits for its turn."""

    def held(self, now: float) -> int:
        return max(self.size, self.before) if now < self.until else self.size

    def change(self, size: int, now: float) -> None:
        if size < self.size:
            self.before, self.until = self.held(now), now + SETTLING
        self.size = size

    def give_up(self, now: float) -> None:
        """It has no connection any more: what it had has carried the response that says so, unless it had several."""
        held = self.held(now)
        self.size = 0
        self.before, self.until = (held, now + SETTLING) if held > 1 else (0, now)


class ConnectionBudget:
    """Half of the ``threads`` of the HTTP server, in equal shares for the transfers that are active. Thread-safe.

    Who comes gets what the others have left, at first, so that all together never hold more. A sender that tells who
    it is has one share for all its transfers; where there are more senders than connections, they take turns. Without
    that, as in earlier releases, a transfer that has no share yet has one connection beyond these, not kept alive.
    """

    def __init__(self, threads: int, clock: Clock) -> None:
        self.total = max(1, threads) // 2
        """Connections; 0: none is to be kept alive, for the only thread has other clients too."""
        self._clock = clock
        self._lock = threading.Lock()
        self._shares: dict[str, _Share] = {}

    @property
    def crowded(self) -> bool:
        """Whether there are fewer connections than transfers that want one: none is to wait for long."""
        with self._lock:
            return self.total < max(ENOUGH, sum(one.transfers for one in self._shares.values()))

    def share(self, transfer: str) -> int:
        """The connections that a transfer may have now, as one that is active; 0: one, and not kept alive."""
        with self._lock:
            now, mine, others = self._look(transfer)
            mine.change(max(0, min(self._fair(mine), self.total - others)), now)
            return mine.size

    def share_of(self, sender: Sender) -> Share:
        """What all transfers of a sender may have together now, as one that is active."""
        with self._lock:
            now, mine, others = self._look(sender.identifier)
            mine.transfers = sender.transfers
            free = max(1, self.total) - others
            waiting = [
                one.waits
                for one in self._shares.values()
                if one is not mine and one.waits is not None and now - one.seen < _PRESENT
            ]
            if not mine.size:
                since = mine.waits if mine.waits is not None else now
                mine.waits = since
                if free - sum(other < since for other in waiting) < 1:
                    return self._told(0, LEASE, WAIT)
                mine.waits, mine.turn = None, now
            elif waiting and len(self._shares) > max(1, self.total) and now - mine.turn >= TURN:
                mine.give_up(now)
                mine.waits = now
                return self._told(0, LEASE, WAIT)
            mine.change(max(1, min(self._fair(mine), free)), now)
            return self._told(mine.size, LEASE)

    def leave(self, transfer: str) -> None:
        """It has come to its end."""
        with self._lock:
            self._shares.pop(transfer, None)

    def last_of(self, sender: Sender) -> Share:
        """As ``share_of``, in the response to the last request of a transfer: if it is the last, another may follow."""
        share = self.share_of(sender)
        if sender.transfers > 1 or share.wait is not None:
            return share
        with self._lock:
            self._shares[sender.identifier].seen += SETTLING - ACTIVE
        return replace(share, lease=SHORT_LEASE)

    def headers(self, sender: Sender | None, transfer: str | None, *, ended: bool = False) -> dict[str, str]:
        """Those that tell a client, of a transfer that may have ended now; without either, what there is in all."""
        if sender is not None:
            return (self.last_of(sender) if ended else self.share_of(sender)).headers()
        found = {CONNECTIONS_HEADER: str(self.total if transfer is None else self.share(transfer))}
        if ended and transfer is not None:
            self.leave(transfer)
        return found

    def _look(self, name: str) -> tuple[float, _Share, int]:
        """The time, the share of that name, and what all others hold."""
        now = self._clock.monotonic()
        self._shares = {name: one for name, one in self._shares.items() if now - one.seen < ACTIVE}
        mine = self._shares.setdefault(name, _Share(now))
        mine.seen = now
        return now, mine, sum(one.held(now) for one in self._shares.values() if one is not mine)

    def _fair(self, mine: _Share) -> int:
        count = sum(one.transfers for one in self._shares.values())
        enough = ENOUGH if mine.transfers == 1 else max(ENOUGH, self.total - self.total // 5)
        return min(self.total * mine.transfers // count, max(self.total // (len(self._shares) + 1), enough))

    def _told(self, connections: int, lease: float, wait: float | None = None) -> Share:
        # One of one thread is closed after each response.
        return Share(connections if self.total else 0, lease, max(0, self.total - ENOUGH), wait)
