"""Restarts, and commits that were interrupted by the death of their process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from orthanc_transfers.core.errors import (
    Canceled,
    Corrupted,
    ImportRefused,
)
from orthanc_transfers.core.model import PushState
from orthanc_transfers.core.ranges import Range
from orthanc_transfers.runtime.cancellation import Cancellation
from tests.receiver.memory_receiver import (
    PATIENCE,
    Receiver,
    crash_while_importing,
    dicom,
    fill,
    hold_imports,
    hold_lookups,
    identify,
    wait_until,
)

FILES = [dicom(f"file-{number}", 3000 + 17 * number) for number in range(12)]


# --- stopping


def test_a_server_that_stops_leaves_the_commit_to_its_next_start(receiver: Receiver) -> None:
    begun, _ = hold_imports(receiver, after=3)
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    with ThreadPoolExecutor(1) as pool:
        commit = pool.submit(transfer.commit)
        assert begun.wait(PATIENCE)
        receiver.stop()
        with pytest.raises(Canceled):
            commit.result(PATIENCE)
    assert 3 <= len(receiver.store.files) < 12
    assert receiver.store.removed == []
    receiver.store.before_add = lambda identifier: None
    receiver.start()
    again = receiver.registry.find("pull", "a" * 32)
    assert again is not None
    assert again.state is PushState.COMMITTING
    receiver.pushes.recover()
    wait_until(lambda: again.state is PushState.COMMITTED)
    assert sorted(receiver.store.files.values()) == sorted(FILES)
    assert again.commit().stored == 12


# --- restarts


def test_after_a_restart_receiving_goes_on_where_it_was(receiver: Receiver) -> None:
    transfer = receiver.pull(FILES)
    data = memoryview(b"".join(FILES))
    transfer.write([Range(0, 1000), Range(5000, 9000)], data[:5000])
    missing = transfer.missing()
    receiver.restart()
    again = receiver.pull(FILES)
    assert again.id == transfer.id
    assert again.missing() == missing


def test_after_a_restart_bytes_are_verified_again(receiver: Receiver) -> None:
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    receiver.stop()
    area = receiver.root / transfer.id / "area"
    damaged = bytearray(area.read_bytes())
    damaged[100] ^= 1
    area.write_bytes(damaged)
    receiver.start()
    again = receiver.pull(FILES)
    with pytest.raises(Corrupted, match=identify(FILES[0])):
        again.commit()
    assert again.missing() == [again.manifest.range_of(identify(FILES[0]))]
    fill(again, FILES)
    assert again.commit().stored == 12


def test_what_was_stored_already_is_still_known_after_a_restart(receiver: Receiver) -> None:
    receiver.store.put(FILES[0])
    receiver.pull(FILES)
    receiver.restart()
    assert receiver.pull(FILES).already_stored == (1, len(FILES[0]))


def _power_failure(receiver: Receiver, identifier: str) -> None:
    """What was never fsynced may be anything."""
    area = receiver.root / identifier / "area"
    area.write_bytes(bytes(area.stat().st_size))


@pytest.mark.parametrize("resumable", [True, False])
def test_rolling_forward_over_a_broken_area_undoes_what_was_imported(
    receiver: Receiver, resumable: bool
) -> None:
    before = receiver.store.put(dicom("another", 10))
    identifier = crash_while_importing(receiver, FILES, resumable=resumable)
    stored = set(receiver.store.files) - {before}
    assert 0 < len(stored) < 12
    _power_failure(receiver, identifier)
    receiver.start()
    (again,) = receiver.registry.all()
    with pytest.raises(Corrupted if resumable else ImportRefused):
        again.commit()
    assert set(receiver.store.files) == {before}
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


def test_if_all_was_imported_before_the_crash_a_broken_area_does_not_matter(receiver: Receiver) -> None:
    identifier = crash_while_importing(receiver, FILES)
    for data in FILES:
        receiver.store.put(data)
    _power_failure(receiver, identifier)
    receiver.start()
    (again,) = receiver.registry.all()
    assert again.commit().stored == 12


def test_what_a_power_failure_damaged_in_orthanc_is_imported_again(receiver: Receiver) -> None:
    crash_while_importing(receiver, FILES)
    damaged = next(iter(receiver.store.files))
    index = receiver.store.md5s([identify(data) for data in FILES])
    receiver.store.files[damaged] = b""
    receiver.store.md5s = lambda identifiers, *_: {one: index[one] for one in identifiers if one in index}  # type: ignore[method-assign]
    receiver.start()
    (again,) = receiver.registry.all()
    assert again.commit().stored == 12
    assert receiver.store.removed == [damaged]
    assert receiver.store.files == {identify(data): data for data in FILES}


def test_a_refusal_while_rolling_forward_undoes_what_was_imported_before_the_crash(
    receiver: Receiver,
) -> None:
    crash_while_importing(receiver, FILES)
    last = next(data for data in FILES if identify(data) not in receiver.store.files)
    receiver.store.refused[identify(last)] = "no"
    receiver.start()
    (again,) = receiver.registry.all()
    with pytest.raises(ImportRefused):
        again.commit()
    assert receiver.store.files == {}


def test_if_orthanc_cannot_tell_while_rolling_forward_all_that_was_absent_goes(receiver: Receiver) -> None:
    before = receiver.store.put(FILES[3])
    crash_while_importing(receiver, FILES)

    def fail(cancellation: Cancellation) -> None:
        raise RuntimeError("no database")

    receiver.store.before_md5s = fail
    receiver.start()
    (again,) = receiver.registry.all()
    with pytest.raises(ImportRefused, match="no database"):
        again.commit()
    assert set(receiver.store.files) == {before}


@pytest.mark.parametrize("committed", [True, False])
def test_the_outcome_is_remembered_over_a_restart_without_the_bytes(
    receiver: Receiver, committed: bool
) -> None:
    if not committed:
        receiver.store.refused[identify(FILES[3])] = "no"
    transfer = receiver.pull(FILES, kind="push", meta={"version": 0})
    fill(transfer, FILES)
    if committed:
        transfer.commit()
    else:
        with pytest.raises(ImportRefused):
            transfer.commit()
    assert not (receiver.root / transfer.id / "area").exists()
    receiver.restart()
    again = receiver.registry.find("push", "a" * 32)
    assert again is not None
    if committed:
        assert again.commit() == transfer.commit()
    else:
        with pytest.raises(ImportRefused, match="no"):
            again.commit()


# --- opening


def test_a_server_that_stops_before_it_knows_what_was_imported_before_a_crash_undoes_nothing(
    receiver: Receiver,
) -> None:
    crash_while_importing(receiver, FILES)
    imported = dict(receiver.store.files)
    begun = hold_lookups(receiver)
    receiver.start()
    (again,) = receiver.registry.all()
    with ThreadPoolExecutor(1) as pool:
        commit = pool.submit(again.commit)
        assert begun.wait(PATIENCE)
        receiver.stop()
        with pytest.raises(Canceled):
            commit.result(PATIENCE)
    assert receiver.store.files == imported
    receiver.store.before_md5s = lambda cancellation: None
    receiver.start()
    (again,) = receiver.registry.all()
    assert again.commit().stored == 12


def test_a_commit_that_is_canceled_before_it_knows_what_was_imported_before_a_crash_undoes_it(
    receiver: Receiver,
) -> None:
    before = receiver.store.put(FILES[3])
    crash_while_importing(receiver, FILES)
    begun, cancellation = hold_lookups(receiver), Cancellation()
    receiver.start()
    (again,) = receiver.registry.all()
    with ThreadPoolExecutor(1) as pool:
        commit = pool.submit(again.commit, cancellation)
        assert begun.wait(PATIENCE)
        cancellation.cancel()
        with pytest.raises(Canceled):
            commit.result(PATIENCE)
    assert set(receiver.store.files) == {before}
    assert again.state is PushState.RECEIVING


def test_a_commit_that_is_canceled_while_it_looks_at_what_was_imported_before_a_crash_undoes_it(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = receiver.store.put(FILES[3])
    crash_while_importing(receiver, FILES)
    receiver.start()
    (again,) = receiver.registry.all()
    cancellation, read = Cancellation(), receiver.store.read

    def cancel(identifier: str) -> memoryview:
        cancellation.cancel()
        return read(identifier)

    monkeypatch.setattr(receiver.store, "read", cancel)
    with pytest.raises(Canceled):
        again.commit(cancellation)
    assert set(receiver.store.files) == {before}
