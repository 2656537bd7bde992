"""A receiver that changes what it stores, or renames it."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests.faults.protocol_matrix import ProtocolMatrix, Transfer, start_matrix
from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import ENTRY, OrthancServer

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

# Patients say by their names what is done with their instances; a UID keeps its length.
SCRIPT = f"""
import runpy
import orthanc

runpy.run_path({str(ENTRY)!r})

def received(dicom, origin):
    if b"Change^" in dicom:
        return orthanc.ReceivedInstanceAction.MODIFY, dicom.replace(b"Change^", b"Chance^")
    if b"Rename^" in dicom:
        if b"Refuse" in dicom:
            return orthanc.ReceivedInstanceAction.MODIFY, b"no DICOM"
        return orthanc.ReceivedInstanceAction.MODIFY, dicom.replace(b"2.25.", b"1.25.")
    return orthanc.ReceivedInstanceAction.KEEP_AS_IS, None

orthanc.RegisterReceivedInstanceCallback(received)
"""

JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
OPTIONS = {"MaxHttpRetries": 1, "CommitThreadsCount": 1}
VARIANTS = ("push-2", "pull-2", "push-1")


@pytest.fixture(scope="module")
def shared(
    make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProtocolMatrix]:
    folder = tmp_path_factory.mktemp("changing")
    script = folder / "a_script_of_the_user.py"
    script.write_text(SCRIPT)
    a, b = make_shared_server("a"), make_shared_server("b", script=script)
    with start_matrix(a, b, folder, folder / "staging", OPTIONS) as matrix:
        yield matrix


@pytest.fixture
def matrix(shared: ProtocolMatrix) -> ProtocolMatrix:
    """The same two Orthancs for most tests of this file, empty at the start of each."""
    shared.clear()
    return shared


def store(server: OrthancServer, files: list[bytes]) -> list[dict[str, str]]:
    return [resource("Study", server.upload_all(files)[0]["ParentStudy"])]


def counts(transfer: Transfer) -> dict[str, int]:
    content = transfer.succeed()
    found: dict[str, int] = content["Report"]
    return found


def outcomes(transfer: Transfer) -> list[str]:
    report = transfer.server.get(f"transfers/reports/{transfer.job}")
    return sorted(row["Outcome"] for row in report["Instances"])


def send_a_study_that_grew(matrix: ProtocolMatrix, variant: str, name: str) -> Transfer:
    files = list(ct_study(5, size=64, name=name))
    resources = store(matrix.a, files[:3])
    matrix.start(variant, resources).succeed()
    assert not set(matrix.b.md5s().values()) & set(matrix.a.md5s().values())
    store(matrix.a, files[3:])
    matrix.b.restart()
    return matrix.start(variant, resources)


def check_the_study_that_grew(matrix: ProtocolMatrix, transfer: Transfer, variant: str) -> None:
    content = transfer.succeed()
    assert len(matrix.b.instances()) == 5
    if variant == "push-1":
        return
    assert content["Report"] == {"Stored": 2, "AlreadyStored": 3, "FilteredOut": 0, "Changed": 3}
    assert content["AlreadyStoredInstances"] == 3, "they need not travel"
    assert outcomes(transfer) == ["already there, changed"] * 3 + ["stored"] * 2
    assert "3 instances are not here as they were sent" in matrix.b.log


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_a_script_changed_is_there_when_it_is_sent_again(matrix: ProtocolMatrix, variant: str) -> None:
    transfer = send_a_study_that_grew(matrix, variant, "Change^Name")
    check_the_study_that_grew(matrix, transfer, variant)


@pytest.mark.parametrize("variant", ["push-2"])
def test_what_was_transcoded_is_there_when_it_is_sent_again(
    make_server: MakeServer, tmp_path: Path, variant: str
) -> None:
    a, b = make_server("a"), make_server("b", configuration={"IngestTranscoding": JPEG_LOSSLESS})
    with start_matrix(a, b, tmp_path, tmp_path / "staging", OPTIONS) as matrix:
        transfer = send_a_study_that_grew(matrix, variant, "Transcode^Me")
        check_the_study_that_grew(matrix, transfer, variant)


def test_other_content_than_what_was_changed_is_still_a_conflict(matrix: ProtocolMatrix) -> None:
    files = list(ct_study(2, size=64, name="Change^Name"))
    resources = store(matrix.a, files)
    matrix.start("push-2", resources).succeed()
    matrix.a.clear()
    store(matrix.a, [data.replace(b"Made-up CT", b"Another CT") for data in files])
    assert "other content" in matrix.start("push-2", resources).failure()


def test_without_a_record_it_is_a_conflict(matrix: ProtocolMatrix) -> None:
    resources = store(matrix.a, list(ct_study(2, size=64, name="Change^Name")))
    matrix.start("push-2", resources).succeed()
    shutil.rmtree(matrix.staging / "changed")
    assert "other content" in matrix.start("push-2", resources).failure()


def bare(data: bytes, description: str) -> bytes:
    """The data set alone: neither preamble nor meta header, so that nothing names its transfer syntax."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.SeriesDescription = description
    plain = pydicom.Dataset(dataset)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, plain, implicit_vr=True, little_endian=True, enforce_file_format=False)
    return buffer.getvalue()


@pytest.mark.parametrize("variant", ["push-2", "pull-2"])
def test_of_a_file_without_preamble_no_conflict_is_claimed(matrix: ProtocolMatrix, variant: str) -> None:
    (data,) = ct_study(1, size=64, name="Bare^File")
    resources = store(matrix.a, [bare(data, "one")])
    store(matrix.b, [bare(data, "another")])
    before = matrix.b.md5s()
    transfer = matrix.start(variant, resources)
    assert counts(transfer) == {"Stored": 0, "AlreadyStored": 1, "FilteredOut": 0}
    assert outcomes(transfer) == ["already there, not comparable"]
    assert matrix.b.md5s() == before != matrix.a.md5s()


@pytest.mark.parametrize("variant", ["push-2", "pull-2"])
def test_changed_identifiers_are_refused_and_the_option_is_named(
    matrix: ProtocolMatrix, variant: str
) -> None:
    resources = store(matrix.a, list(ct_study(3, size=64, name="Rename^Me")))
    said = matrix.start(variant, resources).failure()
    assert "AcceptChangedIdentifiers" in said
    assert matrix.b.instances() == []


@pytest.fixture(scope="module")
def renaming(
    make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProtocolMatrix]:
    folder = tmp_path_factory.mktemp("renaming")
    script = folder / "a_script_of_the_user.py"
    script.write_text(SCRIPT)
    a, b = make_shared_server("renamed"), make_shared_server("renaming", script=script)
    options: dict[str, Any] = {**OPTIONS, "AcceptChangedIdentifiers": True}
    with start_matrix(a, b, folder, folder / "staging", options) as matrix:
        yield matrix


@pytest.mark.parametrize("variant", VARIANTS)
def test_changed_identifiers_are_accepted_if_the_option_says_so(
    renaming: ProtocolMatrix, variant: str
) -> None:
    renaming.clear()
    resources = store(renaming.a, list(ct_study(3, size=64, name="Rename^Me")))
    for _ in range(2):
        transfer = renaming.start(variant, resources)
        content = transfer.succeed()
        assert len(renaming.b.instances()) == 3
        assert not set(renaming.b.instances()) & set(renaming.a.instances())
        if variant != "push-1":
            assert content["Report"] == {"Stored": 3, "AlreadyStored": 0, "FilteredOut": 0, "Renamed": 3}
            assert outcomes(transfer) == ["stored as another instance"] * 3


def test_what_was_renamed_is_undone_as_well(renaming: ProtocolMatrix) -> None:
    renaming.clear()
    files = list(ct_study(4, size=64, name="Rename^Me"))
    resources = store(renaming.a, files)
    last = renaming.a.instances()[-1]
    data = renaming.a.download(f"instances/{last}/file")
    renaming.a.delete(f"instances/{last}")
    renaming.a.upload(data.replace(b"Made-up CT", b"Refuse  CT"))
    assert last in renaming.start("push-2", resources).failure()
    assert renaming.b.instances() == []
