"""A ``PeerTransport`` that follows its peer: its address and credentials may change while a job waits for it."""

from __future__ import annotations

import logging
import threading

from orthanc_transfers.core.errors import UnknownPeer
from orthanc_transfers.interfaces import PeerRequest, PeerResponse, Peers, PeerTransport

log = logging.getLogger(__name__)


class CurrentTransport:
    """The transport to a peer as ``peers`` knew it at the last ``renew``. Thread-safe.

    Requests under way end over the transport that they began with. Raises ``UnknownPeer``.
    """

    def __init__(self, peers: Peers, name: str, connections: int) -> None:
        self._peers = peers
        self._connections = connections
        self._known = peers.known(name)
        self._transport = self._known.connect(connections)
        self._former: list[PeerTransport] = []
        self._lock = threading.Lock()
        self._aborted = False
        self.name = name
        self.url = self._transport.url

    @property
    def round_trip(self) -> float | None:
        """See ``interfaces.PeerTransport``."""
        return self._transport.round_trip

    @property
    def silence(self) -> str | None:
        """See ``interfaces.PeerTransport``."""
        return self._transport.silence

    def renew(self) -> bool:
        """Connect anew if the peer was changed since; whether it was. Raises ``UnknownPeer`` if it was deleted."""
        try:
            known = self._peers.known(self.name)
            with self._lock:
                if known == self._known or self._aborted:
                    return False
                transport = known.connect(self._connections)
                self._former.append(self._transport)
                self._known, self._transport, self.url = known, transport, transport.url
        except UnknownPeer:
            raise UnknownPeer(
                f"peer {self.name!r} was deleted while this job waited for it:"
                " configure it again, then resubmit the job"
            ) from None
        log.warning("peer %s was changed, it is tried at %s now", self.name, self.url)
        return True

    def send(self, request: PeerRequest) -> PeerResponse:
        """See ``interfaces.PeerTransport``."""
        return self._transport.send(request)

    def prepare(self) -> None:
        """See ``interfaces.PeerTransport``."""
        self._transport.prepare()

    def abort(self) -> None:
        """See ``interfaces.PeerTransport``."""
        with self._lock:
            self._aborted = True
            transports = [*self._former, self._transport]
        for transport in transports:
            transport.abort()

    def close(self) -> None:
        """See ``interfaces.PeerTransport``."""
        for transport in [*self._former, self._transport]:
            transport.close()
