"""Connections to one peer, and what is prepared once for all requests over them; kept for a moment between two jobs.

A job has them for itself, so that a cancel cuts its own requests only. One that has ended leaves them, with one idle
connection, to the next job with that peer: autorouting sends one small study after the other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import requests
from requests.auth import HTTPBasicAuth
from urllib3.util import parse_url

from orthanc_transfers.core.errors import ConfigurationError
from orthanc_transfers.core.peers import Peer
from orthanc_transfers.net.adapter import Adapter
from orthanc_transfers.net.connection_limit import ConnectionLimit, ConnectionLimits, Holder
from orthanc_transfers.net.connections import MAX_IDLE
from orthanc_transfers.net.sockets import SocketFactory
from orthanc_transfers.net.tls import MAX_AGE, SharedContexts
from orthanc_transfers.runtime.threads import Periodic

KEPT = 1
"""Idle connections that are kept: no peer announces fewer, but 0, and then each is closed after its response."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a peer is reached; see ``RequestsTransport``."""

    peer: Peer
    connections: int
    verify: bool | str
    proxy: str | None
    congestion_control: str


class PeerConnections:
    """Connections to a peer, used by one transport at a time. Raises ``ConfigurationError``."""

    def __init__(self, way: Way, contexts: SharedContexts, limit: ConnectionLimit | None = None) -> None:
        self.way = way
        self.limit = limit or ConnectionLimit()
        """Of all transfers with that peer."""
        self.made = time.monotonic()
        """When; with TLS, when its certificates were read from the disk."""
        self.own_cookie = ""
        """The one of the configuration."""
        self.sockets = SocketFactory(way.congestion_control)
        self._session = requests.Session()
        try:
            address = parse_url(way.peer.url)
            if address.scheme not in ("http", "https"):
                raise ValueError(address.scheme)
            self.url = address._replace(auth=None).url
            self.address = f"{address.host}:{address.port or (443 if address.scheme == 'https' else 80)}"
            self._set_up(way.peer, way.proxy)
            self.template = self._session.prepare_request(requests.Request("GET", way.peer.url))
            tls = contexts.of(way.peer, way.verify) if address.scheme == "https" else None
            if tls is not None:
                self.made = tls.made
            # urllib3 writes this into the context at each connection.
            self._verify = bool(way.verify)
            self._adapter = Adapter(way.connections, self.sockets, tls)
            self.holder = Holder(self._adapter.trim, lambda: self.sockets.silence)
        except (requests.RequestException, ValueError):
            # Without the foreign text, which may quote a header or a password.
            raise ConfigurationError(
                f"the address, the HTTP headers or the proxy of peer {way.peer.name!r} cannot be used: check them"
            ) from None

    def _set_up(self, peer: Peer, proxy: str | None) -> None:
        session = self._session
        session.trust_env = False
        if proxy:
            address = proxy if "://" in proxy else f"http://{proxy}"
            session.proxies = {"http": address, "https": address}
        if peer.username and peer.password:
            # As bytes, for ``requests`` would write text as Latin-1 where Orthanc expects UTF-8.
            session.auth = HTTPBasicAuth(peer.username.encode(), peer.password.encode())
        session.headers.clear()
        session.headers.update(
            {"User-Agent": "orthanc-transfers", "Accept": "*/*", "Accept-Encoding": "identity"}
        )
        for name, value in peer.headers.items():
            # http.client writes Latin-1: so UTF-8 goes out byte by byte.
            session.headers[name] = value.encode().decode("latin-1")
        self.own_cookie = str(session.headers.pop("Cookie", ""))

    def send(self, request: requests.PreparedRequest, timeout: float | None) -> requests.Response:
        """Send, and read the head of the response. Raises errors of ``requests``.

        A session would look for hooks, cookies and redirects after each, which there are none of. (To follow one would
        send credentials to a server that is not configured.)
        """
        return self._adapter.send(
            request, stream=True, timeout=timeout, verify=self._verify, proxies=self._session.proxies
        )

    def open(self, timeout: float | None) -> None:
        """Open a connection ahead of its request, unless there are enough. Nothing is opened through a proxy."""
        if not self._session.proxies:
            self._adapter.open(self.template, self._verify, timeout)

    def rest(self, count: int) -> None:
        """Close the idle connections, but for the last ``count``."""
        self.limit.rest(self.holder, count)

    def close(self) -> None:
        """Close the idle connections. Requests in progress end by themselves."""
        self.rest(0)
        self._adapter.close()


class KeptConnections:
    """The connections to all peers that no job uses at the moment, for ``MAX_IDLE`` seconds. Thread-safe."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.limits = ConnectionLimits()
        self._now = now
        self._lock = threading.Lock()
        self._kept: list[tuple[float, PeerConnections]] = []
        self._contexts = SharedContexts()
        self._closing = Periodic("transfers-idle-connections", self._delay, self.close_idle)

    def take(self, way: Way) -> PeerConnections:
        """Those to a peer that were left last, or new ones. Raises ``ConfigurationError``."""
        with self._lock:
            found = next((one for _, one in reversed(self._kept) if one.way == way), None)
            # Others are of the peer as it was before it was changed.
            gone = [one for _, one in self._kept if one.way.peer.name == way.peer.name and one.way != way]
            self._kept = [kept for kept in self._kept if kept[1] is not found and kept[1] not in gone]
        for one in gone:
            one.close()
        if found is not None and self._now() - found.made < MAX_AGE:
            return found
        if found is not None:
            found.close()
        return PeerConnections(way, self._contexts, self.limits.of(way.peer.url))

    def give_back(self, connections: PeerConnections) -> None:
        """Its transport uses them no more."""
        if not connections.sockets.renew():
            connections.close()  # a request is still being cut
            return
        connections.rest(KEPT)
        with self._lock:
            self._kept.append((self._now(), connections))
        self._closing.start()

    def close_idle(self) -> None:
        """Close those that are idle for so long that the peer closes them, too."""
        limit = self._now() - MAX_IDLE
        with self._lock:
            old = [one for since, one in self._kept if since <= limit]
            self._kept = [kept for kept in self._kept if kept[0] > limit]
        for one in old:
            one.close()

    def _delay(self) -> float | None:
        with self._lock:
            return MAX_IDLE if self._kept else None
