"""An instance is overwritten with other bytes (OverwriteInstances): what is sent is the current version."""

from __future__ import annotations

import io

import pydicom
import pytest

from tests.support.dicom_data import small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, start_together

pytestmark = pytest.mark.orthanc


@pytest.fixture(scope="module", params=[False, True], ids=["as they are", "compressed"])
def shared(
    make_shared_server: MakeServer, request: pytest.FixtureRequest
) -> tuple[OrthancServer, OrthancServer]:
    # Of compressed files, none is read in Orthanc's folder: they come through Orthanc, and a cache.
    stored = {"OverwriteInstances": True, "StorageCompression": request.param}
    a = make_shared_server(f"a-{request.param}", configuration=stored)
    b = make_shared_server(f"b-{request.param}")
    a.add_peer("b", b)
    b.add_peer("a", a)
    start_together(a, b)
    return a, b


@pytest.fixture
def a(shared: tuple[OrthancServer, OrthancServer]) -> OrthancServer:
    for server in shared:
        server.clear()
    return shared[0]


@pytest.fixture
def b(shared: tuple[OrthancServer, OrthancServer], a: OrthancServer) -> OrthancServer:
    return shared[1]


@pytest.fixture(params=["longer", "shorter", "as long"])
def overwritten(request: pytest.FixtureRequest, a: OrthancServer) -> str:
    """An instance of which some bytes were asked for, and that is another one since then."""
    (data,) = small_instances(1)
    dataset = pydicom.dcmread(io.BytesIO(data))
    comments = {"longer": "x" * 100, "as long": "x" * 50, "shorter": "x"}
    versions = []
    for text in ("y" * 50, comments[request.param]):
        dataset.PatientComments = text
        file = io.BytesIO()
        dataset.save_as(file)
        versions.append(file.getvalue())
    identifier = str(a.upload(versions[0])["ID"])
    assert a.download(f"transfers/chunks/{identifier}?size=100") == versions[0][:100]
    assert a.upload(versions[1])["Status"] == "Success"
    return identifier


def test_its_bytes_are_those_of_now(a: OrthancServer, overwritten: str) -> None:
    assert a.download(f"transfers/chunks/{overwritten}") == a.download(f"instances/{overwritten}/file")


@pytest.mark.parametrize("route", ["send", "pull"])
def test_it_is_transferred_as_it_is_now(
    a: OrthancServer, b: OrthancServer, overwritten: str, route: str
) -> None:
    server, peer = (a, "b") if route == "send" else (b, "a")
    body = {"Resources": [resource("Instance", overwritten)], "Peer": peer}
    job = server.wait_for_job(server.post(f"transfers/{route}", body)["ID"])
    assert job["State"] == "Success", job
    assert b.md5s() == a.md5s()
