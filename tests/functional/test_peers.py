"""Every way to configure a peer, and every way to reach it; secrets stay secret."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.certificates import make_certificate, make_client_certificate
from tests.support.dicom_data import small_instances
from tests.support.fixtures import MakeServer
from tests.support.forward_proxy import ForwardProxy
from tests.support.orthanc_client import StatusError, resource
from tests.support.orthanc_server import OrthancServer, start_together
from tests.support.ports import free_port
from tests.support.recording_proxy import RecordingProxy

pytestmark = pytest.mark.orthanc

USER = "alice"
PASSWORD = "wonderland-é"
WRONG = "looking-glass"
TOKEN = "token-of-the-gateway"
KEY_PASSWORD = "password-of-the-key"
LOGIN = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
PROXY_PASSWORD = "password-of-the-proxy"
SECRETS = (PASSWORD, WRONG, TOKEN, KEY_PASSWORD, PROXY_PASSWORD, LOGIN)

ADMIT = "proxy_set_header Authorization 'Basic {login}';"

# An answer that never comes: to the bytes of a push, and to nothing else.
STALL = r"location ~ ^/transfers/v2/push/(?:whole|[^/]+/[0-9]+/) {{ proxy_pass http://127.0.0.1:{port}; }}"

PATIENCE = {"MaxOutage": 0, "MaxHttpRetries": 0}


@dataclass(frozen=True)
class World:
    """``b`` wants a login; the others reach it: ``a`` in many ways, ``behind`` through a proxy without
    looking at certificates, ``database`` keeps its peers in its database."""

    a: OrthancServer
    b: OrthancServer
    behind: OrthancServer
    database: OrthancServer
    recorder: RecordingProxy
    forward_proxy: ForwardProxy
    proxies: dict[str, RecordingProxy]


@pytest.fixture(scope="module")
def shared(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("peers")
    certificate = make_certificate(folder)
    stranger = make_certificate(folder, "stranger")
    client, key = make_client_certificate(folder, certificate, KEY_PASSWORD)
    b = make_shared_server("b", user=USER, password=PASSWORD)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        RecordingProxy(folder / "plain", b, headers=("x-token",)) as recorder,
        RecordingProxy(folder / "open", b, location=ADMIT.format(login=LOGIN)) as admitting,
        RecordingProxy(folder / "slow", b, server=STALL.format(port=silent.getsockname()[1])) as stalling,
        RecordingProxy(folder / "https", b, certificate=certificate) as https,
        RecordingProxy(
            folder / "strict",
            b,
            certificate=certificate,
            server=f"ssl_verify_client on; ssl_client_certificate {certificate};",
        ) as strict,
        RecordingProxy(folder / "stranger", b, certificate=stranger) as unknown,
        ForwardProxy() as forward_proxy,
    ):
        login = {"Username": USER, "Password": PASSWORD}
        certified = {
            "Url": strict.url,
            "CertificateFile": str(client),
            "CertificateKeyFile": str(key),
            **login,
        }
        a = make_shared_server(
            "a",
            verbose=True,
            configuration={
                "Transfers": PATIENCE,
                "HttpTimeout": 6,
                "HttpsCACertificates": str(certificate),
                "OrthancPeers": {
                    "bare": [admitting.url],
                    "bare-without-scheme": [admitting.url.removeprefix("http://")],
                    "login": [recorder.url, USER, PASSWORD],
                    "object": {"Url": recorder.url.rstrip("/"), **login},
                    "capital": {"URL": recorder.url, **login, "Anything": "else"},
                    "half-a-login": {"Url": recorder.url, "Username": USER, "Password": ""},
                    "headers": {"Url": recorder.url, **login, "HttpHeaders": {"X-Token": TOKEN}},
                    "by-header": {"Url": recorder.url, "HttpHeaders": {"Authorization": f"Basic {LOGIN}"}},
                    "patient": {"Url": stalling.url, **login},
                    "impatient": {"Url": stalling.url, **login, "Timeout": 1},
                    "https": {"Url": https.url, **login},
                    "stranger": {"Url": unknown.url, **login},
                    "certified": {**certified, "CertificateKeyPassword": KEY_PASSWORD},
                    "badly-certified": {**certified, "CertificateKeyPassword": WRONG},
                    "uncertified": {"Url": strict.url, **login},
                    "wrong-password": {"Url": recorder.url, "Username": USER, "Password": WRONG},
                    "nowhere": {"Url": f"http://{USER}:{WRONG}@127.0.0.1:{free_port()}/"},
                },
            },
        )
        behind = make_shared_server(
            "behind",
            verbose=True,
            configuration={
                "Transfers": PATIENCE,
                "HttpsVerifyPeers": False,
                "HttpProxy": f"http://clerk:{PROXY_PASSWORD}@{forward_proxy.address}",
                "OrthancPeers": {
                    "http": {"Url": recorder.url, **login},
                    "https": {"Url": unknown.url, **login},
                },
            },
        )
        database = make_shared_server(
            "database",
            verbose=True,
            configuration={
                "Transfers": PATIENCE,
                "OrthancPeersInDatabase": True,
                "HttpsCACertificates": str(certificate),
            },
        )
        start_together(a, b, behind, database)
        proxies = {"https": https, "strict": strict, "stranger": unknown, "open": admitting}
        yield World(a, b, behind, database, recorder, forward_proxy, proxies)


@pytest.fixture
def world(shared: World) -> World:
    """The same servers for all tests of this file, empty at the start of each."""
    for server in (shared.a, shared.b, shared.behind, shared.database):
        server.clear()
    for recorder in (shared.recorder, *shared.proxies.values()):
        recorder.forget()
    shared.forward_proxy.asked.clear()
    return shared


def there_and_back(server: OrthancServer, b: OrthancServer, peer: str) -> None:
    """Push something to the peer, and fetch it again."""
    (stored,) = server.upload_all(small_instances(1))
    resources = [resource("Instance", stored["ID"])]
    before = server.md5s()
    job = server.wait_for_job(server.send(resources, peer)["ID"])
    assert job["State"] == "Success", job
    assert b.md5s() == before
    server.clear()
    job = server.wait_for_job(server.pull(resources, peer)["ID"])
    assert job["State"] == "Success", job
    assert server.md5s() == before


def error_of_push(server: OrthancServer, peer: str) -> str:
    (stored,) = server.upload_all(small_instances(1))
    job = server.wait_for_job(server.send([resource("Instance", stored["ID"])], peer)["ID"])
    assert job["State"] == "Failure", job
    return str(job["Content"]["Error"])


# -- Spellings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "peer", ["bare", "bare-without-scheme", "login", "object", "capital", "headers", "by-header"]
)
def test_a_peer_is_reached_however_it_is_written_down(world: World, peer: str) -> None:
    there_and_back(world.a, world.b, peer)


def test_which_peers_have_the_plugin_is_asked_as_each_of_them_wants_it(world: World) -> None:
    peers = world.a.get("transfers/peers")
    assert set(peers) == set(world.a.configuration["OrthancPeers"])
    disabled = {"half-a-login", "stranger", "badly-certified", "uncertified", "wrong-password", "nowhere"}
    assert {name for name, said in peers.items() if said == "disabled"} == disabled
    assert {said for name, said in peers.items() if name not in disabled} == {"installed"}


def test_half_a_login_is_none(world: World) -> None:
    assert "401" in error_of_push(world.a, "half-a-login")
    assert world.recorder.requests
    assert {seen.authorization for seen in world.recorder.requests} == {""}


def test_the_headers_of_a_peer_are_on_all_its_requests(world: World) -> None:
    there_and_back(world.a, world.b, "headers")
    assert world.a.get("transfers/peers")["headers"] == "installed"
    seen = [one for one in world.recorder.requests if one.authorization == f"Basic {LOGIN}"]
    paths = {one.uri.split("/")[-1] for one in seen if one.headers == TOKEN}
    assert {"whole", "lookup", "plugins"} <= paths
    transfer = [one for one in seen if one.transfer]
    assert transfer
    assert {one.headers for one in transfer} == {TOKEN}


@pytest.mark.parametrize(("peer", "seconds"), [("impatient", 1), ("patient", 6)])
def test_an_answer_is_waited_for_as_long_as_the_peer_says_or_else_orthanc(
    world: World, peer: str, seconds: int
) -> None:
    error = error_of_push(world.a, peer)
    assert f"timed out after {seconds} s" in error
    assert f"'{peer}'" in error


# -- HTTPS ---------------------------------------------------------------------------------------------


def test_https_with_an_authority_of_ones_own(world: World) -> None:
    there_and_back(world.a, world.b, "https")


def test_a_client_certificate_with_an_encrypted_key(world: World) -> None:
    there_and_back(world.a, world.b, "certified")


def test_without_its_certificate_a_client_is_refused(world: World) -> None:
    error = error_of_push(world.a, "uncertified")
    assert "'uncertified'" in error
    assert "400" in error


def test_a_wrong_password_of_a_key_is_told_without_the_password(world: World) -> None:
    error = error_of_push(world.a, "badly-certified")
    assert "badly-certified" in error
    assert "password of the key" in error
    assert WRONG not in error


def test_a_certificate_of_a_stranger_is_refused(world: World) -> None:
    assert "certificate" in error_of_push(world.a, "stranger")
    assert world.b.instances() == []


# -- Proxies -------------------------------------------------------------------------------------------


def test_plain_requests_are_forwarded_by_the_proxy(world: World) -> None:
    there_and_back(world.behind, world.b, "http")
    asked = {target for method, target in world.forward_proxy.asked if method == "POST"}
    assert asked
    assert all(target.startswith(world.recorder.url) for target in asked)
    assert {method for method, _ in world.forward_proxy.asked} == {"GET", "POST"}
    expected = base64.b64encode(f"clerk:{PROXY_PASSWORD}".encode()).decode()
    assert world.forward_proxy.authorizations == {f"Basic {expected}"}


def test_encrypted_requests_are_tunneled_by_the_proxy_and_any_certificate_will_do(world: World) -> None:
    there_and_back(world.behind, world.b, "https")
    port = world.proxies["stranger"].port
    assert set(world.forward_proxy.asked) == {("CONNECT", f"127.0.0.1:{port}")}


# -- Peers that come and go ----------------------------------------------------------------------------


def test_a_peer_set_at_run_time_works_at_once_and_so_does_its_change(world: World) -> None:
    world.a.put("peers/new", {"Url": world.recorder.url, "Username": USER, "Password": PASSWORD})
    there_and_back(world.a, world.b, "new")
    world.a.put("peers/new", {"Url": world.recorder.url, "Username": USER, "Password": WRONG})
    assert "401" in error_of_push(world.a, "new")
    world.a.put("peers/new", {"Url": world.proxies["open"].url, "RemoteSelf": "any"})
    assert world.a.get("transfers/peers")["new"] == "bidirectional"
    world.a.delete("peers/new")
    with pytest.raises(StatusError) as caught:
        world.a.send([], "new")
    assert caught.value.status == 404


def test_peers_in_the_database_are_reached_with_credentials_that_only_orthanc_knows(world: World) -> None:
    server = world.database
    server.put("peers/with-login", {"Url": world.recorder.url, "Username": USER, "Password": PASSWORD})
    server.put("peers/without", {"Url": world.proxies["open"].url})
    server.put("peers/wrong", {"Url": world.recorder.url, "Username": USER, "Password": WRONG})
    assert PASSWORD not in str(server.get("peers?expand"))
    for peer in ("with-login", "without"):
        there_and_back(server, world.b, peer)
        server.clear()
        world.b.clear()
    assert "401" in error_of_push(server, "wrong")
    assert server.get("transfers/peers") == {
        "with-login": "installed",
        "without": "installed",
        "wrong": "disabled",
    }
    # They are still there after a restart.
    server.clear()
    server.restart()
    there_and_back(server, world.b, "with-login")


def test_a_peer_in_the_database_may_have_a_client_certificate(world: World) -> None:
    server = world.database
    # As the configuration of another server has it.
    certified = world.a.configuration["OrthancPeers"]["certified"]
    server.put("peers/certified", certified)
    there_and_back(server, world.b, "certified")
    server.put("peers/certified", {**certified, "CertificateKeyPassword": WRONG})
    server.clear()
    assert "certified" in error_of_push(server, "certified")
    server.delete("peers/certified")


# -- Secrets -------------------------------------------------------------------------------------------


def test_no_secret_is_in_a_log_or_in_a_job(world: World) -> None:
    world.database.put("peers/wrong", {"Url": world.recorder.url, "Username": USER, "Password": WRONG})
    errors = [
        error_of_push(world.a, peer)
        for peer in (
            "wrong-password",
            "badly-certified",
            "uncertified",
            "stranger",
            "nowhere",
            "half-a-login",
        )
    ]
    errors.append(error_of_push(world.database, "wrong"))
    world.a.clear()
    there_and_back(world.a, world.b, "headers")
    world.b.clear()
    there_and_back(world.behind, world.b, "http")
    proxy_of_orthanc = world.behind.configuration["HttpProxy"]
    told: dict[str, Any] = {"errors": json.dumps(errors, ensure_ascii=False)}
    for server in (world.a, world.b, world.behind, world.database):
        told[f"jobs of {server.name}"] = json.dumps(server.get("jobs?expand"), ensure_ascii=False)
        # Orthanc itself tells at its start which proxy it uses, password included.
        told[f"log of {server.name}"] = server.log.replace(proxy_of_orthanc, "")
    for where, text in told.items():
        for secret in SECRETS:
            assert secret not in text, f"in the {where}"
