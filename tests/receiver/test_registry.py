"""One transfer being received: bytes, states, commits, restarts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest

from orthanc_transfers.core.errors import (
    Canceled,
    Conflict,
    Corrupted,
    HostError,
    ImportRefused,
    NoSpace,
    TooLarge,
    UnknownTransaction,
)
from orthanc_transfers.core.model import Instance, Manifest, PushState
from orthanc_transfers.core.ranges import Range
from orthanc_transfers.receiver.area import Area
from orthanc_transfers.runtime.cancellation import Cancellation
from tests.receiver.receiving_world import (
    PATIENCE,
    World,
    dicom,
    fill,
    halves,
    identify,
    manifest_of,
    md5,
    receiver,
    wait_until,
)

FILES = [dicom(f"file-{number}", 3000 + 17 * number) for number in range(12)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with receiver(tmp_path / "staging") as world:
        yield world


# --- all goes well


def test_what_was_received_is_imported(world: World) -> None:
    transfer = world.pull(FILES)
    assert transfer.state is PushState.RECEIVING
    fill(transfer, FILES)
    report = transfer.commit()
    assert transfer.state is PushState.COMMITTED
    assert (report.stored, report.already_stored, report.filtered_out) == (12, 0, 0)
    assert sorted(world.store.files.values()) == sorted(FILES)
    assert transfer.imported == 12


def test_asked_again_a_commit_has_the_same_outcome_and_imports_nothing(world: World) -> None:
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    first = transfer.commit()
    added = list(world.store.added)
    assert transfer.commit() == first
    assert world.store.added == added


def test_a_transfer_of_nothing_succeeds(world: World) -> None:
    transfer = world.pull([])
    assert transfer.missing() == []
    assert transfer.commit().stored == 0


def test_an_empty_file_needs_no_bytes(world: World) -> None:
    transfer = world.pull([b"", FILES[0]])
    fill(transfer, [b"", FILES[0]])
    assert transfer.commit().stored == 2


def test_an_empty_file_with_a_wrong_md5_fails_for_good(world: World) -> None:
    manifest = Manifest([Instance(identify(b""), 0, "0" * 32)])
    transfer = world.open(manifest)
    with pytest.raises(ImportRefused, match=identify(b"")):
        transfer.commit()
    assert transfer.state is PushState.FAILED


def test_ranges_may_come_in_any_order_and_size_scattered_and_twice(world: World) -> None:
    transfer = world.pull(FILES)
    data = b"".join(FILES)
    pieces = [Range(start, min(start + 777, len(data))) for start in range(0, len(data), 777)]
    pieces = pieces[::-2] + pieces[::2]
    while pieces:
        some, pieces = pieces[:5], pieces[5:]
        transfer.write(some, memoryview(b"".join(data[one.start : one.stop] for one in some)))
    transfer.write([Range(0, len(data))], memoryview(data))
    assert transfer.missing() == []
    assert transfer.commit().stored == 12
    assert sorted(world.store.files.values()) == sorted(FILES)


def test_many_threads_write_at_once(world: World) -> None:
    transfer = world.pull(FILES)
    data = memoryview(b"".join(FILES))
    pieces = [Range(start, min(start + 501, len(data))) for start in range(0, len(data), 251)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: transfer.write([one], data[one.start : one.stop]), pieces))
    assert transfer.missing() == []
    assert transfer.commit().stored == 12
    assert sorted(world.store.files.values()) == sorted(FILES)


def test_what_is_verified_cannot_be_overwritten(world: World) -> None:
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    transfer.write([transfer.manifest.area], memoryview(b"\0" * transfer.manifest.size))
    assert transfer.commit().stored == 12
    assert sorted(world.store.files.values()) == sorted(FILES)


def test_files_larger_than_the_read_buffer_are_imported_too(world: World) -> None:
    files = [dicom("large", 9_000_001), dicom("small", 100), dicom("huge", 17_000_000)]
    transfer = world.pull(files)
    fill(transfer, files)
    assert transfer.commit().stored == 3
    assert sorted(world.store.files.values()) == sorted(files)


# --- what is there already


def test_what_is_stored_already_is_neither_asked_for_nor_imported(world: World) -> None:
    for data in FILES[:5]:
        world.store.put(data)
    transfer = world.pull(FILES)
    assert transfer.already_stored == (5, sum(map(len, FILES[:5])))
    assert sum(item.size for item in transfer.missing()) == sum(map(len, FILES[5:]))
    fill(transfer, FILES)
    report = transfer.commit()
    assert (report.stored, report.already_stored) == (7, 5)
    assert len(world.store.added) == 7


def test_what_was_stored_and_vanished_before_the_commit_is_missing_again(world: World) -> None:
    for data in FILES[:5]:
        world.store.put(data)
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    del world.store.files[identify(FILES[2])]
    with pytest.raises(Corrupted, match=identify(FILES[2])):
        transfer.commit()
    assert transfer.state is PushState.RECEIVING
    assert transfer.missing() == [transfer.manifest.range_of(identify(FILES[2]))]
    assert world.store.added == []
    fill(transfer, FILES)
    assert transfer.commit().stored == 8


def test_stored_with_other_bytes_is_not_taken_for_the_same(world: World) -> None:
    world.store.put(dicom("file-0", 50))
    assert world.pull(FILES).already_stored == (0, 0)


def test_without_md5s_in_the_index_everything_is_sent_and_the_files_are_compared(world: World) -> None:
    world.store.keeps_md5s = False
    world.store.put(FILES[0])
    transfer = world.pull(FILES)
    assert transfer.already_stored == (0, 0)
    fill(transfer, FILES)
    report = transfer.commit()
    assert (report.stored, report.already_stored) == (11, 1)


# --- bytes that are wrong or missing


def test_a_commit_of_missing_bytes_names_an_instance_and_goes_on_receiving(world: World) -> None:
    transfer = world.pull(FILES)
    data = memoryview(b"".join(FILES))
    hole = transfer.manifest.range_of(identify(FILES[7]))
    transfer.write([Range(0, hole.start)], data[: hole.start])
    transfer.write([Range(hole.start + 1, len(data))], data[hole.start + 1 :])
    with pytest.raises(Corrupted, match=f"{identify(FILES[7])} was not received completely"):
        transfer.commit()
    assert transfer.state is PushState.RECEIVING
    assert transfer.missing() == [Range(hole.start, hole.start + 1)]
    assert world.store.files == {}


@pytest.mark.parametrize("parts", [1, 2], ids=["whole", "in parts"])
def test_an_instance_with_a_wrong_md5_is_missing_again(world: World, parts: int) -> None:
    transfer = world.pull(FILES)
    bad = [*FILES[:3], bytes(len(FILES[3])), *FILES[4:]]
    whole = transfer.manifest.range_of(identify(FILES[3]))
    data = memoryview(b"".join(bad))
    transfer.write([Range(0, whole.start)], data[: whole.start])
    for item in [whole] if parts == 1 else halves(whole):
        transfer.write([item], data[item.start : item.stop])
    transfer.write([Range(whole.stop, len(data))], data[whole.stop :])
    assert transfer.missing() == [whole]
    with pytest.raises(Corrupted, match=f"MD5 of instance {identify(FILES[3])}"):
        transfer.commit()
    fill(transfer, FILES)
    assert transfer.commit().stored == 12


def test_bytes_beyond_a_full_disk_are_not_claimed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    transfer = world.pull(FILES)

    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.pwrite", full)
        with pytest.raises(NoSpace, match="full"):
            fill(transfer, FILES)
    assert transfer.missing() == [transfer.manifest.area]
    fill(transfer, FILES)
    assert transfer.commit().stored == 12


# --- what Orthanc says


def test_a_refusal_undoes_everything_and_says_which_instance_and_why(world: World) -> None:
    before = world.store.put(dicom("another", 10))
    world.store.put(FILES[1])
    world.store.refused[identify(FILES[9])] = "the disk of the storage is full"
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    with pytest.raises(ImportRefused, match=f"{identify(FILES[9])}.*the disk of the storage is full"):
        transfer.commit()
    assert transfer.state is PushState.FAILED
    assert set(world.store.files) == {before, identify(FILES[1])}
    with pytest.raises(ImportRefused, match="the disk of the storage is full"):
        transfer.commit()


def test_an_error_of_the_store_itself_undoes_everything(world: World) -> None:
    def fail(identifier: str) -> None:
        if identifier == identify(FILES[9]):
            raise RuntimeError("out of order")

    world.store.before_add = fail
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    with pytest.raises(ImportRefused, match="out of order"):
        transfer.commit()
    assert world.store.files == {}
    assert transfer.state is PushState.FAILED


def test_what_the_policy_of_this_server_filters_out_counts_and_is_named(world: World) -> None:
    world.store.filtered.add(identify(FILES[4]))
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    report = transfer.commit()
    assert (report.stored, report.filtered_out) == (11, 1)
    row = world.reports.read(transfer.id)["Instances"][4]  # type: ignore[index]
    assert (row["ID"], row["Outcome"]) == (identify(FILES[4]), "filtered")


def test_other_content_of_the_same_instance_is_a_conflict(world: World) -> None:
    other = dicom("file-4", 50)
    world.store.put(other)
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    with pytest.raises(ImportRefused, match=f"{identify(other)}.*other content"):
        transfer.commit()
    assert list(world.store.files.values()) == [other]


def test_for_a_sender_that_cannot_understand_a_conflict_it_is_a_warning(world: World) -> None:
    world.store.put(dicom("file-4", 50))
    transfer = world.pull(FILES, resumable=False)
    fill(transfer, FILES)
    report = transfer.commit()
    assert (report.stored, report.already_stored) == (11, 1)
    assert len(report.warnings) == 1
    assert identify(FILES[4]) in report.warnings[0]


def test_the_same_instance_in_another_transfer_syntax_is_there_already(world: World) -> None:
    world.store.put(dicom("file-4", 50, syntax="1.2.840.10008.1.2.4.70"))
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    report = transfer.commit()
    assert (report.stored, report.already_stored) == (11, 1)
    assert "1.2.840.10008.1.2.4.70" in report.warnings[0]


def test_a_file_that_is_not_what_it_was_announced_as_is_refused_and_undone(world: World) -> None:
    files = [*FILES[:3], dicom("impostor", 500)]
    honest = manifest_of(FILES[:3])
    lie = Instance("f" * 40, len(files[3]), md5(files[3]))
    transfer = world.open(Manifest([*honest, lie]))
    fill(transfer, files)
    with pytest.raises(ImportRefused, match=f"{lie.id}.*{identify(files[3])}"):
        transfer.commit()
    assert world.store.files == {}


def test_an_instance_that_was_overwritten_is_not_deleted_by_the_undoing(world: World) -> None:
    world.store.overwrites = True
    world.store.put(dicom("file-0", 50))
    world.store.refused[identify(FILES[11])] = "no"
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    with pytest.raises(ImportRefused):
        transfer.commit()
    assert set(world.store.files) == {identify(FILES[0])}


def test_an_instance_that_cannot_be_deleted_again_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.store.refused[identify(FILES[11])] = "no"

    def stubborn(identifier: str) -> None:
        raise RuntimeError("locked")

    monkeypatch.setattr(world.store, "remove", stubborn)
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    with pytest.raises(ImportRefused):
        transfer.commit()
    rows = world.reports.read(transfer.id)["Instances"]  # type: ignore[index]
    assert any("could not be deleted again: locked" in row.get("Reason", "") for row in rows)


# --- stopping


def _hold_imports(world: World) -> tuple[threading.Event, threading.Event]:
    begun, go_on = threading.Event(), threading.Event()

    def hold(identifier: str) -> None:
        if len(world.store.added) >= 3:
            begun.set()
            go_on.wait(PATIENCE)

    world.store.before_add = hold
    return begun, go_on


def _outcomes(world: World) -> list[str]:
    """The states of the outcomes that are on disk."""
    outcomes = (Area.reopen(path.parent).history.outcome for path in world.root.glob("*/journal"))
    return [outcome["State"] for outcome in outcomes if outcome is not None]


@pytest.mark.parametrize("refused", [False, True])
def test_no_outcome_is_noted_before_orthanc_was_made_to_keep_what_it_rests_on(
    world: World, refused: bool
) -> None:
    if refused:
        world.store.refused[identify(FILES[11])] = "no"
    outcomes: list[list[str]] = []
    world.store.before_sync = lambda: outcomes.append(_outcomes(world))
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    with pytest.raises(ImportRefused) if refused else nullcontext():
        transfer.commit()
    assert outcomes == [[]]
    assert world.store.synced == set(world.store.files)
    assert _outcomes(world) == ["failed" if refused else "committed"]


def test_what_orthanc_cannot_be_made_to_keep_is_no_success(world: World) -> None:
    def fail() -> None:
        raise HostError("the index cannot be fsynced", 14)

    world.store.before_sync = fail
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    with pytest.raises(ImportRefused, match="fsynced"):
        transfer.commit()
    assert transfer.state is PushState.FAILED
    assert world.store.files == {}


def test_a_canceled_commit_is_undone_and_keeps_its_bytes(world: World) -> None:
    begun, go_on = _hold_imports(world)
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    cancellation = Cancellation()
    with ThreadPoolExecutor(1) as pool:
        commit = pool.submit(transfer.commit, cancellation)
        assert begun.wait(PATIENCE)
        with pytest.raises(Conflict):
            transfer.discard()
        cancellation.cancel()
        go_on.set()
        with pytest.raises(Canceled):
            commit.result(PATIENCE)
    assert world.store.files == {}
    assert transfer.state is PushState.RECEIVING
    assert transfer.missing() == []
    assert transfer.commit().stored == 12


def test_while_it_commits_no_bytes_are_taken_and_others_wait_for_the_same_outcome(world: World) -> None:
    begun, go_on = _hold_imports(world)
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    with ThreadPoolExecutor(3) as pool:
        commits = [pool.submit(transfer.commit) for _ in range(3)]
        assert begun.wait(PATIENCE)
        assert transfer.state is PushState.COMMITTING
        with pytest.raises(Conflict, match="committing"):
            transfer.write([Range(0, 1)], memoryview(b"x"))
        go_on.set()
        assert {commit.result(PATIENCE).stored for commit in commits} == {12}
    assert len(world.store.added) == 12
    with pytest.raises(Conflict, match="committed"):
        transfer.write([Range(0, 1)], memoryview(b"x"))


def test_a_server_that_stops_leaves_the_commit_to_its_next_start(world: World) -> None:
    begun, go_on = _hold_imports(world)
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    with ThreadPoolExecutor(1) as pool:
        commit = pool.submit(transfer.commit)
        assert begun.wait(PATIENCE)
        world.stop()
        go_on.set()
        with pytest.raises(Canceled):
            commit.result(PATIENCE)
    assert 3 <= len(world.store.files) <= 12
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


def test_after_discarding_nothing_is_left_and_nothing_works(world: World) -> None:
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    transfer.discard()
    transfer.discard()
    assert world.leftovers() == set()
    with pytest.raises(UnknownTransaction):
        transfer.write([Range(0, 1)], memoryview(b"x"))
    with pytest.raises(UnknownTransaction):
        transfer.commit()
    assert world.registry.find("pull", "a" * 32) is None


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


def _crash_while_importing(world: World, *, resumable: bool) -> str:
    """A process that dies when some instances are imported; answers the transfer's identifier."""
    begun, go_on = _hold_imports(world)
    transfer = world.pull(FILES, kind="push", resumable=resumable, meta={"version": 0})
    fill(transfer, FILES)
    with ThreadPoolExecutor(1) as pool:
        commit = pool.submit(transfer.commit)
        assert begun.wait(PATIENCE)
        world.stop()
        go_on.set()
        with pytest.raises(Canceled):
            commit.result(PATIENCE)
    # A process that dies takes the imports that were under way with it; here they have to end first.
    for thread in threading.enumerate():
        if thread.name.startswith("transfers-import"):
            thread.join(PATIENCE)
    world.store.before_add = lambda identifier: None
    return transfer.id


def _power_failure(world: World, identifier: str) -> None:
    """What was never fsynced may be anything."""
    area = world.root / identifier / "area"
    area.write_bytes(bytes(area.stat().st_size))


@pytest.mark.parametrize("resumable", [True, False])
def test_rolling_forward_over_a_broken_area_undoes_what_was_imported(world: World, resumable: bool) -> None:
    before = world.store.put(dicom("another", 10))
    identifier = _crash_while_importing(world, resumable=resumable)
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
    identifier = _crash_while_importing(world, resumable=True)
    for data in FILES:
        world.store.put(data)
    _power_failure(world, identifier)
    world.start()
    (again,) = world.registry.all()
    assert again.commit().stored == 12


def test_what_a_power_failure_spoilt_in_orthanc_is_imported_again(world: World) -> None:
    _crash_while_importing(world, resumable=True)
    spoilt = next(iter(world.store.files))
    index = world.store.md5s([identify(data) for data in FILES])
    world.store.files[spoilt] = b""
    world.store.md5s = lambda identifiers, _=None: {one: index[one] for one in identifiers if one in index}  # type: ignore[method-assign]
    world.start()
    (again,) = world.registry.all()
    assert again.commit().stored == 12
    assert world.store.removed == [spoilt]
    assert world.store.files == {identify(data): data for data in FILES}


def test_a_refusal_while_rolling_forward_undoes_what_was_imported_before_the_crash(world: World) -> None:
    _crash_while_importing(world, resumable=True)
    last = next(data for data in FILES if identify(data) not in world.store.files)
    world.store.refused[identify(last)] = "no"
    world.start()
    (again,) = world.registry.all()
    with pytest.raises(ImportRefused):
        again.commit()
    assert world.store.files == {}


def test_if_orthanc_cannot_tell_while_rolling_forward_all_that_was_absent_goes(world: World) -> None:
    before = world.store.put(FILES[3])
    _crash_while_importing(world, resumable=True)

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


def test_the_same_token_gives_the_same_reception(world: World) -> None:
    with ThreadPoolExecutor(8) as pool:
        transfers = list(pool.map(lambda _: world.pull(FILES), range(8)))
    assert len({transfer.id for transfer in transfers}) == 1
    assert len(world.leftovers()) == 1


def test_a_push_with_a_known_token_and_another_manifest_is_a_conflict(world: World) -> None:
    world.pull(FILES, kind="push", meta={"version": 0})
    with pytest.raises(Conflict):
        world.pull(FILES[1:], kind="push", meta={"version": 0})


def test_a_pull_whose_manifest_changed_starts_over(world: World) -> None:
    old = world.pull(FILES)
    fill(old, FILES)
    new = world.pull(FILES[1:])
    assert new.id != old.id
    assert new.missing() == [new.manifest.area]
    assert world.leftovers() == {new.id}


def test_a_pull_that_failed_can_be_tried_again(world: World) -> None:
    world.store.refused[identify(FILES[3])] = "no"
    transfer = world.pull(FILES)
    fill(transfer, FILES)
    with pytest.raises(ImportRefused):
        transfer.commit()
    world.store.refused.clear()
    again = world.pull(FILES)
    fill(again, FILES)
    assert again.commit().stored == 12


def _hold_looks(world: World) -> threading.Event:
    """From now on, whoever looks what Orthanc has does so until it is canceled; the event says that somebody does."""
    begun = threading.Event()

    def look(cancellation: Cancellation) -> None:
        begun.set()
        cancellation.wait(PATIENCE)

    world.store.before_md5s = look
    return begun


@pytest.mark.parametrize("kind", ["push", "pull"])
def test_a_server_that_stops_does_not_look_any_further_what_it_has_of_a_new_transfer(
    world: World, kind: str
) -> None:
    begun = _hold_looks(world)
    with ThreadPoolExecutor(1) as pool:
        creation = pool.submit(world.pull, FILES, kind=kind)
        assert begun.wait(PATIENCE)
        world.stop()
        with pytest.raises(Canceled):
            creation.result(PATIENCE)
    assert world.leftovers() == set()


def test_a_transfer_that_is_canceled_does_not_look_any_further_what_is_there(world: World) -> None:
    begun, cancellation = _hold_looks(world), Cancellation()
    with ThreadPoolExecutor(1) as pool:
        creation = pool.submit(world.pull, FILES, cancellation=cancellation)
        assert begun.wait(PATIENCE)
        cancellation.cancel()
        with pytest.raises(Canceled):
            creation.result(PATIENCE)
    world.store.before_md5s = lambda cancellation: None
    assert world.pull(FILES).missing()


@pytest.mark.parametrize("stops", [True, False], ids=["the server stops", "it is canceled"])
def test_a_commit_does_not_look_any_further_what_is_there_before_it_begins(world: World, stops: bool) -> None:
    transfer, cancellation = world.pull(FILES), Cancellation()
    fill(transfer, FILES)
    begun = _hold_looks(world)
    with ThreadPoolExecutor(1) as pool:
        commit = pool.submit(transfer.commit, cancellation)
        assert begun.wait(PATIENCE)
        world.stop() if stops else cancellation.cancel()
        with pytest.raises(Canceled):
            commit.result(PATIENCE)
    world.store.before_md5s = lambda cancellation: None
    if stops:
        world.start()
        (transfer,) = world.registry.all()
    assert transfer.state is PushState.RECEIVING
    assert transfer.commit().stored == 12


def test_a_server_that_stops_before_it_knows_what_was_imported_before_a_crash_undoes_nothing(
    world: World,
) -> None:
    _crash_while_importing(world, resumable=True)
    imported = dict(world.store.files)
    begun = _hold_looks(world)
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
    _crash_while_importing(world, resumable=True)
    begun, cancellation = _hold_looks(world), Cancellation()
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
    _crash_while_importing(world, resumable=True)
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


def test_a_creation_that_failed_can_be_tried_again(world: World) -> None:
    def fail(cancellation: Cancellation) -> None:
        raise RuntimeError("no database")

    world.store.before_md5s = fail
    with pytest.raises(RuntimeError):
        world.pull(FILES)
    world.store.before_md5s = lambda cancellation: None
    assert world.pull(FILES).missing()
    assert len(world.leftovers()) == 1


def test_a_manifest_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    with (
        receiver(tmp_path, max_manifest_instances=11) as world,
        pytest.raises(TooLarge, match=r"12 .*MaxManifestInstances, 11"),
    ):
        world.pull(FILES)


# --- expiry


def test_an_idle_pull_outlives_an_idle_push_but_not_for_ever(world: World) -> None:
    push = world.pull(FILES, kind="push", meta={"version": 0})
    pull = world.pull(FILES)
    world.clock.seconds += world.settings.push_idle_timeout + 1
    world.registry.expire()
    assert push.dropped
    assert not pull.dropped
    world.clock.seconds += 8 * 86400
    world.registry.expire()
    assert pull.dropped
    assert world.leftovers() == set()


def test_bytes_that_arrive_keep_a_reception_alive(world: World) -> None:
    push = world.pull(FILES, kind="push", meta={"version": 0})
    for _ in range(5):
        world.clock.seconds += world.settings.push_idle_timeout - 1
        push.write([Range(0, 10)], memoryview(FILES[0])[:10])
        world.registry.expire()
    assert not push.dropped


def test_a_remembered_outcome_expires_too(world: World) -> None:
    pull = world.pull(FILES)
    fill(pull, FILES)
    pull.commit()
    world.clock.seconds += world.settings.push_idle_timeout + 1
    world.registry.expire()
    assert world.leftovers() == set()
