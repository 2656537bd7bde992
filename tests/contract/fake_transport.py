"""A peer in memory: what tests of the engine use in place of a network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.errors import Canceled, PeerAnswer, PeerStatus, PeerUnreachable
from orthanc_transfers.interfaces import PeerResponse


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
    """``ports.PeerTransport`` to a behaviour. ``asked`` are all requests so far, in order."""

    def __init__(self, behaviour: Behaviour, peer: str = "fake") -> None:
        self.peer = peer
        self.url = f"http://{peer}"
        self.round_trip = None
        self.asked: list[Asked] = []
        self.aborted = threading.Event()
        self._behaviour = behaviour

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Sequence[Buffer] = (),
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        limit: int | None = None,
        repeatable: bool = False,
    ) -> PeerResponse:
        asked = Asked(method, path, b"".join(body), {k.lower(): v for k, v in (headers or {}).items()})
        if self.aborted.is_set():
            raise Canceled("stopped on request")
        self.asked.append(asked)
        reply = self._behaviour(asked)
        if self.aborted.is_set():
            raise Canceled("stopped on request")
        if reply is None:
            raise PeerUnreachable(f"peer {self.peer!r} cannot be reached at {self.url}", self.peer)
        lower = {name.lower(): value for name, value in reply.headers.items()}
        if reply.status != 200:
            retry_after = float(lower["retry-after"]) if "retry-after" in lower else None
            sentence = f"peer {self.peer!r} answered {method} {path} with {reply.status}"
            raise PeerStatus(
                sentence, self.peer, reply.status, headers=lower, body=reply.body, retry_after=retry_after
            )
        if limit is not None and len(reply.body) > limit:
            raise PeerAnswer(f"peer {self.peer!r} answered with more than {limit} bytes", self.peer)
        return PeerResponse(reply.body, lower)

    def prepare(self) -> None:
        pass

    def abort(self) -> None:
        self.aborted.set()

    def close(self) -> None:
        pass
