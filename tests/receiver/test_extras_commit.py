"""What travels beside DICOM is applied with the commit, and undone with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orthanc_transfers.core.checksum import md5
from orthanc_transfers.core.errors import BadRequest, Conflict, Corrupted, HostError, ImportRefused
from orthanc_transfers.core.extras import Accepted, Extra, ExtrasMessage, Kind
from orthanc_transfers.core.model import Instance, Level, Manifest, PushState, Resource
from orthanc_transfers.receiver.extras_commit import ExtrasCommit, ExtrasPolicy
from orthanc_transfers.receiver.extras_folder import ExtrasFolder
from orthanc_transfers.runtime.cancellation import Cancellation
from tests.receiver.memory_extras import MemoryExtras, key
from tests.receiver.memory_receiver import Receiver, dicom, fill

STUDY = Resource(Level.STUDY, "57d1d2f5-aaaaaaaa-bbbbbbbb-cccccccc-00000001")
INSTANCE = Resource(Level.INSTANCE, "57d1d2f5-aaaaaaaa-bbbbbbbb-cccccccc-00000002")
MANIFEST = Manifest([Instance(INSTANCE.id, 7, "0" * 32)])
FILE = b"an attachment"

LABEL = Extra(STUDY, Kind.LABEL, "urgent")
TEXT = Extra(STUDY, Kind.METADATA, "", 1050, "new")
OTHER = Extra(INSTANCE, Kind.METADATA, "", 1051, "other")
ATTACHED = Extra(STUDY, Kind.ATTACHMENT, "", 1060, size=len(FILE), md5=md5(FILE))
ITEMS = (LABEL, TEXT, OTHER, ATTACHED)


class Killed(BaseException):
    """The process dies."""


@pytest.fixture
def store() -> MemoryExtras:
    return MemoryExtras()


@pytest.fixture
def policy(store: MemoryExtras) -> ExtrasPolicy:
    return ExtrasPolicy(store, Accepted.of(kind.value for kind in Kind), 1090)


@pytest.fixture
def folder(tmp_path: Path) -> ExtrasFolder:
    return staged(tmp_path)


def staged(path: Path, *, overwrite: bool = False, items: tuple[Extra, ...] = ITEMS) -> ExtrasFolder:
    folder = ExtrasFolder(path)
    folder.take(ExtrasMessage(items, "sender", overwrite))
    for index, item in enumerate(items):
        if item.kind is Kind.ATTACHMENT:
            folder.write(index, 0, memoryview(FILE))
    return folder


def apply(folder: ExtrasFolder, policy: ExtrasPolicy) -> ExtrasCommit:
    commit = ExtrasCommit(folder, policy)
    commit.verify()
    commit.apply(MANIFEST, Cancellation())
    return commit


ALL = {key(LABEL): b"", key(TEXT): b"new", key(OTHER): b"other", key(ATTACHED): FILE}


def test_all_is_applied(folder: ExtrasFolder, policy: ExtrasPolicy, store: MemoryExtras) -> None:
    commit = apply(folder, policy)
    assert store.values == ALL
    assert commit.counts == {"Labels": 1, "Metadata": 2, "Attachments": 1}


def test_the_undo_takes_it_back(folder: ExtrasFolder, policy: ExtrasPolicy, store: MemoryExtras) -> None:
    apply(folder, policy).undo()
    assert store.values == {}


def test_an_existing_value_is_kept(folder: ExtrasFolder, policy: ExtrasPolicy, store: MemoryExtras) -> None:
    store.set(TEXT, b"old")
    store.set(ATTACHED, b"old file")
    commit = apply(folder, policy)
    assert (store.values[key(TEXT)], store.values[key(ATTACHED)]) == (b"old", b"old file")
    assert commit.counts["ExtrasKept"] == 2
    commit.undo()
    assert store.values == {key(TEXT): b"old", key(ATTACHED): b"old file"}


def test_it_is_replaced_where_the_sender_says_so_and_put_back_by_the_undo(
    tmp_path: Path, policy: ExtrasPolicy, store: MemoryExtras
) -> None:
    store.set(TEXT, b"\xff old")
    store.set(ATTACHED, b"old file")
    commit = apply(staged(tmp_path, overwrite=True), policy)
    assert store.values == ALL
    commit.undo()
    assert store.values == {key(TEXT): b"\xff old", key(ATTACHED): b"old file"}


def test_the_undo_leaves_what_was_changed_since(
    folder: ExtrasFolder, policy: ExtrasPolicy, store: MemoryExtras
) -> None:
    commit = apply(folder, policy)
    store.set(TEXT, b"newer")
    commit.undo()
    assert store.values == {key(TEXT): b"newer"}


def test_what_is_written_by_another_client_meanwhile_is_kept(
    folder: ExtrasFolder, policy: ExtrasPolicy, store: MemoryExtras
) -> None:
    def meanwhile(extra: Extra) -> None:
        if extra == TEXT:
            store.before_put = lambda extra: None
            store.set(TEXT, b"of another")

    store.before_put = meanwhile
    commit = apply(folder, policy)
    assert store.values[key(TEXT)] == b"of another"
    assert commit.counts["ExtrasSkipped"] == 1
    commit.undo()
    assert store.values == {key(TEXT): b"of another"}


@pytest.mark.parametrize("died_at", ITEMS)
@pytest.mark.parametrize("undone", [False, True])
def test_the_next_process_goes_on_or_undoes(
    tmp_path: Path, policy: ExtrasPolicy, store: MemoryExtras, died_at: Extra, undone: bool
) -> None:
    store.set(TEXT, b"old")
    store.set(ATTACHED, b"old file")

    def die(extra: Extra) -> None:
        if extra == died_at:
            raise Killed

    store.before_put = die
    with pytest.raises(Killed):
        apply(staged(tmp_path, overwrite=True), policy)
    store.before_put = lambda extra: None
    again = ExtrasCommit(ExtrasFolder(tmp_path), policy)
    if undone:
        again.undo()
        assert store.values == {key(TEXT): b"old", key(ATTACHED): b"old file"}
        return
    again.apply(MANIFEST, Cancellation())
    assert store.values == ALL
    assert again.counts == {"Labels": 1, "Metadata": 2, "Attachments": 1}


def test_what_is_of_other_instances_is_not_touched(
    tmp_path: Path, policy: ExtrasPolicy, store: MemoryExtras
) -> None:
    stranger = replace(OTHER, resource=Resource(Level.INSTANCE, STUDY.id))
    store.absent.add(STUDY)
    commit = apply(staged(tmp_path, items=(stranger, TEXT, OTHER)), policy)
    assert store.values == {key(OTHER): b"other"}
    assert commit.counts["ExtrasSkipped"] == 2


def test_what_this_server_does_not_accept_is_not_taken(folder: ExtrasFolder, store: MemoryExtras) -> None:
    commit = apply(folder, ExtrasPolicy(store, Accepted.of(["Labels", "1051"])))
    assert set(store.values) == {key(LABEL), key(OTHER)}
    assert any("AcceptMetadata" in warning for warning in commit.warnings)


def test_an_origin_becomes_metadata_of_its_series(
    tmp_path: Path, policy: ExtrasPolicy, store: MemoryExtras
) -> None:
    series = Resource(Level.SERIES, STUDY.id)
    apply(staged(tmp_path, items=(Extra(series, Kind.ORIGIN, value='{"RemoteAET": "CT"}'),)), policy)
    expected = b'{"Peer": "sender", "RemoteAET": "CT"}'
    assert store.values == {(series, Kind.METADATA, "", 1090): expected}


def test_a_list_may_come_in_parts(tmp_path: Path) -> None:
    folder = ExtrasFolder(tmp_path)
    folder.take(ExtrasMessage(ITEMS[:1], more=True))
    with pytest.raises(Conflict):
        folder.take(ExtrasMessage(ITEMS[2:], before=2))
    folder.take(ExtrasMessage(ITEMS[1:], before=1))
    message = ExtrasFolder(tmp_path).message()
    assert message is not None
    assert (message.items, message.more) == (ITEMS, False)


def test_an_attachment_is_as_it_was_announced(tmp_path: Path) -> None:
    folder = ExtrasFolder(tmp_path)
    folder.take(ExtrasMessage(ITEMS))
    with pytest.raises(BadRequest):
        folder.write(0, 0, memoryview(FILE))
    with pytest.raises(BadRequest):
        folder.write(3, 1, memoryview(FILE))
    with pytest.raises(Corrupted):
        folder.write(3, 0, memoryview(b"x" * len(FILE)))
    folder.write(3, 0, memoryview(FILE)[:5])
    assert not folder.has(3)
    folder.write(3, 5, memoryview(FILE)[5:])
    assert folder.has(3)
    folder.take(ExtrasMessage(ITEMS))
    assert folder.has(3)
    folder.take(ExtrasMessage(ITEMS, overwrite=True))
    assert not folder.has(3)


# --- with the commit of a transfer

FILES = [dicom(f"file-{number}", 3000) for number in range(3)]


@pytest.fixture
def receiver(tmp_path: Path, policy: ExtrasPolicy) -> Iterator[Receiver]:
    one = Receiver(tmp_path, extras=policy)
    yield one
    one.stop()


def test_it_is_refused_with_the_transfer_and_nothing_is_kept(receiver: Receiver, store: MemoryExtras) -> None:
    def full(extra: Extra) -> None:
        if extra == TEXT:
            raise HostError("no room", 19)

    store.before_put = full
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    transfer.extras.take(ExtrasMessage((LABEL, TEXT)))
    with pytest.raises(ImportRefused, match=f"metadata 1050 of study {STUDY.id} cannot be stored: no room"):
        transfer.commit()
    assert (receiver.store.files, store.values) == ({}, {})


def test_it_is_there_when_the_transfer_is_committed(receiver: Receiver, store: MemoryExtras) -> None:
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    assert transfer.extras.take(ExtrasMessage((LABEL, ATTACHED))) == [1]
    transfer.extras.write(1, 0, memoryview(FILE))
    report = transfer.commit()
    assert (report.counts()["Labels"], report.counts()["Attachments"]) == (1, 1)
    assert store.values == {key(LABEL): b"", key(ATTACHED): FILE}
    assert {path.name for path in (receiver.root / transfer.id).iterdir()} == {
        *("manifest", "journal", "importing"),
    }


def test_a_transfer_waits_for_all_of_its_list(receiver: Receiver) -> None:
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    transfer.extras.take(ExtrasMessage((LABEL,), more=True))
    with pytest.raises(Conflict, match="waits for the rest"):
        transfer.commit()
    transfer.extras.take(ExtrasMessage((TEXT,), before=1))
    transfer.commit()
    assert transfer.state is PushState.COMMITTED


def test_an_attachment_that_did_not_come_is_no_commit(receiver: Receiver) -> None:
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    transfer.extras.take(ExtrasMessage((ATTACHED,)))
    with pytest.raises(ImportRefused, match="is not here"):
        transfer.commit()
    assert receiver.store.files == {}
