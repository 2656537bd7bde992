"""``/transfers/settings`` of a real Orthanc: limits that are changed while transfers run."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, pair, start_together
from tests.support.waiting import wait_until

pytestmark = pytest.mark.orthanc

ALWAYS = {"Days": "Mon-Sun", "From": "00:00", "To": "24:00"}


@pytest.fixture(scope="module")
def servers(make_shared_server: MakeServer) -> tuple[OrthancServer, OrthancServer]:
    a, b = make_shared_server("a"), make_shared_server("b")
    pair(a, b)
    start_together(a, b)
    return a, b


def put(server: OrthancServer, body: Any, **headers: str) -> Any:
    return server.request("PUT", "transfers/settings", json=body, headers=headers)


def test_a_transfer_that_runs_obeys_the_timetable_of_the_moment(
    servers: tuple[OrthancServer, OrthancServer],
) -> None:
    a, _ = servers
    (study,) = {one["ParentStudy"] for one in a.upload_all(ct_study(6))}
    assert put(a, {"Bandwidth": {"Schedule": [{**ALWAYS, "LimitKBs": 20}]}}).status_code == 200
    job = a.send([resource("Study", study)], "b", Compression="none")["ID"]

    def sent() -> int:
        return int(a.get("transfers/status", params={"id": job})["Transfers"][0]["DoneBytes"] or 0)

    wait_until(lambda: a.job(job)["Content"].get("Phase") == "Sending", "the job sends")
    shown = a.get("transfers/status")
    assert shown["Bandwidth"] == {"LimitKBs": 20, "Until": None}
    # 3 MB take 150 s at that rate: it is far from its end, until the limit is lifted.
    assert a.job(job)["State"] == "Running"
    assert sent() < 2_000_000
    assert put(a, {"Bandwidth": {"Schedule": [{**ALWAYS, "LimitKBs": 0}]}}).status_code == 200
    assert a.wait_for_job(job, timeout=60)["State"] == "Success"
    put(a, {"Bandwidth": None})


def test_what_is_set_survives_a_restart_until_the_configuration_changes(
    servers: tuple[OrthancServer, OrthancServer],
) -> None:
    _, b = servers
    before = b.get("transfers/settings")
    wanted = {"LimitKBs": 5000, "Peers": {"a": 100}}
    after = put(b, {"Bandwidth": wanted}).json()["Bandwidth"]
    assert (after["LimitKBs"], after["NowKBs"], after["Peers"]) == (5000, 5000, {"a": 100})
    b.restart()
    assert b.get("transfers/settings")["Bandwidth"] == after
    b.stop()
    b.configuration["Transfers"] = {"MaxBandwidth": 100}
    b.start()
    changed = b.get("transfers/settings")
    assert changed["Bandwidth"]["LimitKBs"] == pytest.approx(12207, abs=1)
    assert (changed["InForce"]["MaxBandwidth"], before["InForce"]["MaxBandwidth"]) == (100, 0)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ([], 400),
        ({"Threads": 5}, 400),
        ({"Bandwidth": 5}, 400),
        ({"Bandwidth": {"LimitKBs": "fast"}}, 400),
        ({"Bandwidth": {"Peers": dict.fromkeys(map(str, range(200_000)), 1)}}, 413),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(
    servers: tuple[OrthancServer, OrthancServer], body: Any, status: int
) -> None:
    before = servers[0].get("transfers/settings")
    refused = put(servers[0], body)
    assert (refused.status_code, refused.json()["Details"] != "") == (status, True)
    assert servers[0].get("transfers/settings") == before


def test_other_sites_change_nothing(servers: tuple[OrthancServer, OrthancServer]) -> None:
    body = {"Bandwidth": {"LimitKBs": 1}}
    assert put(servers[0], body, Origin="http://evil.example").status_code == 403
    form = servers[0].request("PUT", "transfers/settings", data=b"{}", headers={"Content-Type": "text/plain"})
    assert form.status_code == 415
    assert put(servers[0], {"Bandwidth": None}, Origin=servers[0].url.rstrip("/")).status_code == 200
