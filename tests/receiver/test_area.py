"""The files of one incoming transfer."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest

from orthanc_transfers.core.errors import BadFile, Corrupted, UnknownTransaction
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
    # Its name is gone, and its bytes are still there for a thread that is reading. On NFS a folder cannot be deleted
    # while a file of it is open.
    assert not area.directory.exists()
    assert {path.name for path in tmp_path.glob("*/*")} == {"area", "manifest", "journal"}
    assert first + b"".join(bytes(block) for block in reading) == BYTES
    with pytest.raises(UnknownTransaction):
        area.write([(Range(0, 1), 0)], memoryview(b"x"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shared", [False, True])
def test_any_range_is_there_in_one_piece(tmp_path: Path, shared: bool) -> None:
    area = Area.create(tmp_path / ("a" * 32), MANIFEST, {}, shared=shared)
    area.write([(Range(0, len(BYTES)), 0)], memoryview(BYTES))
    for item in (Range(0, len(BYTES)), Range(1, 2), Range(1000, 2001)):
        with area.whole(item) as view:
            assert bytes(view) == BYTES[item.start : item.stop]
    area.close()


def test_on_shared_storage_another_machine_may_cut_a_file_while_it_is_imported(tmp_path: Path) -> None:
    # A mapping would end this process (SIGBUS).
    area = Area.create(tmp_path / ("a" * 32), MANIFEST, {}, shared=True)
    area.write([(Range(0, len(BYTES)), 0)], memoryview(BYTES))
    with area.whole(MANIFEST.area) as view:
        os.truncate(area.directory / "area", 0)
        assert bytes(view) == BYTES
    with pytest.raises(Corrupted), area.whole(MANIFEST.area):
        pass
    area.close()


def test_on_shared_storage_no_memory_is_kept_of_a_large_instance(tmp_path: Path) -> None:
    files = [dicom("large", 8_000_000)]
    area = Area.create(tmp_path / ("a" * 32), manifest_of(files), {}, shared=True)
    area.write([(Range(0, len(files[0])), 0)], memoryview(files[0]))
    tracemalloc.start()
    try:
        with area.whole(area.manifest.area) as view:
            assert bytes(view[-100:]) == files[0][-100:]
            assert tracemalloc.get_traced_memory()[0] > 8_000_000
        del view
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
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


@pytest.mark.parametrize("shared", [True, False])
def test_the_bytes_are_written_through_before_an_import_that_another_machine_may_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    area = Area.create(tmp_path / ("a" * 32), MANIFEST, {}, shared=shared)
    area.write([(MANIFEST.area, 0)], memoryview(BYTES))
    synced: list[str] = []
    for call in ("fsync", "fdatasync"):
        monkeypatch.setattr(
            f"os.{call}", lambda fd: synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)
        )
    area.journal_committing(frozenset({0}))
    assert ("area" in synced) is shared
    assert "journal" in synced[synced.index("area") + 1 :] if shared else "journal" in synced
