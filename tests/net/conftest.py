"""Transports, and servers that behave or misbehave on this machine."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.core.peers import Peer
from orthanc_transfers.net.requests_transport import RequestsTransport
from tests.contract.fake_transport import Behaviour, Reply
from tests.contract.http_server import BehaviourServer
from tests.net.peers import Connect
from tests.net.scripted import ScriptedServer, Serve
from tests.support.certificates import make_certificate


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes transports; what a peer has goes to the peer, the rest to the transport."""
    with ExitStack() as stack:

        def make(url: str, **options: Any) -> RequestsTransport:
            of_peer = {key: options.pop(key) for key in list(options) if key in Peer.__slots__}
            defaults: dict[str, Any] = {
                "connections": 4,
                "default_timeout": 30,
                "verify": True,
                "proxy": None,
                "congestion_control": "system",
            }
            transport = RequestsTransport(Peer("far", url, **of_peer), **{**defaults, **options})
            stack.callback(transport.close)
            return transport

        yield make


@pytest.fixture
def serve() -> Iterator[Callable[..., BehaviourServer]]:
    with ExitStack() as stack:

        def make(
            behaviour: Behaviour = lambda asked: Reply(b"{}"), tls: ssl.SSLContext | None = None
        ) -> BehaviourServer:
            return stack.enter_context(BehaviourServer(behaviour, tls))

        yield make


@pytest.fixture
def script() -> Iterator[Callable[..., ScriptedServer]]:
    with ExitStack() as stack:

        def make(*functions: Serve, tls: ssl.SSLContext | None = None) -> ScriptedServer:
            return stack.enter_context(ScriptedServer(functions, tls))

        yield make


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return make_certificate(tmp_path)


@pytest.fixture
def deaf() -> Iterator[int]:
    """A port of this machine that accepts no connection: its queue of them is full."""
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            knocking = stack.enter_context(socket.socket())
            knocking.setblocking(False)
            knocking.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
