"""Orthancs with today's code go on where the version before the packages stopped, in its storage folders."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orthanc_transfers.core.ranges import Range
from tests.compatibility.recorded import BUCKET_SIZE, COMMITTING, ENDED, PULLS, PUSHES, Recorded
from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import OrthancServer, start_together
from tests.support.recording_proxy import RecordingProxy
from tests.support.waiting import wait_until

pytestmark = pytest.mark.orthanc


def unpacked(make: MakeServer, recorded: Recorded, name: str) -> OrthancServer:
    """``a`` or ``b`` of then, with the plugin of today. Not started."""
    server = make(name, configuration={"Transfers": {"BucketSize": BUCKET_SIZE, "Threads": 1}})
    recorded.unpack(name, server.storage)
    return server


@pytest.mark.parametrize("recorded", [*PUSHES, *PULLS], ids=str)
def test_a_saved_job_goes_on_with_what_was_received(
    make_server: MakeServer, tmp_path: Path, recorded: Recorded
) -> None:
    a, b = (unpacked(make_server, recorded, name) for name in ("a", "b"))
    target = {"a": a, "b": b}[recorded.receiver]
    with RecordingProxy(tmp_path / "proxy", b, version=1 if "v1" in recorded.name else 2) as proxy:
        a.add_peer("b", b, Url=proxy.url)
        b.start()
        a.start()
        job = a.wait_for_job(recorded.job)
        assert job["State"] == "Success", job
        assert target.md5s() == recorded.md5s
        staged = recorded.staged
        assert job["Content"]["Transaction"] == staged["ID"]
        requests = [seen for seen in proxy.requests if seen.status == 200]
    if recorded.name == "push-v2":
        have = [Range(start, stop) for start, stop in staged["Have"]]
        sent = [
            Range(int(start), int(start) + int(size))
            for seen in requests
            if seen.method == "PUT"
            for start, size in re.findall("/([0-9]+)/([0-9]+)", seen.uri.partition(staged["ID"])[2])
        ]
        assert sent
        assert not any(one.start < item.stop and item.start < one.stop for one in sent for item in have)
    elif recorded in PUSHES:
        buckets = {int(seen.uri.rpartition("/")[2]) for seen in requests if seen.method == "PUT"}
        # Four were acknowledged; nothing is created anew.
        assert min(buckets) == 4
        assert not [seen for seen in requests if seen.method == "POST" and seen.uri.endswith("/push")]
    assert wait_until(lambda: not list((target.storage / "Transfers").glob("*/area")), "nothing is staged")


def test_an_interrupted_import_is_finished_at_the_start_and_the_job_learns_of_it(
    make_server: MakeServer,
) -> None:
    a, b = (unpacked(make_server, COMMITTING, name) for name in ("a", "b"))
    a.add_peer("b", b)
    b.start()
    # Without a word from its sender.
    wait_until(lambda: b.md5s() == COMMITTING.md5s, "all is imported")
    a.start()
    job = a.wait_for_job(COMMITTING.job)
    assert job["State"] == "Success", job
    assert job["Content"]["Transaction"] == COMMITTING.staged["ID"]
    assert b.md5s() == COMMITTING.md5s


def test_a_job_that_had_ended_and_its_reports_are_shown(make_server: MakeServer) -> None:
    a, b = (unpacked(make_server, ENDED, name) for name in ("a", "b"))
    start_together(a, b)
    job = a.job(ENDED.job)
    assert (job["State"], job["Content"]) == ("Success", ENDED.facts["Shown"]["Content"])
    for server in (a, b):
        report = server.get(f"transfers/reports/{ENDED.staged['ID']}")
        assert {one["ID"]: one["MD5"] for one in report["Instances"]} == ENDED.md5s
