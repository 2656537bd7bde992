"""Undos that Orthanc does not let finish at first: tried again until they succeed, and told until then."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.core.codec import Codec
from orthanc_transfers.core.errors import Canceled, Corrupted, HostError, ImportRefused
from orthanc_transfers.core.messages_v2 import PushCreationV2, PushStatus
from orthanc_transfers.core.model import PushState
from orthanc_transfers.receiver.import_log import NAME, ImportLog
from orthanc_transfers.receiver.incoming import IncomingTransfer
from orthanc_transfers.receiver.staging import UNDOS
from orthanc_transfers.receiver.unfinished_undo import UnfinishedUndo, retold, told
from orthanc_transfers.runtime.cancellation import Cancellation
from tests.receiver.memory_receiver import (
    PATIENCE,
    Receiver,
    crash_while_importing,
    dicom,
    fill,
    hold_imports,
    identify,
    manifest_of,
    running_receiver,
    wait_until,
)
from tests.receiver.test_import_log import die

FILES = [dicom(f"file-{number}", 3000 + 17 * number) for number in range(6)]
IDS = [identify(data) for data in FILES]
LAST = FILES[5]


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with running_receiver(tmp_path / "staging", commit_threads_count=1) as receiver:
        yield receiver


def full(_: str) -> None:
    raise HostError("the disk is full", 1)


def roomy(_: str) -> None:
    pass


def fail(receiver: Receiver, token: str = "a") -> IncomingTransfer:
    """A transfer of which the last file is refused, and whose undo cannot delete."""
    receiver.store.refused[identify(LAST)] = "no room"
    receiver.store.before_remove = full
    transfer = receiver.pull(FILES, token * 32)
    fill(transfer, FILES)
    with pytest.raises(ImportRefused, match=r"5 of 6 instances are still here.*the undo goes on: no room"):
        transfer.commit()
    assert set(receiver.store.files) == set(IDS[:5])
    receiver.store.refused.clear()
    return transfer


def report(receiver: Receiver, identifier: str) -> Any:
    return receiver.reports.read(identifier)


def outcomes(receiver: Receiver, identifier: str) -> list[str]:
    return [row["Outcome"] for row in report(receiver, identifier)["Instances"]]


def try_again(receiver: Receiver) -> None:
    receiver.registry._undo_retries.try_all()


def pending(receiver: Receiver) -> list[str]:
    try:
        return [path.name for path in (receiver.root / UNDOS).iterdir()]
    except FileNotFoundError:
        return []  # deleted with the last of them


def test_what_cannot_be_deleted_is_told_and_deleted_later(receiver: Receiver) -> None:
    transfer = fail(receiver)
    assert transfer.state is PushState.FAILED
    assert outcomes(receiver, transfer.id) == ["still here"] * 5 + ["refused"]
    assert "5 of 6 instances are still here" in report(receiver, transfer.id)["Error"]
    assert "nothing was kept" not in report(receiver, transfer.id)["Error"]
    try_again(receiver)
    assert pending(receiver) == [transfer.id]
    receiver.store.before_remove = roomy
    wait_until(lambda: pending(receiver) == [])
    assert receiver.store.files == {}
    assert "nothing was kept: no room" in report(receiver, transfer.id)["Error"]
    assert outcomes(receiver, transfer.id) == ["undone"] * 5 + ["refused"]
    assert all("Reason" not in row for row in report(receiver, transfer.id)["Instances"][:5])


def test_all_that_tells_of_it_says_that_nothing_is_left_then(receiver: Receiver) -> None:
    corrections: list[tuple[str, str]] = []
    receiver.registry.on_correction(lambda *told: corrections.append(told))
    transfer = fail(receiver)
    assert "5 of 6 instances are still here" in report(receiver, transfer.token)["Error"]
    receiver.store.before_remove = roomy
    wait_until(lambda: pending(receiver) == [])
    assert corrections[-1] == (transfer.id, f"instance {IDS[5]} was refused, nothing was kept: no room")
    for identifier in (transfer.id, transfer.token):
        assert report(receiver, identifier)["Error"] == corrections[-1][1]
        assert outcomes(receiver, identifier) == ["undone"] * 5 + ["refused"]
    assert len(list(receiver.reports.all(0.0))) == 1
    for _ in range(2):
        (known,) = receiver.registry.all()
        assert known.state is PushState.FAILED
        with pytest.raises(ImportRefused, match="nothing was kept: no room"):
            known.commit()
        receiver.restart()


def test_a_whole_push_says_so_too(receiver: Receiver) -> None:
    receiver.store.refused[IDS[5]] = "no room"
    receiver.store.before_remove = full
    manifest = manifest_of(FILES)
    creation = PushCreationV2("c" * 32, manifest)
    body = memoryview(b"".join({identify(data): data for data in FILES}[one.id] for one in manifest))

    def carry() -> PushStatus:
        return receiver.v2.carry(creation, None, Codec.NONE, body, received=len(body), wait=PATIENCE)

    assert "still here" in (carry().error or "")
    receiver.store.before_remove = roomy
    wait_until(lambda: pending(receiver) == [])
    assert "nothing was kept" in (carry().error or "")
    receiver.restart()
    assert "nothing was kept" in (carry().error or "")


@pytest.mark.parametrize("given_up", [False, True])
def test_what_quotes_the_sentence_is_corrected_where_it_says_what_is_left(given_up: bool) -> None:
    before = f"peer b: {told('refused, nothing was kept: no', 3, 9)}"
    now = told("refused, nothing was kept: no", 1 if given_up else 0, 9, given_up=given_up)
    assert retold(before, now) == f"peer b: {now}"
    assert retold("another error", now) == "another error"
    assert retold(told("an error", 2, 9), "an error") == "an error; nothing was kept"


def test_a_restart_tries_again_at_once_also_when_the_transfer_is_forgotten(receiver: Receiver) -> None:
    transfer = fail(receiver)
    transfer.discard()
    receiver.stop()
    receiver.store.before_remove = roomy
    receiver.start()
    assert len(receiver.store.files) == 5
    receiver.pushes.recover()
    wait_until(lambda: pending(receiver) == [])
    assert receiver.store.files == {}
    assert "nothing was kept: no room" in report(receiver, transfer.id)["Error"]


def test_one_that_cannot_be_deleted_does_not_hold_up_the_others(receiver: Receiver) -> None:
    transfer = fail(receiver)

    def stubborn(identifier: str) -> None:
        if identifier == IDS[0]:
            full(identifier)

    receiver.store.before_remove = stubborn
    wait_until(lambda: set(receiver.store.files) == {IDS[0]})
    wait_until(lambda: "1 of 6 instances is still here" in report(receiver, transfer.id)["Error"])
    assert outcomes(receiver, transfer.id) == ["still here"] + ["undone"] * 4 + ["refused"]


def test_a_later_transfer_keeps_what_it_succeeds_with(receiver: Receiver) -> None:
    first = fail(receiver)
    second = receiver.pull(FILES, "b" * 32)
    fill(second, FILES)
    assert second.commit().already_stored == 5
    receiver.store.before_remove = roomy
    receiver.restart()
    receiver.pushes.recover()
    wait_until(lambda: pending(receiver) == [])
    assert set(receiver.store.files) == set(IDS)
    assert receiver.store.removed == []
    assert outcomes(receiver, first.id) == ["stored"] * 5 + ["refused"]


def test_nothing_is_deleted_while_a_commit_counts_on_it(receiver: Receiver) -> None:
    fail(receiver)
    begun, go_on = hold_imports(receiver)
    second = receiver.pull(FILES, "b" * 32)
    fill(second, FILES)
    second.commit_in_background()
    assert begun.wait(PATIENCE)
    receiver.store.before_remove = roomy
    try_again(receiver)
    assert receiver.store.removed == []
    go_on.set()
    second.await_commit(PATIENCE)
    assert second.state is PushState.COMMITTED
    try_again(receiver)
    assert set(receiver.store.files) == set(IDS)


def test_what_a_later_transfer_found_and_did_not_succeed_with_is_deleted_and_both_reports_say_so(
    receiver: Receiver,
) -> None:
    transfers = fail(receiver), fail(receiver, "b")
    for transfer in transfers:
        assert outcomes(receiver, transfer.id) == ["still here"] * 5 + ["refused"]
    receiver.store.before_remove = roomy
    wait_until(lambda: pending(receiver) == [])
    assert receiver.store.files == {}
    for transfer in transfers:
        assert outcomes(receiver, transfer.id) == ["undone"] * 5 + ["refused"]
        assert "nothing was kept: no room" in report(receiver, transfer.id)["Error"]


def test_what_is_deleted_while_a_transfer_counts_on_it_is_asked_for_again(receiver: Receiver) -> None:
    fail(receiver)
    second = receiver.pull(FILES, "b" * 32)
    assert second.already_stored[0] == 5
    receiver.store.before_remove = roomy
    try_again(receiver)
    assert receiver.store.files == {}
    fill(second, FILES)
    with pytest.raises(Corrupted, match="nothing was imported"):
        second.commit()
    fill(second, FILES)
    assert second.commit().stored == 6


def test_what_others_store_anew_is_not_deleted(receiver: Receiver) -> None:
    receiver.store.times = dict.fromkeys(IDS, "20261127T100000")
    transfer = fail(receiver)
    receiver.store.times[IDS[0]] = "20261127T100001"
    receiver.store.before_remove = roomy
    wait_until(lambda: pending(receiver) == [])
    assert set(receiver.store.files) == {IDS[0]}
    row = report(receiver, transfer.id)["Instances"][0]
    assert row["Outcome"] == "undone"
    assert "stored anew by others" in row["Reason"]


def test_an_undo_after_a_cancel_is_finished_as_well(receiver: Receiver) -> None:
    begun, go_on = hold_imports(receiver, after=3)
    receiver.store.before_remove = full
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    cancellation = Cancellation()
    with ThreadPoolExecutor(1) as pool:
        commit = pool.submit(transfer.commit, cancellation)
        assert begun.wait(PATIENCE)
        cancellation.cancel()
        go_on.set()
        with pytest.raises(Canceled):
            commit.result(PATIENCE)
    assert transfer.state is PushState.RECEIVING
    assert pending(receiver) == [transfer.id]
    receiver.store.before_remove = roomy
    wait_until(lambda: pending(receiver) == [])
    assert receiver.store.files == {}
    assert transfer.commit().stored == 6


# --- what the disk keeps


def test_where_the_disk_cannot_be_told_what_is_left_the_next_start_undoes_it(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UnfinishedUndo, "_save", lambda _: False)
    fail(receiver)
    receiver.stop()
    monkeypatch.undo()
    assert pending(receiver) == []
    receiver.store.before_remove = roomy
    receiver.start()
    receiver.pushes.recover()
    wait_until(lambda: receiver.store.files == {})


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"Total": 1, "Error": null, "Left": [[1]], "Settled": {}}']
)
def test_a_damaged_file_keeps_nothing_from_starting(receiver: Receiver, content: bytes) -> None:
    transfer = fail(receiver)
    receiver.stop()
    (receiver.root / UNDOS / transfer.id / "undo").write_bytes(content)
    receiver.start()
    receiver.pushes.recover()
    assert pending(receiver) == [transfer.id]


# --- deaths


def die_deleting(receiver: Receiver, folder: Path, *indices: int) -> None:
    """A process that dies while it deletes these: it never says that they are gone."""
    with ImportLog(folder, Cancellation()) as log, ExitStack() as under_way:
        for index in indices:
            under_way.enter_context(log.deleting(index))
        left = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(left)


def test_what_orthanc_dies_of_twice_while_it_is_deleted_is_left_alone_and_named(receiver: Receiver) -> None:
    transfer = fail(receiver)
    receiver.stop()
    for _ in range(2):
        die_deleting(receiver, receiver.root / UNDOS / transfer.id, 3)
    receiver.store.before_remove = roomy
    receiver.start()
    receiver.pushes.recover()
    wait_until(lambda: pending(receiver) == [])
    assert set(receiver.store.files) == {IDS[3]}
    assert "1 of 6 instances is still here" in report(receiver, transfer.id)["Error"]
    assert "delete by hand" in report(receiver, transfer.id)["Error"]
    row = report(receiver, transfer.id)["Instances"][3]
    assert row["Outcome"] == "still here"
    assert "Orthanc ended twice while it was being deleted" in row["Reason"]


def test_a_death_of_an_undo_leaves_the_rest_of_it_to_be_deleted_one_by_one(receiver: Receiver) -> None:
    identifier = crash_while_importing(receiver, FILES)
    folder = receiver.root / identifier
    for _ in range(2):
        die(folder, 4)
    die_deleting(receiver, folder, 0, 1)
    receiver.start()
    receiver.pushes.recover()
    wait_until(lambda: receiver.store.files == {} and pending(receiver) == [])
    assert "nothing was kept" in report(receiver, identifier)["Error"]
    assert sorted(receiver.store.removed[-2:]) == sorted(IDS[:2])


def test_a_second_death_of_one_of_them_is_the_last(receiver: Receiver) -> None:
    identifier = crash_while_importing(receiver, FILES)
    receiver.store.refused[IDS[5]] = "no"
    die_deleting(receiver, receiver.root / identifier, 0, 1)
    receiver.store.before_remove = full
    receiver.start()
    (transfer,) = receiver.registry.all()
    with pytest.raises(ImportRefused, match="still here"):
        transfer.commit()
    receiver.stop()
    die_deleting(receiver, receiver.root / UNDOS / identifier, 1)
    receiver.store.before_remove = roomy
    receiver.start()
    receiver.pushes.recover()
    wait_until(lambda: pending(receiver) == [])
    assert set(receiver.store.files) == {IDS[1]}


def test_the_sentence_of_a_failure_says_what_is_still_here() -> None:
    assert told("nothing was kept: no", 0, 9) == "nothing was kept: no"
    assert told("nothing was kept: no", 1, 9) == (
        "1 of 9 instances is still here, on the receiving server, and the undo goes on: no"
    )
    assert told("no", 2, 9).startswith("no; 2 of 9 instances are still here")
