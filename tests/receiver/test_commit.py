"""Commits: what Orthanc says of instances, and what becomes of a commit that is stopped."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

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
from tests.receiver.receiving_world import (
    PATIENCE,
    World,
    dicom,
    fill,
    hold_imports,
    hold_lookups,
    identify,
    manifest_of,
    md5,
    receiver,
)

FILES = [dicom(f"file-{number}", 3000 + 17 * number) for number in range(12)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with receiver(tmp_path / "staging") as world:
        yield world


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


def _outcomes(world: World) -> list[str]:
    """The states of the outcomes that are on disk."""
    outcomes = (Area.reopen(path.parent).history.outcome for path in world.root.glob("*/journal"))
    return [outcome["State"] for outcome in outcomes if outcome is not None]


@pytest.mark.parametrize("refused", [False, True])
def test_no_outcome_is_journalled_before_orthanc_was_made_to_keep_what_it_rests_on(
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
    begun, go_on = hold_imports(world, after=3)
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
    begun, go_on = hold_imports(world, after=3)
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


# --- opening


@pytest.mark.parametrize("stops", [True, False], ids=["the server stops", "it is canceled"])
def test_a_commit_stops_looking_up_what_is_stored_before_it_begins(world: World, stops: bool) -> None:
    transfer, cancellation = world.pull(FILES), Cancellation()
    fill(transfer, FILES)
    begun = hold_lookups(world)
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
