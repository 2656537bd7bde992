"""A request may have what it sends transcoded on the way: without loss, unless it says otherwise."""

from __future__ import annotations

import io
from typing import Any

import pydicom
import pytest

from orthanc_transfers.core.transfer_syntaxes import LOSSLESS, LOSSY
from tests.support.cpp_peer import CppPeer
from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, start_together

pytestmark = pytest.mark.orthanc

JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
COUNT = 5


@pytest.fixture(scope="module")
def shared(make_shared_server: MakeServer) -> tuple[OrthancServer, OrthancServer]:
    configuration = {"Transfers": {"AcceptMetadata": ["Metadata"]}}
    a, b = (make_shared_server(name, configuration=configuration) for name in ("a", "b"))
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


def eight_bits(server: OrthancServer) -> None:
    """Instead of all that it has: what JPEG Baseline can encode."""
    files = []
    for instance in server.instances():
        dataset = read(server, instance)
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit, dataset.PixelRepresentation = 7, 0
        dataset.PixelData = dataset.PixelData[::2]
        file = io.BytesIO()
        dataset.save_as(file)
        files.append(file.getvalue())
    server.clear()
    server.upload_all(files)


def test_with_a_loss_they_are_other_instances_and_the_job_and_the_report_say_which(
    a: OrthancServer, b: OrthancServer
) -> None:
    syntax = JPEG_BASELINE
    eight_bits(a)
    (noted,) = a.instances()[:1]
    assert a.request("PUT", f"instances/{noted}/metadata/1050", data="text").status_code == 200
    content = send(a, Transcode=syntax, AllowLossy=True)
    assert (content["TranscodedInstances"], content["ChangedIdentifiers"]) == (COUNT, COUNT)
    report = a.get(f"transfers/reports/{content['Transaction']}")
    originals = {row["ID"]: row["Original"] for row in report["Instances"]}
    assert sorted(originals) == sorted(b.instances())
    assert sorted(originals.values()) == sorted(a.instances())
    for instance, original in originals.items():
        copy = read(b, instance)
        assert copy.file_meta.TransferSyntaxUID == syntax
        assert copy.file_meta.MediaStorageSOPInstanceUID == copy.SOPInstanceUID
        assert copy.SOPInstanceUID != read(a, original).SOPInstanceUID
        assert copy.SeriesInstanceUID == read(a, original).SeriesInstanceUID
    (there,) = (instance for instance, original in originals.items() if original == noted)
    assert b.request("GET", f"instances/{there}/metadata/1050").text == "text"
    # The same instances come out each time.
    assert send(a, Transcode=syntax, AllowLossy=True)["Report"]["AlreadyStored"] == COUNT


@pytest.mark.parametrize("lossy", [JPEG_BASELINE, "1.2.840.10008.1.2.4.91", "nonsense"])
def test_a_lossy_transfer_syntax_is_refused_without_a_word_for_it(a: OrthancServer, lossy: str) -> None:
    body = {"Resources": [resource("Study", a.get("studies")[0])], "Peer": "b", "Transcode": lossy}
    answer = a.request("POST", "transfers/send", json=body)
    assert answer.status_code == 400
    assert "lossless" in answer.text


def fetch(server: OrthancServer, source: OrthancServer, **options: Any) -> dict[str, Any]:
    """What ``server`` pulls from ``source``, all of it."""
    (study,) = source.get("studies")
    job = server.pull([resource("Study", study)], "a", **options)["ID"]
    known = server.wait_for_job(job)
    assert known["State"] == "Success", known
    content: dict[str, Any] = known["Content"]
    return content


def test_a_pull_gets_it_so_from_a_peer_that_transcodes(a: OrthancServer, b: OrthancServer) -> None:
    content = fetch(b, a, Transcode=JPEG_LOSSLESS)
    assert content["TranscodedInstances"] == COUNT
    assert sorted(b.instances()) == sorted(a.instances())
    for instance in a.instances():
        assert read(b, instance).file_meta.TransferSyntaxUID == JPEG_LOSSLESS
        pixels = [server.download(f"instances/{instance}/frames/0/image-uint16") for server in (a, b)]
        assert pixels[0] == pixels[1]
    # The bytes are those that a push brings.
    pulled = b.md5s()
    b.clear()
    send(a, Transcode=JPEG_LOSSLESS)
    assert b.md5s() == pulled


def test_a_pull_with_a_loss_gets_other_instances(a: OrthancServer, b: OrthancServer) -> None:
    eight_bits(a)
    (noted,) = a.instances()[:1]
    assert a.request("PUT", f"instances/{noted}/metadata/1050", data="text").status_code == 200
    content = fetch(b, a, Transcode=JPEG_BASELINE, AllowLossy=True)
    assert (content["TranscodedInstances"], content["ChangedIdentifiers"]) == (COUNT, COUNT)
    assert not set(a.instances()) & set(b.instances())
    there = [b.request("GET", f"instances/{instance}/metadata/1050") for instance in b.instances()]
    assert [one.text for one in there if one.status_code == 200] == ["text"]
    pulled = b.md5s()
    b.clear()
    send(a, Transcode=JPEG_BASELINE, AllowLossy=True)
    assert b.md5s() == pulled


def test_a_peer_with_remote_self_asks_for_it(a: OrthancServer, b: OrthancServer) -> None:
    (study,) = a.get("studies")
    told = a.send([resource("Study", study)], "pulling", Transcode=JPEG_LOSSLESS)
    assert b.wait_for_job(told["RemoteJob"])["Content"]["TranscodedInstances"] == COUNT
    assert {read(b, one).file_meta.TransferSyntaxUID for one in b.instances()} == {JPEG_LOSSLESS}


def test_a_pull_from_a_peer_that_does_not_says_so(b: OrthancServer) -> None:
    with CppPeer() as peer:
        b.put("peers/cpp", {"Url": peer.url})
        job = b.pull([resource("Study", "0" * 8 + "-00000000" * 4)], "cpp", Transcode=JPEG_LOSSLESS)["ID"]
        known = b.wait_for_job(job)
    assert known["State"] == "Failure"
    assert "cannot transcode" in known["Content"]["Error"]


def test_who_wants_the_bytes_of_the_sender_does_not_want_others(a: OrthancServer) -> None:
    resources = [resource("Study", a.get("studies")[0])]
    body = {"Resources": resources, "Peer": "b", "Transcode": JPEG_LOSSLESS, "StrictMD5": True}
    answer = a.request("POST", "transfers/send", json=body)
    assert answer.status_code == 400
    assert "StrictMD5" in answer.text


def test_each_of_them_is_known_to_pydicom() -> None:
    for uid in (*LOSSLESS, *LOSSY):
        assert pydicom.uid.UID(uid).is_transfer_syntax
