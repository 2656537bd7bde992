"""A receiver whose index has no MD5s (StoreMD5ForAttachments): what it has is known by its files."""

from __future__ import annotations

import pytest

from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import pair, start_together

pytestmark = pytest.mark.orthanc


def test_what_it_has_is_not_sent_again(make_server: MakeServer) -> None:
    a, b = make_server("a"), make_server("b", configuration={"StoreMD5ForAttachments": False})
    pair(a, b)
    start_together(a, b)
    files = list(ct_study(12, size=64))
    stored = a.upload_all(files)
    b.upload_all(files[:5])
    study = [resource("Study", stored[0]["ParentStudy"])]
    for there in (5, 12):
        job = a.wait_for_job(a.send(study, "b")["ID"])
        assert job["State"] == "Success", job
        assert job["Content"]["AlreadyStoredInstances"] == there
    assert {b.download(f"instances/{one}/file") for one in b.instances()} == set(files)
    # And as a sender.
    a.clear()
    job = a.wait_for_job(a.pull(study, "b")["ID"])
    assert job["State"] == "Success", job
    assert {a.download(f"instances/{one}/file") for one in a.instances()} == set(files)
