"""MD5s of stored files: by parts where they are in Orthanc's folder, and remembered."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from orthanc_transfers.core.checksum import MD5_OF_NOTHING
from orthanc_transfers.core.errors import Canceled
from orthanc_transfers.host import index_questions
from orthanc_transfers.host.file_hash import FileHashes
from orthanc_transfers.host.index_questions import IndexedFile
from orthanc_transfers.host.storage_area import StorageArea
from orthanc_transfers.runtime.cancellation import Cancellation

UUID = "b90e8144-8bf4-4e11-ba2f-898a487e4243"
DATA = bytes(range(256)) * (9 * 4096 + 1)  # 9 MB and a bit: three parts
MD5 = hashlib.md5(DATA).hexdigest()
FILE = IndexedFile(len(DATA), None, UUID)


class Files:
    """One file in a storage folder, and how often it was read whole instead."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "b9" / "0e" / UUID
        self.path.parent.mkdir(parents=True)
        self.path.write_bytes(DATA)
        self.read_whole: list[str] = []
        self.hashes = FileHashes(StorageArea(folder), self._read)

    def _read(self, identifier: str) -> bytes:
        self.read_whole.append(identifier)
        return DATA


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_a_file_in_the_folder_is_hashed_by_parts_and_once(files: Files) -> None:
    assert files.hashes.md5("i", FILE, Cancellation()) == MD5
    files.path.write_bytes(b"gone")
    assert files.hashes.md5("i", FILE, Cancellation()) == MD5
    assert files.read_whole == []


def test_as_it_is_now_means_read_again(files: Files) -> None:
    files.hashes.md5("i", FILE, Cancellation())
    files.path.write_bytes(DATA[::-1])
    assert files.hashes.hash("i", FILE, Cancellation()) == hashlib.md5(DATA[::-1]).hexdigest()


@pytest.mark.parametrize("file", [IndexedFile(len(DATA), None, None), FILE._replace(size=5)])
def test_a_file_that_is_not_there_as_it_is_is_read_whole(files: Files, file: IndexedFile) -> None:
    assert files.hashes.md5("i", file, Cancellation()) == MD5
    assert files.read_whole == ["i"]


def test_canceled_between_two_parts(files: Files) -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Canceled):
        files.hashes.md5("i", FILE, cancellation)


def attachment(size: int, md5: str, compressed: int | None = None) -> dict[str, object]:
    return {
        "UncompressedSize": size,
        "CompressedSize": size if compressed is None else compressed,
        "UncompressedMD5": md5,
        "CompressedMD5": md5,
        "Uuid": UUID,
    }


def test_the_md5_of_nothing_is_none_of_a_file_that_has_bytes() -> None:
    # What Orthanc's index says of files of 2^31 bytes and more.
    parse = index_questions._parse
    assert parse(attachment(2**31, MD5_OF_NOTHING)) == IndexedFile(2**31, None, UUID)
    assert parse(attachment(0, MD5_OF_NOTHING)) == IndexedFile(0, MD5_OF_NOTHING, UUID)
    assert parse(attachment(2**31, MD5)) == IndexedFile(2**31, MD5, UUID)
    assert parse(attachment(2**31, MD5_OF_NOTHING, compressed=5)).uuid is None
