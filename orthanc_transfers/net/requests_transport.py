"""``PeerTransport`` over ``requests``: kept-alive connections, no copies, foreign errors mapped once.

The environment is ignored (proxies, ``~/.netrc``, ``REQUESTS_CA_BUNDLE``): Orthanc's configuration alone says how to
reach a peer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from http.client import IncompleteRead

import requests

from orthanc_transfers.core.buffers import Buffer, size_of
from orthanc_transfers.core.errors import (
    Canceled,
    PeerInvalidResponse,
    PeerUnreachable,
    PeerUntrusted,
)
from orthanc_transfers.core.peers import Peer, join
from orthanc_transfers.interfaces import PeerRequest, PeerResponse
from orthanc_transfers.net.bandwidth import BLOCK, Bandwidth, acquire_all, any_limited, blocks
from orthanc_transfers.net.error_response import error_of, last_headers
from orthanc_transfers.net.error_text import FOREIGN, reason_of
from orthanc_transfers.net.peer_connections import KeptConnections, PeerConnections, Way
from orthanc_transfers.net.tls import SharedContexts
from orthanc_transfers.runtime.cancellation import Cancellation

# Bytes handed to the system at once: each has the whole timeout for itself, so that a slow link that
# moves is not taken for a dead one, and a limit on bandwidth is met smoothly.
SLICE = 256 * 1024

# Bytes of a response to which the caller set no limit; the lookup of a million instances has a seventh of it.
DEFAULT_LIMIT = 1 << 30

# Methods that have the same effect when done twice (RFC 9110, 9.2.2).
IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})


class Body:
    """Pieces, sent one after the other without being joined; may be sent several times."""

    def __init__(
        self, pieces: Sequence[Buffer], bandwidths: Sequence[Bandwidth], stopped: Cancellation
    ) -> None:
        self._pieces = pieces
        self._bandwidths = bandwidths
        self._stopped = stopped
        self._size = size_of(pieces)

    def __len__(self) -> int:
        """Bytes."""
        return self._size

    def __iter__(self) -> Iterator[memoryview]:
        for piece in self._pieces:
            for block in blocks(piece, BLOCK if any_limited(self._bandwidths) else SLICE):
                acquire_all(self._bandwidths, len(block), self._stopped)
                yield block


class RequestsTransport:
    """A ``PeerTransport`` with up to ``connections`` connections that are kept alive.

    ``default_timeout`` in seconds (0: none) where neither the request nor the peer has one.
    ``verify``: whether to check the certificate of the peer, or the CAs to check it with (a file or
    a directory), as ``HttpsVerifyPeers`` and ``HttpsCACertificates`` of Orthanc. ``proxy`` as ``HttpProxy``:
    ``host:port`` or ``http://user:password@host:port``. ``congestion_control`` as for ``SocketFactory``.
    ``kept`` are connections that other transports have left, and to which these are left.
    Cookies that a peer sets with a 200 are sent back in all later requests.

    Raises ``ConfigurationError`` for a certificate, an address or a header that cannot be used.
    """

    def __init__(
        self,
        peer: Peer,
        *,
        connections: int,
        default_timeout: float,
        verify: bool | str,
        proxy: str | None,
        congestion_control: str,
        bandwidth: Sequence[Bandwidth] = (),
        kept: KeptConnections | None = None,
    ) -> None:
        self.name = peer.name
        self._timeout = peer.timeout or default_timeout
        self._bandwidths = bandwidth
        self._cookies: dict[str, str] = {}
        self._stopped = Cancellation()
        self._kept = kept
        self._closed = False
        way = Way(peer, connections, verify, proxy, congestion_control)
        self._connections = PeerConnections(way, SharedContexts()) if kept is None else kept.take(way)
        self._sockets = self._connections.sockets
        self._template, self._address = self._connections.template, self._connections.address
        self._limit, self._holder = self._connections.limit, self._connections.holder
        self._own_cookie, self.url = self._connections.own_cookie, self._connections.url
        self._lease = self._sockets.lease
        self._stopped.on_cancel(lambda: self._sockets.abort(self._lease))

    def __repr__(self) -> str:
        return f"RequestsTransport({self.name!r}, {self.url!r})"

    @property
    def round_trip(self) -> float | None:
        """Seconds of the fastest TCP handshake."""
        return self._sockets.round_trip

    @property
    def silence(self) -> str | None:
        """See ``PeerTransport``."""
        return self._sockets.silence or self._limit.silence(self._holder)

    def send(self, request: PeerRequest) -> PeerResponse:
        """See ``PeerTransport``. A stale connection causes no error: see ``connections.py``."""
        with self._limit.connection(
            self._holder, self._stopped.check, self._limit.asking(request, self._exchange)
        ):
            return self._exchange(request)

    def _exchange(self, request: PeerRequest) -> PeerResponse:
        seconds = self._timeout if request.timeout is None else request.timeout
        prepared = self._prepared(request)
        try:
            with (
                self._sockets.request(request.repeatable or request.method in IDEMPOTENT, self._lease),
                self._connections.send(prepared, seconds or None) as response,
            ):
                if response.status_code != 200:
                    self._limit.refused()
                    raise error_of(self.name, _shown(request), response, with_body=size_of(request.body) > 0)
                self._keep_cookies(response)
                size = DEFAULT_LIMIT if request.limit is None else request.limit
                received = self._read(response, size)
        except FOREIGN as error:
            if self._stopped.requested:
                raise Canceled("stopped on request") from None
            raise self._unreachable(error, seconds) from None
        if received is None:
            raise PeerInvalidResponse(
                f"peer {self.name!r} answered {_shown(request)} with more than {size} bytes", self.name
            )
        return PeerResponse(received, self._limit.response_headers(request.path, last_headers(response)))

    def prepare(self) -> None:
        """See ``PeerTransport``. Nothing is opened through a proxy."""
        with (
            self._limit.early_connection(self._holder) as allowed,
            contextlib.suppress(*FOREIGN, Canceled),
            self._sockets.request(repeatable=True, lease=self._lease),
        ):
            if allowed:
                self._connections.open(self._timeout or None)

    def _prepared(self, request: PeerRequest) -> requests.PreparedRequest:
        # What is the same for all requests was prepared once: that takes longer than sending a small one.
        prepared = requests.PreparedRequest()
        prepared.method = request.method
        prepared.url = join(self.url, request.path)
        prepared.hooks = {}
        prepared.headers = self._template.headers.copy()
        prepared.headers.update(request.headers)
        prepared.headers.update(self._limit.request_headers(request.path))
        content = Body(request.body, self._bandwidths, self._stopped)
        if len(content):
            # An iterable is sent item by item, and not in chunks where the length is given.
            prepared.body = content  # type: ignore[assignment]
            prepared.headers.setdefault("Content-Type", "application/octet-stream")
        if len(content) or request.method in ("POST", "PUT"):
            prepared.headers["Content-Length"] = str(len(content))
        if cookie := self._cookie(prepared.headers.get("Cookie", "")):
            prepared.headers["Cookie"] = cookie
        return prepared

    def abort(self) -> None:
        """Cut the connections in use: requests in progress, and later ones, end with ``Canceled``."""
        self._stopped.cancel()

    def close(self) -> None:
        """Close the idle connections, or leave them to the next job. Requests in progress end by themselves."""
        if self._kept is None:
            self._connections.close()
        elif not self._closed:
            self._closed = True
            self._kept.give_back(self._connections)

    def _read(self, response: requests.Response, limit: int) -> Buffer | None:
        """The body; ``None`` if it has more than ``limit`` bytes. It is in memory only once."""
        announced = response.headers.get("Content-Length", "")
        size = int(announced) if announced.isascii() and announced.isdigit() else None
        if size is not None and size > limit:
            return None
        wanted = limit + 1 if size is None else size
        if any_limited(self._bandwidths):
            received: Buffer = self._read_paced(response, wanted)
        else:
            received = response.raw.read(wanted)
        if size is not None and len(received) < size:
            raise IncompleteRead(b"", size - len(received))
        return None if len(received) > limit else received

    def _read_paced(self, response: requests.Response, wanted: int) -> bytearray:
        received = bytearray()
        while len(received) < wanted:
            block = response.raw.read(min(BLOCK, wanted - len(received)))
            if not block:
                break
            acquire_all(self._bandwidths, len(block), self._stopped)
            received += block
        return received

    def _cookie(self, saved: str) -> str:
        """``saved`` was set over another transport: what this one was told since is newer."""
        # A copy in one step, for other threads may be setting some.
        set_by_peer = [f"{name}={value}" for name, value in self._cookies.copy().items()]
        return "; ".join(filter(None, [self._own_cookie, *(set_by_peer or [saved])]))

    def _keep_cookies(self, response: requests.Response) -> None:
        # Whatever their Path, Secure, Domain…: a load balancer sets them for its own use.
        for header in response.raw.headers.getlist("Set-Cookie"):
            name, _, value = header.partition(";")[0].partition("=")
            if value.strip():
                self._cookies[name.strip()] = value.strip()
            else:
                self._cookies.pop(name.strip(), None)

    def _unreachable(self, error: BaseException, seconds: float) -> PeerUnreachable:
        reason, hopeless = reason_of(error, seconds)
        through = " through the proxy" if isinstance(error, requests.exceptions.ProxyError) else ""
        kind = PeerUntrusted if hopeless else PeerUnreachable
        return kind(f"peer {self.name!r} cannot be reached at {self._address}{through}: {reason}", self.name)


def _shown(request: PeerRequest) -> str:
    path = request.path
    return f"{request.method} {path if len(path) <= 100 else f'{path[:100]}…'}"
