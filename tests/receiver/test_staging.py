"""The folder of what is being received: crashes, garbage, room, neighbours."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from orthanc_transfers.core.errors import ConfigurationError, NoSpace
from orthanc_transfers.core.model import PushState
from orthanc_transfers.core.ranges import Range
from orthanc_transfers.receiver.area import Area
from orthanc_transfers.receiver.staging import SET_ASIDE, Staging
from orthanc_transfers.runtime.journal import Kind
from tests.receiver.receiving_world import TestClock, World, dicom, fill, identify, manifest_of, receiver

FILES = [dicom(f"file-{number}", 900) for number in range(4)]
MANIFEST = manifest_of(FILES)
BYTES = b"".join(FILES)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with receiver(tmp_path / "staging") as world:
        yield world


# --- one area


def test_an_area_is_private_sparse_and_has_a_name_chosen_here(tmp_path: Path) -> None:
    staging = Staging(tmp_path / "new" / "root", clock=TestClock())
    area = staging.create(MANIFEST, {}, MANIFEST.size)
    area.journal_ranges(Kind.RECEIVED, [Range(0, 1)])
    assert len(area.id) == 32
    assert set(area.id) <= set("0123456789abcdef")
    assert area.directory.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "new" / "root").stat().st_mode & 0o777 == 0o700
    for name in ("area", "manifest", "journal"):
        assert (area.directory / name).stat().st_mode & 0o777 == 0o600
    assert (area.directory / "area").stat().st_size == MANIFEST.size
    assert (area.directory / "area").stat().st_blocks == 0
    area.close()
    staging.close()


# --- crashes


@pytest.mark.parametrize("name", ["manifest", "area", "journal"])
def test_a_file_of_a_transfer_cut_anywhere_never_keeps_the_server_from_starting(
    world: World, name: str
) -> None:
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    world.stop()
    path = world.root / transfer.id / name
    whole = path.read_bytes()
    for cut in range(0, len(whole), 1 + len(whole) // 60):
        folder = world.root / ".." / f"cut-{cut}"
        shutil.copytree(world.root, folder)
        (folder / transfer.id / name).write_bytes(whole[:cut])
        with receiver(folder) as other:
            again = other.pull(FILES)
            assert (again.id == transfer.id) == (name == "journal")
            assert bool(other.leftovers() & {SET_ASIDE}) == (name != "journal")
            fill(again, FILES)
            assert again.commit().stored == len(FILES)
        shutil.rmtree(folder)
    world.start()


@pytest.mark.parametrize("outcome", [{"State": "unheard of"}, {}, {"State": "committed"}])
def test_an_outcome_of_another_version_is_set_aside(world: World, outcome: dict[str, str]) -> None:
    transfer = world.pull(FILES)
    world.stop()
    area = Area.reopen(world.root / transfer.id)
    area.journal_outcome(outcome)
    world.start()
    assert world.registry.all() == []
    assert world.leftovers() == {SET_ASIDE}


def test_an_area_that_was_not_complete_when_its_process_died_is_swept_away(world: World) -> None:
    world.stop()
    for name in (f".new-{'a' * 32}", f".gone-{'b' * 32}"):
        (world.root / name).mkdir()
        (world.root / name / "area").write_bytes(b"x")
    world.start()
    assert world.leftovers() == set()


def test_bytes_that_were_not_deleted_after_the_outcome_are_deleted_at_the_next_start(world: World) -> None:
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    area = world.root / transfer.id / "area"
    kept = area.read_bytes()
    transfer.commit()
    world.stop()
    area.write_bytes(kept)
    world.start()
    assert not area.exists()
    assert [one.state for one in world.registry.all()] == [PushState.COMMITTED]


def test_a_creation_that_fails_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.ftruncate", full)
        with pytest.raises(NoSpace):
            world.pull(FILES)
    assert world.leftovers() == set()


# --- garbage


def test_garbage_is_set_aside_with_a_warning_and_what_is_good_is_kept(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    transfer = world.pull(FILES)
    world.stop()
    (world.root / "README.txt").write_text("hello")
    (world.root / "folder").mkdir()
    (world.root / ("c" * 32)).mkdir()
    (world.root / ("d" * 32)).write_text("a file")
    os.symlink("/nowhere", world.root / ("e" * 32))
    later = world.root / ("f" * 32)
    shutil.copytree(world.root / transfer.id, later)
    first, _, rest = (later / "manifest").read_bytes().partition(b"\n")
    (later / "manifest").write_bytes(first.replace(b"manifest-1", b"manifest-2") + b"\n" + rest)
    with caplog.at_level(logging.WARNING):
        world.start()
    assert [one.id for one in world.registry.all()] == [transfer.id]
    assert world.leftovers() == {transfer.id, SET_ASIDE}
    aside = {path.name.rpartition("-")[0] for path in (world.root / SET_ASIDE).iterdir()}
    assert aside == {"README.txt", "folder", *(letter * 32 for letter in "cdef")}
    assert sum("set aside" in message for message in caplog.messages) == 6
    world.restart()
    assert [one.id for one in world.registry.all()] == [transfer.id]


# --- room


def _disk(free: int) -> object:
    return lambda path: SimpleNamespace(f_bavail=free, f_frsize=1)


def test_a_transfer_that_does_not_fit_is_refused_with_both_numbers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.statvfs", _disk(1000))
    with pytest.raises(NoSpace, match=rf"{MANIFEST.size} .* 1000 "):
        world.pull(FILES)
    assert world.leftovers() == set()


def test_what_is_stored_already_needs_no_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for data in FILES[1:]:
        world.store.put(data)
    monkeypatch.setattr("os.statvfs", _disk(len(FILES[0])))
    assert world.pull(FILES).missing()


def test_room_promised_to_one_transfer_is_not_given_to_another(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.statvfs", _disk(2 * MANIFEST.size - 1))
    first = world.pull(FILES)
    with pytest.raises(NoSpace):
        world.pull(FILES, token="c" * 32)
    # Written bytes are gone from the disk's own count.
    fill(first, FILES)
    monkeypatch.setattr("os.statvfs", _disk(MANIFEST.size))
    second = world.pull(FILES, token="c" * 32)
    monkeypatch.setattr("os.statvfs", _disk(MANIFEST.size - 1))
    second.discard()
    first.discard()
    with pytest.raises(NoSpace):
        world.pull(FILES, token="d" * 32)


def test_all_transfers_together_stay_below_the_limit(tmp_path: Path) -> None:
    with receiver(tmp_path / "staging", max_staging_size=2 * MANIFEST.size) as world:
        first = world.pull(FILES, token="c" * 32)
        world.pull(FILES, token="d" * 32)
        with pytest.raises(NoSpace, match=rf"{MANIFEST.size} .* 0 of MaxStagingSize"):
            world.pull(FILES, token="e" * 32)
        fill(first, FILES)
        first.commit()
        world.store.files.clear()
        world.pull(FILES, token="e" * 32).discard()
        world.restart()
        assert len(world.registry.all()) == 2
        world.pull(dicom_pair(), token="f" * 32)
        with pytest.raises(NoSpace):
            world.pull(FILES, token="e" * 32)


def dicom_pair() -> list[bytes]:
    return [dicom("left", 20), dicom("right", 20)]


# --- neighbours


def test_two_servers_that_share_the_folder_do_not_touch_each_other(tmp_path: Path) -> None:
    with receiver(tmp_path) as one, receiver(tmp_path) as two:
        first = one.pull(FILES)
        second = two.pull(FILES[:2])
        assert first.id != second.id
        one.restart()
        two.restart()
        assert [transfer.id for transfer in one.registry.all()] == [first.id]
        assert [transfer.id for transfer in two.registry.all()] == [second.id]


def test_a_folder_that_cannot_be_made_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigurationError, match="StagingDirectory"):
        Staging(tmp_path / "file", clock=TestClock())


def test_identifiers_from_the_network_never_name_a_file(world: World) -> None:
    files = [dicom("../../escape", 100)]
    transfer = world.pull(files, token="../../token")
    fill(transfer, files)
    transfer.commit()
    assert identify(files[0]) in world.store.files
    assert world.leftovers() == {transfer.id}


def test_on_a_full_disk_the_bytes_make_room_for_the_outcome(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    really_write = os.write

    def nearly_full(fd: int, data: bytes) -> int:
        if b"committed" in data and (world.root / transfer.id / "area").exists():
            raise OSError(28, "No space left on device")
        return really_write(fd, data)

    monkeypatch.setattr("os.write", nearly_full)
    assert transfer.commit().stored == len(FILES)
    world.restart()
    (again,) = world.registry.all()
    assert again.commit().stored == len(FILES)


def test_an_outcome_that_cannot_be_journalled_is_told_all_the_same_and_found_again(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    really_write = os.write

    def broken(fd: int, data: bytes) -> int:
        if b"committed" in data:
            raise OSError(5, "Input/output error")
        return really_write(fd, data)

    with monkeypatch.context() as patched:
        patched.setattr("os.write", broken)
        assert transfer.commit().stored == len(FILES)
    assert "cannot be journalled" in caplog.text
    world.restart()
    (again,) = world.registry.all()
    assert again.commit().stored == len(FILES)
    assert len(world.store.added) == len(FILES)


def test_a_file_system_that_does_not_sync_directories_is_good_enough(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_sync = os.fsync

    def picky(fd: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(22, "Invalid argument")
        really_sync(fd)

    monkeypatch.setattr("os.fsync", picky)
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    assert transfer.commit().stored == len(FILES)
