"""The page's routes on real Orthancs: searches, peers, measurements; and peers that answer with nonsense."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import OrthancServer, start_together
from tests.support.ports import free_port

pytestmark = pytest.mark.orthanc


@contextmanager
def liar(answer: Callable[[], Iterator[bytes]]) -> Iterator[str]:
    """A server that answers whatever is asked with those bytes. Its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            try:
                for piece in answer():
                    self.wfile.write(piece)
            except OSError:
                return  # it is not read to its end

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class Hospital:
    a: OrthancServer
    b: OrthancServer


@pytest.fixture(scope="module")
def hospital(make_shared_server: MakeServer) -> Hospital:
    """``b`` has two studies, of one of which ``a`` has one of four instances. ``closed`` may not search."""
    a, b = make_shared_server("a"), make_shared_server("b", user="alice", password="secret")
    a.add_peer("b", b)
    a.configuration["OrthancPeers"]["down"] = {"Url": f"http://127.0.0.1:{free_port()}/"}
    start_together(a, b)
    known = list(ct_study(4, size=64, series=2, name="Known^Joe"))
    b.upload_all(known)
    a.upload(known[0])
    b.upload_all(ct_study(6, size=64, series=3, name="New^Jane"))
    return Hospital(a, b)


def find(server: OrthancServer, peer: str | None, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = server.post("transfers/find", {"Peer": peer, **options})
    return found


def test_studies_of_a_peer_are_found_with_its_password_and_how_much_of_them_is_here(
    hospital: Hospital,
) -> None:
    found = find(hospital.a, "b", Query={"PatientName": "*", "ModalitiesInStudy": "CT"})
    assert found["More"] is False
    shown = {
        one["Tags"]["PatientName"]: (one["Local"], one["Series"], one["Instances"])
        for one in found["Results"]
    }
    assert shown == {"Known^Joe": ("part", 2, 4), "New^Jane": ("none", 3, 6)}


def test_the_series_of_a_study_are_found(hospital: Hospital) -> None:
    (study,) = find(hospital.a, "b", Query={"PatientName": "known*"})["Results"]
    series = find(
        hospital.a, "b", Level="Series", Query={"StudyInstanceUID": study["Tags"]["StudyInstanceUID"]}
    )
    assert sorted(one["Local"] for one in series["Results"]) == ["none", "part"]
    assert [one["Modalities"] for one in series["Results"]] == [["CT"], ["CT"]]


def test_what_is_here_is_found_without_a_peer_and_more_than_the_limit_is_said(hospital: Hospital) -> None:
    (here,) = find(hospital.a, None)["Results"]
    assert (here["Local"], here["Instances"]) == ("whole", 1)
    assert find(hospital.b, None, Limit=1)["More"] is True


@pytest.mark.parametrize(
    "answer",
    [b"<html>", b"[1]", b"{}", b'"' + b"x" * 100_000 + b'"', b"[" * 100_000, b'[{"ID": "<script>"}]', b""],
)
def test_nonsense_of_a_peer_is_one_sentence(hospital: Hospital, answer: bytes) -> None:
    with liar(lambda: iter([answer])) as url:
        hospital.a.put("peers/liar", {"Url": url})
        refused = hospital.a.request("POST", "transfers/find", json={"Peer": "liar"})
    assert refused.status_code == 500
    assert "peer liar sent an invalid response" in refused.json()["Details"]
    assert len(refused.json()["Details"]) < 400


def test_a_peer_with_a_million_studies_costs_little(hospital: Hospital) -> None:
    study = json.dumps({"ID": "0" * 8, "MainDicomTags": {"StudyInstanceUID": "1.2.3"}, "Filler": "x" * 400})

    def million() -> Iterator[bytes]:
        yield b"["
        for _ in range(1000):
            yield (study + ",").encode() * 1000

    with liar(million) as url:
        hospital.a.put("peers/liar", {"Url": url})
        refused = hospital.a.request("POST", "transfers/find", json={"Peer": "liar"})
    assert refused.status_code == 500
    assert "more than 16777216 bytes" in refused.json()["Details"]


@pytest.mark.parametrize(
    "body", [b"", b"[", b"[]", b'{"Peer": "nobody"}', b'{"Query": {"x": 1}}', b'"' + b"x" * 10_000_000 + b'"']
)
def test_a_bad_search_is_refused(hospital: Hospital, body: bytes) -> None:
    refused = hospital.a.request(
        "POST", "transfers/find", data=body, headers={"Content-Type": "application/json"}
    )
    assert 400 <= refused.status_code < 500
    assert refused.json()["Details"]


@pytest.mark.parametrize("path", ["transfers/find", "transfers/peers/b/measure"])
def test_a_form_of_another_site_starts_nothing(hospital: Hospital, path: str) -> None:
    assert hospital.a.request("POST", path, data="{}").status_code == 415
    foreign = {"Content-Type": "application/json", "Origin": "http://evil.example"}
    assert hospital.a.request("POST", path, data="{}", headers=foreign).status_code == 403


def test_peers_are_not_searched_where_the_configuration_says_so(
    hospital: Hospital, make_server: MakeServer
) -> None:
    closed = make_server("closed", configuration={"Transfers": {"BrowsePeers": False}})
    closed.add_peer("b", hospital.b)
    closed.start()
    refused = closed.request("POST", "transfers/find", json={"Peer": "b"})
    assert refused.status_code == 403
    assert "BrowsePeers" in refused.json()["Details"]
    assert find(closed, None)["Results"] == []


def test_peers_say_what_they_are_and_the_link_is_measured(hospital: Hospital) -> None:
    peers = {one["ID"]: one for one in hospital.a.get("transfers/peers/status")["Peers"]}
    assert (peers["b"]["State"], peers["b"]["Protocol"], peers["b"]["Measurable"]) == ("installed", 2, True)
    assert peers["b"]["OrthancVersion"] == hospital.b.get("system")["Version"]
    assert "secret" not in json.dumps(peers)
    assert "cannot be reached" in peers["down"]["Error"]
    measured = hospital.a.post("transfers/peers/b/measure", {})
    assert measured["Download"]["BytesPerSecond"] > 0
    assert measured["Upload"]["BytesPerSecond"] > 0
    assert hospital.a.request("POST", "transfers/peers/nobody/measure", json={}).status_code == 404
    assert hospital.b.request("GET", "transfers/v2/measure/999999999").status_code == 413
