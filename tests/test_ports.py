"""The ports of the servers that tests start."""

from __future__ import annotations

import socket

from tests.support.orthanc_server import free_port


def test_outgoing_connections_take_no_port_of_a_server_that_is_to_start_or_is_stopped() -> None:
    ports = {free_port() for _ in range(50)}
    with socket.socket() as outgoing:
        outgoing.bind(("127.0.0.1", 0))  # as the kernel does for them
        assert max(ports) < outgoing.getsockname()[1]
    assert len(ports) == 50
