"""The disk of the staging directory is full, fills up, is read-only, or is gone."""

from __future__ import annotations

import contextlib
import re
import shutil
import stat
from collections.abc import Callable, Iterator

import pytest

from tests.faults.conftest import MakeDisk
from tests.faults.protocol_matrix import PUSH_VARIANTS, VARIANTS, ProtocolMatrix, Transfer, start_matrix
from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer
from tests.support.raw_push import RawPush
from tests.support.slowly import slowly
from tests.support.small_disk import SmallDisk
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

MB = 1_000_000
DISK = 8 * MB
SLICES = 6
SOME = MB
"""Of the bytes of a study."""
SLOW = 400
"""KB a second: the disk is full long before the rest of a study has arrived."""


@pytest.fixture(scope="module")
def shared(
    make_shared_server: MakeServer, make_disk: MakeDisk, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ProtocolMatrix, SmallDisk]]:
    folder = tmp_path_factory.mktemp("disk-full")
    disk = make_disk(folder / "disk", DISK)
    transfers = {"BucketSize": 256, "Threads": 1, "MaxHttpRetries": 1, "MaxBandwidth": 12}
    a, b = make_shared_server("a"), make_shared_server("b")
    with start_matrix(a, b, folder, disk.path / "staging", transfers) as matrix:
        yield matrix, disk


@pytest.fixture
def matrix(shared: tuple[ProtocolMatrix, SmallDisk]) -> ProtocolMatrix:
    """The same two Orthancs for all tests of this file, empty at the start of each."""
    shared[0].clear()
    return shared[0]


@pytest.fixture
def disk(shared: tuple[ProtocolMatrix, SmallDisk]) -> Iterator[SmallDisk]:
    """That of the staging directory of ``b``; has room at the end of each test."""
    yield shared[1]
    with contextlib.suppress(FileNotFoundError):
        shared[1].make_room()


def study(server: OrthancServer) -> list[dict[str, str]]:
    """A bit more than 3 MB, which take about 2 s on their way."""
    return [resource("Study", server.upload_all(ct_study(SLICES))[0]["ParentStudy"])]


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d{6,}", text)]


def assert_about(said: int, free: int) -> None:
    # The list of past transfers, which is on the same disk, is written now and then.
    assert abs(said - free) < MB // 4


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_transfer_that_does_not_fit_is_not_begun_and_goes_through_once_there_is_room(
    matrix: ProtocolMatrix, disk: SmallDisk, variant: str
) -> None:
    resources = study(matrix.a)
    size = int(matrix.a.get("statistics")["TotalUncompressedSize"])
    disk.fill(leave=MB)
    transfer = matrix.start(variant, resources, Compression="none")
    said = transfer.failure()
    needed, free = numbers(said)
    assert needed == size
    assert_about(free, disk.free)
    assert "make room" in said
    assert "resubmit" in said
    assert ("507" in said) == (variant in PUSH_VARIANTS)
    assert matrix.b.instances() == []
    matrix.nothing_is_left()
    disk.make_room()
    transfer.again().succeed()
    assert matrix.b.md5s() == matrix.a.md5s()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_disk_that_becomes_full_fails_the_transfer_which_goes_through_once_there_is_room(
    matrix: ProtocolMatrix, disk: SmallDisk, variant: str
) -> None:
    with slowly(matrix.a, matrix.b, kbs=SLOW):
        transfer = matrix.start(variant, study(matrix.a), Compression="none")
        wait_until(lambda: matrix.received() > SOME, "some of the study")
        disk.fill()
    said = transfer.failure()
    assert "full" in said
    assert "make room" in said
    assert "resubmit" in said
    assert matrix.b.instances() == []
    if variant == "push-2":
        # It waits for its sender, for PushIdleTimeout at most.
        assert matrix.received() > SOME
    else:
        matrix.nothing_is_left()
    disk.make_room()
    content = transfer.again().succeed()
    if variant == "push-2":
        assert content["ResumedSizeMB"] >= 1
    assert matrix.b.md5s() == matrix.a.md5s()


def test_a_job_that_still_tries_goes_on_by_itself_once_there_is_room(
    matrix: ProtocolMatrix, disk: SmallDisk
) -> None:
    with slowly(matrix.a, kbs=SLOW):
        transfer = matrix.start("push-2", study(matrix.a), Compression="none")
        wait_until(lambda: matrix.received() > SOME, "some of the study")
        disk.fill()
    proxy = matrix.proxies["push-2"]
    wait_until(lambda: any(seen.status == 507 for seen in proxy.requests), "a refusal")
    disk.make_room()
    transfer.succeed()
    assert matrix.b.md5s() == matrix.a.md5s()


@pytest.mark.parametrize("version", [1, 2])
def test_a_sender_is_told_by_507_and_may_send_the_same_bytes_again(
    matrix: ProtocolMatrix, disk: SmallDisk, version: int
) -> None:
    push = RawPush(matrix.b, version, list(ct_study(SLICES)))
    disk.fill(leave=MB)
    refused = push.create()
    assert refused.status_code == 507
    needed, free = numbers(refused.json()["Details"])
    assert needed == push.size
    assert_about(free, disk.free)
    disk.make_room()
    assert push.create().status_code == 200
    for index in range(SLICES // 2):
        assert push.put(index).status_code == 200
    disk.fill()
    full = push.put(SLICES - 1)
    assert full.status_code == 507
    assert "full" in full.json()["Details"]
    disk.make_room()
    for index in range(SLICES // 2, SLICES):
        assert push.put(index).status_code == 200
    assert push.commit().status_code == 200
    wait_until(lambda: len(matrix.b.instances()) == SLICES, "the import")


@pytest.mark.parametrize("variant", VARIANTS)
def test_where_nothing_can_be_written_a_transfer_fails_and_goes_through_afterwards(
    matrix: ProtocolMatrix, disk: SmallDisk, variant: str
) -> None:
    resources = study(matrix.a)
    disk.make_read_only()
    try:
        transfer = matrix.start(variant, resources)
        said = transfer.failure()
        assert "Read-only file system" in said
        assert "StagingDirectory" in said
        assert "resubmit" in said
        assert matrix.b.instances() == []
    finally:
        disk.make_writable()
    matrix.nothing_is_left()
    transfer.again().succeed()
    assert matrix.b.md5s() == matrix.a.md5s()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_staging_directory_that_is_deleted_fails_the_transfer_and_is_made_again_for_the_next(
    matrix: ProtocolMatrix, variant: str
) -> None:
    with slowly(matrix.a, matrix.b, kbs=SLOW):
        transfer = matrix.start(variant, study(matrix.a), Compression="none")
        wait_until(lambda: matrix.received() > SOME, "some of the study")
        shutil.rmtree(matrix.staging)
    said = transfer.failure()
    assert "No such file or directory" in said
    assert "StagingDirectory" in said
    assert matrix.b.instances() == []
    transfer.again().succeed()
    assert matrix.b.md5s() == matrix.a.md5s()
    assert stat.S_IMODE(matrix.staging.stat().st_mode) == 0o700
    assert (matrix.staging / "lock").exists()


@pytest.mark.parametrize(
    ("spoil", "mend"),
    [(SmallDisk.fill, SmallDisk.make_room), (SmallDisk.make_read_only, SmallDisk.make_writable)],
    ids=["full", "read-only"],
)
@pytest.mark.parametrize("when", ["before", "in the middle"])
def test_a_sender_to_a_peer_of_version_1_that_cannot_note_what_it_sent_sends_it_with_a_warning(
    matrix: ProtocolMatrix,
    disk: SmallDisk,
    spoil: Callable[[SmallDisk], None],
    mend: Callable[[SmallDisk], None],
    when: str,
) -> None:
    resources = [resource("Study", matrix.b.upload_all(ct_study(SLICES))[0]["ParentStudy"])]
    warned = matrix.b.log.count("acknowledged buckets of a push cannot be written to disk")
    # Limits cannot be changed while nothing can be written.
    with slowly(matrix.b, kbs=2 * SLOW):
        if when == "before":
            spoil(disk)
        try:
            transfer = Transfer(matrix.b, matrix.b.send(resources, "a1", Compression="none")["ID"])
            if when == "in the middle":
                (note,) = wait_until(lambda: list(matrix.staging.glob("sent/*")), "a record")
                begun = note.stat().st_size
                wait_until(lambda: note.stat().st_size > begun, "a note")
                spoil(disk)
            transfer.succeed()
        finally:
            mend(disk)
    assert matrix.a.md5s() == matrix.b.md5s()
    if when == "before" or spoil is SmallDisk.make_read_only:
        # On a full disk, a few bytes more may fit into a block.
        assert matrix.b.log.count("acknowledged buckets of a push cannot be written to disk") == warned + 1
