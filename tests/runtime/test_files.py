"""Files on disk: in full, atomically, fsynced where that is asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orthanc_transfers.runtime import files


def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are fsynced from now on, by the names that they have then."""
    paths: list[Path] = []
    monkeypatch.setattr("os.fsync", lambda fd: paths.append(Path(os.readlink(f"/proc/self/fd/{fd}"))))
    return paths


def test_a_new_file_is_private_and_never_takes_the_place_of_another(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.create(path, b"first", synced=False)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        files.create(path, b"second", synced=False)
    assert path.read_bytes() == b"first"


@pytest.mark.parametrize("asked", [True, False])
def test_a_replaced_file_is_fsynced_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    paths = synced(monkeypatch)
    files.replace(tmp_path / "file", b"content", synced=asked)
    assert (tmp_path / "file").read_bytes() == b"content"
    assert [path.name == "file" for path in paths] == [False] * asked
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_replaced_file_has_the_time_that_was_asked_for(tmp_path: Path) -> None:
    files.replace(tmp_path / "file", b"old", synced=False)
    files.replace(tmp_path / "file", b"new", synced=False, modified=1000.0)
    assert (tmp_path / "file").read_bytes() == b"new"
    assert (tmp_path / "file").stat().st_mtime == 1000.0


def test_a_replacement_that_fails_keeps_the_old_content_and_leaves_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.replace(tmp_path / "file", b"old", synced=False)

    def broken(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fsync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        files.replace(tmp_path / "file", b"new", synced=True)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_reads_and_writes_go_on_until_all_bytes_are_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite, preadv = os.pwrite, os.preadv
    monkeypatch.setattr("os.pwrite", lambda fd, data, offset: pwrite(fd, data[:3], offset))
    monkeypatch.setattr(
        "os.preadv", lambda fd, buffers, offset: preadv(fd, [one[:2] for one in buffers], offset)
    )
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        files.write_at(fd, memoryview(b"0123456789"), 5)
        buffer = bytearray(10)
        files.read_at(fd, memoryview(buffer), 5)
        assert buffer == b"0123456789"
        with pytest.raises(EOFError):
            files.read_at(fd, memoryview(buffer), 6)
    finally:
        os.close(fd)


@pytest.mark.parametrize(("number", "tolerated"), [(22, True), (5, False)])
def test_only_a_directory_may_refuse_to_be_fsynced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, tolerated: bool
) -> None:
    (tmp_path / "file").touch()

    def refuse(fd: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", refuse)
    if tolerated:
        files.sync(tmp_path)
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            files.sync(tmp_path)
    with pytest.raises(OSError, match=os.strerror(number)):
        files.sync(tmp_path / "file")
