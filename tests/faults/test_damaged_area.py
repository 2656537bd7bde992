"""The staging file is damaged between verification and import, as by a bad disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.failpoints import Failpoint
from tests.faults.rig import Rig, staging, start_rig, unfinished
from tests.support.dicom_data import multi_frame
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]


@pytest.fixture(scope="module")
def rig(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with start_rig(make_shared_server, tmp_path_factory.mktemp("damaged")) as rig:
        yield rig


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("mode", ["push", "pull"])
@pytest.mark.parametrize("size", [1_000_000, 6_000_000])
def test_bytes_that_cannot_be_read_any_more_are_an_error_and_not_the_end_of_orthanc(
    rig: Rig, mode: str, version: int, size: int
) -> None:
    source, target = (rig.a, rig.b) if mode == "push" else (rig.b, rig.a)
    for server in (source, target):
        server.clear()
    # Large files are read in another way.
    patient = next(source.upload(multi_frame(size))["ParentPatient"] for _ in range(3))
    order = rig.a.send if mode == "push" else rig.a.pull
    with Failpoint(target, "Area.journal_committing after", "wait"):
        job = order([resource("Patient", patient)], f"b{version}")["ID"]
        (area,) = wait_until(lambda: committing(staging(target)), "the beginning of the import")
        os.truncate(area, 0)
    known = rig.a.wait_for_job(job)
    assert known["State"] == "Failure", known
    assert "shorter than its manifest" in known["Content"]["Error"]
    assert "nothing was kept" in known["Content"]["Error"]
    assert target.instances() == []
    wait_until(lambda: not unfinished(target), "nothing is staged")
    rig.a.post(f"jobs/{job}/resubmit")
    known = rig.a.wait_for_job(job)
    assert known["State"] == "Success", known
    assert target.md5s() == source.md5s()


def committing(folder: Path) -> list[Path]:
    """The areas of which an import has begun: its record is in the journal."""
    return [
        path.with_name("area")
        for path in folder.glob("*/journal")
        if b"\xd1TJ\x01\x04" in path.read_bytes() and path.with_name("area").exists()
    ]
