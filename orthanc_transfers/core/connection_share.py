"""Headers by which a server tells how many connections its peers may have to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

CONNECTIONS_HEADER = "transfers-connections"
"""Of a response: how many connections the transfer may have at once; 0: one, closed after each response."""
SENDER_HEADER = "transfers-sender"
"""Of a request: a ``Sender``; then ``CONNECTIONS_HEADER`` is about all its transfers together, as a ``Share``."""
LEASE_HEADER = "transfers-lease"
"""Of a response: ``Share.lease`` and ``Share.unasked``."""
WAIT_HEADER = "transfers-wait"
"""Of a response: ``Share.wait``."""

_MAX_TRANSFERS = 1000

# Seconds.
_MIN_WAIT = 0.1


def parse_connections(text: str | None) -> int | None:
    """The value of ``CONNECTIONS_HEADER``; ``None`` if it is absent or invalid."""
    return int(text) if text is not None and re.fullmatch("[0-9]{1,6}", text) else None


@dataclass(frozen=True, slots=True)
class Sender:
    """The server that a request comes from."""

    identifier: str
    """One for each process."""
    transfers: int
    """Those with this peer that are active."""

    @classmethod
    def parse(cls, text: str | None) -> Sender | None:
        """``None`` if it is absent or invalid."""
        found = re.fullmatch("([0-9a-zA-Z-]{1,64}) ([0-9]{1,6})", text or "")
        return None if found is None else cls(found[1], max(1, min(int(found[2]), _MAX_TRANSFERS)))

    def __str__(self) -> str:
        return f"{self.identifier} {self.transfers}"


@dataclass(frozen=True, slots=True)
class Share:
    """What all transfers of one sender may have together."""

    connections: int
    """At once; 0: one, closed after each response."""
    lease: float
    """Seconds since the response for which that holds."""
    unasked: int
    """Connections once it is over, until the next response; 0: none, but to ask for the capabilities."""
    wait: float | None = None
    """Seconds until it may ask for the capabilities, and have no connection before: others have their turn."""

    @classmethod
    def parse(cls, headers: Mapping[str, str]) -> Share | None:
        """``None`` if the headers are not all there: the response is of a peer of an earlier release."""
        connections = parse_connections(headers.get(CONNECTIONS_HEADER))
        lease = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ([0-9]{1,6})", headers.get(LEASE_HEADER, ""))
        wait = re.fullmatch(r"[0-9]{1,2}(\.[0-9]{1,3})?", headers.get(WAIT_HEADER, ""))
        if connections is None or lease is None:
            return None
        return cls(
            connections,
            float(lease[1]),
            int(lease[2]),
            None if wait is None else max(_MIN_WAIT, float(wait[0])),
        )

    def headers(self) -> dict[str, str]:
        """The headers that say so."""
        found = {
            CONNECTIONS_HEADER: str(self.connections),
            LEASE_HEADER: f"{self.lease:g} {self.unasked}",
        }
        return found if self.wait is None else {**found, WAIT_HEADER: f"{self.wait:g}"}
