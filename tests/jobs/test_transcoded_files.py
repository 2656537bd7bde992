"""What peers fetch in another transfer syntax: the same files each time, and not all at once."""

from __future__ import annotations

import pytest

from orthanc_transfers.core.checksum import md5
from orthanc_transfers.core.errors import BadRequest, UnknownResource
from orthanc_transfers.core.messages_transcoding import TranscodedRequest
from orthanc_transfers.core.model import Chunk
from orthanc_transfers.jobs import transcoded_files
from orthanc_transfers.jobs.transcoded_files import TranscodedFiles
from orthanc_transfers.runtime.cancellation import Cancellation
from tests.jobs.memory_store import MemoryStore
from tests.jobs.test_transcoding import EXPLICIT, JPEG, Transcoder, dicom

OTHER = "1.2.840.10008.1.2.4.80"


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.put(*(dicom(number, EXPLICIT, bytes([number]) * 5000 + b"end") for number in range(9)))
    store.put(dicom(77, EXPLICIT, b"a report"), dicom(78, JPEG, b"there already"))
    return store


def files(store: MemoryStore) -> TranscodedFiles:
    return TranscodedFiles(store, Transcoder(), 100_000)


def made(store: MemoryStore, identifier: str) -> bytes:
    data = store.files[identifier]
    return bytes(data if data.endswith((b"a report", b"already")) else Transcoder()(data, JPEG))


def test_the_list_tells_what_the_chunks_are(store: MemoryStore) -> None:
    one, asked = files(store), tuple(sorted(store.files))
    found = one.listed(TranscodedRequest(JPEG, asked), Cancellation())
    assert found.originals == tuple(instance.id for instance in found.instances) == asked
    assert (found.transcoded, found.untranscoded) == (9, 1)
    for instance in found.instances:
        expected = made(store, instance.id)
        assert (instance.size, instance.md5) == (len(expected), md5(expected))
        middle = instance.size // 2
        chunks = [Chunk(instance.id, 0, middle), Chunk(instance.id, middle, instance.size - middle)]
        # Another process, or node, has seen no list.
        for reader in (one, files(store)):
            assert b"".join(map(bytes, reader.read(JPEG, chunks))) == expected


def test_as_many_are_listed_as_can_be_made_in_good_time(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcoded_files, "_SECONDS", 0.0)
    asked = tuple(sorted(store.files))
    found = files(store).listed(TranscodedRequest(JPEG, asked), Cancellation())
    assert 0 < len(found.instances) < len(asked)
    assert found.originals == asked[: len(found.instances)]


def test_what_is_remembered_is_bounded(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcoded_files, "_MAX_KNOWN", 4)
    one, asked = files(store), tuple(sorted(store.files))
    for syntax in (JPEG, OTHER, EXPLICIT, JPEG):
        one.listed(TranscodedRequest(syntax, asked), Cancellation())
        assert len(one._stores) <= 2
    (chunk,) = [Chunk(asked[0], 0, 10)]
    assert bytes(one.read(JPEG, [chunk])[0]) == made(store, asked[0])[:10]


def test_what_is_not_there_or_beyond_its_end_is_refused(store: MemoryStore) -> None:
    one, identifier = files(store), next(iter(store.files))
    with pytest.raises(UnknownResource):
        one.listed(TranscodedRequest(JPEG, ("nowhere",)), Cancellation())
    with pytest.raises(BadRequest):
        one.read(JPEG, [Chunk(identifier, 0, 10**6)])
