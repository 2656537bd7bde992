"""The link is dead for half a minute: packets vanish, without a refusal."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import pair, start_together
from tests.support.waiting import wait_until
from tests.support.wan_link import HOSTS, WanLink, wan_link, why_not

pytestmark = [
    pytest.mark.orthanc,
    pytest.mark.faults,
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

CUT = 30.0
"""Seconds."""

TIMEOUT = 4
MB = 1024 * 1024


@pytest.fixture
def link() -> Iterator[WanLink]:
    with wan_link("cut", rtt=20, rate=20) as link, link.entered("a"):
        yield link


def test_transfers_wait_while_the_link_is_dead_and_go_on_afterwards(
    link: WanLink, make_server: MakeServer
) -> None:
    a, b = (
        make_server(
            name,
            host=HOSTS[name],
            launcher=link.inside(name),
            configuration={
                "RemoteAccessAllowed": True,
                "Transfers": {"BucketSize": 256, "MaxBandwidth": 16},
            },
        )
        for name in ("a", "b")
    )
    pair(a, b)
    for server in (a, b):
        for peer in server.configuration["OrthancPeers"].values():
            peer["Timeout"] = TIMEOUT
    start_together(a, b)
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
    time.sleep(CUT - (time.monotonic() - dead))
    assert all(
        "timed out" in str(content(job)["Waiting"]) or "no connection" in str(content(job)["Waiting"])
        for job in jobs
    )
    link.heal()
    for job in jobs:
        known = a.wait_for_job(job)
        assert known["State"] == "Success", known
    assert a.md5s() == b.md5s()
    assert len(a.instances()) == 32
