"""What the routes of users refuse: values of a wrong type, names that nobody knows, requests of other sites."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.dicom_data import small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer
from tests.support.ports import free_port

pytestmark = pytest.mark.orthanc

CHANGES = {
    "transfers/find": "POST",
    "transfers/actions": "POST",
    "transfers/settings": "PUT",
    "transfers/peers/down/measure": "POST",
    "transfers/rules": "POST",
}
"""The routes of the page and of scripts that change something, or ask others; their requests are JSON."""

KNOWN_TO_CLIENTS = ["transfers/send", "transfers/pull"]
"""Clients send any content type to these."""

FORMS = ["application/x-www-form-urlencoded", "text/plain"]
MULTIPART = {"Content-Type": "multipart/form-data; boundary=x"}
"""What a form can send, too. Orthanc takes it for an upload, and answers by itself."""

JSON = {"Content-Type": "application/json"}

NO_REQUEST = [
    None,
    5,
    "x",
    True,
    [],
    [{}],
    {"Peer": 5},
    {"Resources": "x"},
    {"Query": []},
    {"Action": {}},
    {"Bandwidth": []},
]


@pytest.fixture(scope="module")
def server(make_shared_server: MakeServer) -> OrthancServer:
    server = make_shared_server("a")
    server.configuration["OrthancPeers"]["down"] = {"Url": f"http://127.0.0.1:{free_port()}/"}
    return server.start()


@pytest.fixture(autouse=True)
def nothing_begins(server: OrthancServer) -> Any:
    before = server.get("jobs"), server.get("transfers/settings"), server.get("transfers/rules")
    yield
    assert (server.get("jobs"), server.get("transfers/settings"), server.get("transfers/rules")) == before


def refused(server: OrthancServer, method: str, path: str, *statuses: int, **request: Any) -> str:
    """The sentence that says why."""
    answer = server.request(method, path, **request)
    assert answer.status_code in statuses, (path, answer.status_code, answer.text)
    sentence = str(answer.json()["Details"])
    assert 0 < len(sentence) < 500, path
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize("path", [*(path for path in CHANGES if "measure" not in path), *KNOWN_TO_CLIENTS])
def test_what_has_a_wrong_type_is_refused_in_one_sentence(server: OrthancServer, path: str) -> None:
    for body in NO_REQUEST:
        if path == "transfers/find" and body in ({"Action": {}}, {"Resources": "x"}, {"Bandwidth": []}):
            continue  # all studies are asked for: keys that it does not know are ignored
        text = json.dumps(body).encode()
        refused(server, CHANGES.get(path, "POST"), path, 400, 404, data=text, headers=JSON)


@pytest.mark.parametrize("path", CHANGES)
def test_a_page_of_another_site_changes_nothing(server: OrthancServer, path: str) -> None:
    method = CHANGES[path]
    for headers in ({}, *({"Content-Type": form} for form in FORMS)):
        sentence = refused(server, method, path, 415, data=b"{}", headers=headers)
        assert "Content-Type: application/json" in sentence
    server.request(method, path, data=b"{}", headers=MULTIPART)
    for said in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        refused(server, method, path, 403, json={}, headers=said)


@pytest.mark.parametrize("path", KNOWN_TO_CLIENTS)
def test_a_form_of_another_site_starts_no_transfer(server: OrthancServer, path: str) -> None:
    (stored,) = server.upload_all(small_instances(1))
    body = {"Resources": [resource("Study", stored["ParentStudy"])], "Peer": "down"}
    text, foreign = json.dumps(body).encode(), {"Origin": "https://evil.example"}
    for form in FORMS:
        refused(server, "POST", path, 403, data=text, headers={"Content-Type": form, **foreign})
    server.request("POST", path, data=text, headers={**MULTIPART, **foreign})


def test_names_that_nobody_knows_are_said_so(server: OrthancServer) -> None:
    unknown = "-".join(["00000000"] * 5)
    one = {"Resources": [resource("Study", unknown)], "Peer": "<script>alert(1)</script>"}
    for path in KNOWN_TO_CLIENTS:
        assert "there is no peer" in refused(server, "POST", path, 404, json=one)
    refused(server, "POST", "transfers/send", 404, json={"Resources": [unknown], "Peer": "down"})
    assert "there is no peer" in refused(server, "POST", "transfers/find", 404, json={"Peer": "<script>"})
    refused(server, "POST", "transfers/peers/%3Cscript%3E/measure", 404, json={})
    refused(server, "GET", f"transfers/reports/{unknown}", 404)
    (result,) = server.post("transfers/actions", {"Action": "cancel", "IDs": ["<script>"]})["Results"]
    assert "there is no transfer" in result["Error"]
    assert server.get("transfers/status", params={"id": unknown})["Total"] == 0
