"""Restarts, and commits that were interrupted by the death of their process."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orthanc_transfers.core.errors import (
    Canceled,
    Corrupted,
    ImportRefused,
)
from orthanc_transfers.core.model import PushState
from orthanc_transfers.core.ranges import Range
from orthanc_transfers.runtime.cancellation import Cancellation
from tests.receiver.receiving_world import (
    PATIENCE,
    World,
    crash_while_importing,
    dicom,
    fill,
    hold_imports,
    hold_lookups,
    identify,
    receiver,
    wait_until,
)

FILES = [dicom(f"file-{number}", 3000 + 17 * number) for number in range(12)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with receiver(tmp_path / "staging") as world:
        yield world


# --- stopping


def test_a_server_that_stops_leaves_the_commit_to_its_next_start(world: World) -> None:
    begun, _ = hold_imports(world, after=3)
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    with ThreadPoolExecutor(1) as pool:
        commit = pool.submit(transfer.commit)
        assert begun.wait(PATIENCE)
        world.stop()
        with pytest.raises(Canceled):
            commit.result(PATIENCE)
    assert 3 <= len(world.store.files) < 12
    assert world.store.removed == []
    world.store.before_add = lambda identifier: None
    world.start()
    again = world.registry.find("pull", "a" * 32)
    assert again is not None
    assert again.state is PushState.COMMITTING
    world.pushes.recover()
    wait_until(lambda: again.state is PushState.COMMITTED)
    assert sorted(world.store.files.values()) == sorted(FILES)
    assert again.commit().stored == 12


# --- restarts


def test_after_a_restart_receiving_goes_on_where_it_was(world: World) -> None:
    transfer = world.pull(FILES)
    data = memoryview(b"".join(FILES))
    transfer.write([Range(0, 1000), Range(5000, 9000)], data[:5000])
    missing = transfer.missing()
    world.restart()
    again = world.pull(FILES)
    assert again.id == transfer.id
    assert again.missing() == missing


def test_after_a_restart_bytes_are_verified_again(world: World) -> None:
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    world.stop()
    area = world.root / transfer.id / "area"
    damaged = bytearray(area.read_bytes())
    damaged[100] ^= 1
    area.write_bytes(damaged)
    world.start()
    again = world.pull(FILES)
    with pytest.raises(Corrupted, match=identify(FILES[0])):
        again.commit()
    assert again.missing() == [again.manifest.range_of(identify(FILES[0]))]
    fill(again, FILES)
    assert again.commit().stored == 12


def test_what_was_stored_already_is_still_known_after_a_restart(world: World) -> None:
    world.store.put(FILES[0])
    world.pull(FILES)
    world.restart()
    assert world.pull(FILES).already_stored == (1, len(FILES[0]))


def _power_failure(world: World, identifier: str) -> None:
    """What was never fsynced may be anything."""
    area = world.root / identifier / "area"
    area.write_bytes(bytes(area.stat().st_size))


@pytest.mark.parametrize("resumable", [True, False])
def test_rolling_forward_over_a_broken_area_undoes_what_was_imported(world: World, resumable: bool) -> None:
    before = world.store.put(dicom("another", 10))
    identifier = crash_while_importing(world, FILES, resumable=resumable)
    stored = set(world.store.files) - {before}
    assert 0 < len(stored) < 12
    _power_failure(world, identifier)
    world.start()
    (again,) = world.registry.all()
    with pytest.raises(Corrupted if resumable else ImportRefused):
        again.commit()
    assert set(world.store.files) == {before}
    if not resumable:
        assert again.state is PushState.FAILED
        return
    assert again.state is PushState.RECEIVING
    missing = again.missing()
    assert missing
    fill(again, FILES)
    # Those that were in Orthanc were not looked at then; now they are, and are as broken.
    with pytest.raises(Corrupted):
        again.commit()
    fill(again, FILES)
    assert again.commit().stored == 12


def test_if_all_was_imported_before_the_crash_a_broken_area_does_not_matter(world: World) -> None:
    identifier = crash_while_importing(world, FILES)
    for data in FILES:
        world.store.put(data)
    _power_failure(world, identifier)
    world.start()
    (again,) = world.registry.all()
    assert again.commit().stored == 12


def test_what_a_power_failure_damaged_in_orthanc_is_imported_again(world: World) -> None:
    crash_while_importing(world, FILES)
    damaged = next(iter(world.store.files))
    index = world.store.md5s([identify(data) for data in FILES])
    world.store.files[damaged] = b""
    world.store.md5s = lambda identifiers, _=None: {one: index[one] for one in identifiers if one in index}  # type: ignore[method-assign]
    world.start()
    (again,) = world.registry.all()
    assert again.commit().stored == 12
    assert world.store.removed == [damaged]
    assert world.store.files == {identify(data): data for data in FILES}


def test_a_refusal_while_rolling_forward_undoes_what_was_imported_before_the_crash(world: World) -> None:
    crash_while_importing(world, FILES)
    last = next(data for data in FILES if identify(data) not in world.store.files)
    world.store.refused[identify(last)] = "no"
    world.start()
    (again,) = world.registry.all()
    with pytest.raises(ImportRefused):
        again.commit()
    assert world.store.files == {}


def test_if_orthanc_cannot_tell_while_rolling_forward_all_that_was_absent_goes(world: World) -> None:
    before = world.store.put(FILES[3])
    crash_while_importing(world, FILES)

    def fail(cancellation: Cancellation) -> None:
        raise RuntimeError("no database")

    world.store.before_md5s = fail
    world.start()
    (again,) = world.registry.all()
    with pytest.raises(ImportRefused, match="no database"):
        again.commit()
    assert set(world.store.files) == {before}


@pytest.mark.parametrize("committed", [True, False])
def test_the_outcome_is_remembered_over_a_restart_without_the_bytes(world: World, committed: bool) -> None:
    if not committed:
        world.store.refused[identify(FILES[3])] = "no"
    transfer = world.pull(FILES, kind="push", meta={"version": 0})
    fill(transfer, FILES)
    if committed:
        transfer.commit()
    else:
        with pytest.raises(ImportRefused):
            transfer.commit()
    assert not (world.root / transfer.id / "area").exists()
    world.restart()
    again = world.registry.find("push", "a" * 32)
    assert again is not None
    if committed:
        assert again.commit() == transfer.commit()
    else:
        with pytest.raises(ImportRefused, match="no"):
            again.commit()


# --- opening


def test_a_server_that_stops_before_it_knows_what_was_imported_before_a_crash_undoes_nothing(
    world: World,
) -> None:
    crash_while_importing(world, FILES)
    imported = dict(world.store.files)
    begun = hold_lookups(world)
    world.start()
    (again,) = world.registry.all()
    with ThreadPoolExecutor(1) as pool:
        commit = pool.submit(again.commit)
        assert begun.wait(PATIENCE)
        world.stop()
        with pytest.raises(Canceled):
            commit.result(PATIENCE)
    assert world.store.files == imported
    world.store.before_md5s = lambda cancellation: None
    world.start()
    (again,) = world.registry.all()
    assert again.commit().stored == 12


def test_a_commit_that_is_canceled_before_it_knows_what_was_imported_before_a_crash_undoes_it(
    world: World,
) -> None:
    before = world.store.put(FILES[3])
    crash_while_importing(world, FILES)
    begun, cancellation = hold_lookups(world), Cancellation()
    world.start()
    (again,) = world.registry.all()
    with ThreadPoolExecutor(1) as pool:
        commit = pool.submit(again.commit, cancellation)
        assert begun.wait(PATIENCE)
        cancellation.cancel()
        with pytest.raises(Canceled):
            commit.result(PATIENCE)
    assert set(world.store.files) == {before}
    assert again.state is PushState.RECEIVING


def test_a_commit_that_is_canceled_while_it_looks_at_what_was_imported_before_a_crash_undoes_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = world.store.put(FILES[3])
    crash_while_importing(world, FILES)
    world.start()
    (again,) = world.registry.all()
    cancellation, read = Cancellation(), world.store.read

    def cancel(identifier: str) -> memoryview:
        cancellation.cancel()
        return read(identifier)

    monkeypatch.setattr(world.store, "read", cancel)
    with pytest.raises(Canceled):
        again.commit(cancellation)
    assert set(world.store.files) == {before}
