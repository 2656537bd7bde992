"""``GET /transfers/status`` of real Orthancs: transfers from their first moment to the history after a restart."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.dicom_data import ct_study, small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, pair, start_together
from tests.support.ports import free_port
from tests.support.raw_push import RawPush
from tests.support.slowly import slowly
from tests.support.waiting import wait_until

pytestmark = pytest.mark.orthanc

Pair = tuple[OrthancServer, OrthancServer]


@pytest.fixture(scope="module")
def servers(make_shared_server: MakeServer) -> Pair:
    """``a`` sends to and fetches from ``b``, slowly enough to be watched."""
    options = {"Transfers": {"MaxPeerBandwidth": 12, "MaxOutage": 60, "BucketSize": 64}}
    a, b = make_shared_server("a", configuration=options), make_shared_server("b")
    pair(a, b)
    a.add_peer("offline", b, Url=f"http://127.0.0.1:{free_port()}/")
    start_together(a, b)
    return a, b


@pytest.fixture(autouse=True)
def empty(servers: Pair) -> None:
    for server in servers:
        server.clear()


def study_of(server: OrthancServer, slices: int = 6) -> dict[str, str]:
    (study,) = {one["ParentStudy"] for one in server.upload_all(ct_study(slices))}
    return resource("Study", study)


def status(server: OrthancServer, **query: Any) -> dict[str, Any]:
    found: dict[str, Any] = server.get("transfers/status", params=query)
    return found


def one(server: OrthancServer, identifier: str) -> dict[str, Any]:
    found = status(server, id=identifier)
    assert found["Total"] == 1, found
    (transfer,) = found["Transfers"]
    return dict(transfer)


def wait_for(server: OrthancServer, identifier: str, *states: str) -> dict[str, Any]:
    last: dict[str, Any] = {}

    def arrived() -> bool:
        last.update(one(server, identifier))
        return last["State"] in states

    wait_until(arrived, f"transfer {identifier} is one of {states}")
    return last


def patient_of(server: OrthancServer, study: dict[str, str]) -> dict[str, Any]:
    tags = server.get(f"studies/{study['ID']}")["PatientMainDicomTags"]
    return {"ID": tags["PatientID"], "Name": tags["PatientName"]}


def test_a_send_is_seen_from_its_first_bytes_to_its_end_and_after_a_restart(servers: Pair) -> None:
    a, b = servers
    study = study_of(a)
    with slowly(a, kbs=400):
        job = a.send([study], "b", Compression="none")["ID"]
        wait_until(lambda: one(a, job)["DoneBytes"] or one(a, job)["Ended"], "the first bytes")
        running = one(a, job)
        assert running["State"] == "Running", running
        assert (running["Job"], running["Direction"], running["Mode"]) == (job, "send", "push")
        assert (running["Peer"], running["Phase"], running["Instances"]) == ("b", "Sending", 6)
        assert running["Resources"] == [study]
        assert 0 < running["DoneBytes"] < running["Bytes"]
        assert running["WireBytes"] > 0
        assert running["Patient"] == patient_of(a, study)
        assert running["Study"]["ID"] == study["ID"]
        assert running["Actions"] == ["pause", "cancel"]
        assert status(a)["Active"] == 1
        (incoming,) = status(b, state="Running", direction="receive")["Transfers"]
    assert (incoming["Job"], incoming["Mode"], incoming["Actions"]) == (None, "push", [])
    assert incoming["Phase"] == "Receiving"
    assert (incoming["Peer"], incoming["RemoteAddress"]) == ("a", None), "the Name of its Orthanc"

    ended = wait_for(a, job, "Success")
    assert ended["DoneBytes"] == ended["Bytes"] == running["Bytes"]
    assert (ended["DoneInstances"], ended["Codecs"].keys()) == (6, {"none"})
    assert ended["Created"] <= ended["Started"] < ended["Ended"]
    assert ended["Patient"] == patient_of(a, study)
    assert ended["Report"] is True
    received = wait_for(b, incoming["ID"], "Success")
    assert (received["Instances"], received["Bytes"]) == (6, ended["Bytes"])
    assert a.get(f"transfers/reports/{job}")["ID"] == b.get(f"transfers/reports/{incoming['ID']}")["ID"]
    wait_until(lambda: one(b, incoming["ID"])["Study"], "the text of what was received")
    assert one(b, incoming["ID"])["Study"]["ID"] == study["ID"]

    before = {server.name: status(server)["Transfers"] for server in servers}
    for server in servers:
        server.restart()
        # Its HTTP server responds a moment before the plugin has started.
        wait_until(lambda: status(server)["Transfers"] == before[server.name], "all is told as before")  # noqa: B023


def test_a_transfer_that_waits_or_is_paused_says_so_and_its_cancel_is_remembered(servers: Pair) -> None:
    a, _ = servers
    study = study_of(a, 1)
    job = a.send([study], "offline")["ID"]
    waiting = wait_for(a, job, "Waiting")
    assert "offline" in waiting["Waiting"]["For"]
    assert waiting["Waiting"]["Since"] >= waiting["Created"]
    a.post(f"jobs/{job}/pause")
    wait_for(a, job, "Paused")
    a.post(f"jobs/{job}/cancel")
    assert wait_for(a, job, "Canceled")["Actions"] == ["resubmit"]
    assert [row["ID"] for row in status(a, state="Canceled", peer="offline")["Transfers"]] == [job]


def test_a_push_that_is_one_request_is_counted_at_its_receiver(servers: Pair) -> None:
    a, b = servers
    study = resource("Study", a.upload_all(small_instances(2))[0]["ParentStudy"])
    a.wait_for_job(a.send([study], "b", Compression="none")["ID"])
    received = status(b, direction="receive", limit=1)["Transfers"][0]
    assert (received["State"], received["Instances"]) == ("Success", 2)
    assert received["WireBytes"] > 0
    assert received["Codecs"] == {"none": 1}


def test_pages_and_filters(servers: Pair) -> None:
    a, _ = servers
    study = resource("Study", a.upload_all(small_instances(2))[0]["ParentStudy"])
    jobs = []
    for _ in range(3):
        jobs.append(a.send([study], "b")["ID"])
        a.wait_for_job(jobs[-1])
    missing = a.send([resource("Study", "-".join(["0" * 8, "ff" * 4, *["0" * 8] * 3]))], "b")["ID"]
    a.wait_for_job(missing)
    newest = [missing, *reversed(jobs)]
    assert [row["ID"] for row in status(a, limit=4)["Transfers"]] == newest
    assert [row["ID"] for row in status(a, limit=2, offset=1)["Transfers"]] == newest[1:3]
    failed = status(a, state="Failure,Pending", text="FF 00000000")
    assert [row["ID"] for row in failed["Transfers"]] == [missing]
    assert failed["Transfers"][0]["Error"]
    name = patient_of(a, study)["Name"]
    wait_until(lambda: status(a, text=name.lower(), peer="b", limit=0)["Total"] >= 3, "texts")
    # Orthanc hands these over as they are in the URL.
    assert status(a, peer="an+other %41")["Total"] == 0
    assert status(a, until="2001-01-01")["Total"] == 0
    assert status(a, since="2001-01-01")["Total"] == status(a)["Total"]


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "1001"},
        {"limit": "-1"},
        {"offset": "9" * 30},
        {"state": "Dead"},
        {"direction": "up"},
        {"since": "2026-02-30"},
        {"text": "x" * 300},
        {"id": "../../etc/passwd"},
        {"sort": "name"},
    ],
)
def test_a_bad_query_is_refused_in_one_sentence(servers: Pair, query: dict[str, str]) -> None:
    refused = servers[0].request("GET", "transfers/status", params=query)
    assert refused.status_code == 400
    (name,) = query
    assert name in refused.json()["Details"]


@pytest.mark.parametrize("loss", ["deleted", "damaged", "killed"])
def test_what_is_lost_of_the_index_is_found_in_the_reports(servers: Pair, loss: str) -> None:
    a, b = servers
    study = resource("Study", a.upload_all(small_instances(2))[0]["ParentStudy"])
    a.wait_for_job(a.send([study], "b")["ID"])
    received = status(b, direction="receive", limit=1)["Transfers"][0]["ID"]
    total = status(b)["Total"]
    b.kill() if loss == "killed" else b.stop()
    for file in index_of(b).parent.iterdir():
        if loss == "deleted" or (loss == "damaged" and file.suffix != ".sqlite"):
            file.unlink()
        elif loss == "damaged":
            file.write_bytes(b"no index" * 1000)
    b.start()
    wait_until(lambda: status(b)["Total"] == total, "all are there again")
    found = one(b, received)
    assert (found["State"], found["Instances"], found["Report"]) == ("Success", 2, True)
    assert found["Peer"] == "a"
    wait_until(lambda: one(b, received)["Study"], "its text")


def index_of(server: OrthancServer) -> Path:
    return server.storage / "Transfers" / "history" / "transfers.sqlite"


def test_the_index_is_private(servers: Pair) -> None:
    path = index_of(servers[0])
    wait_until(path.exists, "the index")
    assert path.parent.stat().st_mode & 0o777 == 0o700
    for file in path.parent.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(path)) as index:
        assert index.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("version", [1, 2])
def test_a_push_shows_its_sender_as_it_says_and_its_address_as_a_proxy_says(
    servers: Pair, version: int
) -> None:
    _, b = servers
    push = RawPush(b, version, list(small_instances(1)))
    body = push.creation()
    if version == 2:
        body["SenderName"] = "<b>Köln</b>\n" + "x" * 10_000
    root = "transfers/push" if version == 1 else "transfers/v2/push"
    headers = {"X-Forwarded-For": "192.0.2.1, 198.51.100.7"}
    push.path = b.post(root, body, headers=headers)["Path"]
    identifier = push.path.rpartition("/")[2]
    name = ("<b>Köln</b>" + "x" * 10_000)[:63] if version == 2 else None
    active = one(b, identifier)
    assert (active["State"], active["Peer"], active["RemoteAddress"]) == ("Running", name, "192.0.2.1")
    push.drop()
    ended = one(b, identifier)
    assert (ended["State"], ended["Peer"], ended["RemoteAddress"]) == ("Canceled", name, "192.0.2.1")
    if version == 2:
        assert status(b, peer=name, text="köln")["Total"] == 1
