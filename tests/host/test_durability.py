"""What is fsynced. That it stays is shown by ``faults/test_power_cut.py``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orthanc_transfers.host.durability import Durability


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files and folders that were fsynced."""
    found: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: found.append(Path(f"/proc/self/fd/{fd}").readlink().name))
    return found


def test_the_log_of_the_index_and_its_name_are_forced_to_disk_and_the_database_is_left_alone(
    tmp_path: Path, synced: list[str]
) -> None:
    for name in ("index", "index-wal"):
        (tmp_path / name).touch()
    Durability(tmp_path, tmp_path, files_synced=True).force()
    assert synced == ["index-wal", tmp_path.name]


def test_the_name_of_the_log_is_forced_to_disk_once_for_each_log(tmp_path: Path, synced: list[str]) -> None:
    log = tmp_path / "index-wal"
    log.touch()
    durability = Durability(tmp_path, tmp_path, files_synced=True)
    durability.force()
    durability.force()
    assert synced == ["index-wal", tmp_path.name, "index-wal"]
    log.rename(tmp_path / "old")
    log.touch()
    durability.force()
    assert synced[3:] == ["index-wal", tmp_path.name]


@pytest.mark.parametrize("files_synced", [True, False])
def test_an_index_that_is_elsewhere_is_none_of_our_business(tmp_path: Path, files_synced: bool) -> None:
    Durability(tmp_path, tmp_path, files_synced=files_synced).force()


def test_files_that_a_plugin_keeps_elsewhere_keep_no_commit_from_its_end(
    tmp_path: Path, synced: list[str]
) -> None:
    (tmp_path / "index-wal").touch()
    Durability(tmp_path, tmp_path / "none", files_synced=False).force()
    assert synced == ["index-wal", tmp_path.name]


def test_a_storage_folder_that_cannot_be_forced_to_disk_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"):
        Durability(tmp_path, tmp_path / "file", files_synced=False).force()
