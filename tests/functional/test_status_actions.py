"""``POST /transfers/actions`` of a real Orthanc, and reports to download."""

from __future__ import annotations

import csv
import json
from typing import Any

import pytest

from tests.support.dicom_data import ct_study, small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, pair, start_together
from tests.support.ports import free_port
from tests.support.slowly import slowly
from tests.support.waiting import wait_until

pytestmark = pytest.mark.orthanc

Pair = tuple[OrthancServer, OrthancServer]


@pytest.fixture(scope="module")
def servers(make_shared_server: MakeServer) -> Pair:
    """``a`` sends to ``b`` slowly, one job at a time."""
    options = {"ConcurrentJobs": 1, "Transfers": {"MaxPeerBandwidth": 12, "BucketSize": 64}}
    a, b = make_shared_server("a", configuration=options), make_shared_server("b")
    pair(a, b)
    a.add_peer("offline", b, Url=f"http://127.0.0.1:{free_port()}/")
    start_together(a, b)
    return a, b


def act(server: OrthancServer, action: str, *identifiers: str, **more: Any) -> list[dict[str, Any]]:
    done = server.post("transfers/actions", {"Action": action, "IDs": list(identifiers), **more})
    results: list[dict[str, Any]] = done["Results"]
    return results


def state(server: OrthancServer, identifier: str) -> str | None:
    found = server.get("transfers/status", params={"id": identifier})["Transfers"]
    return str(found[0]["State"]) if found else None


def done(server: OrthancServer, identifier: str) -> int:
    (found,) = server.get("transfers/status", params={"id": identifier})["Transfers"]
    return int(found["DoneBytes"] or 0)


def reach(server: OrthancServer, identifier: str, wanted: str) -> None:
    wait_until(lambda: state(server, identifier) == wanted, f"{identifier} is {wanted}")


def send(server: OrthancServer, peer: str = "b", slices: int = 6) -> str:
    (study,) = {one["ParentStudy"] for one in server.upload_all(ct_study(slices))}
    return str(server.send([resource("Study", study)], peer, Compression="none")["ID"])


def test_pause_resume_cancel_and_resubmit(servers: Pair) -> None:
    a, _ = servers
    with slowly(a, kbs=200):
        first, second = send(a), send(a)
        assert act(a, "pause", first, second) == [{"ID": first, "Ok": True}, {"ID": second, "Ok": True}]
        reach(a, first, "Paused")
        reach(a, second, "Paused")
    (refused,) = act(a, "pause", second)
    assert (refused["Ok"], "Paused" in refused["Error"]) == (False, True)
    assert act(a, "cancel", second)[0]["Ok"]
    reach(a, second, "Canceled")
    assert act(a, "resume", first)[0]["Ok"]
    reach(a, first, "Success")
    assert act(a, "resubmit", second) == [{"ID": second, "Ok": True}]
    reach(a, second, "Success")
    (again,) = act(a, "resubmit", second)
    assert again["Ok"]
    assert again["Job"] != second
    reach(a, again["Job"], "Success")


def test_a_job_in_the_queue_gets_another_priority_and_keeps_what_arrived(servers: Pair) -> None:
    a, _ = servers
    with slowly(a, kbs=500):
        running = send(a, slices=10)
        reach(a, running, "Running")
        queued = send(a, slices=1)
        (refused,) = act(a, "priority", running, Priority=5)
        assert "pause it first" in refused["Error"]
        (moved,) = act(a, "priority", queued, Priority=7)
        assert moved["Ok"], moved
        job = moved["Job"]
        assert a.job(job)["Priority"] == 7
        assert state(a, queued) is None
        wait_until(lambda: done(a, running) > 2_000_000, "much of it has arrived")
        act(a, "pause", running)
        reach(a, running, "Paused")
    (moved,) = act(a, "priority", running, Priority=3)
    assert moved["Ok"], moved
    reach(a, moved["Job"], "Paused")
    assert act(a, "resume", moved["Job"])[0]["Ok"]
    reach(a, moved["Job"], "Success")
    reach(a, job, "Success")
    assert a.job(moved["Job"])["Content"].get("ResumedSizeMB", 0) > 0
    a.restart()
    wait_until(lambda: a.get("transfers/status")["Active"] == 0, "nothing is active")
    assert state(a, queued) is None


def test_a_queued_job_that_is_canceled_is_remembered_as_that(servers: Pair) -> None:
    a, _ = servers
    with slowly(a, kbs=200):
        running, queued = send(a), send(a, slices=1)
        reach(a, running, "Running")
        assert act(a, "cancel", queued)[0]["Ok"]
        reach(a, queued, "Canceled")
    reach(a, running, "Success")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ([], 400),
        ({"Action": "explode", "IDs": []}, 400),
        ({"Action": "pause", "IDs": "all"}, 400),
        ({"Action": "pause", "IDs": [5]}, 400),
        ({"Action": "pause", "IDs": ["a"] * 1001}, 400),
        ({"Action": "priority", "IDs": []}, 400),
        ({"Action": "priority", "IDs": [], "Priority": "high"}, 400),
        ({"Action": "pause", "IDs": ["x" * 1000] * 10_000}, 413),
    ],
)
def test_bad_actions_are_refused_in_one_sentence(servers: Pair, body: Any, status: int) -> None:
    refused = servers[0].request("POST", "transfers/actions", json=body)
    assert (refused.status_code, bool(refused.json()["Details"])) == (status, True)


def test_an_unknown_transfer_and_a_push_of_another_stop_no_others(servers: Pair) -> None:
    a, b = servers
    unknown, evil = act(a, "pause", "0-0", "../../etc")
    assert not unknown["Ok"]
    assert not evil["Ok"]
    assert "there is no transfer" in unknown["Error"]
    received = b.get("transfers/status", params={"direction": "receive", "limit": 1})["Transfers"]
    assert received, "the tests before have sent"
    (refused,) = act(b, "resubmit", received[0]["ID"])
    assert "sender" in refused["Error"]
    form = a.request("POST", "transfers/actions", data=b"{}", headers={"Content-Type": "text/plain"})
    assert form.status_code == 415
    foreign = a.request("POST", "transfers/actions", json={}, headers={"Origin": "http://evil.example"})
    assert foreign.status_code == 403


def test_known_clients_may_send_forms_and_other_sites_may_not(servers: Pair) -> None:
    a, _ = servers
    study = resource("Study", a.upload_all(small_instances(1))[0]["ParentStudy"])
    body = json.dumps({"Resources": [study], "Peer": "b"}).encode()
    curl = {"Content-Type": "application/x-www-form-urlencoded"}
    sent = a.request("POST", "transfers/send", data=body, headers=curl)
    assert sent.status_code == 200
    reach(a, sent.json()["ID"], "Success")
    foreign = a.request(
        "POST", "transfers/send", data=body, headers={**curl, "Origin": "http://evil.example"}
    )
    assert foreign.status_code == 403


def test_a_report_is_downloaded_as_csv_and_json(servers: Pair) -> None:
    a, _ = servers
    job = send(a, slices=2)
    reach(a, job, "Success")
    answer = a.request("GET", f"transfers/reports/{job}?format=csv&download=1")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="report-{job}.csv"'
    rows = list(csv.DictReader(answer.text.splitlines()))
    report = a.get(f"transfers/reports/{job}")
    assert [(row["Instance"], row["Outcome"]) for row in rows] == [
        (one["ID"], one["Outcome"]) for one in report["Instances"]
    ]
    plain = a.request("GET", f"transfers/reports/{job}?download=1")
    assert plain.json() == report
    assert plain.headers["Content-Disposition"].endswith('.json"')
    assert a.request("GET", f"transfers/reports/{job}?format=exe").status_code == 400
