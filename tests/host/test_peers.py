"""The peers of a real Orthanc, reached over our own transport or through Orthanc's client."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.host.conftest import with_script
from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import OrthancServer
from tests.support.ports import free_port

pytestmark = pytest.mark.orthanc

MakeHost = Callable[..., OrthancServer]

USER = "me"
PASSWORD = "s3cret-of-this-peer"

OURS = "RequestsTransport"
ORTHANCS = "OrthancTransport"


@pytest.fixture(scope="module")
def target(make_shared_server: MakeServer) -> OrthancServer:
    """The other side: wants a user and a password, and echoes what it is asked."""
    return with_script(make_shared_server, "target", user=USER, password=PASSWORD).start()


@pytest.fixture(params=[False, True], ids=["in memory", "in the database"])
def source(request: pytest.FixtureRequest, make_host: MakeHost) -> OrthancServer:
    """This side, without peers: Orthanc keeps those set at run time in memory or in its database."""
    return make_host("source", OrthancPeersInDatabase=request.param).start()


def in_database(source: OrthancServer) -> bool:
    return bool(source.configuration["OrthancPeersInDatabase"])


def call(
    source: OrthancServer,
    peer: str,
    method: str = "GET",
    path: str = "/host/echo/abc",
    pieces: Sequence[str] = (),
    **options: Any,
) -> dict[str, Any]:
    """What ``connect`` and ``request`` gave inside ``source``."""
    wanted = {"peer": peer, "method": method, "path": path, "pieces": pieces, "headers": {}, **options}
    outcome: dict[str, Any] = source.post("host/peer", wanted)
    return outcome


def echoed(outcome: dict[str, Any]) -> Any:
    return json.loads(outcome["body"])


def test_peers_of_the_configuration_are_reached_over_our_transport_in_all_spellings(
    make_host: MakeHost, target: OrthancServer
) -> None:
    source = make_host(
        "source",
        OrthancPeers={
            "array": [target.url, USER, PASSWORD],
            "object": {"Url": target.url, "Username": USER, "Password": PASSWORD, "HttpHeaders": {"A": "b"}},
            "remote-self": {"Url": target.url, "Username": USER, "Password": PASSWORD, "RemoteSelf": "here"},
        },
    ).start()
    assert source.get("host/peers") == {"array": None, "object": None, "remote-self": "here"}
    for peer in ("array", "object", "remote-self"):
        assert call(source, peer)["transport"] == OURS
    assert echoed(call(source, "object"))["headers"]["a"] == "b"


def test_a_peer_set_at_run_time_is_known_at_once_with_its_password(
    source: OrthancServer, target: OrthancServer
) -> None:
    source.put(
        "peers/late", {"Url": target.url, "Username": USER, "Password": PASSWORD, "RemoteSelf": "me too"}
    )
    assert source.get("host/peers") == {"late": "me too"}
    outcome = call(source, "late", "POST", pieces=["one", "two"], headers={"sender-transfer-id": "42"})
    assert outcome["transport"] == (ORTHANCS if in_database(source) else OURS)
    assert echoed(outcome)["size"] == 6
    assert echoed(outcome)["headers"]["sender-transfer-id"] == "42"
    assert echoed(outcome)["headers"]["content-type"] == "application/octet-stream"
    assert outcome["headers"]["content-type"] == "application/json"


def test_a_password_changed_at_run_time_is_used_from_then_on(
    source: OrthancServer, target: OrthancServer
) -> None:
    source.put("peers/late", {"Url": target.url, "Username": USER, "Password": "wrong"})
    refused = call(source, "late")
    assert (refused["error"], refused["status"]) == ("PeerStatus", 401)
    assert "check the user and the password" in refused["text"]
    source.put("peers/late", {"Url": target.url, "Username": USER, "Password": PASSWORD})
    assert echoed(call(source, "late"))["method"] == "GET"


def test_headers_set_at_run_time_are_sent(source: OrthancServer, target: OrthancServer) -> None:
    source.put(
        "peers/late",
        {"Url": target.url, "Username": USER, "Password": PASSWORD, "HttpHeaders": {"X-Secret": "hidden"}},
    )
    assert echoed(call(source, "late"))["headers"]["x-secret"] == "hidden"


def test_a_peer_without_secrets_is_reached_over_our_transport(
    source: OrthancServer, host: OrthancServer
) -> None:
    source.put("peers/open", {"Url": host.url, "RemoteSelf": "x"})
    assert call(source, "open")["transport"] == OURS


def test_a_peer_that_needs_pkcs11_is_reached_through_orthancs_client(
    source: OrthancServer, host: OrthancServer
) -> None:
    # Debian's Orthanc is made without PKCS#11: what matters is who says so.
    source.put("peers/token", {"Url": host.url, "Pkcs11": True})
    outcome = call(source, "token")
    assert outcome["error"] == "PeerUnreachable"
    assert "Orthanc's own client" in outcome["text"]


def test_a_peer_deleted_at_run_time_is_unknown(source: OrthancServer, target: OrthancServer) -> None:
    source.put("peers/late", [target.url])
    source.delete("peers/late")
    assert source.get("host/peers") == {}
    gone = call(source, "late")
    assert gone["error"] == "UnknownPeer"
    assert "'late'" in gone["text"]


@pytest.fixture
def hidden(make_host: MakeHost, target: OrthancServer) -> OrthancServer:
    """A server whose one peer can only be reached through Orthanc's own client."""
    source = make_host("hidden", OrthancPeersInDatabase=True).start()
    source.put("peers/late", {"Url": target.url, "Username": USER, "Password": PASSWORD})
    return source


@pytest.mark.parametrize(("method", "pieces"), [("GET", []), ("PUT", ["ab", "c", "def"]), ("POST", ["abc"])])
def test_orthancs_client_carries_each_method_and_its_pieces(
    hidden: OrthancServer, method: str, pieces: list[str]
) -> None:
    outcome = call(hidden, "late", method, pieces=pieces)
    assert outcome["transport"] == ORTHANCS
    assert (echoed(outcome)["method"], echoed(outcome)["size"]) == (method, len("".join(pieces)))


def test_orthancs_client_can_delete(hidden: OrthancServer) -> None:
    assert "error" not in call(hidden, "late", "DELETE")


@pytest.mark.parametrize(
    ("error", "status"), [("Busy", 503), ("NotFound", 404), ("Conflict", 409), ("WrongSize", 500)]
)
def test_a_status_that_is_not_200_is_told(hidden: OrthancServer, error: str, status: int) -> None:
    outcome = call(hidden, "late", path=f"/host/errors/{error}")
    assert (outcome["error"], outcome["status"]) == ("PeerStatus", status)
    assert "'late'" in outcome["text"]


def test_a_response_beyond_the_limit_is_not_taken(hidden: OrthancServer) -> None:
    assert call(hidden, "late", limit=10)["error"] == "PeerInvalidResponse"


def test_a_peer_that_is_not_there_cannot_be_reached(hidden: OrthancServer) -> None:
    hidden.put("peers/gone", [f"http://127.0.0.1:{free_port()}/", USER, PASSWORD])
    outcome = call(hidden, "gone")
    assert outcome["error"] == "PeerUnreachable"
    assert "'gone'" in outcome["text"]


def test_no_secret_is_ever_shown(source: OrthancServer, target: OrthancServer) -> None:
    address = target.url.replace("http://", f"http://{USER}:{PASSWORD}@")
    source.put("peers/late", {"Url": target.url, "Username": USER, "Password": PASSWORD})
    source.put("peers/within", {"Url": address})
    said = [
        call(source, peer, path=path)
        for peer in ("late", "within")
        for path in ("/host/echo/abc", "/host/errors/Busy", "/nowhere")
    ]
    for outcome in said:
        assert PASSWORD not in str({**outcome, "body": ""})
    ours = [line for line in source.log.splitlines() if "transfers" in line]
    assert not [line for line in ours if PASSWORD in line]
