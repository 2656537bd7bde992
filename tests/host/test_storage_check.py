"""Whether Orthanc's storage folder can take a file."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orthanc_transfers.core.errors import ImportRefused
from orthanc_transfers.host.storage_check import StorageCheck
from tests.support.waiting import wait_until

_GB, _MB = 1 << 30, 1 << 20


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
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr("orthanc_transfers.host.storage_check.time", clock)
        self.elsewhere = False
        self.check = StorageCheck(folder, lambda: self.elsewhere)

    def check_one(self, size: int = 100) -> None:
        with self.check.room_for(size):
            pass

    def _statvfs(self, path: Any) -> Any:
        self.asked += 1
        return SimpleNamespace(
            f_flag=self.flag, f_bavail=self.free, f_frsize=1, f_blocks=_GB, f_favail=10**9, f_files=10**9
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
    storage.check_one()
    for _ in range(100):
        storage.check_one()
    assert (storage.tried, storage.asked) == (2, 1)
    storage.now += 0.2
    storage.check_one()
    assert (storage.tried, storage.asked) == (2, 2)
    storage.now += 1
    storage.check_one()
    assert storage.tried == 4


def test_each_import_looks_where_there_is_little(storage: Storage) -> None:
    storage.free = _GB // 2
    for number in range(5):
        assert storage.asked == number
        storage.check_one()
    storage.free, storage.full = _GB // 100, True
    for _ in range(3):
        with pytest.raises(ImportRefused, match="is the disk full"):
            storage.check_one()
    storage.full = False
    storage.check_one()


def test_what_was_refused_is_tried_again_at_once(storage: Storage) -> None:
    storage.check_one()
    storage.now += 2
    storage.full = True
    for _ in range(2):
        with pytest.raises(ImportRefused):
            storage.check_one()
    assert storage.tried == 4


def test_a_read_only_file_system_is_tried(storage: Storage) -> None:
    storage.check_one()
    storage.now += 0.2
    storage.flag, storage.full = os.ST_RDONLY, True
    with pytest.raises(ImportRefused):
        storage.check_one()


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
    storage.check_one()
    assert asked == [str(shard)] * (2 if anew else 1)


class Imports:
    """Threads that each have room for a file of so many bytes, one after another if need be, until let go."""

    def __init__(self, storage: Storage, sizes: list[int]) -> None:
        self.let_go = threading.Event()
        self.under_way = self.most = 0
        self.refused: list[str] = []
        self._storage = storage
        self._lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run, args=(size,)) for size in sizes]
        for thread in self.threads:
            thread.start()

    def _run(self, size: int) -> None:
        try:
            with self._storage.check.room_for(size):
                with self._lock:
                    self.under_way += 1
                    self.most = max(self.most, self.under_way)
                self.let_go.wait(60)
                with self._lock:
                    self.under_way -= 1
                    self._storage.free -= size
        except ImportRefused as error:
            self.refused.append(str(error))

    def end(self) -> None:
        self.let_go.set()
        for thread in self.threads:
            thread.join(60)


def together(storage: Storage, sizes: list[int], at_a_time: int) -> list[str]:
    """Write these files, so many at a time. Returns why some were refused."""
    imports = Imports(storage, sizes)
    wait_until(lambda: imports.under_way == at_a_time, f"{at_a_time} are admitted")
    time.sleep(0.05)  # for one more: that it is not admitted cannot be waited for
    imports.end()
    assert imports.most == at_a_time
    return imports.refused


def test_where_there_is_little_room_files_are_written_one_at_a_time(storage: Storage) -> None:
    storage.free = 50 * _MB
    assert together(storage, [_MB] * 4, 1) == []
    assert storage.tried == 4 * 2
    storage.free = 10 * _GB
    assert together(storage, [_MB] * 4, 4) == []


def test_files_that_would_leave_little_room_together_are_written_one_at_a_time(storage: Storage) -> None:
    storage.free = 500 * _MB
    assert together(storage, [150 * _MB] * 3, 2) == []
    assert storage.free == 50 * _MB


def test_a_file_for_which_there_is_no_room_is_refused_before_it_is_written(storage: Storage) -> None:
    storage.free = 3 * _MB
    (said,) = together(storage, [2 * _MB] * 2, 1)
    assert f"it needs {2 * _MB} bytes" in said
    assert f"{_MB} are free" in said
    storage.check_one(_MB // 2)


def test_where_a_plugin_keeps_the_files_the_folders_room_does_not_matter(storage: Storage) -> None:
    storage.free, storage.full, storage.elsewhere = 0, True, True
    assert together(storage, [_GB] * 3, 3) == []


def test_a_file_system_that_does_not_tell_its_size_is_taken_for_large(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = SimpleNamespace(f_flag=0, f_bavail=0, f_frsize=1, f_blocks=0, f_favail=0, f_files=0)
    monkeypatch.setattr("os.statvfs", lambda _: unknown)
    assert together(storage, [_GB] * 3, 3) == []
