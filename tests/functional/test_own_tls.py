"""Orthanc's own TLS (``SslEnabled``), on both sides."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import dicom_data, orthanc_tls
from tests.support.certificates import make_certificate
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import pair, start_together

pytestmark = pytest.mark.orthanc


def test_small_and_large_are_pushed_and_pulled(make_server: MakeServer, tmp_path: Path) -> None:
    certificate, environment = make_certificate(tmp_path), orthanc_tls.environment(tmp_path)
    a, b = (make_server(name, certificate=certificate, environment=environment) for name in "ab")
    pair(a, b)
    start_together(a, b)
    for files in (dicom_data.small_instances(2), [dicom_data.multi_frame(10_000_000)]):
        study = [resource("Study", a.upload_all(files)[0]["ParentStudy"])]
        for asked, transfer, peer in ((a, a.send, "b"), (b, b.pull, "a")):
            job = asked.wait_for_job(transfer(study, peer)["ID"])
            assert job["State"] == "Success", job
            assert b.md5s() == a.md5s()
            b.clear()
        a.clear()
