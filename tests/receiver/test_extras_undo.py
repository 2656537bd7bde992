"""What cannot be put back of labels, metadata and attachments: tried again until it can, and told until then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.core.checksum import md5
from orthanc_transfers.core.errors import Canceled, HostError, ImportRefused
from orthanc_transfers.core.extras import Accepted, Extra, ExtrasMessage, Kind
from orthanc_transfers.core.model import Level, PushState, Resource
from orthanc_transfers.receiver.extras_commit import ExtrasPolicy
from orthanc_transfers.receiver.incoming import IncomingTransfer
from orthanc_transfers.receiver.staging import UNDOS
from orthanc_transfers.runtime.cancellation import Cancellation
from tests.receiver.memory_extras import MemoryExtras, key
from tests.receiver.memory_receiver import Receiver, dicom, fill, wait_until

FILES = [dicom(f"file-{number}", 3000) for number in range(3)]
STUDY = Resource(Level.STUDY, "57d1d2f5-aaaaaaaa-bbbbbbbb-cccccccc-00000001")
FILE = b"an attachment"
TEXT = Extra(STUDY, Kind.METADATA, "", 1050, "new")
ATTACHED = Extra(STUDY, Kind.ATTACHMENT, "", 1060, size=len(FILE), md5=md5(FILE))
LAST = Extra(STUDY, Kind.METADATA, "", 1051, "last")
ITEMS = (TEXT, ATTACHED, LAST)
OLD = {key(TEXT): b"old", key(ATTACHED): b"old file"}
NEW = {key(TEXT): b"new", key(ATTACHED): FILE, key(LAST): b"last"}


@pytest.fixture
def store() -> MemoryExtras:
    store = MemoryExtras()
    store.set(TEXT, b"old")
    store.set(ATTACHED, b"old file")
    return store


@pytest.fixture
def receiver(tmp_path: Path, store: MemoryExtras) -> Iterator[Receiver]:
    one = Receiver(tmp_path, extras=ExtrasPolicy(store, Accepted.of(kind.value for kind in Kind), 1090))
    yield one
    one.stop()


def refuse_from(store: MemoryExtras, item: Extra) -> None:
    """Orthanc takes nothing more, once it is asked to take ``item``."""
    begun = False

    def put(extra: Extra) -> None:
        nonlocal begun
        begun = begun or extra == item
        if begun:
            raise HostError("the disk is full", 1)

    store.before_put = put


def brought(receiver: Receiver, token: str = "a", items: tuple[Extra, ...] = ITEMS) -> IncomingTransfer:
    transfer = receiver.pull(FILES, token * 32)
    fill(transfer, FILES)
    for index in transfer.extras.take(ExtrasMessage(items, overwrite=True)):
        transfer.extras.write(index, 0, memoryview(FILE))
    return transfer


def fail(receiver: Receiver, store: MemoryExtras) -> IncomingTransfer:
    refuse_from(store, LAST)
    transfer = brought(receiver)
    with pytest.raises(
        ImportRefused, match=r"2 of 3 labels, metadata and attachments are still here.*undo goes on"
    ):
        transfer.commit()
    assert store.values == {key(TEXT): b"new", key(ATTACHED): FILE}
    return transfer


def have_room(store: MemoryExtras) -> None:
    store.before_put = lambda extra: None


def unfinished(receiver: Receiver) -> list[str]:
    folder = receiver.root / UNDOS
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def error_of(receiver: Receiver, transfer: IncomingTransfer) -> Any:
    return (receiver.reports.read(transfer.id) or {})["Error"]


def test_it_is_told_and_put_back_later(receiver: Receiver, store: MemoryExtras) -> None:
    transfer = fail(receiver, store)
    assert receiver.store.files == {}
    assert "are still here" in error_of(receiver, transfer)
    receiver.registry._undo_retries.try_all()
    assert unfinished(receiver) == [transfer.id]
    have_room(store)
    wait_until(lambda: unfinished(receiver) == [])
    assert store.values == OLD
    assert "still here" not in error_of(receiver, transfer)
    assert transfer.state is PushState.FAILED


def test_also_by_the_next_process(receiver: Receiver, store: MemoryExtras) -> None:
    transfer = fail(receiver, store)
    receiver.stop()
    have_room(store)
    receiver.start()
    receiver.registry.recover()
    wait_until(lambda: unfinished(receiver) == [])
    assert store.values == OLD
    assert "still here" not in error_of(receiver, transfer)


def test_what_somebody_changed_since_is_left_alone(receiver: Receiver, store: MemoryExtras) -> None:
    fail(receiver, store)
    store.set(TEXT, b"of another")
    have_room(store)
    wait_until(lambda: unfinished(receiver) == [])
    assert store.values == {**OLD, key(TEXT): b"of another"}


def test_a_later_transfer_that_succeeds_with_it_keeps_it(receiver: Receiver, store: MemoryExtras) -> None:
    fail(receiver, store)
    # The retries have no turn before the other transfer is over.
    with receiver.registry._undo_retries._round:
        have_room(store)
        brought(receiver, "b", (TEXT,)).commit()
    wait_until(lambda: unfinished(receiver) == [])
    assert store.values == {**OLD, key(TEXT): b"new"}


def test_a_canceled_transfer_is_put_back_later_too_and_succeeds_after_that(
    receiver: Receiver, store: MemoryExtras
) -> None:
    cancellation = Cancellation()
    transfer = brought(receiver)

    def cancel(extra: Extra) -> None:
        if extra == ATTACHED:
            cancellation.cancel()
            refuse_from(store, TEXT)

    store.before_put = cancel
    with pytest.raises(Canceled):
        transfer.commit(cancellation)
    assert transfer.state is PushState.RECEIVING
    assert unfinished(receiver) == [transfer.id]
    have_room(store)
    wait_until(lambda: unfinished(receiver) == [])
    assert store.values == OLD
    transfer.commit()
    assert store.values == NEW
