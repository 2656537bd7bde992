"""The link is dead for half a minute: packets vanish, without a refusal."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.dicom_data import ct_study, small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, pair, start_together
from tests.support.waiting import wait_until
from tests.support.wan_link import HOSTS, WanLink, wan_link, why_not

pytestmark = [
    pytest.mark.orthanc,
    pytest.mark.faults,
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

PACED = {"Transfers": {"BucketSize": 256, "MaxBandwidth": 16}}

CUT = 30.0
"""Seconds."""

TIMEOUT = 4
MB = 1024 * 1024


@pytest.fixture
def link() -> Iterator[WanLink]:
    with wan_link("cut", rtt=20, rate=20) as link, link.entered("a"):
        yield link


def make_pair(
    make_server: MakeServer, link: WanLink, **properties: object
) -> tuple[OrthancServer, OrthancServer]:
    """Two Orthancs at the ends of the link; ``properties`` are those of peers."""
    a, b = (
        make_server(
            name,
            host=HOSTS[name],
            launcher=link.inside(name),
            configuration={"RemoteAccessAllowed": True, **PACED},
        )
        for name in ("a", "b")
    )
    pair(a, b)
    for server in (a, b):
        for peer in server.configuration["OrthancPeers"].values():
            peer.update(properties)
    start_together(a, b)
    return a, b


def test_transfers_wait_while_the_link_is_dead_and_go_on_afterwards(
    link: WanLink, make_server: MakeServer
) -> None:
    a, b = make_pair(make_server, link, Timeout=TIMEOUT)
    sent, fetched = (
        [resource("Study", server.upload_all(ct_study(16))[0]["ParentStudy"])] for server in (a, b)
    )
    jobs = [a.send(sent, "b")["ID"], a.pull(fetched, "b")["ID"]]

    def content(job: str) -> dict[str, object]:
        known = a.job(job)
        assert known["State"] in ("Pending", "Running") or "Waiting" in known["Content"], known
        shown: dict[str, object] = known["Content"]
        return shown

    for job in jobs:
        wait_until(lambda job=job: content(job).get("CompletedHttpQueries", 0) > 2, "a few buckets")  # type: ignore[misc]
    link.cut()
    dead = time.monotonic()
    for job in jobs:
        wait_until(lambda job=job: "Waiting for peer 'b'" in str(content(job).get("Waiting")), "it waits")  # type: ignore[misc]
    time.sleep(max(0.0, CUT - (time.monotonic() - dead)))
    for job in jobs:
        waiting = str(content(job)["Waiting"])
        assert any(reason in waiting for reason in ("acknowledges nothing", "timed out", "no connection")), (
            waiting
        )
    link.heal()
    for job in jobs:
        known = a.wait_for_job(job)
        assert known["State"] == "Success", known
    assert a.md5s() == b.md5s()
    assert len(a.instances()) == 32


@pytest.mark.parametrize("way", ["push", "pull"])
def test_transfers_whose_link_falls_silent_hold_up_nobody(
    link: WanLink, make_server: MakeServer, way: str
) -> None:
    # Longer than this test waits for anything: a job that held its thread until then would hold up what comes after.
    a, b = make_pair(make_server, link, Timeout=600)
    source, order = (a, a.send) if way == "push" else (b, a.pull)
    study = a.upload_all(small_instances(1, seed=7))[0]["ParentStudy"]
    resources = [resource("Study", source.upload_all(ct_study(12))[0]["ParentStudy"])]
    # As many as Orthanc runs at once.
    jobs = [order(resources, "b")["ID"] for _ in range(2)]
    for job in jobs:
        wait_until(lambda job=job: a.job(job)["Content"].get("CompletedHttpQueries", 0) > 2, "a few buckets")  # type: ignore[misc]
    link.cut()
    # All this ends before the link is back, which is only after it.
    assert a.request("GET", f"studies/{study}/archive").status_code == 200
    a.post(f"studies/{study}/anonymize", {})
    for job in jobs:
        wait_until(lambda job=job: a.job(job)["State"] == "Paused", "it is parked")  # type: ignore[misc]
        assert "peer 'b' acknowledges nothing" in a.job(job)["Content"]["Waiting"]
    link.heal()
    for job in jobs:
        known = a.wait_for_job(job)
        assert known["State"] == "Success", known
