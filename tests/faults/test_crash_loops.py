"""What kills Orthanc while it imports kills it twice at most: the transfer fails then, and names what it died of."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.dicom_data import small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import OrthancError, resource
from tests.support.orthanc_server import OrthancServer, start_together
from tests.support.poison import harmless, poisoned, poisoned_study
from tests.support.raw_push import RawPush, orthanc_id

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

COUNT = 12
POISON = 5
"""Index of the file that kills."""


def supervise(server: OrthancServer, done: Callable[[], Any], deaths: int = 0) -> tuple[int, Any]:
    """Start it whenever it has died, as systemd does, until ``done`` returns something; how often, and that.

    It is asked while the server may be dying.
    """
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        if not server.running:
            deaths += 1
            assert deaths <= 4, f"{server.name} dies again and again"
            server.forget_connections()
            server.launch()
        with contextlib.suppress(requests.RequestException, OrthancError):
            found = done()
            if found:
                return deaths, found
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def report_of(server: OrthancServer, identifier: str) -> Any:
    response = server.request("GET", f"transfers/reports/{identifier}")
    return response.json() if response.status_code == 200 else None


def check_report(report: Any, culprit: str) -> None:
    assert report["State"] == "failed"
    assert culprit in report["Error"]
    assert "nothing was kept" in report["Error"]
    rows = {row["ID"]: row for row in report["Instances"]}
    assert rows[culprit]["Outcome"] == "refused"
    assert "Orthanc ended" in rows[culprit]["Reason"]
    assert {row["Outcome"] for one, row in rows.items() if one != culprit} <= {
        "undone",
        "not imported",
        "already there",
    }


@pytest.mark.parametrize("version", [1, 2])
def test_a_pushed_file_that_kills_orthanc_kills_it_twice_and_is_named(
    make_server: MakeServer, version: int
) -> None:
    b = make_server("b")
    b.start()
    files = poisoned_study(COUNT, POISON)
    culprit = orthanc_id(files[POISON])
    b.upload(files[0])
    before = b.md5s()
    push = RawPush(b, version, files)
    assert push.create().status_code == 200
    for index in range(COUNT):
        assert push.put(index).status_code == 200
    with contextlib.suppress(requests.RequestException):
        push.commit()
    identifier = push.path.rpartition("/")[2]
    deaths, report = supervise(b, lambda: report_of(b, identifier))
    assert deaths == 2
    check_report(report, culprit)
    assert b.md5s() == before
    # The sender hears the same.
    response = push.commit()
    if version == 1:
        assert response.status_code >= 400
        assert culprit in response.text
    else:
        assert culprit in push.status()["Error"]
    # And it is over.
    b.restart()
    assert b.md5s() == before


def test_a_pulled_file_that_kills_orthanc_kills_it_twice_and_fails_its_job(make_server: MakeServer) -> None:
    # The sender never looks into what it has: it imported something harmless of the same length.
    a, b = make_server("a", configuration={"StoreMD5ForAttachments": False}), make_server("b")
    b.add_peer("a", a)
    start_together(a, b)
    files = list(small_instances(COUNT, name="Phantom^Poison"))
    poison = poisoned(files[POISON])
    study = a.upload_all([*files[:POISON], harmless(files[POISON]), *files[POISON + 1 :]])[0]["ParentStudy"]
    (stored,) = (path for path in storage_files(a) if path.stat().st_size == len(poison))
    stored.write_bytes(poison)
    a.restart()  # it remembers what it stored lately
    culprit = orthanc_id(poison)
    job = b.pull([resource("Study", study)], "a")["ID"]
    deaths, known = supervise(b, lambda: ended(b, job))
    assert deaths == 2
    assert known["State"] == "Failure", known
    assert culprit in known["Content"]["Error"]
    check_report(report_of(b, job), culprit)
    assert b.instances() == []


def storage_files(server: OrthancServer) -> list[Path]:
    return [path for path in server.storage.glob("??/??/*") if path.is_file()]


def ended(server: OrthancServer, job: str) -> Any:
    known = server.job(job)
    return known if known["State"] in ("Success", "Failure") else None
