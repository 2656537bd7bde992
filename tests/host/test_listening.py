"""The congestion control of what Orthanc's HTTP server sends."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from orthanc_transfers.host.listening import tune_listeners
from tests.support.fixtures import MakeServer

AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()

pytestmark = pytest.mark.skipif("reno" not in AVAILABLE, reason="this kernel has no reno")


def control(sock: socket.socket) -> str:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


def test_accepted_connections_have_the_congestion_control_and_other_sockets_keep_theirs() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        before = control(other)
        assert tune_listeners(server.getsockname()[1], "reno") == 1
        with socket.create_connection(server.getsockname()) as client:
            accepted, _ = server.accept()
            with accepted:
                assert control(accepted) == "reno"
                assert control(client) == before
        assert control(other) == before


def test_the_system_s_own_is_left_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        before = control(server)
        tune_listeners(server.getsockname()[1], "system")
        assert control(server) == before


@pytest.mark.orthanc
def test_orthanc_answers_with_the_configured_one(make_server: MakeServer) -> None:
    server = make_server("reno", configuration={"Transfers": {"CongestionControl": "reno"}}).start()
    with socket.create_connection(("127.0.0.1", server.http_port)) as client:
        client.sendall(b"GET /system HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n")
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
