"""A transport to a peer in memory, in place of a network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from orthanc_transfers.core.errors import Canceled, PeerInvalidResponse, PeerStatus, PeerUnreachable
from orthanc_transfers.interfaces import PeerRequest, PeerResponse


@dataclass(frozen=True)
class Asked:
    """What a peer sees of a request; header names in lower case."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """What a peer says."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Behaviour = Callable[[Asked], Reply | None]
"""A peer; ``None``: it closes the connection without an answer."""


class FakeTransport:
    """``interfaces.PeerTransport`` to a behaviour. ``asked`` are all requests so far, in order."""

    def __init__(self, behaviour: Behaviour, peer: str = "fake") -> None:
        self.name = peer
        self.url = f"http://{peer}"
        self.round_trip = None
        self.silence: str | None = None
        self.asked: list[Asked] = []
        self.aborted = threading.Event()
        self._behaviour = behaviour

    def send(self, request: PeerRequest) -> PeerResponse:
        asked = Asked(
            request.method,
            request.path,
            b"".join(request.body),
            {k.lower(): v for k, v in request.headers.items()},
        )
        if self.aborted.is_set():
            raise Canceled("stopped on request")
        self.asked.append(asked)
        reply = self._behaviour(asked)
        if self.aborted.is_set():
            raise Canceled("stopped on request")
        if reply is None:
            raise PeerUnreachable(f"peer {self.name!r} cannot be reached at {self.url}", self.name)
        lower = {name.lower(): value for name, value in reply.headers.items()}
        if reply.status != 200:
            retry_after = float(lower["retry-after"]) if "retry-after" in lower else None
            sentence = f"peer {self.name!r} answered {request.method} {request.path} with {reply.status}"
            raise PeerStatus(
                sentence, self.name, reply.status, headers=lower, body=reply.body, retry_after=retry_after
            )
        if request.limit is not None and len(reply.body) > request.limit:
            raise PeerInvalidResponse(
                f"peer {self.name!r} answered with more than {request.limit} bytes", self.name
            )
        return PeerResponse(reply.body, lower)

    def prepare(self) -> None:
        pass

    def abort(self) -> None:
        self.aborted.set()

    def close(self) -> None:
        pass
