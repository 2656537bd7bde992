"""Peers that are not there: nothing is sent to one but a single entry now and then, which finds out whether it is back.

So an outage costs one job in a quarter of an hour, however many entries wait, and all go on once it has ended.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from orthanc_transfers.core.backoff import Backoff

BACKOFF = Backoff(retries=0, first=5.0, ceiling=900.0)


@dataclass(slots=True)
class _Hold:
    failures: int
    until: float
    """Queue time."""
    trying: bool = False
    """An entry is on its way."""


class Holds:
    """By the name of a peer. Used by one thread. ``now`` is the queue time."""

    def __init__(self, now: Callable[[], float], jitter: Callable[[], float] = random.random) -> None:
        self._now = now
        self._jitter = jitter
        self._holds: dict[str, _Hold] = {}

    def holds(self, peer: str) -> bool:
        """Whether the peer is known not to be there."""
        return peer in self._holds

    def names(self) -> list[str]:
        """Those that are not there."""
        return sorted(self._holds)

    def may_try(self, peer: str) -> bool:
        """Whether something may be sent there now."""
        hold = self._holds.get(peer)
        return hold is None or (not hold.trying and hold.until <= self._now())

    def trying(self, peer: str) -> None:
        """Something is sent there."""
        hold = self._holds.get(peer)
        if hold is not None:
            hold.trying = True

    def untold(self, peer: str) -> None:
        """What was sent there told nothing: another one may find out."""
        hold = self._holds.get(peer)
        if hold is not None:
            hold.trying = False

    def failed(self, peer: str) -> None:
        """The peer was not there."""
        hold = self._holds.get(peer)
        if hold is None or hold.trying:
            # What was on its way when the outage began tells no more than the first that failed.
            failures = 0 if hold is None else hold.failures + 1
            delay = BACKOFF.seconds(failures, self._jitter())
            self._holds[peer] = _Hold(failures, self._now() + delay)

    def there(self, peer: str) -> bool:
        """The peer answered; returns whether that is news."""
        return self._holds.pop(peer, None) is not None

    def next_try(self) -> float | None:
        """The queue time at which the next of them may be tried."""
        return min((hold.until for hold in self._holds.values() if not hold.trying), default=None)
