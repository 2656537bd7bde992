"""Protocol negotiation: asks a peer which versions it speaks, cached per peer."""

from __future__ import annotations

import logging
import threading

from orthanc_transfers.core.errors import BadRequest, PeerInvalidResponse, PeerStatus
from orthanc_transfers.core.messages_v2 import PROBE_HEADERS, Capabilities
from orthanc_transfers.core.paths import CAPABILITIES
from orthanc_transfers.core.safe_json import parse_json
from orthanc_transfers.interfaces import Clock, PeerRequest, PeerResponse, PeerTransport

log = logging.getLogger(__name__)

MAX_AGE = 600.0
"""Seconds that a cached response is valid: a peer may be upgraded at any time."""

TIMEOUT = 5.0
"""Seconds. Every peer responds to this at once, be it with 404; one that does not is unreachable, not old."""

MAX_RESPONSE = 64 * 1024
"""Bytes of that response."""


class CapabilitiesCache:
    """The capabilities of all peers, shared by all jobs. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, float, Capabilities | None]] = {}

    def capabilities(self, transport: PeerTransport) -> Capabilities | None:
        """The capabilities of a peer; ``None`` if it speaks version 1 only.

        Raises ``PeerUnreachable``, or a ``PeerStatus`` with ``outage``: neither says
        anything about its version.
        """
        known = self.recall(transport)
        if known is not None:
            return known[0]
        now = self._clock.monotonic()
        found = _ask(transport)
        with self._lock:
            self._known[transport.name] = (transport.url, now + MAX_AGE, found)
        return found

    def recall(self, transport: PeerTransport) -> tuple[Capabilities | None] | None:
        """What ``capabilities`` returns, if that is known; ``None`` if the peer has to be asked."""
        with self._lock:
            known = self._known.get(transport.name)
        # A peer's address may change while Orthanc runs.
        if known is None or known[0] != transport.url or self._clock.monotonic() >= known[1]:
            return None
        return (known[2],)

    def forget(self, peer: str) -> None:
        """Ask that peer again next time: a transfer with it failed."""
        with self._lock:
            self._known.pop(peer, None)


def _ask(transport: PeerTransport) -> Capabilities | None:
    try:
        response = transport.send(
            PeerRequest("GET", CAPABILITIES, headers=PROBE_HEADERS, timeout=TIMEOUT, limit=MAX_RESPONSE)
        )
        found = Capabilities.parse(parse_json(response.body))
    except PeerStatus as error:
        if error.outage:
            raise
        return None
    except (PeerInvalidResponse, BadRequest):
        return None
    if 2 not in found.protocols:
        return None
    if removed := _removed(found, response):
        log.warning(
            "something in front of peer %s removes the headers %s, so that version 1 of the protocol is used with it:"
            " let all headers that begin with transfers- through, in requests and responses",
            transport.name,
            ", ".join(sorted(removed)),
        )
        return None
    return found


def _removed(found: Capabilities, response: PeerResponse) -> set[str]:
    """Headers of version 2 that something between us and the peer removes, on either way."""
    if found.headers is None:  # a peer of an earlier release
        return set()
    return set(PROBE_HEADERS) - (found.headers & response.headers.keys())
