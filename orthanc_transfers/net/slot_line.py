"""The line of this server's jobs that wait for a slot of one busy peer: each has its turn, and only the first asks.

A receiver has room for so many pushes at once (``MaxPushTransactions``) and turns the others away; it keeps no list of
them. So the line is kept here, for each peer.
"""

from __future__ import annotations

from collections import deque

from orthanc_transfers.net.circuit import Circuit


class Ticket:
    """The place of one request in the line of a peer. Use as a context: its end lets the next one ask."""

    def __init__(self, circuit: Circuit) -> None:
        self._circuit = circuit
        self._changed = circuit.changed
        self._line: deque[object] = circuit.line

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            if self in self._line:
                self._line.remove(self)
                self._changed.notify_all()

    @property
    def must_wait(self) -> bool:
        """Whether there are others before it."""
        with self._changed:
            return self in self._line and self._line[0] is not self

    def queue_up(self, *, behind_others: bool = False) -> None:
        """Take the last place, unless it has one; with ``behind_others`` only if there are any."""
        with self._changed:
            if self not in self._line and (self._line or not behind_others):
                self._line.append(self)

    def wait(self, seconds: float) -> None:
        """Wait until it is the first or the peer is away, at most so long."""
        with self._changed:
            self._changed.wait_for(lambda: not self.must_wait or self._circuit.outage, seconds)
