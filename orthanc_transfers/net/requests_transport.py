"""HTTP to one peer, over ``requests``: kept-alive connections, no copies, foreign errors mapped once.

Nothing of the environment is looked at (proxies, ``~/.netrc``, ``REQUESTS_CA_BUNDLE``): Orthanc's
configuration alone says how to reach a peer.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from functools import partial
from http.client import IncompleteRead
from http.cookiejar import DefaultCookiePolicy
from typing import Any, NoReturn

import requests
import requests.adapters
import requests.utils
from requests.auth import HTTPBasicAuth
from urllib3.util import parse_url

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.errors import (
    Canceled,
    ConfigurationError,
    PeerInvalidResponse,
    PeerStatus,
    PeerUnreachable,
    PeerUntrusted,
)
from orthanc_transfers.core.peers import Peer, join
from orthanc_transfers.interfaces import PeerRequest, PeerResponse
from orthanc_transfers.net.bandwidth import BLOCK, Bandwidth, acquire_all, blocks
from orthanc_transfers.net.connections import HTTPPool, HTTPSPool, Line
from orthanc_transfers.net.error_text import FOREIGN, reason_of
from orthanc_transfers.net.tls import tls_context
from orthanc_transfers.runtime.cancellation import Cancellation

# Bytes handed to the system at once: each has the whole time-out for itself, so that a slow line that
# moves is not taken for a dead one, and a limit on bandwidth is met smoothly.
SLICE = 256 * 1024

# Bytes of an answer to which the caller set no limit; the lookup of a million instances has a seventh of it.
DEFAULT_LIMIT = 1 << 30

# Methods that have the same effect when done twice.
IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})

# Bytes kept of an answer that is an error.
ERROR_LIMIT = 64 * 1024


class Body:
    """Pieces, laid end to end without being joined; may be sent several times."""

    def __init__(
        self, pieces: Sequence[Buffer], bandwidths: Sequence[Bandwidth], stopped: Cancellation
    ) -> None:
        self._pieces = pieces
        self._bandwidths = bandwidths
        self._stopped = stopped
        self._size = sum(memoryview(piece).nbytes for piece in pieces)

    def __len__(self) -> int:
        """Bytes."""
        return self._size

    def __iter__(self) -> Iterator[memoryview]:
        for piece in self._pieces:
            for block in blocks(piece, BLOCK if self._bandwidths else SLICE):
                acquire_all(self._bandwidths, len(block), self._stopped)
                yield block


class RequestsTransport:
    """``ports.PeerTransport`` with up to ``connections`` connections that are kept alive.

    ``default_timeout`` in seconds (0: none) where neither the request nor the peer has one.
    ``verify``: whether to check the certificate of the peer, or the authorities to check it with (a file or
    a folder), as ``HttpsVerifyPeers`` and ``HttpsCACertificates`` of Orthanc. ``proxy`` as ``HttpProxy``:
    ``host:port`` or ``http://user:password@host:port``. ``congestion_control`` as for ``sockets.Line``.
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
    ) -> None:
        self.name = peer.name
        self._timeout = peer.timeout or default_timeout
        self._bandwidths = [limit for limit in bandwidth if limit.limited]
        self._cookies: dict[str, str] = {}
        self._own_cookie = ""
        self._line = Line(congestion_control)
        self._stopped = Cancellation()
        self._stopped.on_cancel(self._line.cut)
        self._session = _Session()
        try:
            address = parse_url(peer.url)
            if address.scheme not in ("http", "https"):
                raise ValueError(address.scheme)
            self.url = address._replace(auth=None).url
            self._place = f"{address.host}:{address.port or (443 if address.scheme == 'https' else 80)}"
            self._set_up(peer, connections, proxy)
            self._template = self._session.prepare_request(requests.Request("GET", peer.url))
            tls = tls_context(peer, verify) if address.scheme == "https" else None
            # urllib3 writes this into the context at each connection.
            self._session.verify = bool(verify)
            self._adapter = _Adapter(connections, self._line, tls)
            self._session.mount("http://", self._adapter)
            self._session.mount("https://", self._adapter)
        except (requests.RequestException, ValueError):
            # Without the foreign text, which may quote a header or a password.
            raise ConfigurationError(
                f"the address, the HTTP headers or the proxy of peer {peer.name!r} cannot be used: check them"
            ) from None

    def __repr__(self) -> str:
        return f"RequestsTransport({self.name!r}, {self.url!r})"

    def _set_up(self, peer: Peer, connections: int, proxy: str | None) -> None:
        session = self._session
        session.trust_env = False
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
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
        self._own_cookie = str(session.headers.pop("Cookie", ""))

    @property
    def round_trip(self) -> float | None:
        """The shortest of all connections."""
        return self._line.round_trip

    def send(self, request: PeerRequest) -> PeerResponse:
        """See ``ports.PeerTransport``. A connection found dead costs no error, see ``sockets``."""
        seconds = self._timeout if request.timeout is None else request.timeout
        prepared = self._prepared(request)
        try:
            with (
                self._line.request(request.repeatable or request.method in IDEMPOTENT),
                self._session.send(prepared, stream=True, timeout=seconds or None) as response,
            ):
                if response.status_code != 200:
                    self._refused(request, response)
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
        return PeerResponse(received, _last_of_each(response))

    def prepare(self) -> None:
        """See ``ports.PeerTransport``. Nothing is opened through a proxy."""
        if not self._session.proxies:
            with contextlib.suppress(*FOREIGN, Canceled), self._line.request(repeatable=True):
                self._adapter.open(self._template, bool(self._session.verify), self._timeout or None)

    def _prepared(self, request: PeerRequest) -> requests.PreparedRequest:
        # What is the same for all requests was prepared once: that takes longer than sending a small one.
        prepared = requests.PreparedRequest()
        prepared.method = request.method
        prepared.url = join(self.url, request.path)
        prepared.hooks = {}
        prepared.headers = self._template.headers.copy()
        prepared.headers.update(request.headers)
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
        """Cut the connections in use: requests under way, and later ones, end with ``Canceled``."""
        self._stopped.cancel()

    def close(self) -> None:
        """Close the idle connections. Requests under way end by themselves."""
        self._session.close()

    def _read(self, response: requests.Response, limit: int) -> Buffer | None:
        """The body; ``None`` if it has more than ``limit`` bytes. It is in memory only once."""
        announced = response.headers.get("Content-Length", "")
        size = int(announced) if announced.isascii() and announced.isdigit() else None
        if size is not None and size > limit:
            return None
        wanted = limit + 1 if size is None else size
        if self._bandwidths:
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

    def _cookie(self, remembered: str) -> str:
        """``remembered`` was set over another transport: what this one was told since is newer."""
        # A copy in one step, for other threads may be setting some.
        set_by_peer = [f"{name}={value}" for name, value in self._cookies.copy().items()]
        return "; ".join(filter(None, [self._own_cookie, *(set_by_peer or [remembered])]))

    def _keep_cookies(self, response: requests.Response) -> None:
        # Whatever their Path, Secure, Domain…: a load balancer sets them for its own use.
        for header in response.raw.headers.getlist("Set-Cookie"):
            name, _, value = header.partition(";")[0].partition("=")
            if value.strip():
                self._cookies[name.strip()] = value.strip()
            else:
                self._cookies.pop(name.strip(), None)

    def _refused(self, request: PeerRequest, response: requests.Response) -> NoReturn:
        said = b""
        with contextlib.suppress(*FOREIGN):
            said = response.raw.read(ERROR_LIMIT)
        headers = _last_of_each(response)
        status = response.status_code
        sentence = f"peer {self.name!r} answered {_shown(request)} with {status}"
        if reason := _orthanc_error(said) or response.reason:
            sentence += f": {reason}"
        if status in (401, 403):
            sentence += "; check the user and the password of this peer"
        raise PeerStatus(
            sentence,
            self.name,
            status,
            headers=headers,
            body=said,
            retry_after=_retry_after(headers),
        )

    def _unreachable(self, error: BaseException, seconds: float) -> PeerUnreachable:
        reason, hopeless = reason_of(error, seconds)
        through = " through the proxy" if isinstance(error, requests.exceptions.ProxyError) else ""
        kind = PeerUntrusted if hopeless else PeerUnreachable
        return kind(f"peer {self.name!r} cannot be reached at {self._place}{through}: {reason}", self.name)


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        # A redirect is an answer like another: following would send credentials to who knows whom.
        return None


class _Adapter(requests.adapters.HTTPAdapter):
    """Gives ``requests`` our connections and our TLS."""

    def __init__(self, connections: int, line: Line, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        self._pools = {"http": partial(HTTPPool, line=line), "https": partial(HTTPSPool, line=line)}
        super().__init__(pool_connections=1, pool_maxsize=connections)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._tls, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, ssl_context=self._tls, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager

    def open(self, request: requests.PreparedRequest, verify: bool, timeout: float | None) -> None:
        """Open a connection for such a request, unless one is waiting for it already."""
        pool: Any = self.get_connection_with_tls_context(request, verify)
        pool.open(timeout)

    def close(self) -> None:
        # urllib3 leaves it to the end of its pools, which an error that somebody still has may put off for long.
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            pools = manager.pools  # cannot be iterated over
            for pool in filter(None, map(pools.get, pools.keys())):
                pool.close()
        super().close()

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        # The context has it all; ``requests`` would load its own authorities at each connection.
        pass


def _shown(request: PeerRequest) -> str:
    path = request.path
    return f"{request.method} {path if len(path) <= 100 else f'{path[:100]}…'}"


def _last_of_each(response: requests.Response) -> dict[str, str]:
    # The headers of ``response`` itself join those of the same name, which no cookie survives.
    return {name.lower(): value for name, value in response.raw.headers.iteritems()}


def _orthanc_error(body: bytes) -> str:
    """What Orthanc's JSON says of an error; empty if the body is no such JSON."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(value, dict):
        return ""
    said = [value.get("Message"), value.get("Details")]
    return ": ".join(dict.fromkeys(text for text in said if isinstance(text, str) and text))


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """The header ``Retry-After``, in seconds; ``None`` if there is none that can be read."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        until = parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None
    try:
        # The clock of the peer is the one that counts.
        now = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except ValueError:
        now = time.time()
    return max(0.0, until - now)
