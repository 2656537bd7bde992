"""The link between two servers in memory: requests over it are recorded, held, damaged or cut on demand."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from orthanc_transfers.core.errors import (
    Busy,
    Canceled,
    PeerStatus,
    TransferError,
    UnknownPeer,
)
from orthanc_transfers.interfaces import (
    PeerRequest,
    PeerResponse,
)
from tests.jobs.memory_server import Server


@dataclass
class Hold:
    """Requests that are held until they are released, or cut."""

    pattern: str
    skip: int
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


class Link:
    """The link between two servers: records what passes, and breaks on demand."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.headers: list[Mapping[str, str]] = []
        self.before: Callable[[str, bytes], bytes] = lambda request, body: body
        """Sees each request (method and path) and its body; returns the body that arrives, or raises."""
        self.after: Callable[[str, PeerResponse], PeerResponse] = lambda request, response: response
        """Sees each response; returns the one that arrives, or raises: then it is lost."""
        self.connected = 0
        """Transports that are open."""
        self.round_trip: float | None = None
        """Seconds, as far as transports know."""
        self.prepared = 0
        """Connections opened ahead of their requests."""
        self.max_connected = 0
        """The most transports that were open at once."""
        self._hold: Hold | None = None
        self._lock = threading.Lock()

    def count(self, pattern: str) -> int:
        return sum(bool(re.fullmatch(pattern, request)) for request in self.log)

    def hold(self, pattern: str, skip: int = 0) -> Hold:
        """Hold requests that match a pattern, but for the first ``skip`` of them."""
        self._hold = Hold(pattern, skip)
        return self._hold

    def let_go(self) -> None:
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.released.set()

    def pass_through(self, request: str, headers: Mapping[str, str], cut: threading.Event) -> None:
        with self._lock:
            self.headers.append(headers)
            hold = self._hold if self._hold and re.fullmatch(self._hold.pattern, request) else None
            if hold is not None and hold.skip:
                hold.skip -= 1
                hold = None
        if hold is not None:
            hold.reached.set()
            while not hold.released.wait(0.005):
                if cut.is_set():
                    raise Canceled("stopped on request")
        if cut.is_set():
            raise Canceled("stopped on request")
        with self._lock:
            self.log.append(request)


def once(part: str, instead: PeerResponse) -> Callable[[str, PeerResponse], PeerResponse]:
    """For ``Link.after``: another response to the first request that contains ``part``."""
    left = [part]

    def after(request: str, response: PeerResponse) -> PeerResponse:
        if left and left[0] in request:
            left.clear()
            return instead
        return response

    return after


class InProcessTransport:
    """``interfaces.PeerTransport`` that calls a ``Server``."""

    def __init__(self, server: Server, link: Link) -> None:
        self.name = server.name
        self.url = f"http://{server.name}:8042/"
        self.round_trip = link.round_trip
        self.silence: str | None = None
        self._server = server
        self._link = link
        self._cut = threading.Event()
        link.connected += 1
        link.max_connected = max(link.max_connected, link.connected)

    def send(self, request: PeerRequest) -> PeerResponse:
        asked = f"{request.method} {request.path}"
        self._link.pass_through(asked, request.headers, self._cut)
        sent = self._link.before(asked, b"".join(request.body))
        try:
            response = self._server.serve(request.method, request.path, sent, request.headers)
        except TransferError as error:
            # Like Orthanc: a status, and JSON that says why.
            text = json.dumps({"Message": str(error), "OrthancStatus": error.code}).encode()
            raise PeerStatus(
                f"peer {self.name} answered {asked} with {error.status}: {error}",
                self.name,
                error.status,
                body=text,
                retry_after=error.retry_after if isinstance(error, Busy) else None,
            ) from None
        return self._link.after(asked, response)

    def prepare(self) -> None:
        self._link.prepared += 1

    def abort(self) -> None:
        self._cut.set()

    def close(self) -> None:
        self._link.connected -= 1


@dataclass(frozen=True)
class InProcessPeer:
    """``interfaces.KnownPeer``."""

    server: Server
    link: Link

    def connect(self, connections: int) -> InProcessTransport:
        return InProcessTransport(self.server, self.link)


class InProcessPeers:
    """``interfaces.Peers``: every server that is in ``servers``, over one link."""

    def __init__(self, servers: Iterable[Server], link: Link) -> None:
        self._servers = {server.name: server for server in servers}
        self._link = link

    def names(self) -> list[str]:
        return sorted(self._servers)

    def remote_self(self, name: str) -> str | None:
        return None

    def known(self, name: str) -> InProcessPeer:
        if name not in self._servers:
            raise UnknownPeer(f"unknown peer: {name}")
        return InProcessPeer(self._servers[name], self._link)

    def connect(self, name: str, connections: int) -> InProcessTransport:
        return self.known(name).connect(connections)
