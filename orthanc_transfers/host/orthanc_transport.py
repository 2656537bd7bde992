"""``PeerTransport`` over Orthanc's own HTTP client, for peers whose credentials only Orthanc can use."""

from __future__ import annotations

import math
from collections.abc import Sequence

from urllib3.util import parse_url

from orthanc_transfers.core.errors import PeerInvalidResponse, PeerStatus, PeerUnreachable
from orthanc_transfers.core.peers import without_credentials
from orthanc_transfers.host.native.sdk import Sdk
from orthanc_transfers.host.native.structures import Code, HttpMethod
from orthanc_transfers.host.peer_list import PeerList
from orthanc_transfers.interfaces import PeerRequest, PeerResponse
from orthanc_transfers.net.bandwidth import Bandwidth, acquire_all
from orthanc_transfers.net.connection_limit import ConnectionLimit, Holder
from orthanc_transfers.net.error_text import reason_of
from orthanc_transfers.net.sockets import CONNECT_TIMEOUT, SocketFactory
from orthanc_transfers.runtime.cancellation import Cancellation


class OrthancTransport:
    """A ``PeerTransport`` over the SDK's ``CallPeerApi``.

    Slower than ``RequestsTransport``: a new connection for each request, and a body of several pieces is
    joined. Orthanc's client returns neither the headers nor the body of an error, so there
    is no ``Retry-After``, and no body of the response to a ``DELETE``. A request in progress cannot be cut: it
    ends with ``Canceled`` when its response has arrived. Nor can it be seen whether a peer acknowledges one. So
    a connection of our own is opened ahead of the first request, and of those after a failure, and closed again: it
    shows in time that a peer accepts none, and can be cut. Not with a ``proxied`` peer.

    ``default_timeout`` in seconds; 0: Orthanc's ``HttpTimeout``.
    """

    def __init__(
        self,
        sdk: Sdk,
        peers: PeerList,
        name: str,
        *,
        default_timeout: float = 0.0,
        proxied: bool = False,
        bandwidth: Sequence[Bandwidth] = (),
        limit: ConnectionLimit | None = None,
    ) -> None:
        self.name = name
        self.url = without_credentials(peers.url(name))
        self.round_trip = None  # the connections are Orthanc's
        self._sdk = sdk
        self._peers = peers
        self._index = peers.index(name)
        self._timeout = default_timeout
        self._bandwidths = bandwidth
        self._stopped = Cancellation()
        self._sockets = SocketFactory("system")
        self._stopped.on_cancel(self._sockets.abort)
        self._limit = limit or ConnectionLimit()
        self._holder = Holder(lambda count: None, lambda: self._sockets.silence, keeps=False)
        self._proxied = proxied
        self._connects_ahead = not proxied

    def __repr__(self) -> str:
        return f"OrthancTransport({self.name!r}, {self.url!r})"

    @property
    def silence(self) -> str | None:
        """See ``PeerTransport``."""
        return self._sockets.silence or self._limit.silence(self._holder)

    def send(self, request: PeerRequest) -> PeerResponse:
        """See ``PeerTransport``."""
        with self._limit.connection(
            self._holder, self._stopped.check, self._limit.asking(request, self._exchange)
        ):
            return self._exchange(request)

    def _exchange(self, request: PeerRequest) -> PeerResponse:
        body, timeout, limit = request.body, request.timeout, request.limit
        content = body[0] if len(body) == 1 else b"".join(body)
        sent = {**request.headers, **self._limit.request_headers(request.path)}
        if len(content) and not any(name.lower() == "content-type" for name in sent):
            sent["Content-Type"] = "application/octet-stream"
        acquire_all(self._bandwidths, len(content), self._stopped)
        self._stopped.check()
        if self._connects_ahead:
            self._connect()
        call = self._sdk.call_peer(
            self._peers.handle,
            self._index,
            HttpMethod[request.method],
            # Orthanc before 1.11.3 appends the path to an address that ends with a slash already.
            request.path.lstrip("/"),
            sent,
            content,
            math.ceil(self._timeout if timeout is None else timeout),
        )
        self._stopped.check()
        acquire_all(self._bandwidths, len(call.body), self._stopped)
        self._connects_ahead = call.status == 0 and not self._proxied
        if call.status == 0:
            raise PeerUnreachable(
                f"peer {self.name!r} cannot be reached at {self.url}: "
                f"Orthanc's own client says {self._sdk.describe(call.code)!r}, see its log",
                self.name,
            )
        if call.status != 200 or call.code != Code.SUCCESS:
            self._limit.refused()
            raise self._refused(request, call.status)
        if limit is not None and len(call.body) > limit:
            raise PeerInvalidResponse(
                f"peer {self.name!r} answered {request.method} {request.path[:100]} with more than {limit} bytes",
                self.name,
            )
        return PeerResponse(call.body, self._limit.response_headers(request.path, call.headers))

    def prepare(self) -> None:
        """Orthanc's client keeps no connections."""

    def abort(self) -> None:
        """Start no more requests; the job does not wait for those in progress."""
        self._stopped.cancel()

    def close(self) -> None:
        """Orthanc's client keeps no connections."""
        self._limit.rest(self._holder, 0)

    def _connect(self) -> None:
        address = parse_url(self.url)
        port = address.port or (443 if address.scheme == "https" else 80)
        try:
            with self._sockets.request(repeatable=True):
                self._sockets.connect(address.host or "", port, None).close()
        except OSError as error:
            self._stopped.check()
            reason, _ = reason_of(error, CONNECT_TIMEOUT)
            raise PeerUnreachable(
                f"peer {self.name!r} cannot be reached at {address.host}:{port}: {reason}", self.name
            ) from None

    def _refused(self, request: PeerRequest, status: int) -> PeerStatus:
        sentence = f"peer {self.name!r} answered {request.method} {request.path[:100]} with {status}"
        if status in (401, 403):
            sentence += "; check the user and the password of this peer"
        if status == 403:
            # Orthanc's client does not tell the body, which says so.
            sentence += ", and whether ReadOnly is set there"
        return PeerStatus(sentence, self.name, status)
