"""Orthanc's storage cannot be written: Orthanc lives on, and the transfer fails and says so. (1.10.1 ended.)"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import MakeDisk
from tests.faults.protocol_matrix import start_matrix
from tests.support.dicom_data import small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import ENTRY, OrthancServer
from tests.support.raw_push import RawPush
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]


@pytest.mark.parametrize("variant", ["push-2", "pull-2"])
@pytest.mark.parametrize("how", ["read-only", "no inodes", "full ext4"])
def test_a_storage_that_cannot_be_written_fails_the_transfer_and_not_orthanc(
    make_server: MakeServer, make_disk: MakeDisk, tmp_path: Path, how: str, variant: str
) -> None:
    disk = make_disk(tmp_path / "disk", 20_000_000, ext4=how == "full ext4")
    spoil, mend = {
        "read-only": (disk.make_read_only, disk.make_writable),
        "no inodes": (disk.take_inodes, disk.give_inodes),
        "full ext4": (disk.fill, disk.make_room),
    }[how]
    a = make_server("a")
    b = make_server(
        "b", configuration={"StorageDirectory": str(disk.path), "IndexDirectory": str(tmp_path / "index")}
    )
    with start_matrix(a, b, tmp_path, tmp_path / "staging", {"MaxHttpRetries": 1}) as matrix:
        study = a.upload_all(small_instances(8))[0]["ParentStudy"]
        spoil()
        transfer = matrix.start(variant, [resource("Study", study)])
        said = transfer.failure()
        # One that is full is noticed before anything is received.
        assert ("needed for importing" if how == "full ext4" else "cannot write to its storage") in said
        assert b.running
        assert b.instances() == []
        mend()
        transfer.again().succeed()
        assert b.md5s() == a.md5s()


UNPRIVILEGED = 65534
"""The user and the group of ``nobody``."""


@pytest.fixture
def unprivileged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancServer]:
    """An Orthanc that runs as another user than these tests, who are root; its storage is a folder of its own."""
    launcher = ("setpriv", f"--reuid={UNPRIVILEGED}", f"--regid={UNPRIVILEGED}", "--clear-groups")
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root, and setpriv")
    with tempfile.TemporaryDirectory(prefix="orthanc-unprivileged-") as name:
        folder = Path(name)
        os.chown(folder, UNPRIVILEGED, UNPRIVILEGED)
        for needed in (ENTRY, Path(sysconfig.get_path("purelib"))):
            if subprocess.run([*launcher, "test", "-r", needed], check=False).returncode:
                pytest.skip(f"{needed} cannot be read by another user")
        b = OrthancServer("b", folder / "b", launcher=launcher)
        b.configuration["IndexDirectory"] = str(folder / "index")
        b.configuration["Transfers"] = {"StagingDirectory": str(folder / "staging")}
        os.chown(b.folder, UNPRIVILEGED, UNPRIVILEGED)
        try:
            yield b
        finally:
            b.remove()


@pytest.mark.parametrize("which", ["the storage", "one of its folders"])
def test_a_storage_of_another_user_fails_the_push_and_not_orthanc(
    unprivileged: OrthancServer, which: str
) -> None:
    b = unprivileged
    b.start()
    b.upload_all(small_instances(3))
    before = b.md5s()
    foreign = b.storage if which == "the storage" else next(b.storage.glob("??"))
    push = RawPush(b, 2, list(small_instances(8)))
    assert push.create().status_code == 200
    push.put_all()
    os.chown(foreign, 0, 0)
    push.commit()
    said = wait_until(lambda: push.status().get("Error"), "its end")
    assert f"cannot write to its storage, {foreign} (Permission denied)" in said
    assert "the user as whom Orthanc runs" in said
    assert "nothing was kept" in said
    assert b.running
    assert b.md5s() == before
    os.chown(foreign, UNPRIVILEGED, UNPRIVILEGED)
    assert push.create().status_code == 200
    push.carry()
    assert len(b.instances()) == len(before) + 8


def test_a_storage_that_becomes_full_before_the_import_fails_the_push_and_not_orthanc(
    make_server: MakeServer, make_disk: MakeDisk, tmp_path: Path
) -> None:
    disk = make_disk(tmp_path / "disk", 20_000_000, ext4=True)
    b = make_server(
        "b",
        configuration={
            "StorageDirectory": str(disk.path),
            "IndexDirectory": str(tmp_path / "index"),
            "Transfers": {"StagingDirectory": str(tmp_path / "staging")},
        },
    )
    b.start()
    push = RawPush(b, 2, list(small_instances(8)))
    assert push.create().status_code == 200
    push.put_all()
    disk.fill()
    push.commit()
    said = wait_until(lambda: push.status().get("Error"), "its end")
    assert "cannot write to its storage" in said
    assert "nothing was kept" in said
    assert b.running
    assert b.instances() == []
    disk.make_room()
    assert push.create().status_code == 200
    push.carry()
    assert len(b.instances()) == 8


@pytest.mark.parametrize("variant", ["push-2", "pull-2"])
def test_a_storage_that_cannot_take_an_attachment_fails_the_transfer_and_not_orthanc(
    make_server: MakeServer, make_disk: MakeDisk, tmp_path: Path, variant: str
) -> None:
    disk = make_disk(tmp_path / "disk", 20_000_000)
    a = make_server("a")
    b = make_server(
        "b", configuration={"StorageDirectory": str(disk.path), "IndexDirectory": str(tmp_path / "index")}
    )
    taking = {"MaxHttpRetries": 1, "AcceptMetadata": ["Attachments"]}
    with start_matrix(a, b, tmp_path, tmp_path / "staging", taking) as matrix:
        files = list(small_instances(2))
        study = a.upload_all(files)[0]["ParentStudy"]
        b.upload_all(files)
        attachment = f"studies/{study}/attachments/1060"
        assert a.request("PUT", attachment, data=b"a report").status_code == 200
        disk.take_inodes()
        transfer = matrix.start(variant, [resource("Study", study)], WithAttachments=True)
        said = transfer.failure()
        assert "cannot write to its storage" in said
        assert "attachment 1060" in said
        assert b.running
        disk.give_inodes()
        transfer.again().succeed()
        assert b.request("GET", f"{attachment}/data").content == b"a report"
