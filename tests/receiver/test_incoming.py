"""One transfer being received: bytes that arrive, are stored already, missing or wrong."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from orthanc_transfers.core.errors import (
    Corrupted,
    ImportRefused,
    NoSpace,
)
from orthanc_transfers.core.model import Instance, Manifest, PushState
from orthanc_transfers.core.ranges import Range
from tests.receiver.memory_receiver import (
    Receiver,
    dicom,
    fill,
    halves,
    identify,
)

FILES = [dicom(f"file-{number}", 3000 + 17 * number) for number in range(12)]


# --- all goes well


def test_what_was_received_is_imported(receiver: Receiver) -> None:
    transfer = receiver.pull(FILES)
    assert transfer.state is PushState.RECEIVING
    fill(transfer, FILES)
    report = transfer.commit()
    assert transfer.state is PushState.COMMITTED
    assert (report.stored, report.already_stored, report.filtered_out) == (12, 0, 0)
    assert sorted(receiver.store.files.values()) == sorted(FILES)
    assert transfer.imported == 12


def test_asked_again_a_commit_has_the_same_outcome_and_imports_nothing(receiver: Receiver) -> None:
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    first = transfer.commit()
    added = list(receiver.store.added)
    assert transfer.commit() == first
    assert receiver.store.added == added


def test_a_transfer_of_nothing_succeeds(receiver: Receiver) -> None:
    transfer = receiver.pull([])
    assert transfer.missing() == []
    assert transfer.commit().stored == 0


def test_an_empty_file_needs_no_bytes(receiver: Receiver) -> None:
    transfer = receiver.pull([b"", FILES[0]])
    fill(transfer, [b"", FILES[0]])
    assert transfer.commit().stored == 2


def test_an_empty_file_with_a_wrong_md5_fails_for_good(receiver: Receiver) -> None:
    manifest = Manifest([Instance(identify(b""), 0, "0" * 32)])
    transfer = receiver.open(manifest)
    with pytest.raises(ImportRefused, match=identify(b"")):
        transfer.commit()
    assert transfer.state is PushState.FAILED


def test_ranges_may_come_in_any_order_and_size_scattered_and_twice(receiver: Receiver) -> None:
    transfer = receiver.pull(FILES)
    data = b"".join(FILES)
    pieces = [Range(start, min(start + 777, len(data))) for start in range(0, len(data), 777)]
    pieces = pieces[::-2] + pieces[::2]
    while pieces:
        some, pieces = pieces[:5], pieces[5:]
        transfer.write(some, memoryview(b"".join(data[one.start : one.stop] for one in some)))
    transfer.write([Range(0, len(data))], memoryview(data))
    assert transfer.missing() == []
    assert transfer.commit().stored == 12
    assert sorted(receiver.store.files.values()) == sorted(FILES)


def test_many_threads_write_at_once(receiver: Receiver) -> None:
    transfer = receiver.pull(FILES)
    data = memoryview(b"".join(FILES))
    pieces = [Range(start, min(start + 501, len(data))) for start in range(0, len(data), 251)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: transfer.write([one], data[one.start : one.stop]), pieces))
    assert transfer.missing() == []
    assert transfer.commit().stored == 12
    assert sorted(receiver.store.files.values()) == sorted(FILES)


def test_what_is_verified_cannot_be_overwritten(receiver: Receiver) -> None:
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    transfer.write([transfer.manifest.area], memoryview(b"\0" * transfer.manifest.size))
    assert transfer.commit().stored == 12
    assert sorted(receiver.store.files.values()) == sorted(FILES)


def test_files_larger_than_the_read_buffer_are_imported_too(receiver: Receiver) -> None:
    files = [dicom("large", 9_000_001), dicom("small", 100), dicom("huge", 17_000_000)]
    transfer = receiver.pull(files)
    fill(transfer, files)
    assert transfer.commit().stored == 3
    assert sorted(receiver.store.files.values()) == sorted(files)


# --- what is there already


def test_what_is_stored_already_is_neither_asked_for_nor_imported(receiver: Receiver) -> None:
    for data in FILES[:5]:
        receiver.store.put(data)
    transfer = receiver.pull(FILES)
    assert transfer.already_stored == (5, sum(map(len, FILES[:5])))
    assert sum(item.size for item in transfer.missing()) == sum(map(len, FILES[5:]))
    fill(transfer, FILES)
    report = transfer.commit()
    assert (report.stored, report.already_stored) == (7, 5)
    assert len(receiver.store.added) == 7


def test_what_was_stored_and_vanished_before_the_commit_is_missing_again(receiver: Receiver) -> None:
    for data in FILES[:5]:
        receiver.store.put(data)
    transfer = receiver.pull(FILES)
    fill(transfer, FILES)
    del receiver.store.files[identify(FILES[2])]
    with pytest.raises(Corrupted, match=identify(FILES[2])):
        transfer.commit()
    assert transfer.state is PushState.RECEIVING
    assert transfer.missing() == [transfer.manifest.range_of(identify(FILES[2]))]
    assert receiver.store.added == []
    fill(transfer, FILES)
    assert transfer.commit().stored == 8


def test_stored_with_other_bytes_is_not_taken_for_the_same(receiver: Receiver) -> None:
    receiver.store.put(dicom("file-0", 50))
    assert receiver.pull(FILES).already_stored == (0, 0)


def test_an_instance_that_is_there_without_a_readable_file_is_sent_and_refused(receiver: Receiver) -> None:
    receiver.store.unreadable.add(receiver.store.put(FILES[0]))
    transfer = receiver.pull(FILES)
    assert transfer.already_stored == (0, 0)
    fill(transfer, FILES)
    with pytest.raises(ImportRefused, match="its file cannot be read"):
        transfer.commit()
    assert set(receiver.store.files) == {identify(FILES[0])}


# --- bytes that are wrong or missing


def test_a_commit_of_missing_bytes_names_an_instance_and_goes_on_receiving(receiver: Receiver) -> None:
    transfer = receiver.pull(FILES)
    data = memoryview(b"".join(FILES))
    hole = transfer.manifest.range_of(identify(FILES[7]))
    transfer.write([Range(0, hole.start)], data[: hole.start])
    transfer.write([Range(hole.start + 1, len(data))], data[hole.start + 1 :])
    with pytest.raises(Corrupted, match=f"{identify(FILES[7])} was not received completely"):
        transfer.commit()
    assert transfer.state is PushState.RECEIVING
    assert transfer.missing() == [Range(hole.start, hole.start + 1)]
    assert receiver.store.files == {}


@pytest.mark.parametrize("parts", [1, 2], ids=["whole", "in parts"])
def test_an_instance_with_a_wrong_md5_is_missing_again(receiver: Receiver, parts: int) -> None:
    transfer = receiver.pull(FILES)
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


def test_bytes_beyond_a_full_disk_are_not_claimed(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer = receiver.pull(FILES)

    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.pwrite", full)
        with pytest.raises(NoSpace, match="full"):
            fill(transfer, FILES)
    assert transfer.missing() == [transfer.manifest.area]
    fill(transfer, FILES)
    assert transfer.commit().stored == 12
