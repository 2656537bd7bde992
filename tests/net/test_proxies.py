"""Requests through a proxy."""

from __future__ import annotations

import select
import socket
from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.core.errors import (
    PeerUnreachable,
)
from orthanc_transfers.interfaces import PeerRequest
from orthanc_transfers.net import connections
from tests.net.peers import Connect, server_tls
from tests.net.scripted import OK, Connection, answering


def forwarding(connection: Connection) -> None:
    """A proxy: answers plain requests itself, and opens tunnels."""
    while head := connection.request():
        method, target = head.split()[:2]
        if method != b"CONNECT":
            connection.send(OK)
            continue
        host, _, port = target.decode().partition(":")
        connection.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection((host, int(port))) as onward:
            while True:
                for ready in select.select([connection.sock, onward], [], [])[0]:
                    data = ready.recv(1 << 16)
                    if not data:
                        return
                    (onward if ready is connection.sock else connection.sock).sendall(data)


@pytest.mark.parametrize("spelling", ["127.0.0.1:{}", "http://me:secret@127.0.0.1:{}"])
def test_plain_requests_go_through_the_proxy(script: Any, connect: Connect, spelling: str) -> None:
    proxy = script(forwarding)
    transport = connect("http://peer.invalid:8042/x", proxy=spelling.format(proxy.port))
    transport.send(PeerRequest("PUT", "/1", body=[b"x"]))
    transport.send(PeerRequest("PUT", "/2", body=[b"x"]))

    assert [head.split()[1] for head in proxy.heads] == [
        b"http://peer.invalid:8042/x/1",
        b"http://peer.invalid:8042/x/2",
    ]
    assert proxy.connections == 1
    assert (b"Proxy-Authorization: Basic" in proxy.heads[0]) == ("secret" in spelling)


def test_encrypted_requests_go_through_a_tunnel(
    script: Any, serve: Any, connect: Connect, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_IDLE_UNREPEATABLE", 0.0)
    server = serve(tls=server_tls(certificate))
    proxy = script(forwarding)
    transport = connect(server.url, proxy=f"me:secret@127.0.0.1:{proxy.port}", verify=str(certificate))
    for method in ("PUT", "PUT", "POST"):
        transport.send(PeerRequest(method, "/", body=[b"x"]))

    assert len(server.asked) == 3
    # The POST did not trust the tunnel that had been used.
    assert [head.split()[0] for head in proxy.heads] == [b"CONNECT", b"CONNECT"]
    assert all(b"Proxy-Authorization: Basic" in head for head in proxy.heads)
    assert "proxy-authorization" not in server.asked[0].headers


def test_a_proxy_that_is_unreachable_or_refuses_is_named_as_such(script: Any, connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(PeerUnreachable, match="through the proxy: connection refused") as raised:
        connect("http://peer.invalid", proxy=f"me:secret@127.0.0.1:{port}").send(PeerRequest("GET", "/"))
    assert "secret" not in str(raised.value)

    refusing = script(answering(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"))
    with pytest.raises(PeerUnreachable, match=r"through the proxy: .*407"):
        connect("https://peer.invalid", proxy=f"127.0.0.1:{refusing.port}").send(PeerRequest("GET", "/"))
