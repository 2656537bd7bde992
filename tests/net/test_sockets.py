"""How sockets are tuned, and that an abort cuts them at any moment."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.core.errors import (
    Canceled,
)
from orthanc_transfers.interfaces import PeerRequest
from orthanc_transfers.net import connections
from orthanc_transfers.net.bandwidth import Bandwidth
from orthanc_transfers.net.requests_transport import RequestsTransport
from orthanc_transfers.net.sockets import SocketFactory
from orthanc_transfers.runtime.clock import SystemClock
from tests.net.peers import Connect, server_tls
from tests.net.scripted import OK, Connection

# --- options


def test_sockets_send_small_pieces_at_once_and_notice_dead_peers(serve: Any) -> None:
    sockets = SocketFactory("system")
    with sockets.request(repeatable=False), sockets.connect("127.0.0.1", serve().port, 5) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest.mark.skipif(not hasattr(socket, "TCP_CONGESTION"), reason="Linux only")
@pytest.mark.parametrize(("wanted", "got"), [("reno", "reno"), ("system", ""), ("auto", "")])
def test_the_congestion_control_is_the_configured_one(serve: Any, wanted: str, got: str) -> None:
    sockets = SocketFactory(wanted)
    with socket.socket() as plain:
        default = plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    with sockets.request(repeatable=False), sockets.connect("localhost", serve().port, 5) as sock:
        used = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)

    assert used.rstrip(b"\0") == (got.encode() or default.rstrip(b"\0"))


def test_a_congestion_control_that_the_system_refuses_is_a_warning_once(
    serve: Any, connect: Connect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_IDLE", 0.0)
    transport = connect(serve().url, congestion_control="carrier-pigeon")
    transport.send(PeerRequest("GET", "/"))
    transport.send(PeerRequest("GET", "/"))

    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 1
    assert "carrier-pigeon" in warned[0]


# --- abort


def canceled_by_abort(transport: RequestsTransport, waiting: Callable[[], None], **request: Any) -> bool:
    """Whether a request ends with ``Canceled`` once the transport is aborted while it waits."""
    outcome: list[BaseException] = []

    def run() -> None:
        try:
            transport.send(PeerRequest("PUT", "/", **request))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    waiting()
    transport.abort()
    thread.join()
    return [type(error) for error in outcome] == [Canceled]


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("moment", ["answer", "rest of the answer", "body"])
def test_an_abort_ends_a_request_that_waits(
    script: Any, connect: Connect, certificate: Path, encrypted: bool, moment: str
) -> None:
    reached = threading.Event()

    def serve(connection: Connection) -> None:
        connection.head()
        if moment == "rest of the answer":
            # "close" makes http.client give its handle away before the body is read.
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nConnection: close\r\n\r\nsome")
        reached.set()
        done.wait()

    done = threading.Event()
    server = script(serve, tls=server_tls(certificate) if encrypted else None)
    transport = connect(server.url, verify=str(certificate))
    body = [bytes(50_000_000)] if moment == "body" else []
    try:
        assert canceled_by_abort(transport, reached.wait, body=body)
    finally:
        done.set()


def test_an_abort_ends_a_request_on_a_kept_connection(script: Any, connect: Connect) -> None:
    second = threading.Event()
    done = threading.Event()

    def serve(connection: Connection) -> None:
        connection.request()
        connection.send(OK)
        connection.request()
        second.set()
        done.wait()

    server = script(serve)
    transport = connect(server.url)
    transport.send(PeerRequest("PUT", "/"))
    try:
        assert canceled_by_abort(transport, second.wait)
        assert server.connections == 1
    finally:
        done.set()


def test_an_abort_ends_a_request_that_is_still_connecting(deaf: int, connect: Connect) -> None:
    def connecting() -> None:
        while not _in_syn_sent(deaf):
            time.sleep(0.001)

    assert canceled_by_abort(connect(f"http://127.0.0.1:{deaf}"), connecting)


def _in_syn_sent(port: int) -> int:
    """Whether more connections to a port of this machine are being asked for than the fixture's own."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    sent = [line for line in lines if line.split()[2].endswith(f":{port:04X}") and line.split()[3] == "02"]
    return len(sent) > 1


def test_an_abort_ends_a_tls_handshake(script: Any, connect: Connect) -> None:
    reached = threading.Event()
    done = threading.Event()

    def serve(connection: Connection) -> None:
        connection.sock.recv(1)
        reached.set()
        done.wait()

    server = script(serve)
    try:
        assert canceled_by_abort(connect(server.url.replace("http", "https")), reached.wait)
    finally:
        done.set()


def test_an_abort_ends_a_wait_for_bandwidth(serve: Any, connect: Connect) -> None:
    asked = threading.Event()

    class Slow(Bandwidth):
        def reserve(self, size: int) -> float:
            asked.set()
            return super().reserve(size)

    slow = Slow(8, SystemClock())
    assert canceled_by_abort(connect(serve().url, bandwidth=[slow]), asked.wait, body=[bytes(1000)])


def test_handles_are_not_leaked(serve: Any, connect: Connect) -> None:
    server = serve()
    transport = connect(server.url)
    transport.send(PeerRequest("GET", "/"))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        transport.send(PeerRequest("PUT", "/", body=[b"x"]))

    assert len(os.listdir("/proc/self/fd")) <= before + 1
