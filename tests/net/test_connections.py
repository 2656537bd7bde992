"""When a connection is used again, when a request is repeated, and connections opened early."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.core.errors import (
    PeerStatus,
    PeerUnreachable,
)
from orthanc_transfers.interfaces import PeerRequest
from orthanc_transfers.net import connections
from orthanc_transfers.net.sockets import SocketFactory
from tests.contract.fake_transport import Asked, Reply
from tests.net.peers import Connect, server_tls
from tests.net.scripted import OK, Connection, well

# --- reuse


def test_idle_connections_are_closed_although_a_caller_still_has_an_error(
    script: Any, connect: Connect
) -> None:
    closed = threading.Event()

    def serve(connection: Connection) -> None:
        connection.request()
        connection.send(b"HTTP/1.1 500 Trouble\r\nContent-Length: 0\r\n\r\n")
        connection.until_closed()
        closed.set()

    transport = connect(script(serve).url)
    with pytest.raises(PeerStatus) as raised:
        transport.send(PeerRequest("GET", "/"))
    transport.close()

    assert closed.wait(30)
    assert raised.value.peer_status == 500


def test_one_connection_serves_many_requests(serve: Any, connect: Connect) -> None:
    server = serve()
    transport = connect(server.url)
    for _ in range(3):
        transport.send(PeerRequest("PUT", "/", body=[b"x"]))
        transport.send(PeerRequest("POST", "/", body=[b"x"]))
        transport.send(PeerRequest("GET", "/", limit=10))

    assert server.connections == 1


def test_an_error_that_was_read_to_its_end_does_not_cost_the_connection(serve: Any, connect: Connect) -> None:
    server = serve(lambda asked: Reply(b"no", 404))
    transport = connect(server.url)
    for _ in range(3):
        with pytest.raises(PeerStatus):
            transport.send(PeerRequest("GET", "/"))

    assert server.connections == 1


def test_a_connection_is_given_up_before_orthanc_closes_it() -> None:
    keep_alive_timeout = 1.0  # seconds, of Orthanc's HTTP server
    assert 0 < connections.MAX_IDLE_UNREPEATABLE < connections.MAX_IDLE < keep_alive_timeout


@pytest.mark.parametrize(
    ("method", "limit"), [("PUT", "MAX_IDLE"), ("GET", "MAX_IDLE"), ("POST", "MAX_IDLE_UNREPEATABLE")]
)
def test_a_connection_that_idled_for_long_is_not_used_again(
    serve: Any, connect: Connect, monkeypatch: pytest.MonkeyPatch, method: str, limit: str
) -> None:
    monkeypatch.setattr(connections, limit, 0.0)
    server = serve()
    transport = connect(server.url)
    for _ in range(3):
        transport.send(PeerRequest(method, "/"))

    assert server.connections == 3


def test_a_kept_connection_that_the_server_closed_meanwhile_costs_nothing(
    script: Any, connect: Connect
) -> None:
    closed = threading.Event()

    def once(connection: Connection) -> None:
        connection.request()
        connection.send(OK)
        connection.sock.shutdown(socket.SHUT_RDWR)
        closed.set()

    server = script(once, well)
    transport = connect(server.url)
    transport.send(PeerRequest("POST", "/1"))
    closed.wait()
    transport.send(PeerRequest("POST", "/2"))

    assert [head.split()[1] for head in server.heads[:2]] == [b"/1", b"/2"]
    assert server.connections == 2


def dies_under_the_second_request(connection: Connection) -> None:
    connection.request()
    connection.send(OK)
    connection.head()


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_request_that_may_be_done_twice_is_repeated_when_a_kept_connection_dies_under_it(
    script: Any, connect: Connect, certificate: Path, method: str, encrypted: bool
) -> None:
    tls = server_tls(certificate) if encrypted else None
    server = script(dies_under_the_second_request, well, tls=tls)
    transport = connect(server.url, verify=str(certificate))
    body = [b"x" * 3_000_000] if method == "PUT" else []
    transport.send(PeerRequest(method, "/1", body=body))
    transport.send(PeerRequest(method, "/2", body=body))

    assert [head.split()[1] for head in server.heads[:3]] == [b"/1", b"/2", b"/2"]


def test_a_post_that_is_said_to_be_repeatable_is_taken_for_such(
    script: Any, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_IDLE_UNREPEATABLE", 0.0)
    server = script(dies_under_the_second_request, well)
    transport = connect(server.url)
    transport.send(PeerRequest("POST", "/1"))
    transport.send(PeerRequest("POST", "/2", repeatable=True))

    assert [head.split()[1] for head in server.heads] == [b"/1", b"/2", b"/2"]


def test_a_post_is_not_repeated_for_it_may_have_been_done(script: Any, connect: Connect) -> None:
    server = script(dies_under_the_second_request, well)
    transport = connect(server.url)
    transport.send(PeerRequest("POST", "/1"))
    with pytest.raises(PeerUnreachable, match="closed before a response"):
        transport.send(PeerRequest("POST", "/2"))

    assert len(server.heads) == 2


def test_a_repeated_request_is_not_repeated_again(script: Any, connect: Connect) -> None:
    def hangs_up(connection: Connection) -> None:
        connection.request()

    server = script(dies_under_the_second_request, hangs_up)
    transport = connect(server.url)
    transport.send(PeerRequest("PUT", "/1"))
    with pytest.raises(PeerUnreachable):
        transport.send(PeerRequest("PUT", "/2"))

    assert server.connections == 2


def test_a_request_that_dies_on_a_fresh_connection_is_not_repeated(script: Any, connect: Connect) -> None:
    server = script(lambda connection: None)
    with pytest.raises(PeerUnreachable):
        connect(server.url).send(PeerRequest("PUT", "/", body=[b"x"]))

    assert server.connections == 1


def test_more_requests_at_once_than_connections_to_keep_are_no_trouble(
    serve: Any, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    all_there = threading.Barrier(3)

    def behaviour(asked: Asked) -> Reply:
        all_there.wait()
        return Reply(b"{}")

    server = serve(behaviour)
    transport = connect(server.url, connections=1)
    threads = [
        threading.Thread(target=transport.send, args=(PeerRequest("GET", "/"),), daemon=True)
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(server.asked) == 3
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# --- connections ahead of their requests


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_prepared_connection_carries_the_next_request(
    script: Any, connect: Connect, certificate: Path, encrypted: bool
) -> None:
    server = script(well, tls=server_tls(certificate) if encrypted else None)
    transport = connect(server.url, verify=str(certificate))
    transport.prepare()
    assert transport.round_trip is not None
    for method in ("POST", "PUT"):
        transport.send(PeerRequest(method, "/", body=[b"{}"]))
    assert server.connections == 1


def test_connections_prepared_at_the_same_time_serve_requests_at_the_same_time(
    script: Any, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected, asked = threading.Barrier(2), threading.Barrier(2)

    def together(connection: Connection) -> None:
        connection.request()
        asked.wait(30)
        connection.send(OK)

    def twice(function: Callable[[], object]) -> None:
        threads = [threading.Thread(target=function, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def slow(self: SocketFactory, *address: Any) -> socket.socket:
        sock = connect_one(self, *address)
        connected.wait(30)
        return sock

    server = script(together)
    transport = connect(server.url)
    connect_one = SocketFactory.connect
    monkeypatch.setattr(SocketFactory, "connect", slow)
    twice(transport.prepare)
    monkeypatch.undo()
    twice(lambda: transport.send(PeerRequest("PUT", "/", body=[b"x"])))
    assert server.connections == 2


def test_one_that_waits_is_left_to_the_next_request_while_another_is_opened(
    script: Any, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connecting, asked = threading.Event(), threading.Event()

    def slow(self: SocketFactory, *address: Any) -> socket.socket:
        connecting.set()
        asked.wait(30)
        return connect_one(self, *address)

    server = script(well)
    transport = connect(server.url)
    transport.send(PeerRequest("GET", "/"))
    connect_one = SocketFactory.connect
    monkeypatch.setattr(SocketFactory, "connect", slow)
    opening = threading.Thread(target=transport.prepare, daemon=True)
    opening.start()
    connecting.wait(30)
    transport.send(PeerRequest("GET", "/"))
    assert server.connections == 1
    asked.set()
    opening.join()


def test_no_more_connections_are_prepared_than_are_kept(script: Any, connect: Connect) -> None:
    server = script(well)
    transport = connect(server.url, connections=2)
    for _ in range(3):
        transport.prepare()
    transport.send(PeerRequest("GET", "/"))
    assert server.connections == 2


def test_a_prepared_connection_that_was_closed_meanwhile_costs_nothing(script: Any, connect: Connect) -> None:
    closed = threading.Event()

    def leave(connection: Connection) -> None:
        connection.sock.shutdown(socket.SHUT_RDWR)
        closed.set()

    server = script(leave, well)
    transport = connect(server.url)
    transport.prepare()
    closed.wait()
    transport.send(PeerRequest("POST", "/"))
    assert server.connections == 2


def test_a_pool_that_was_closed_meanwhile_opens_nothing(script: Any) -> None:
    server = script(well)
    pool = connections.HTTPPool("127.0.0.1", server.port, sockets=SocketFactory("system"))
    pool.close()
    pool.open(5)
    assert server.connections == 0


def test_what_cannot_be_prepared_is_left_to_the_request(connect: Connect) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        transport = connect(f"http://127.0.0.1:{unused.getsockname()[1]}")
        transport.prepare()
        with pytest.raises(PeerUnreachable, match="refused"):
            transport.send(PeerRequest("GET", "/"))


def test_nothing_is_prepared_through_a_proxy_or_after_an_abort(script: Any, connect: Connect) -> None:
    server = script(well)
    connect("http://far.example:8042", proxy=server.url).prepare()
    transport = connect(server.url)
    transport.abort()
    transport.prepare()
    assert server.connections == 0
