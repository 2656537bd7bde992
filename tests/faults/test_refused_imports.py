"""Orthanc refuses one instance of a transfer: all of it is undone, and nothing else is touched."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from orthanc_transfers.core.dicom import transfer_syntax
from tests.faults.conftest import MakeDisk
from tests.faults.protocol_matrix import VARIANTS, ProtocolMatrix, Transfer, start_matrix
from tests.support.dicom_data import compressed_files, ct_study, small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import ENTRY, OrthancServer
from tests.support.raw_push import orthanc_id
from tests.support.small_disk import SmallDisk

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

COUNT = 8

# What a user may have written: a storage that raises, and a callback that discards or changes. Patients say by
# their names what is done with their instances.
SCRIPT = f"""
import os
import runpy
import orthanc

runpy.run_path({str(ENTRY)!r})

def received(dicom, origin):
    if b"Discard^" in dicom and b"number-5" in dicom:
        return orthanc.ReceivedInstanceAction.DISCARD, None
    if b"Change^" in dicom:
        return orthanc.ReceivedInstanceAction.MODIFY, dicom.replace(b"Change^", b"Chance^")
    return orthanc.ReceivedInstanceAction.KEEP_AS_IS, None

def create(name, kind, content):
    if b"Raise^" in content and b"number-5" in content:
        raise ValueError("no instance of that kind here")
    with open(name + ".stored", "wb") as file:
        file.write(content)

def read(name, kind):
    with open(name + ".stored", "rb") as file:
        return file.read()

def remove(name, kind):
    os.unlink(name + ".stored")

orthanc.RegisterReceivedInstanceCallback(received)
orthanc.RegisterStorageArea(create, read, remove)
"""

FILTER = """
function ReceivedInstanceFilter(dicom, origin)
  if string.find(dicom.PatientName, 'Filter^', 1, true) then
    return dicom.StationName ~= 'number-5'
  end
  return true
end
"""


@pytest.fixture(scope="module")
def shared(
    make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProtocolMatrix]:
    folder = tmp_path_factory.mktemp("refused")
    script = folder / "a_script_of_the_user.py"
    script.write_text(SCRIPT)
    lua = folder / "filter.lua"
    lua.write_text(FILTER)
    b = make_shared_server("b", script=script, configuration={"LuaScripts": [str(lua)]})
    with start_matrix(
        make_shared_server("a"), b, folder, folder / "staging", {"MaxHttpRetries": 1, "CommitThreadsCount": 1}
    ) as matrix:
        yield matrix


@pytest.fixture
def matrix(shared: ProtocolMatrix) -> ProtocolMatrix:
    """The same two Orthancs for all tests of this file, empty at the start of each."""
    shared.clear()
    return shared


def numbered(name: str, count: int = COUNT) -> list[bytes]:
    """One series of small images, each of which says its number as its station."""
    files = []
    for number, data in enumerate(small_instances(count, name=name)):
        dataset = pydicom.dcmread(io.BytesIO(data))
        dataset.StationName = f"number-{number}"
        files.append(written(dataset))
    return files


def written(dataset: pydicom.Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def changed(data: bytes) -> bytes:
    """The same instance with other content."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.SeriesDescription = "another description"
    return written(dataset)


def store(server: OrthancServer, files: list[bytes]) -> list[dict[str, str]]:
    return [resource("Study", server.upload_all(files)[0]["ParentStudy"])]


def report(transfer: Transfer) -> dict[str, Any]:
    """The commit report, by the job."""
    found: dict[str, Any] = transfer.server.get(f"transfers/reports/{transfer.job}")
    return found


def outcomes(transfer: Transfer) -> dict[str, str]:
    return {row["ID"]: row["Outcome"] for row in report(transfer)["Instances"]}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_storage_that_fails_on_one_instance_undoes_all_but_what_was_there_before(
    matrix: ProtocolMatrix, variant: str
) -> None:
    files = numbered("Raise^Exception")
    resources = store(matrix.a, files)
    matrix.b.upload_all(files[:3])
    before = matrix.b.md5s()
    transfer = matrix.start(variant, resources)
    said = transfer.failure()
    refused = orthanc_id(files[5])
    assert refused in said
    assert "nothing was kept" in said
    assert matrix.b.md5s() == before
    matrix.nothing_is_left()
    if variant != "push-1":
        assert outcomes(transfer)[refused] == "refused"
        assert set(outcomes(transfer).values()) <= {"refused", "undone", "already there", "not imported"}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["Filter^Lua", "Discard^Python"])
def test_what_the_policy_of_the_receiver_filters_out_is_named_and_counted_and_no_failure(
    matrix: ProtocolMatrix, name: str, variant: str
) -> None:
    files = numbered(name)
    transfer = matrix.start(variant, store(matrix.a, files))
    content = transfer.succeed()
    filtered = orthanc_id(files[5])
    assert set(matrix.a.instances()) - set(matrix.b.instances()) == {filtered}
    if variant != "push-1":
        assert content["Report"]["FilteredOut"] == 1
        row = next(row for row in report(transfer)["Instances"] if row["ID"] == filtered)
        assert row["Outcome"] == "filtered"
        assert "policy" in row["Reason"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_instance_that_is_there_with_other_content_is_a_conflict(
    matrix: ProtocolMatrix, variant: str
) -> None:
    files = numbered("Conflict^Content")
    resources = store(matrix.a, files)
    there = changed(files[5])
    assert orthanc_id(there) == orthanc_id(files[5])
    matrix.b.upload(there)
    before = matrix.b.md5s()
    transfer = matrix.start(variant, resources)
    if variant == "push-1":
        # A sender of version 1 takes it for success; what is there stays, with a warning in the report of B.
        transfer.succeed()
        assert {one: matrix.b.md5s()[one] for one in before} == before
        assert f"{orthanc_id(there)}: it is stored here already with other content" in matrix.b.log
        return
    said = transfer.failure()
    assert orthanc_id(there) in said
    assert "other content" in said
    assert matrix.b.md5s() == before
    matrix.nothing_is_left()


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_instance_that_is_there_in_another_transfer_syntax_counts_as_there(
    matrix: ProtocolMatrix, variant: str
) -> None:
    by_instance: dict[str, dict[str, bytes]] = {}
    for path in compressed_files():
        data = path.read_bytes()
        by_instance.setdefault(orthanc_id(data), {})[transfer_syntax(data) or ""] = data
    identifier, (ours, theirs, *_) = next(
        (identifier, list(found.values())) for identifier, found in by_instance.items() if len(found) > 1
    )
    matrix.a.upload(ours)
    matrix.b.upload(theirs)
    before = matrix.b.md5s()
    assert before != matrix.a.md5s()
    transfer = matrix.start(variant, [resource("Instance", identifier)])
    transfer.succeed()
    assert matrix.b.md5s() == before
    if variant != "push-1":
        assert outcomes(transfer) == {identifier: "already there"}


def test_what_a_script_of_the_receiver_changes_while_it_stores_is_stored(matrix: ProtocolMatrix) -> None:
    files = numbered("Change^Name", 3)
    matrix.start("push-2", store(matrix.a, files)).succeed()
    assert {
        matrix.b.get(f"instances/{one}/simplified-tags")["PatientName"] for one in matrix.b.instances()
    } == {"Chance^Name"}


# --- Orthanc's own storage is full


@pytest.fixture
def disk(make_disk: MakeDisk, tmp_path: Path) -> SmallDisk:
    """Of Orthanc's storage.

    Of each file that it cannot write to its end, Orthanc leaves the beginning on its disk: there is room for those
    and for four slices of 0.5 MB.
    """
    return make_disk(tmp_path / "disk", 6_000_000)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_full_storage_refuses_all_and_the_transfer_goes_through_once_there_is_room(
    make_server: MakeServer, disk: SmallDisk, tmp_path: Path, variant: str
) -> None:
    configuration = {"StorageDirectory": str(disk.path)}
    a, b = make_server("a"), make_server("b", configuration=configuration)
    with start_matrix(a, b, tmp_path, tmp_path / "staging", {"MaxHttpRetries": 1}) as matrix:
        matrix.b.upload_all(small_instances(5))
        before = matrix.b.md5s()
        ours = store(a, list(ct_study(4)))
        disk.fill(leave=1_200_000)
        transfer = matrix.start(variant, ours)
        said = transfer.failure()
        assert re.search(
            "bytes are needed for importing this transfer, [0-9]+ are free on that disk", said
        ), said
        assert matrix.b.md5s() == before
        matrix.nothing_is_left()
        disk.make_room()
        transfer.again().succeed()
        assert matrix.b.md5s() == {**before, **a.md5s()}


@pytest.mark.parametrize("mode", ["Recycle", "Reject"])
@pytest.mark.parametrize("variant", ["push-2", "pull-2"])
def test_what_a_storage_never_has_room_for_is_refused_and_nothing_is_deleted(
    make_server: MakeServer, tmp_path: Path, variant: str, mode: str
) -> None:
    configuration = {"MaximumStorageSize": 2, "MaximumStorageMode": mode}
    a, b = make_server("a"), make_server("b", configuration=configuration)
    with start_matrix(a, b, tmp_path, tmp_path / "staging", {"MaxHttpRetries": 1}) as matrix:
        if mode == "Reject" and "MaximumStorageMode" not in b.get("system"):
            pytest.skip("this Orthanc knows no MaximumStorageMode (1.11.3)")
        patient = b.upload_all(small_instances(5))[0]["ParentPatient"]
        # Recycling is a matter of Orthanc's: it deletes the oldest patients, unless they are protected.
        b.request("PUT", f"patients/{patient}/protected", data="1")
        before = b.md5s()
        transfer = matrix.start(variant, store(a, list(ct_study(6))))
        said = transfer.failure()
        assert "MaximumStorageSize is 2 MB" in said
        assert b.md5s() == before
        matrix.nothing_is_left()


def test_with_overwriting_what_was_overwritten_is_not_brought_back_and_not_deleted(
    make_server: MakeServer, tmp_path: Path
) -> None:
    # The one thing that cannot be undone: see "OverwriteInstances" in the README.
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    a, b = (
        make_server("a"),
        make_server("b", script=script, configuration={"OverwriteInstances": True}),
    )
    with start_matrix(a, b, tmp_path, tmp_path / "staging", {"CommitThreadsCount": 1}) as matrix:
        files = numbered("Raise^Overwriting")
        resources = store(a, files)
        b.upload(changed(files[0]))
        overwritten = orthanc_id(files[0])
        transfer = matrix.start("push-2", resources)
        assert orthanc_id(files[5]) in transfer.failure()
        assert b.md5s() == {overwritten: a.md5s()[overwritten]}
        assert outcomes(transfer)[overwritten] == "stored"
