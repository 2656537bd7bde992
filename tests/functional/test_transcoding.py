"""A request may have what it sends transcoded on the way, to a lossless transfer syntax."""

from __future__ import annotations

import io
from typing import Any

import pydicom
import pytest

from orthanc_transfers.core.transfer_syntaxes import LOSSLESS
from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, start_together

pytestmark = pytest.mark.orthanc

JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_LS = "1.2.840.10008.1.2.4.80"
COUNT = 5


@pytest.fixture(scope="module")
def shared(make_shared_server: MakeServer) -> tuple[OrthancServer, OrthancServer]:
    a, b = make_shared_server("a"), make_shared_server("b")
    a.add_peer("b", b)
    a.add_peer("pulling", b, RemoteSelf="a")
    b.add_peer("a", a)
    start_together(a, b)
    return a, b


@pytest.fixture
def a(shared: tuple[OrthancServer, OrthancServer]) -> OrthancServer:
    for server in shared:
        server.clear()
    shared[0].upload_all(list(ct_study(COUNT, size=64)))
    return shared[0]


@pytest.fixture
def b(shared: tuple[OrthancServer, OrthancServer]) -> OrthancServer:
    return shared[1]


def send(server: OrthancServer, **options: Any) -> dict[str, Any]:
    (study,) = server.get("studies")
    job = server.send([resource("Study", study)], "b", **options)["ID"]
    known = server.wait_for_job(job)
    assert known["State"] == "Success", known
    content: dict[str, Any] = known["Content"]
    return content


def read(server: OrthancServer, instance: str) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(server.download(f"instances/{instance}/file")))


@pytest.mark.parametrize("syntax", [JPEG_LOSSLESS, JPEG_LS])
def test_it_arrives_so_with_its_identifiers_and_pixels(
    a: OrthancServer, b: OrthancServer, syntax: str
) -> None:
    content = send(a, Transcode=syntax)
    assert content["TranscodedInstances"] == COUNT
    assert "NotTranscodedInstances" not in content
    assert sorted(b.instances()) == sorted(a.instances())
    for instance in a.instances():
        assert read(b, instance).file_meta.TransferSyntaxUID == syntax
        pixels = [server.download(f"instances/{instance}/frames/0/image-uint16") for server in (a, b)]
        assert pixels[0] == pixels[1]


def test_the_same_file_comes_out_each_time(a: OrthancServer, b: OrthancServer) -> None:
    send(a, Transcode=JPEG_LOSSLESS)
    first = b.md5s()
    report = send(a, Transcode=JPEG_LOSSLESS)["Report"]
    assert report["AlreadyStored"] == COUNT
    b.clear()
    send(a, Transcode=JPEG_LOSSLESS)
    assert b.md5s() == first


def test_what_is_in_that_transfer_syntax_goes_as_it_is(a: OrthancServer, b: OrthancServer) -> None:
    content = send(a, Transcode="1.2.840.10008.1.2.1")
    assert content.get("TranscodedInstances", 0) == 0
    assert b.md5s() == a.md5s()


def test_what_cannot_be_transcoded_goes_as_it_is_and_is_counted(a: OrthancServer, b: OrthancServer) -> None:
    dataset = read(a, a.instances()[0])
    del dataset.PixelData
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.77"
    file = io.BytesIO()
    dataset.save_as(file)
    report = a.upload(file.getvalue())["ID"]
    content = send(a, Transcode=JPEG_LOSSLESS)
    assert content["TranscodedInstances"] + content.get("NotTranscodedInstances", 0) == COUNT + 1
    assert report in b.instances()


@pytest.mark.parametrize("lossy", ["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.91", "nonsense"])
def test_a_lossy_transfer_syntax_is_refused(a: OrthancServer, lossy: str) -> None:
    body = {"Resources": [resource("Study", a.get("studies")[0])], "Peer": "b", "Transcode": lossy}
    answer = a.request("POST", "transfers/send", json=body)
    assert answer.status_code == 400
    assert "lossless" in answer.text


def test_a_pull_cannot_ask_for_it(a: OrthancServer, b: OrthancServer) -> None:
    body = {"Resources": [resource("Study", a.get("studies")[0])], "Transcode": JPEG_LOSSLESS}
    for server, route, peer in ((b, "pull", "a"), (a, "send", "pulling")):
        answer = server.request("POST", f"transfers/{route}", json={**body, "Peer": peer})
        assert answer.status_code == 400
        assert "Transcode" in answer.text


def test_each_of_them_is_known_to_pydicom_as_lossless() -> None:
    for uid in LOSSLESS:
        assert pydicom.uid.UID(uid).is_transfer_syntax
