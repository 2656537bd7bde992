"""Requests that a node sends to another one as they came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.core.errors import PeerUnreachable
from orthanc_transfers.net.relay import Relay
from tests.net.peers import server_tls
from tests.net.scripted import ScriptedServer, well
from tests.support.certificates import make_certificate


def relayed(server: ScriptedServer, relay: Relay | None = None, **more: Any) -> bytes:
    """The head of the request, as the other node gets it."""
    given = {"query": {}, "headers": {}, **more}
    answer = (relay or Relay(1)).send(
        server.url, "GET", "/transfers/status", body=memoryview(b""), timeout=10.0, **given
    )
    assert (answer.status, answer.body) == (200, b"{}")
    return server.heads[0]


def test_headers_arrive_as_they_came_in_any_script(script: Any) -> None:
    # As Orthanc gives them: UTF-8, decoded.
    names = {"x-forwarded-user": "Łukasz Müller 山田", "x-other": "plain"}
    head = relayed(script(well), headers=names)
    assert "x-forwarded-user: Łukasz Müller 山田\r\n".encode() in head
    assert b"x-other: plain\r\n" in head


def test_arguments_arrive_as_they_came(script: Any) -> None:
    # Orthanc gives them to plugins still encoded.
    query = {"text": "M%C3%BCller+a%20b", "limit": "50"}
    assert relayed(script(well), query=query).startswith(
        b"GET /transfers/status?text=M%C3%BCller+a%20b&limit=50 HTTP/1.1\r\n"
    )


def test_no_node_compresses_for_another(script: Any) -> None:
    # Orthanc would, and again before the client gets it.
    head = relayed(script(well), headers={"accept-encoding": "gzip, deflate"})
    assert b"accept-encoding: identity\r\n" in head.lower()
    assert b"gzip" not in head


def test_certificates_are_verified_where_authorities_are_given(
    script: Any, certificate: Path, tmp_path: Path
) -> None:
    server, other = script(well, tls=server_tls(certificate)), make_certificate(tmp_path, "other")
    relayed(server)
    relayed(server, Relay(1, str(certificate)))
    with pytest.raises(PeerUnreachable, match="certificate verify failed"):
        relayed(server, Relay(1, str(other)))


def test_authorities_may_be_a_folder(script: Any, certificate: Path, tmp_path: Path) -> None:
    server = script(well, tls=server_tls(certificate))
    with pytest.raises(PeerUnreachable, match="certificate verify failed"):
        relayed(server, Relay(1, str(tmp_path)))


def test_connections_to_many_nodes_are_kept(script: Any) -> None:
    relay, nodes = Relay(1), [script(well) for _ in range(20)]
    for _ in range(3):
        for node in nodes:
            relayed(node, relay)
    assert {node.connections for node in nodes} == {1}
