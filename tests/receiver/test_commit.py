"""Commits: what Orthanc says of instances, and what becomes of a commit that is stopped."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest

from orthanc_transfers.core.errors import (
    Canceled,
    Conflict,
    HostError,
    ImportRefused,
)
from orthanc_transfers.core.model import Instance, Manifest, PushState
from orthanc_transfers.core.ranges import Range
from orthanc_transfers.receiver.area import Area
from orthanc_transfers.runtime.cancellation import Cancellation
from tests.receiver.memory_receiver import (
    PATIENCE,
    Receiver,
    dicom,
    fill,
    hold_imports,
    hold_lookups,
    identify,
    manifest_of,
    md5,
)

FILES = [dicom(f"file-{number}", 3000 + 17 * number) for number in range(12)]


# --- what Orthanc says


def test_a_refusal_undoes_everything_and_says_which_instance_and_why(receiver: Receiver) -> None:
    before = receiver.store.put(dicom("another", 10))
    receiver.store.put(FILES[1])
    receiver.store.refused[identify(FILES[9])] = "the disk of the storage is full"
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    with pytest.raises(ImportRefused, match=f"{identify(FILES[9])}.*the disk of the storage is full"):
        transfer.commit()
    assert transfer.state is PushState.FAILED
    assert set(receiver.store.files) == {before, identify(FILES[1])}
    with pytest.raises(ImportRefused, match="the disk of the storage is full"):
        transfer.commit()


def test_an_error_of_the_store_itself_undoes_everything(receiver: Receiver) -> None:
    def fail(identifier: str) -> None:
        if identifier == identify(FILES[9]):
            raise RuntimeError("out of order")

    receiver.store.before_add = fail
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    with pytest.raises(ImportRefused, match="out of order"):
        transfer.commit()
    assert receiver.store.files == {}
    assert transfer.state is PushState.FAILED


def test_what_the_policy_of_this_server_filters_out_counts_and_is_named(receiver: Receiver) -> None:
    receiver.store.filtered.add(identify(FILES[4]))
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    report = transfer.commit()
    assert (report.stored, report.filtered_out) == (11, 1)
    row = receiver.reports.read(transfer.id)["Instances"][4]  # type: ignore[index]
    assert (row["ID"], row["Outcome"]) == (identify(FILES[4]), "filtered")


def test_other_content_of_the_same_instance_is_a_conflict(receiver: Receiver) -> None:
    other = dicom("file-4", 50)
    receiver.store.put(other)
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    with pytest.raises(ImportRefused, match=f"{identify(other)}.*other content"):
        transfer.commit()
    assert list(receiver.store.files.values()) == [other]


def test_for_a_sender_that_cannot_understand_a_conflict_it_is_a_warning(receiver: Receiver) -> None:
    receiver.store.put(dicom("file-4", 50))
    transfer = receiver.pull(FILES, resumable=False)
    fill(transfer, FILES)
    report = transfer.commit()
    assert (report.stored, report.already_stored) == (11, 1)
    assert len(report.warnings) == 1
    assert identify(FILES[4]) in report.warnings[0]


def test_the_same_instance_in_another_transfer_syntax_is_there_already(receiver: Receiver) -> None:
    receiver.store.put(dicom("file-4", 50, syntax="1.2.840.10008.1.2.4.70"))
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    report = transfer.commit()
    assert (report.stored, report.already_stored) == (11, 1)
    assert "1.2.840.10008.1.2.4.70" in report.warnings[0]


def test_a_file_that_is_not_what_it_was_announced_as_is_refused_and_undone(receiver: Receiver) -> None:
    files = [*FILES[:3], dicom("impostor", 500)]
    honest = manifest_of(FILES[:3])
    lie = Instance("f" * 40, len(files[3]), md5(files[3]))
    transfer = receiver.open(Manifest([*honest, lie]))
    fill(transfer, files)
    with pytest.raises(ImportRefused, match=f"{lie.id}.*{identify(files[3])}"):
        transfer.commit()
    assert receiver.store.files == {}


def test_an_instance_that_was_overwritten_is_not_deleted_by_the_undoing(receiver: Receiver) -> None:
    receiver.store.overwrites = True
    receiver.store.put(dicom("file-0", 50))
    receiver.store.refused[identify(FILES[11])] = "no"
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    with pytest.raises(ImportRefused):
        transfer.commit()
    assert set(receiver.store.files) == {identify(FILES[0])}


def test_an_instance_that_cannot_be_deleted_again_is_named(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.store.refused[identify(FILES[11])] = "no"

    def stubborn(identifier: str) -> None:
        raise RuntimeError("locked")

    monkeypatch.setattr(receiver.store, "remove", stubborn)
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    with pytest.raises(ImportRefused):
        transfer.commit()
    rows = receiver.reports.read(transfer.id)["Instances"]  # type: ignore[index]
    assert any("could not be deleted again yet: locked" in row.get("Reason", "") for row in rows)


# --- stopping


def _outcomes(receiver: Receiver) -> list[str]:
    """The states of the outcomes that are on disk."""
    outcomes = (Area.reopen(path.parent).history.outcome for path in receiver.root.glob("*/journal"))
    return [outcome["State"] for outcome in outcomes if outcome is not None]


@pytest.mark.parametrize("refused", [False, True])
def test_no_outcome_is_journalled_before_orthanc_was_made_to_keep_what_it_rests_on(
    receiver: Receiver, refused: bool
) -> None:
    if refused:
        receiver.store.refused[identify(FILES[11])] = "no"
    outcomes: list[list[str]] = []
    receiver.store.before_sync = lambda: outcomes.append(_outcomes(receiver))
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    with pytest.raises(ImportRefused) if refused else nullcontext():
        transfer.commit()
    assert outcomes == [[]]
    assert receiver.store.synced == set(receiver.store.files)
    assert _outcomes(receiver) == ["failed" if refused else "committed"]


def test_what_orthanc_cannot_be_made_to_keep_is_no_success(receiver: Receiver) -> None:
    def fail() -> None:
        raise HostError("the index cannot be fsynced", 14)

    receiver.store.before_sync = fail
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    with pytest.raises(ImportRefused, match="fsynced"):
        transfer.commit()
    assert transfer.state is PushState.FAILED
    assert receiver.store.files == {}


def test_a_canceled_commit_is_undone_and_keeps_its_bytes(receiver: Receiver) -> None:
    begun, go_on = hold_imports(receiver, after=3)
    transfer = receiver.pull(FILES)
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
    assert receiver.store.files == {}
    assert transfer.state is PushState.RECEIVING
    assert transfer.missing() == []
    assert transfer.commit().stored == 12


def test_while_it_commits_no_bytes_are_taken_and_others_wait_for_the_same_outcome(receiver: Receiver) -> None:
    begun, go_on = hold_imports(receiver, after=3)
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    with ThreadPoolExecutor(3) as pool:
        commits = [pool.submit(transfer.commit) for _ in range(3)]
        assert begun.wait(PATIENCE)
        assert transfer.state is PushState.COMMITTING
        with pytest.raises(Conflict, match="committing"):
            transfer.write([Range(0, 1)], memoryview(b"x"))
        go_on.set()
        assert {commit.result(PATIENCE).stored for commit in commits} == {12}
    assert len(receiver.store.added) == 12
    with pytest.raises(Conflict, match="committed"):
        transfer.write([Range(0, 1)], memoryview(b"x"))


# --- opening


@pytest.mark.parametrize("stops", [True, False], ids=["the server stops", "it is canceled"])
def test_a_commit_stops_looking_up_what_is_stored_before_it_begins(receiver: Receiver, stops: bool) -> None:
    transfer, cancellation = receiver.pull(FILES), Cancellation()
    fill(transfer, FILES)
    begun = hold_lookups(receiver)
    with ThreadPoolExecutor(1) as pool:
        commit = pool.submit(transfer.commit, cancellation)
        assert begun.wait(PATIENCE)
        receiver.stop() if stops else cancellation.cancel()
        with pytest.raises(Canceled):
            commit.result(PATIENCE)
    receiver.store.before_md5s = lambda cancellation: None
    if stops:
        receiver.start()
        (transfer,) = receiver.registry.all()
    assert transfer.state is PushState.RECEIVING
    assert transfer.commit().stored == 12


def test_the_room_of_what_was_received_is_given_back_before_anything_is_undone(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.store.refused[identify(FILES[-1])] = "no room"
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    blocks, remove = [], receiver.store.remove

    def look(identifier: str) -> None:
        blocks.append((receiver.root / transfer.id / "area").stat().st_blocks)
        remove(identifier)

    monkeypatch.setattr(receiver.store, "remove", look)
    with pytest.raises(ImportRefused):
        transfer.commit()
    assert set(blocks) == {0}
    assert receiver.store.files == {}
