"""The congestion control of what Orthanc's HTTP server sends."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orthanc_transfers.host.server_sockets import ServerSockets
from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer

NOTSENT_LOWAT = 25
"""``TCP_NOTSENT_LOWAT`` of Linux."""

AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()

pytestmark = pytest.mark.skipif("reno" not in AVAILABLE, reason="this kernel has no reno")


def control(sock: socket.socket) -> str:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


@pytest.fixture
def connected() -> Iterator[tuple[socket.socket, socket.socket, int]]:
    """What a server accepted, the client's end, and the server's port."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        accepted, _ = server.accept()
        with accepted:
            yield accepted, client, server.getsockname()[1]


def test_accepted_connections_get_the_congestion_control_and_others_keep_theirs(
    connected: tuple[socket.socket, socket.socket, int],
) -> None:
    accepted, client, port = connected
    before = control(client)
    ServerSockets(port, "reno").tune()
    assert (control(accepted), control(client)) == ("reno", before)


def test_no_more_waits_in_the_system_than_the_link_carries_in_a_moment(
    connected: tuple[socket.socket, socket.socket, int],
) -> None:
    accepted, client, port = connected
    ServerSockets(port, "system").tune()
    limit = accepted.getsockopt(socket.IPPROTO_TCP, NOTSENT_LOWAT)
    assert 16 * 1024 <= limit <= 2**30
    assert client.getsockopt(socket.IPPROTO_TCP, NOTSENT_LOWAT) == 0


@pytest.mark.parametrize("wanted", ["system", "auto"])
def test_what_stays_on_this_machine_is_left_alone(
    connected: tuple[socket.socket, socket.socket, int], wanted: str
) -> None:
    accepted, _, port = connected
    before = control(accepted)
    ServerSockets(port, wanted).tune()
    assert control(accepted) == before


@pytest.mark.orthanc
def test_chunks_leave_orthanc_with_the_configured_one(make_server: MakeServer) -> None:
    server = make_server("reno", configuration={"Transfers": {"CongestionControl": "reno"}}).start()
    instance = server.upload(next(ct_study(1, size=16)))["ID"]
    with socket.create_connection(("127.0.0.1", server.http_port)) as client:
        client.sendall(f"GET /transfers/chunks/{instance} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        here = f"127.0.0.1:{client.getsockname()[1]}"
        seen = subprocess.run(
            ["ss", "-tinO", "state", "established", f"sport = :{server.http_port}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    (line,) = (line for line in seen.splitlines() if here in line)
    assert " reno " in line
