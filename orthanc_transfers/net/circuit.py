"""The circuit breaker of one peer, shared by all jobs with it: one outage, one prober."""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass, field

from orthanc_transfers.core.errors import PeerError


@dataclass(slots=True)
class Failures:
    """Consecutive failures of one request. Times in seconds of the monotonic clock."""

    error: PeerError
    began: float
    responses: int
    """Responses of the peer when they began."""
    count: int = 0
    last: float = 0.0

    def add(self, error: PeerError, now: float) -> None:
        """One more."""
        # Its traceback would keep the request, which refers to these failures, with all its bytes.
        self.error = error.with_traceback(None)
        self.count += 1
        self.last = now


@dataclass(slots=True)
class Outage(Failures):
    """The same for all requests to a peer, while none gets a response."""

    since: str = ""
    """When it began, for users."""


@dataclass(slots=True)
class Circuit:
    """Each value to be used under ``changed``, and its changes to be notified there."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    outage: Outage | None = None
    prober: int | None = None
    """The thread that tries the peer while the others wait."""
    responses: int = 0
    responded: float = -math.inf
    """When the last response came."""
    line: deque[object] = field(default_factory=deque)
    """Requests that wait for a slot, in their order: see ``slot_line.py``."""
    hurries: int = 0
    """How often a user asked for an attempt at once."""
    users: int = 0
    ended: int = 0
    """Jobs that use it no more."""

    def join(self) -> None:
        """One more job uses it."""
        with self.changed:
            self.users += 1

    def leave(self) -> None:
        """A job uses it no more. An outage that nobody watches is not known to last."""
        with self.changed:
            self.users -= 1
            self.ended += 1
            if not self.users:
                self.outage = None
                self.prober = None

    def hurry(self) -> None:
        """Let the next attempt come soon, however long it was put off."""
        with self.changed:
            self.hurries += 1
            self.changed.notify_all()


class Circuits:
    """The circuit of each peer, by its name. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Circuit] = {}

    def of(self, peer: str) -> Circuit:
        """The same one for the same peer."""
        with self._lock:
            return self._known.setdefault(peer, Circuit())
