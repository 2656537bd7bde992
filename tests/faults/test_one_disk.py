"""Staging, Orthanc's storage and its index are on one small disk, as they are unless configured otherwise."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import MakeDisk
from tests.faults.protocol_matrix import VARIANTS, ProtocolMatrix, start_matrix
from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer
from tests.support.raw_push import RawPush
from tests.support.small_disk import SmallDisk
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

MB = 1_000_000
DISK = 30 * MB
SLICES = 6
INDEX = 650_000
"""More than the index takes for these: 90 KB each for its log, at first."""
SPARE = 300_000
"""For what else is written meanwhile: journals, reports, the list of past transfers."""


def on_one_disk(make: MakeServer, disk: SmallDisk, name: str, **options: Any) -> OrthancServer:
    storage = disk.path / name
    folders = {"StorageDirectory": str(storage), "IndexDirectory": str(storage)}
    server = make(name, configuration={**folders, **options})
    server.storage = storage
    return server


@pytest.fixture(scope="module")
def shared(
    make_shared_server: MakeServer, make_disk: MakeDisk, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ProtocolMatrix, SmallDisk]]:
    folder = tmp_path_factory.mktemp("one-disk")
    disk = make_disk(folder / "disk", DISK, ext4=True)
    a, b = make_shared_server("a"), on_one_disk(make_shared_server, disk, "b")
    with start_matrix(
        a, b, folder, b.storage / "Transfers", {"MaxHttpRetries": 1, "BucketSize": 256}
    ) as matrix:
        yield matrix, disk


@pytest.fixture
def matrix(shared: tuple[ProtocolMatrix, SmallDisk]) -> ProtocolMatrix:
    shared[0].clear()
    return shared[0]


@pytest.fixture
def disk(shared: tuple[ProtocolMatrix, SmallDisk]) -> Iterator[SmallDisk]:
    """On which ``b`` has all; has room at the end of each test."""
    yield shared[1]
    with contextlib.suppress(FileNotFoundError):
        shared[1].make_room()


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d{6,}", text)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_transfer_that_fits_in_staging_but_not_in_the_storage_too_is_not_begun(
    matrix: ProtocolMatrix, disk: SmallDisk, variant: str
) -> None:
    study = matrix.a.upload_all(ct_study(SLICES))[0]["ParentStudy"]
    size = int(matrix.a.get("statistics")["TotalUncompressedSize"])
    disk.fill(leave=2 * size - MB // 4)
    transfer = matrix.start(variant, [resource("Study", study)], Compression="none")
    said = transfer.failure()
    needed, staged, imported, *_ = numbers(said)
    assert staged == size
    assert size < imported < size + MB // 4
    assert needed >= staged + imported
    assert "on one disk" in said
    assert "make room there, then resubmit the job" in said
    assert matrix.b.instances() == []
    assert matrix.receiving() == []
    disk.make_room()
    transfer.again().succeed()
    assert matrix.b.md5s() == matrix.a.md5s()


def test_the_room_that_the_index_takes_is_counted(
    make_server: MakeServer, make_disk: MakeDisk, tmp_path: Path
) -> None:
    disk = make_disk(tmp_path / "disk", DISK, ext4=True)
    b = on_one_disk(make_server, disk, "b")
    b.start()
    push = RawPush(b, 2, list(ct_study(SLICES)))
    disk.fill(leave=2 * push.size + INDEX // 2)
    refused = push.create()
    assert refused.status_code == 507
    assert "for Orthanc's index" in refused.json()["Details"]
    disk.make_room()
    # Not a byte less than is needed: and it is enough.
    needed, *_ = numbers(refused.json()["Details"])
    disk.fill(leave=needed + SPARE)
    assert push.create().status_code == 200
    push.carry()
    assert len(b.instances()) == SLICES


def test_of_two_that_fit_alone_and_not_together_the_second_is_refused_until_the_first_has_ended(
    matrix: ProtocolMatrix, disk: SmallDisk
) -> None:
    first, second = (RawPush(matrix.b, 2, list(ct_study(SLICES))) for _ in range(2))
    disk.fill(leave=int(3.5 * first.size + 2 * INDEX))
    assert first.create().status_code == 200
    refused = second.create()
    assert refused.status_code == 507
    assert "the transfers under way will take" in refused.json()["Details"]
    assert len(matrix.receiving()) == 1
    first.put_all()
    # What it has staged is no longer free, and what it will import is still reserved.
    assert second.create().status_code == 507
    first.commit()
    wait_until(lambda: first.status()["State"] == "committed", "its end")
    assert second.create().status_code == 200
    second.carry()
    assert len(matrix.b.instances()) == 2 * SLICES
    matrix.nothing_is_left()


def test_a_disk_that_another_program_fills_meanwhile_undoes_the_import_as_a_whole(
    matrix: ProtocolMatrix, disk: SmallDisk
) -> None:
    matrix.b.upload_all(ct_study(2))
    before = matrix.b.md5s()
    push = RawPush(matrix.b, 2, list(ct_study(SLICES)))
    assert push.create().status_code == 200
    push.put_all()
    disk.fill(leave=push.size // 2)
    push.commit()
    said = wait_until(lambda: push.status().get("Error"), "its end")
    assert "nothing was kept" in said
    assert matrix.b.md5s() == before
    matrix.nothing_is_left()
    disk.make_room()
    assert push.create().status_code == 200
    push.carry()
    assert len(matrix.b.instances()) == 2 + SLICES


def test_what_orthanc_will_recycle_for_a_transfer_is_room_for_it(
    make_server: MakeServer, make_disk: MakeDisk, tmp_path: Path
) -> None:
    disk = make_disk(tmp_path / "disk", 2 * DISK, ext4=True)
    b = on_one_disk(make_server, disk, "b", MaximumStorageSize=13)
    b.start()
    b.upload_all(ct_study(4 * SLICES, name="The first"))
    push = RawPush(b, 2, list(ct_study(4 * SLICES, name="The second")))
    # For staging, for the index and its log, and for eight files that are written before others are recycled.
    growth = 13 * 1024**2 - push.size + push.size // 3
    disk.fill(leave=push.size + growth + 5 * MB)
    assert disk.free < 2 * push.size
    assert push.create().status_code == 200
    push.carry()
    assert set(b.instances()) == {one["ID"] for one in push.instances}
