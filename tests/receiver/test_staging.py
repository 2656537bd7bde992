"""The folder of what is being received: crashes, garbage, room, neighbours."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from orthanc_transfers.core.disk_room import LOG_SIZE, Disk, OrthancDisks
from orthanc_transfers.core.errors import Canceled, ConfigurationError, NoSpace
from orthanc_transfers.core.model import PushState
from orthanc_transfers.core.ranges import Range
from orthanc_transfers.core.settings import Settings
from orthanc_transfers.receiver.area import Area
from orthanc_transfers.receiver.staging import SET_ASIDE, Needed, Staging
from orthanc_transfers.runtime.cancellation import Cancellation
from orthanc_transfers.runtime.journal import Kind
from tests.receiver.memory_receiver import (
    Receiver,
    TestClock,
    dicom,
    fill,
    identify,
    manifest_of,
    running_receiver,
)

FILES = [dicom(f"file-{number}", 900) for number in range(4)]
MANIFEST = manifest_of(FILES)
BYTES = b"".join(FILES)


# --- one area


def test_an_area_is_private_sparse_and_has_a_name_chosen_here(tmp_path: Path) -> None:
    staging = Staging(tmp_path / "new" / "root", clock=TestClock())
    area = staging.create("c" * 32, MANIFEST, {}, Needed(MANIFEST.size, len(MANIFEST)))
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
    receiver: Receiver, name: str
) -> None:
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    receiver.stop()
    path = receiver.root / transfer.id / name
    whole = path.read_bytes()
    for cut in range(0, len(whole), 1 + len(whole) // 20):
        folder = receiver.root / ".." / f"cut-{cut}"
        shutil.copytree(receiver.root, folder)
        (folder / transfer.id / name).write_bytes(whole[:cut])
        with running_receiver(folder) as other:
            again = other.pull(FILES)
            assert (again.id == transfer.id) == (name == "journal")
            assert bool(other.leftovers() & {SET_ASIDE}) == (name != "journal")
            fill(again, FILES)
            assert again.commit().stored == len(FILES)
        shutil.rmtree(folder)
    receiver.start()


@pytest.mark.parametrize("outcome", [{"State": "unheard of"}, {}, {"State": "committed"}])
def test_an_outcome_of_another_version_is_set_aside(receiver: Receiver, outcome: dict[str, str]) -> None:
    transfer = receiver.pull(FILES)
    receiver.stop()
    area = Area.reopen(receiver.root / transfer.id)
    area.journal_outcome(outcome)
    receiver.start()
    assert receiver.registry.all() == []
    assert receiver.leftovers() == {SET_ASIDE}


def test_an_area_that_was_not_complete_when_its_process_died_is_swept_away(receiver: Receiver) -> None:
    receiver.stop()
    for name in (f".new-{'a' * 32}", f".gone-{'b' * 32}"):
        (receiver.root / name).mkdir()
        (receiver.root / name / "area").write_bytes(b"x")
    receiver.start()
    assert receiver.leftovers() == set()


def test_bytes_that_were_not_deleted_after_the_outcome_are_deleted_at_the_next_start(
    receiver: Receiver,
) -> None:
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    area = receiver.root / transfer.id / "area"
    kept = area.read_bytes()
    transfer.commit()
    receiver.stop()
    area.write_bytes(kept)
    receiver.start()
    assert not area.exists()
    assert [one.state for one in receiver.registry.all()] == [PushState.COMMITTED]


def test_a_creation_that_fails_leaves_nothing(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.ftruncate", full)
        with pytest.raises(NoSpace):
            receiver.pull(FILES)
    assert receiver.leftovers() == set()


# --- garbage


def test_garbage_is_set_aside_with_a_warning_and_what_is_good_is_kept(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    transfer = receiver.pull(FILES)
    receiver.stop()
    (receiver.root / "README.txt").write_text("hello")
    (receiver.root / "folder").mkdir()
    (receiver.root / ("c" * 32)).mkdir()
    (receiver.root / ("d" * 32)).write_text("a file")
    os.symlink("/nowhere", receiver.root / ("e" * 32))
    later = receiver.root / ("f" * 32)
    shutil.copytree(receiver.root / transfer.id, later)
    first, _, rest = (later / "manifest").read_bytes().partition(b"\n")
    (later / "manifest").write_bytes(first.replace(b"manifest-1", b"manifest-2") + b"\n" + rest)
    with caplog.at_level(logging.WARNING):
        receiver.start()
    assert [one.id for one in receiver.registry.all()] == [transfer.id]
    assert receiver.leftovers() == {transfer.id, SET_ASIDE}
    aside = {path.name.rpartition("-")[0] for path in (receiver.root / SET_ASIDE).iterdir()}
    assert aside == {"README.txt", "folder", *(letter * 32 for letter in "cdef")}
    assert sum("set aside" in message for message in caplog.messages) == 6
    receiver.restart()
    assert [one.id for one in receiver.registry.all()] == [transfer.id]


# --- room


def _disk(free: int) -> object:
    return lambda path: SimpleNamespace(f_blocks=1, f_bavail=free, f_frsize=1)


def test_a_transfer_that_does_not_fit_is_refused_with_both_numbers(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.statvfs", _disk(1000))
    with pytest.raises(NoSpace, match=rf"{MANIFEST.size} .* 1000 "):
        receiver.pull(FILES)
    assert receiver.leftovers() == set()


def test_what_is_stored_already_needs_no_room(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for data in FILES[1:]:
        receiver.store.put(data)
    monkeypatch.setattr("os.statvfs", _disk(len(FILES[0])))
    assert receiver.pull(FILES).missing()


def test_room_promised_to_one_transfer_is_not_given_to_another(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.statvfs", _disk(2 * MANIFEST.size - 1))
    first = receiver.pull(FILES)
    with pytest.raises(NoSpace):
        receiver.pull(FILES, token="c" * 32)
    # Written bytes are gone from the disk's own count.
    fill(first, FILES)
    monkeypatch.setattr("os.statvfs", _disk(MANIFEST.size))
    second = receiver.pull(FILES, token="c" * 32)
    monkeypatch.setattr("os.statvfs", _disk(MANIFEST.size - 1))
    second.discard()
    first.discard()
    with pytest.raises(NoSpace):
        receiver.pull(FILES, token="d" * 32)


def test_all_transfers_together_stay_below_the_limit(tmp_path: Path) -> None:
    with running_receiver(tmp_path / "staging", max_staging_size=2 * MANIFEST.size) as receiver:
        first = receiver.pull(FILES, token="c" * 32)
        receiver.pull(FILES, token="d" * 32)
        with pytest.raises(NoSpace, match=rf"{MANIFEST.size} .* 0 of MaxStagingSize"):
            receiver.pull(FILES, token="e" * 32)
        fill(first, FILES)
        first.commit()
        receiver.store.files.clear()
        receiver.pull(FILES, token="e" * 32).discard()
        receiver.restart()
        assert len(receiver.registry.all()) == 2
        receiver.pull(dicom_pair(), token="f" * 32)
        with pytest.raises(NoSpace):
            receiver.pull(FILES, token="e" * 32)


def dicom_pair() -> list[bytes]:
    return [dicom("left", 20), dicom("right", 20)]


# --- neighbours


def test_two_servers_that_share_the_folder_do_not_touch_each_other(tmp_path: Path) -> None:
    with running_receiver(tmp_path) as one, running_receiver(tmp_path) as two:
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


def test_identifiers_from_the_network_never_name_a_file(receiver: Receiver) -> None:
    files = [dicom("../../escape", 100)]
    transfer = receiver.pull(files, token="../../token")
    fill(transfer, files)
    transfer.commit()
    assert identify(files[0]) in receiver.store.files
    assert receiver.leftovers() == {transfer.id}


def test_on_a_full_disk_the_bytes_make_room_for_the_outcome(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    really_write = os.write

    def nearly_full(fd: int, data: bytes) -> int:
        if b"committed" in data and (receiver.root / transfer.id / "area").exists():
            raise OSError(28, "No space left on device")
        return really_write(fd, data)

    monkeypatch.setattr("os.write", nearly_full)
    assert transfer.commit().stored == len(FILES)
    receiver.restart()
    (again,) = receiver.registry.all()
    assert again.commit().stored == len(FILES)


def test_an_outcome_that_cannot_be_journalled_is_told_all_the_same_and_found_again(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    transfer = receiver.pull(FILES)
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
    receiver.restart()
    (again,) = receiver.registry.all()
    assert again.commit().stored == len(FILES)
    assert len(receiver.store.added) == len(FILES)


def test_a_file_system_that_does_not_sync_directories_is_good_enough(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_sync = os.fsync

    def picky(fd: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(22, "Invalid argument")
        really_sync(fd)

    monkeypatch.setattr("os.fsync", picky)
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    assert transfer.commit().stored == len(FILES)


class Disks:
    """Orthanc's own disks, as a test says."""

    def __init__(self, *, recycled: int | None = None) -> None:
        self.storage: Disk | None = None
        self.index: Disk | None = None
        self.recycled = recycled

    def look(self, *, exactly: bool) -> OrthancDisks:
        return OrthancDisks(self.storage, self.index, LOG_SIZE, self.recycled if exactly else None)


SIZE = MANIFEST.size
BLOCKS = 3 * len(FILES)
"""Bytes that ``FILES`` take in a storage beside their own, where a block has one."""


@pytest.fixture
def disks() -> Disks:
    return Disks()


@pytest.fixture
def crowded(tmp_path: Path, disks: Disks) -> Iterator[Receiver]:
    with contextlib.closing(Receiver(tmp_path / "staging", disks=disks)) as receiver:
        yield receiver


def share(monkeypatch: pytest.MonkeyPatch, receiver: Receiver, disks: Disks, free: int, *also: str) -> None:
    """From now on so many bytes are free on the disk of staging, which is that of ``also``, too."""
    monkeypatch.setattr("os.statvfs", _disk(free))
    disk = Disk(os.stat(receiver.root).st_dev, free, 1)
    for name in also:
        setattr(disks, name, disk)


@pytest.mark.parametrize("also", ["storage", "index"])
def test_on_the_disk_of_staging_there_must_be_room_for_what_else_orthanc_has_there(
    crowded: Receiver, disks: Disks, monkeypatch: pytest.MonkeyPatch, also: str
) -> None:
    more = {"storage": SIZE + BLOCKS, "index": 2048 * len(FILES)}[also]
    share(monkeypatch, crowded, disks, SIZE + more - 1, also)
    with pytest.raises(NoSpace, match=f"{SIZE + more} bytes .*{SIZE} for staging, {more} for .*make room"):
        crowded.pull(FILES)
    assert crowded.leftovers() == set()
    share(monkeypatch, crowded, disks, SIZE + more, also)
    crowded.pull(FILES).discard()


@pytest.mark.parametrize("which", ["storage", "index"])
def test_another_disk_of_orthanc_must_have_room_too(crowded: Receiver, disks: Disks, which: str) -> None:
    setattr(disks, which, Disk(-1, len(FILES), 1))
    with pytest.raises(NoSpace, match=f"needed for .* {len(FILES)} are free on that disk: make room"):
        crowded.pull(FILES)
    setattr(disks, which, Disk(-1, 1_000_000, 1))
    crowded.pull(FILES).discard()


def test_what_transfers_under_way_will_still_import_is_reserved(
    crowded: Receiver, disks: Disks, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = 2 * SIZE + BLOCKS
    share(monkeypatch, crowded, disks, 2 * whole - 1, "storage")
    first = crowded.pull(FILES, token="c" * 32)
    with pytest.raises(NoSpace, match=f"the transfers under way will take {whole}: wait for these"):
        crowded.pull(FILES, token="d" * 32)
    fill(first, FILES)
    share(monkeypatch, crowded, disks, 2 * whole - 1 - SIZE, "storage")
    with pytest.raises(NoSpace, match=f"will take {SIZE + BLOCKS}: wait"):
        crowded.pull(FILES, token="d" * 32)
    # So it is after a restart.
    crowded.restart()
    with pytest.raises(NoSpace, match=f"will take {SIZE + BLOCKS}: wait"):
        crowded.pull(FILES, token="d" * 32)
    crowded.pull(FILES, token="c" * 32).commit()
    crowded.store.files.clear()
    share(monkeypatch, crowded, disks, whole, "storage")
    crowded.pull(FILES, token="d" * 32).discard()


def test_what_was_imported_is_no_longer_reserved_and_what_was_undone_is_again(
    crowded: Receiver, disks: Disks, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowded.settings = Settings(commit_threads_count=1)
    crowded.restart()
    first = crowded.pull(FILES, token="c" * 32)
    fill(first, FILES)
    more = [dicom("one more", 10)]
    own, each = 2 * len(more[0]) + 3, SIZE // len(FILES) + 3
    looks = []

    def look(left: int) -> None:
        share(monkeypatch, crowded, disks, own + left * each - 1, "storage")
        with pytest.raises(NoSpace, match=f"will take {left * each}: wait"):
            crowded.pull(more, token="d" * 32)
        share(monkeypatch, crowded, disks, own + left * each, "storage")
        crowded.pull(more, token="d" * 32).discard()
        looks.append(left)

    cancellation = Cancellation()

    def before_add(identifier: str) -> None:
        look(len(FILES) - len(crowded.store.added))
        if len(looks) == 3:
            cancellation.cancel()

    crowded.store.before_add = before_add
    with pytest.raises(Canceled):
        first.commit(cancellation)
    look(len(FILES))
    assert looks == [4, 3, 2, 4]


def test_what_orthanc_recycles_needs_no_room(
    crowded: Receiver, disks: Disks, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [dicom(f"many-{number:02}", 900) for number in range(20)]
    size, ahead = sum(map(len, files)), 8 * (len(files[0]) + 3)
    share(monkeypatch, crowded, disks, size + ahead + 100, "storage")
    disks.recycled = 101
    with pytest.raises(NoSpace, match=f"for staging, {ahead + 101} for importing"):
        crowded.pull(files)
    disks.recycled = 100
    crowded.pull(files).discard()


def test_what_is_received_in_memory_needs_no_room_in_staging(
    crowded: Receiver, disks: Disks, monkeypatch: pytest.MonkeyPatch
) -> None:
    share(monkeypatch, crowded, disks, SIZE + BLOCKS - 1, "storage")
    with pytest.raises(NoSpace, match=f"{SIZE + BLOCKS} bytes are needed for importing this transfer"):
        crowded.pull(FILES, in_memory=True)
    share(monkeypatch, crowded, disks, SIZE + BLOCKS, "storage")
    crowded.pull(FILES, in_memory=True).discard()
