"""Which version of the protocol a peer speaks."""

from __future__ import annotations

import threading

from orthanc_transfers.core.errors import BadRequest, PeerInvalidResponse, PeerStatus
from orthanc_transfers.core.messages_v2 import Capabilities
from orthanc_transfers.core.paths import CAPABILITIES
from orthanc_transfers.core.safe_json import parse_json
from orthanc_transfers.interfaces import Clock, PeerRequest, PeerTransport

REMEMBERED = 600.0
"""Seconds that an answer is good for: a peer may be upgraded at any time."""

TIMEOUT = 5.0
"""Seconds. Every peer answers this at once, be it by 404; one that does not is away, not old."""

_MAX_ANSWER = 64 * 1024


class CapabilitiesCache:
    """What all peers said of themselves, for all jobs."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, float, Capabilities | None]] = {}

    def capabilities(self, transport: PeerTransport) -> Capabilities | None:
        """What the peer says it can do; ``None`` if it speaks version 1 only.

        Raises ``PeerUnreachable``, or a ``PeerStatus`` that means that the server is away: that says
        nothing about its version.
        """
        known, remembered = self._recall(transport)
        if known:
            return remembered
        now = self._clock.monotonic()
        found = _ask(transport)
        with self._lock:
            self._known[transport.name] = (transport.url, now + REMEMBERED, found)
        return found

    def _recall(self, transport: PeerTransport) -> tuple[bool, Capabilities | None]:
        with self._lock:
            known = self._known.get(transport.name)
        # A peer's address may change while Orthanc runs.
        if known is None or known[0] != transport.url or self._clock.monotonic() >= known[1]:
            return False, None
        return True, known[2]

    def forget(self, peer: str) -> None:
        """Ask that peer again next time: something went wrong with it."""
        with self._lock:
            self._known.pop(peer, None)


def _ask(transport: PeerTransport) -> Capabilities | None:
    try:
        answer = transport.send(PeerRequest("GET", CAPABILITIES, timeout=TIMEOUT, limit=_MAX_ANSWER))
        found = Capabilities.parse(parse_json(answer.body))
    except PeerStatus as error:
        if error.outage:
            raise
        return None
    except (PeerInvalidResponse, BadRequest):
        return None
    return found if 2 in found.protocols else None
