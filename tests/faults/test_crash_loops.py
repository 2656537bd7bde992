"""What kills Orthanc while it imports kills it twice at most: the transfer fails then, and names what it died of."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.faults.failpoint_hooks import FOLDER
from tests.faults.failpoints import Failpoint
from tests.faults.rig import SCRIPT, script_environment
from tests.support.dicom_data import multi_frame, small_instances
from tests.support.fixtures import MakeServer
from tests.support.memory_limit import MemoryLimit
from tests.support.orthanc_client import OrthancError, resource
from tests.support.orthanc_server import OrthancServer, start_together
from tests.support.poison import harmless, poisoned, poisoned_study
from tests.support.raw_push import RawPush, orthanc_id
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

COUNT = 12
POISON = 5
"""Index of the file that kills."""

LARGE = 150_000_000
MEMORY = 300_000_000
"""Bytes that Orthanc may have: enough to receive such an instance, not to import it, which takes three times it."""


def supervise(server: OrthancServer, done: Callable[[], Any], deaths: int = 0) -> tuple[int, Any]:
    """Start it whenever it has died, as systemd does, until ``done`` returns something; how often, and that.

    It is asked while the server may be dying.
    """
    limit = time.monotonic() + 180
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
    # And it is over, also for those who try again.
    b.restart()
    assert b.md5s() == before
    refused = RawPush(b, version, files).create()
    assert refused.status_code == 403
    assert culprit in refused.text
    assert "FatalInstanceRetention" in refused.text
    assert RawPush(b, version, [*files[:POISON], *files[POISON + 1 :]]).create().status_code == 200


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
    a.stop()  # it remembers what it stored lately
    culprit = orthanc_id(poison)
    # A job that has just begun is not saved yet, and would be lost: it waits until the other has started.
    job = b.pull([resource("Study", study)], "a")["ID"]
    wait_until(lambda: b.job(job)["State"] == "Paused", "the job waits")
    a.start()
    deaths, known = supervise(b, lambda: ended(b, job))
    assert deaths == 2
    assert known["State"] == "Failure", known
    assert culprit in known["Content"]["Error"]
    # After a start, a job may end before its identifier is known again.
    check_report(wait_until(lambda: report_of(b, job), "the report of the job"), culprit)
    assert b.instances() == []
    # Resubmitted, it costs no further death.
    b.post(f"jobs/{job}/resubmit")
    known = b.wait_for_job(job)
    assert known["State"] == "Failure"
    assert culprit in known["Content"]["Error"]
    assert "nothing was received" in known["Content"]["Error"]
    assert b.running


def test_what_a_callback_of_the_user_ends_orthanc_at_is_named(make_server: MakeServer) -> None:
    files = list(small_instances(COUNT))
    files[POISON] = next(small_instances(1, name="Phantom^Abort"))
    culprit = orthanc_id(files[POISON])
    b = make_server("b", script=SCRIPT.with_name("aborting_script.py"), environment=script_environment())
    b.start()
    push = send_all(b, files)
    deaths, report = supervise(b, lambda: report_of(b, push.path.rpartition("/")[2]))
    assert deaths == 2
    check_report(report, culprit)
    assert b.instances() == []


def test_what_the_kernel_kills_orthanc_at_for_lack_of_memory_is_named(make_server: MakeServer) -> None:
    # What the out-of-memory killer sends: SIGKILL, each time while the same instance is being imported.
    files = list(small_instances(COUNT))
    b = make_server("b", script=SCRIPT, environment=script_environment())
    (b.folder / FOLDER).mkdir(parents=True)
    b.start()
    with Failpoint(b, "OrthancStore.add before", "kill 3") as kill:
        push = send_all(b, files)
        kill.wait_killed()
    b.forget_connections()
    with Failpoint(b, "OrthancStore.add before", "kill 1") as kill:
        b.launch()
        kill.wait_killed()
    deaths, report = supervise(b, lambda: report_of(b, push.path.rpartition("/")[2]))
    assert deaths == 1
    assert "Orthanc ended 2 times" in report["Error"]
    (culprit,) = (row["ID"] for row in report["Instances"] if row["Outcome"] == "refused")
    check_report(report, culprit)
    assert b.instances() == []


def test_an_instance_too_large_for_the_memory_is_named_once_the_kernel_has_killed_orthanc_twice(
    make_server: MakeServer,
) -> None:
    try:
        limit = MemoryLimit(MEMORY)
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    a, b = make_server("a"), make_server("b", launcher=limit.launcher)
    a.add_peer("b", b)
    start_together(a, b)
    small, large = a.upload_all(small_instances(3)), a.upload(multi_frame(LARGE))
    # The large one arrives in buckets, and is imported as a whole.
    job = a.send([resource("Study", small[0]["ParentStudy"]), resource("Study", large["ParentStudy"])], "b")[
        "ID"
    ]
    deaths, known = supervise(b, lambda: ended(a, job))
    assert (deaths, limit.kills) == (2, 2)
    assert known["State"] == "Failure", known
    assert large["ID"] in known["Content"]["Error"]
    check_report(report_of(b, known["Content"]["Transaction"]), large["ID"])
    assert b.instances() == []
    b.kill()
    limit.close()


def send_all(server: OrthancServer, files: list[bytes]) -> RawPush:
    """A push whose commit is requested; the server may die of it."""
    push = RawPush(server, 2, files)
    assert push.create().status_code == 200
    for index in range(len(files)):
        assert push.put(index).status_code == 200
    with contextlib.suppress(requests.RequestException):
        push.commit()
    return push


def storage_files(server: OrthancServer) -> list[Path]:
    return [path for path in server.storage.glob("??/??/*") if path.is_file()]


def ended(server: OrthancServer, job: str) -> Any:
    known = server.job(job)
    return known if known["State"] in ("Success", "Failure") else None
