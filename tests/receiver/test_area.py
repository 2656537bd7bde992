"""The files of one incoming transfer."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from orthanc_transfers.core.errors import BadFile, UnknownTransaction
from orthanc_transfers.core.ranges import Range
from orthanc_transfers.receiver.area import Area
from tests.receiver.memory_receiver import dicom, manifest_of

FILES = [dicom(f"file-{number}", 900) for number in range(4)]
MANIFEST = manifest_of(FILES)
BYTES = b"".join(FILES)


def test_an_area_in_use_is_closed_only_when_its_last_user_has_left(tmp_path: Path) -> None:
    area = Area.create(tmp_path / ("a" * 32), MANIFEST, {})
    area.write([(Range(0, len(BYTES)), 0)], memoryview(BYTES))
    reading = area.blocks(MANIFEST.area, memoryview(bytearray(100)))
    first = bytes(next(reading))
    area.discard()
    # Its names are gone, and its bytes are still there for a thread that is reading.
    assert not area.directory.exists()
    assert first + b"".join(bytes(block) for block in reading) == BYTES
    with pytest.raises(UnknownTransaction):
        area.write([(Range(0, 1), 0)], memoryview(b"x"))


def test_a_mapping_shows_any_range(tmp_path: Path) -> None:
    area = Area.create(tmp_path / ("a" * 32), MANIFEST, {})
    area.write([(Range(0, len(BYTES)), 0)], memoryview(BYTES))
    for item in (Range(0, len(BYTES)), Range(1, 2), Range(1000, 2001)):
        with area.mapped(item) as view:
            assert bytes(view) == BYTES[item.start : item.stop]
    area.close()


def test_a_manifest_that_hides_another_content_is_damaged(tmp_path: Path) -> None:
    area = Area.create(tmp_path / ("a" * 32), MANIFEST, {"kind": "push"})
    path = area.directory / "manifest"
    content = path.read_bytes()
    path.write_bytes(content.replace(json.dumps("push").encode(), json.dumps("pull").encode()))
    with pytest.raises(BadFile, match="damaged"):
        Area.reopen(area.directory)


def test_an_area_that_is_too_small_is_not_trusted(tmp_path: Path) -> None:
    area = Area.create(tmp_path / ("a" * 32), MANIFEST, {})
    (area.directory / "area").write_bytes(b"short")
    with pytest.raises(BadFile, match="smaller than"):
        Area.reopen(area.directory)


def test_an_area_that_grew_before_its_manifest_did_is_found_again(tmp_path: Path) -> None:
    area = Area.create(tmp_path / ("a" * 32), MANIFEST, {})
    os.truncate(area.directory / "area", MANIFEST.size + 1000)
    (area.directory / ".new-manifest").write_bytes(b"half")
    assert Area.reopen(area.directory).manifest == MANIFEST
