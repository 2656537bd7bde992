"""Parts of files, from Orthanc's own storage folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orthanc_transfers.host.storage_area import StorageArea

UUID = "b90e8144-8bf4-4e11-ba2f-898a487e4243"
DATA = bytes(range(256)) * 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    file = tmp_path / "b9" / "0e" / UUID
    file.parent.mkdir(parents=True)
    file.write_bytes(DATA)
    return tmp_path


def read(
    folder: Path, uuid: str = UUID, whole: int = len(DATA), offset: int = 0, size: int = 1
) -> bytes | None:
    part = bytearray(size)
    return bytes(part) if StorageArea(folder).read_into(memoryview(part), uuid, whole, offset) else None


def test_a_part_is_read_where_it_is_asked_for(folder: Path) -> None:
    assert read(folder, offset=100, size=50) == DATA[100:150]
    assert read(folder, size=len(DATA)) == DATA


def test_a_file_of_another_size_is_not_the_one(folder: Path) -> None:
    assert read(folder, whole=len(DATA) + 1) is None


def test_what_is_not_there_whole_is_nothing(folder: Path) -> None:
    assert read(folder, offset=len(DATA) - 5, size=10) is None
    assert read(folder, UUID.replace("b", "c")) is None
    assert read(folder / "elsewhere") is None


@pytest.mark.parametrize("name", ["", "../../b9/0e/" + UUID, "/etc/passwd", UUID + "/..", UUID.upper()])
def test_only_what_orthanc_makes_is_a_name(folder: Path, name: str) -> None:
    assert read(folder, name) is None


def test_no_descriptor_is_left_open(folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for whole in (len(DATA), 1):
        read(folder, whole=whole)
    assert len(os.listdir("/proc/self/fd")) == before
