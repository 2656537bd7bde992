"""A push that transcodes: what is announced and sent are the transcoded files, made with bounded memory."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.errors import HostError
from orthanc_transfers.interfaces import StepOutcome
from orthanc_transfers.jobs import transcoding
from tests.jobs.two_peers import PeerPair, finish, make_pair

EXPLICIT = "1.2.840.10008.1.2.1"
JPEG = "1.2.840.10008.1.2.4.70"


def dicom(number: int, syntax: str, body: bytes) -> bytes:
    """A "DICOM file": its first bytes stand for its identifier, a body for its pixels."""
    uid = syntax.encode().ljust(20, b"\0")
    element = struct.pack("<HH2sH", 2, 0x10, b"UI", len(uid)) + uid
    return number.to_bytes(16, "little") + bytes(112) + b"DICM" + element + body


class Transcoder:
    """In place of Orthanc's."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, data: Buffer, syntax: str) -> memoryview:
        self.calls += 1
        if bytes(data).endswith(b"a report"):
            raise HostError("no pixels", 1)
        number = int.from_bytes(bytes(data[:16]), "little")
        return memoryview(dicom(number, syntax, bytes(data[160:])[::-1]))


@pytest.fixture(params=[1, 2])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PeerPair]:
    one = make_pair(tmp_path, version=request.param)
    one.here.store.put(*(dicom(number, EXPLICIT, bytes([number]) * 5000 + b"end") for number in range(5)))
    yield one
    one.close()


@pytest.fixture
def transcoder(pair: PeerPair) -> Transcoder:
    found = Transcoder()
    pair.services = replace(pair.services, transcode=found)
    return found


def expected(pair: PeerPair) -> dict[str, bytes]:
    return {one: bytes(Transcoder()(data, JPEG)) for one, data in pair.here.store.files.items()}


def test_the_receiver_gets_the_transcoded_files(pair: PeerPair, transcoder: Transcoder) -> None:
    job = pair.push(Transcode=JPEG)
    assert finish(job) is StepOutcome.SUCCESS
    assert pair.there.store.files == expected(pair)
    assert job.content()["TranscodedInstances"] == 5


def test_what_does_not_fit_in_memory_is_made_once_more(
    pair: PeerPair, transcoder: Transcoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcoding, "_KEPT", 12_000)
    assert finish(pair.push(Transcode=JPEG)) is StepOutcome.SUCCESS
    assert pair.there.store.files == expected(pair)
    assert transcoder.calls > 5


def test_what_cannot_be_transcoded_or_need_not_goes_as_it_is(pair: PeerPair, transcoder: Transcoder) -> None:
    report, image = dicom(77, EXPLICIT, b"a report"), dicom(78, JPEG, b"there already")
    as_they_are = pair.here.store.put(report, image, b"no DICOM file at all")
    job = pair.push(Transcode=JPEG)
    assert finish(job) is StepOutcome.SUCCESS
    for identifier in as_they_are:
        assert pair.there.store.files[identifier] == pair.here.store.files[identifier]
    content = job.content()
    assert (content["TranscodedInstances"], content["NotTranscodedInstances"]) == (5, 2)


def test_a_job_that_is_reloaded_still_knows_it(pair: PeerPair, transcoder: Transcoder) -> None:
    saved = pair.push(Transcode=JPEG).serialized()
    assert saved["Transcode"] == JPEG


def test_a_pull_gets_what_a_peer_transcodes(pair: PeerPair, transcoder: Transcoder) -> None:
    pair.there.transcode = transcoder
    pair.there.restart()
    pair.there.store.put(*pair.here.store.files.values(), dicom(77, EXPLICIT, b"a report"))
    pair.here.store.files.clear()
    job = pair.pull(Transcode=JPEG)
    if pair.there.version == 1:
        assert finish(job) is StepOutcome.FAILURE
        assert "speaks version 1 of the protocol" in job.content()["Error"]
        return
    assert finish(job) is StepOutcome.SUCCESS
    report = {one: data for one, data in pair.there.store.files.items() if data.endswith(b"a report")}
    expected = {
        one: bytes(Transcoder()(data, JPEG))
        for one, data in pair.there.store.files.items()
        if one not in report
    }
    assert pair.here.store.files == {**expected, **report}
    content = job.content()
    assert (content["TranscodedInstances"], content["NotTranscodedInstances"]) == (5, 1)


def test_a_pull_from_an_earlier_release_says_that_it_cannot(pair: PeerPair) -> None:
    pair.there.store.put(*pair.here.store.files.values())
    job = pair.pull(Transcode=JPEG)
    assert finish(job) is StepOutcome.FAILURE
    assert "cannot transcode what is fetched from it" in job.content()["Error"]
