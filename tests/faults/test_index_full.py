"""The disk of Orthanc's index becomes full during an import: all or nothing in the end, and told until then."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import MakeDisk
from tests.faults.failpoint_hooks import FOLDER
from tests.faults.failpoints import Failpoint
from tests.faults.rig import SCRIPT, script_environment
from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer
from tests.support.raw_push import RawPush
from tests.support.small_disk import SmallDisk
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

COUNT = 40
MB = 1_000_000
ROOM = 400_000
"""Bytes that are left for the index: enough for some imports, and not for all."""


@dataclass(frozen=True)
class Failed:
    """A push that failed, and was not undone as a whole."""

    push: RawPush
    said: str
    """Why, to its sender."""
    left: int
    """So many instances are still there, it says."""

    def report(self, server: OrthancServer) -> Any:
        return server.get(f"transfers/reports/{self.push.path.rpartition('/')[2]}")


def receiver(make_server: MakeServer, disk: SmallDisk, **transfers: Any) -> OrthancServer:
    """Its index is on a disk of its own. ``transfers``: its section ``Transfers``."""
    b = make_server(
        "b",
        script=SCRIPT,
        environment=script_environment(),
        configuration={"IndexDirectory": str(disk.path / "index"), "Transfers": transfers},
    )
    (b.folder / FOLDER).mkdir(parents=True)
    b.start()
    return b


def push_to_full_index(b: OrthancServer, disk: SmallDisk, files: list[bytes]) -> Failed:
    push = RawPush(b, 2, files)
    assert push.create().status_code == 200
    for index in range(len(files)):
        assert push.put(index).status_code == 200
    disk.fill(leave=ROOM)
    push.commit()
    said = wait_until(lambda: push.status().get("Error"), "its end")
    match = re.search(rf"(\d+) of {len(files)} instances (?:is|are) still here", said)
    assert match, said
    assert "nothing was kept" not in said
    return Failed(push, said, int(match[1]))


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
@pytest.mark.parametrize("then", ["goes on", "is killed"])
def test_what_cannot_be_deleted_while_the_index_is_full_is_deleted_once_there_is_room(
    make_server: MakeServer, make_disk: MakeDisk, tmp_path: Path, kind: str, then: str
) -> None:
    disk = make_disk(tmp_path / "disk", 20 * MB, ext4=kind == "ext4")
    b = receiver(make_server, disk)
    files = list(ct_study(COUNT, size=64))
    b.upload(files[0])
    before = b.md5s()
    failed = push_to_full_index(b, disk, files)
    assert len(b.instances()) == failed.left + 1
    report = failed.report(b)
    assert report["Error"] == failed.said
    assert [row["Outcome"] for row in report["Instances"]].count("still here") == failed.left
    if then == "is killed":
        b.kill()
    disk.make_room()
    if then == "is killed":
        b.start()
    wait_until(lambda: b.instances() == list(before), "the rest is deleted")
    assert b.md5s() == before
    wait_until(lambda: "nothing was kept" in failed.report(b)["Error"], "the report says so")
    assert {row["Outcome"] for row in failed.report(b)["Instances"]} <= {
        "undone",
        "refused",
        "not imported",
        "already there",
    }


def error_of(server: OrthancServer, direction: str) -> str:
    """What ``GET /transfers/status`` says of the one transfer of that direction."""
    # After a start, Orthanc's HTTP server responds a moment before the plugin has started.
    (shown,) = wait_until(
        lambda: server.get(f"transfers/status?direction={direction}")["Transfers"], "a transfer is told of"
    )
    return str(shown["Error"])


def test_who_tells_of_it_on_either_side_says_that_nothing_is_left_then(
    make_server: MakeServer, make_disk: MakeDisk, tmp_path: Path
) -> None:
    disk = make_disk(tmp_path / "disk", 20 * MB)
    a, b = make_server("a"), receiver(make_server, disk)
    a.add_peer("b", b)
    a.start()
    study = a.upload_all(ct_study(COUNT, size=64))[0]["ParentStudy"]
    # Nothing is imported before the disk is as full as it should be.
    with Failpoint(b, "OrthancStore.add before", "wait") as begun:
        job = a.send([resource("Study", study)], "b")["ID"]
        begun.wait_reached()
        disk.fill(leave=ROOM)
    ended = a.wait_for_job(job)
    assert ended["State"] == "Failure"
    assert "still here" in ended["Content"]["Error"]
    assert "still here" in error_of(a, "send")
    assert "still here" in error_of(b, "receive")
    assert "still here" in a.get(f"transfers/reports/{job}")["Error"]
    disk.make_room()
    wait_until(lambda: b.instances() == [], "the rest is deleted")
    wait_until(lambda: "nothing was kept" in error_of(b, "receive"), "the receiver says so")
    told = a.get(f"transfers/reports/{job}")
    assert "nothing was kept" in told["Error"]
    assert "still here" not in json.dumps(told)
    assert told["Instances"] == b.get(f"transfers/reports/{told['ID']}")["Instances"]
    assert "nothing was kept" in error_of(a, "send")
    # So it stays.
    b.kill()
    b.start()
    assert "nothing was kept" in error_of(b, "receive")
    assert a.get(f"transfers/reports/{job}") == told


def test_a_transfer_that_is_sent_again_keeps_what_an_unfinished_undo_had_left(
    make_server: MakeServer, make_disk: MakeDisk, tmp_path: Path
) -> None:
    disk = make_disk(tmp_path / "disk", 20 * MB)
    b = receiver(make_server, disk)
    files = list(ct_study(COUNT, size=64))
    failed = push_to_full_index(b, disk, files)
    disk.make_room()
    again = RawPush(b, 2, files)
    assert again.create().status_code == 200
    while again.status().get("State") != "committed":
        for index in range(COUNT):
            assert again.put(index).status_code == 200
        again.commit()
        wait_until(lambda: again.status()["State"] != "committing", "its end")
    complete = b.md5s()
    assert len(complete) == COUNT
    undos = Path(b.storage) / "Transfers" / "undos"
    wait_until(lambda: not undos.exists(), "the undo is over")
    assert b.md5s() == complete
    assert "still here" not in failed.report(b)["Error"]


OLD, NEW = b"of before", b"of the sender"


@pytest.mark.parametrize("then", ["goes on", "is killed"])
def test_metadata_that_cannot_be_put_back_while_the_index_is_full_is_put_back_once_there_is_room(
    make_server: MakeServer, make_disk: MakeDisk, tmp_path: Path, then: str
) -> None:
    disk = make_disk(tmp_path / "disk", 20 * MB)
    a, b = make_server("a"), receiver(make_server, disk, AcceptMetadata=["Metadata"])
    a.add_peer("b", b)
    a.start()
    files = list(ct_study(2, size=64))
    study = a.upload_all(files)[0]["ParentStudy"]
    b.upload_all(files)
    paths = [f"studies/{study}/metadata/{number}" for number in (1050, 1051, 1052)]
    for path in paths:
        for server, value in ((a, NEW * 2000), (b, OLD)):
            assert server.request("PUT", path, data=value).status_code == 200
    with Failpoint(b, "OrthancExtras.put after", "wait") as one_is_written:
        job = a.send([resource("Study", study)], "b", Overwrite=True)["ID"]
        one_is_written.wait_reached()
        disk.fill()
    ended = a.wait_for_job(job)
    assert ended["State"] == "Failure"
    told = "labels, metadata and attachments"
    assert told in ended["Content"]["Error"], ended
    assert told in error_of(a, "send")
    assert told in error_of(b, "receive")
    if then == "is killed":
        b.kill()
    disk.make_room()
    if then == "is killed":
        b.start()
    wait_until(lambda: [b.request("GET", path).content for path in paths] == [OLD] * 3, "all is put back")
    wait_until(lambda: told not in error_of(b, "receive"), "the receiver says so")
    assert told not in json.dumps(a.get(f"transfers/reports/{job}"))
    assert len(b.instances()) == 2


def test_what_orthanc_dies_of_twice_while_it_deletes_it_is_left_alone_and_named(
    make_server: MakeServer, make_disk: MakeDisk, tmp_path: Path
) -> None:
    disk = make_disk(tmp_path / "disk", 20 * MB)
    b = receiver(make_server, disk)
    failed = push_to_full_index(b, disk, list(ct_study(COUNT, size=64)))
    with Failpoint(b, "OrthancStore.remove before", "kill 1") as kill:
        kill.wait_killed()
    disk.make_room()
    b.forget_connections()
    # All the others are deleted first.
    with Failpoint(b, "OrthancStore.remove before", f"kill {failed.left}") as kill:
        b.launch()
        kill.wait_killed()
    b.start()
    wait_until(lambda: "delete by hand" in failed.report(b)["Error"], "it is given up")
    report = failed.report(b)
    assert "1 of 40 instances is still here" in report["Error"]
    (stuck,) = (row for row in report["Instances"] if row["Outcome"] == "still here")
    assert "Orthanc ended twice while it was being deleted" in stuck["Reason"]
    assert b.instances() == [stuck["ID"]]
