"""Whether Orthanc's storage folder can take a file."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orthanc_transfers.core.errors import ImportRefused
from orthanc_transfers.host.storage_check import StorageCheck

_GB = 1 << 30


class Storage:
    """A folder, how much room the system says there is, and how often it was asked and tried."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free, self.flag, self.now = 100 * _GB, 0, 1000.0
        self.asked = self.tried = 0
        self.full = False
        self._mkdir = os.mkdir
        (folder / "ab").mkdir()
        monkeypatch.setattr("os.statvfs", self._statvfs)
        monkeypatch.setattr("os.mkdir", self._made)
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        self.check = StorageCheck(folder, lambda: False)

    def _statvfs(self, path: Any) -> Any:
        self.asked += 1
        return SimpleNamespace(
            f_flag=self.flag, f_bavail=self.free, f_frsize=1, f_favail=10**9, f_files=10**9
        )

    def _made(self, path: Any, mode: int = 0o777) -> None:
        self.tried += 1
        if self.full:
            raise OSError(28, "No space left on device")
        self._mkdir(path, mode)


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    return Storage(tmp_path, monkeypatch)


def test_many_imports_in_a_moment_look_once_where_there_is_plenty(storage: Storage) -> None:
    storage.check.require()
    for _ in range(100):
        storage.check.require()
    assert (storage.tried, storage.asked) == (2, 1)
    storage.now += 0.2
    storage.check.require()
    assert (storage.tried, storage.asked) == (2, 2)
    storage.now += 1
    storage.check.require()
    assert storage.tried == 4


def test_each_import_looks_where_there_is_little(storage: Storage) -> None:
    storage.free = _GB // 2
    storage.check.require()
    for number in range(5):
        assert storage.asked == number
        storage.check.require()
    storage.free, storage.full = _GB // 100, True
    for _ in range(3):
        with pytest.raises(ImportRefused, match="is the disk full"):
            storage.check.require()
    storage.full = False
    storage.check.require()


def test_what_was_refused_is_tried_again_at_once(storage: Storage) -> None:
    storage.check.require()
    storage.now += 2
    storage.full = True
    for _ in range(2):
        with pytest.raises(ImportRefused):
            storage.check.require()
    assert storage.tried == 4


def test_a_read_only_file_system_is_tried(storage: Storage) -> None:
    storage.check.require()
    storage.now += 0.2
    storage.flag, storage.full = os.ST_RDONLY, True
    with pytest.raises(ImportRefused):
        storage.check.require()


@pytest.mark.parametrize("anew", [False, True])
def test_a_folder_that_orthanc_removes_meanwhile_refuses_nothing(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, anew: bool
) -> None:
    access, exists, shard = os.access, os.path.exists, tmp_path / "ab"

    def removed_before(path: Any, mode: int, **options: Any) -> bool:
        if not asked:
            shard.rmdir()
        asked.append(path)
        return access(path, mode, **options)

    def made_before(path: Any) -> bool:
        if anew and Path(path) == shard:
            shard.mkdir(exist_ok=True)
        return exists(path)

    asked: list[Any] = []
    monkeypatch.setattr("os.access", removed_before)
    monkeypatch.setattr("os.path.exists", made_before)
    storage.check.require()
    assert asked == [str(shard)] * (2 if anew else 1)
