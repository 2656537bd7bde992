"""Which certificates are accepted, and how this server shows its own."""

from __future__ import annotations

import ssl
import warnings
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from orthanc_transfers.core.errors import (
    ConfigurationError,
    PeerError,
    PeerUntrusted,
)
from orthanc_transfers.interfaces import PeerRequest
from orthanc_transfers.net import tls as peer_tls
from orthanc_transfers.net.peer_connections import KeptConnections
from orthanc_transfers.net.requests_transport import RequestsTransport
from tests.net.peers import Connect, server_tls
from tests.support.certificates import make_certificate


def test_a_certificate_is_checked_with_the_configured_authorities(
    serve: Any, connect: Connect, certificate: Path, tmp_path: Path
) -> None:
    server = serve(tls=server_tls(certificate))
    other = make_certificate(tmp_path, "other")

    assert connect(server.url, verify=str(certificate)).send(PeerRequest("GET", "/")).body == b"{}"
    for verify in (True, str(other)):
        with pytest.raises(PeerUntrusted, match="certificate verify failed: ") as raised:
            connect(server.url, verify=verify).send(PeerRequest("GET", "/"))
        assert not raised.value.retryable
        assert isinstance(raised.value, PeerError)


# An address of the same server that is not in its certificate.
ELSEWHERE = "https://127.1"


def test_a_certificate_for_another_host_is_refused(serve: Any, connect: Connect, certificate: Path) -> None:
    server = serve(tls=server_tls(certificate))
    with pytest.raises(PeerUntrusted, match="mismatch"):
        connect(f"{ELSEWHERE}:{server.port}", verify=str(certificate)).send(PeerRequest("GET", "/"))


def test_without_verification_every_certificate_is_taken_without_a_warning(
    serve: Any, connect: Connect, certificate: Path
) -> None:
    server = serve(tls=server_tls(certificate))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transport = connect(f"{ELSEWHERE}:{server.port}", verify=False)
        assert transport.send(PeerRequest("GET", "/")).body == b"{}"


def test_http_where_https_is_expected_is_hopeless(serve: Any, connect: Connect) -> None:
    with pytest.raises(PeerUntrusted, match="wrong version number"):
        connect(serve().url.replace("http", "https")).send(PeerRequest("GET", "/"))


def client_key(certificate: Path, password: str) -> Path:
    """The key of a PEM file, encrypted."""
    key = serialization.load_pem_private_key(certificate.read_bytes(), None)
    file = certificate.with_suffix(".key")
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password.encode()),
        )
    )
    return file


def test_a_client_certificate_with_an_encrypted_key_is_shown_to_the_peer(
    serve: Any, connect: Connect, certificate: Path, tmp_path: Path
) -> None:
    client = make_certificate(tmp_path, "client")
    tls = server_tls(certificate)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(client)
    server = serve(tls=tls)
    key = client_key(client, "swordfish")
    transport = connect(
        server.url,
        verify=str(certificate),
        certificate_file=str(client),
        certificate_key_file=str(key),
        certificate_key_password="swordfish",
    )

    assert transport.send(PeerRequest("GET", "/")).body == b"{}"
    with pytest.raises(PeerUntrusted, match="certificate required"):
        connect(server.url, verify=str(certificate)).send(PeerRequest("GET", "/"))


@pytest.mark.parametrize("password", ["", "marlin"])
def test_a_wrong_password_of_a_key_is_said_without_saying_it(
    connect: Connect, certificate: Path, password: str
) -> None:
    key = client_key(certificate, "swordfish")
    with pytest.raises(ConfigurationError, match="'far'") as raised:
        connect(
            "https://127.0.0.1",
            certificate_file=str(certificate),
            certificate_key_file=str(key),
            certificate_key_password=password,
        )

    assert "marlin" not in str(raised.value)


def test_authorities_that_cannot_be_read_are_named(connect: Connect, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing\.pem.*no such file"):
        connect("https://127.0.0.1", verify=str(tmp_path / "missing.pem"))


def test_what_only_orthanc_can_do_is_refused(connect: Connect) -> None:
    with pytest.raises(ConfigurationError, match="PKCS#11"):
        connect("https://127.0.0.1", pkcs11=True)


@pytest.fixture
def resumed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each connection of a client, whether it resumed a session."""
    found: list[bool] = []
    handshake = ssl.SSLSocket.do_handshake

    def watched(sock: ssl.SSLSocket, block: bool = False) -> None:
        handshake(sock, block)
        if not sock.server_side:
            found.append(bool(sock.session_reused))

    monkeypatch.setattr(ssl.SSLSocket, "do_handshake", watched)
    return found


# Each response ends its connection.
CLOSING = PeerRequest("GET", "/", headers={"Connection": "close"})


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_second_connection_resumes_the_session_of_the_first(
    serve: Any, connect: Connect, certificate: Path, resumed: list[bool], version: ssl.TLSVersion
) -> None:
    tls = server_tls(certificate)
    tls.minimum_version = tls.maximum_version = version
    server = serve(tls=tls)
    transport = connect(server.url, verify=str(certificate))
    for _ in range(3):
        assert transport.send(CLOSING).body == b"{}"
    assert resumed == [False, True, True]
    # Another peer's trust is its own.
    with pytest.raises(PeerUntrusted):
        connect(server.url, verify=True).send(PeerRequest("GET", "/"))


def test_jobs_share_the_sessions_with_a_peer_also_once_no_connection_is_left(
    serve: Any, connect: Connect, certificate: Path
) -> None:
    tls, kept = server_tls(certificate), KeptConnections()
    server = serve(tls=tls)

    def job() -> RequestsTransport:
        return connect(server.url, verify=str(certificate), kept=kept)

    first, beside = job(), job()
    for transport in (first, beside):
        assert transport.send(CLOSING).body == b"{}"
        transport.close()
    # Both are taken away: nothing that was left is found by the last one.
    for transport in [job() for _ in range(3)]:
        assert transport.send(CLOSING).body == b"{}"
    stats = tls.session_stats()
    assert (stats["accept_good"], stats["hits"]) == (5, 4)


def test_certificates_that_were_renewed_are_read_a_minute_later(
    serve: Any, connect: Connect, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, authorities = KeptConnections(), certificate.with_name("authorities.pem")
    authorities.write_bytes(certificate.read_bytes())
    server = serve(tls=server_tls(certificate))
    connect(server.url, verify=str(authorities), kept=kept).send(CLOSING)
    authorities.write_bytes(make_certificate(certificate.parent, "other").read_bytes())
    connect(server.url, verify=str(authorities), kept=kept).send(CLOSING)
    monkeypatch.setattr(peer_tls, "MAX_AGE", 0.0)
    with pytest.raises(PeerUntrusted):
        connect(server.url, verify=str(authorities), kept=kept).send(CLOSING)


def test_no_session_is_resumed_where_a_client_certificate_is_shown(
    serve: Any, connect: Connect, certificate: Path, resumed: list[bool], tmp_path: Path
) -> None:
    client = make_certificate(tmp_path, "client")
    tls = server_tls(certificate)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(client)
    transport = connect(serve(tls=tls).url, verify=str(certificate), certificate_file=str(client))
    for _ in range(3):
        assert transport.send(CLOSING).body == b"{}"
    assert resumed == [False] * 3
