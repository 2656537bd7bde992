"""A push that is one request: announced, carried and committed at once, with its bytes in memory only."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orthanc_transfers.core.codec import Codec, encode
from orthanc_transfers.core.errors import (
    BadFile,
    Busy,
    Conflict,
    ReadOnly,
    TooLarge,
    TransferError,
    WrongSize,
)
from orthanc_transfers.core.messages_v2 import PushStatus
from orthanc_transfers.core.model import PushState
from orthanc_transfers.core.settings import Settings
from orthanc_transfers.receiver import memory_staging
from orthanc_transfers.receiver.memory_staging import MemoryStaging
from tests.receiver.memory_receiver import (
    PATIENCE,
    Receiver,
    creation2_of,
    dicom,
    hold_imports,
    identify,
    manifest_of,
    running_receiver,
    wait_until,
)

FILES = [dicom(f"instance {number}", 900 + number) for number in range(6)]
TOKEN = "b" * 32


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with running_receiver(tmp_path, max_push_transactions=2, commit_threads_count=1) as made:
        yield made


def carry(
    receiver: Receiver,
    files: list[bytes] = FILES,
    codec: Codec = Codec.NONE,
    *,
    token: str = TOKEN,
    sent: list[bytes] | None = None,
    wait: float = PATIENCE,
) -> PushStatus:
    """Send some files; ``sent``: other bytes than were announced."""
    body = b"".join(bytes(piece) for piece in encode(files if sent is None else sent, codec))
    # As Orthanc does, which frees it.
    memory = bytearray(body)
    try:
        return receiver.v2.carry(
            creation2_of(files, token), "sender", codec, memoryview(memory), received=len(body), wait=wait
        )
    finally:
        memory[:] = bytes(len(memory))


def has(receiver: Receiver, files: list[bytes]) -> bool:
    return receiver.store.files == {identify(data): data for data in files}


@pytest.mark.parametrize("codec", list(Codec))
def test_one_request_is_enough(receiver: Receiver, codec: Codec) -> None:
    status = carry(receiver, codec=codec)
    assert (status.state, status.imported, status.missing) == (PushState.COMMITTED, 6, ())
    assert status.report == {"Stored": 6, "AlreadyStored": 0, "FilteredOut": 0}
    assert has(receiver, FILES)
    assert receiver.store.synced == set(receiver.store.files)
    assert receiver.metrics.committed == 1
    assert receiver.metrics.available == 2
    assert receiver.metrics.received_bytes > 0


def test_its_bytes_are_in_no_file(receiver: Receiver) -> None:
    begun, go_on = hold_imports(receiver)
    assert carry(receiver, wait=0).state is PushState.COMMITTING
    assert begun.wait(PATIENCE)
    marker = FILES[0][-64:]
    for path in receiver.root.rglob("*"):
        assert not path.is_file() or marker not in path.read_bytes()
    go_on.set()
    assert carry(receiver).state is PushState.COMMITTED
    assert receiver.leftovers() == {"in-memory"}


def test_large_instances_are_imported_from_the_memory_of_the_request(receiver: Receiver) -> None:
    """``carry`` overwrites it as soon as it is answered, as Orthanc frees it."""
    files = [dicom(f"large {number}", 5 * 1024 * 1024) for number in range(3)]
    assert carry(receiver, files).state is PushState.COMMITTED
    assert has(receiver, files)
    carry(receiver, FILES, token="c" * 32, wait=0)
    assert carry(receiver, FILES, token="c" * 32).state is PushState.COMMITTED
    assert has(receiver, [*files, *FILES])


def test_memory_that_is_lent_is_not_given_back_while_it_is_read_from(tmp_path: Path) -> None:
    manifest = manifest_of(FILES)
    area = MemoryStaging(tmp_path / "in-memory").create("0" * 32, manifest, {})
    assert area is not None
    body = b"".join(FILES)
    memory = bytearray(body)
    second = manifest.range_of(manifest.instances[1].id)
    reading, go_on, found = threading.Event(), threading.Event(), []

    def read() -> None:
        with area.whole(second) as view:
            reading.set()
            go_on.wait(PATIENCE)
            found.append(bytes(view))

    def lend() -> None:
        with area.lending(data := memoryview(memory)):
            area.write([(manifest.area, 0)], data)
            pool.submit(read)
            reading.wait(PATIENCE)
        memory[:] = bytes(len(memory))

    with ThreadPoolExecutor(2) as pool:
        lent = pool.submit(lend)
        assert reading.wait(PATIENCE)
        assert area.read(second, memoryview(bytearray(second.size))) == body[second.start : second.stop]
        assert not lent.done()
        go_on.set()
        lent.result(PATIENCE)
    assert found == [body[second.start : second.stop]]
    # What is read later is a copy.
    assert area.read(manifest.area, memoryview(b"")) == body
    area.discard()


def test_the_same_request_again_does_nothing(receiver: Receiver) -> None:
    first = carry(receiver)
    assert carry(receiver) == first
    receiver.restart()
    again = carry(receiver)
    assert (again.id, again.state, again.report) == (first.id, first.state, first.report)
    assert len(receiver.store.added) == 6


def test_the_same_request_twice_at_once_acts_once(receiver: Receiver) -> None:
    # Each takes a slot before it is known whose it is.
    with ThreadPoolExecutor(2) as pool:
        found = [one.result() for one in [pool.submit(carry, receiver) for _ in range(2)]]
    assert {(one.id, one.state) for one in found} == {(found[0].id, PushState.COMMITTED)}
    assert len(receiver.store.added) == 6
    assert receiver.metrics.created == receiver.metrics.committed == 1
    assert receiver.metrics.available == 2


def test_the_same_token_with_other_instances_is_refused(receiver: Receiver) -> None:
    carry(receiver)
    with pytest.raises(Conflict):
        carry(receiver, FILES[:2])


def test_a_long_commit_is_asked_for(receiver: Receiver) -> None:
    _, go_on = hold_imports(receiver)
    status = carry(receiver, wait=0)
    assert status.state is PushState.COMMITTING
    go_on.set()
    assert receiver.v2.status(status.id, PATIENCE).state is PushState.COMMITTED


def test_what_is_there_already_counts(receiver: Receiver) -> None:
    for data in FILES[:2]:
        receiver.store.put(data)
    assert carry(receiver).report == {"Stored": 4, "AlreadyStored": 2, "FilteredOut": 0}
    assert carry(receiver, token="c" * 32).report == {"Stored": 0, "AlreadyStored": 6, "FilteredOut": 0}


def test_a_refusal_undoes_all(receiver: Receiver) -> None:
    receiver.store.put(FILES[0])
    receiver.store.refused[identify(FILES[4])] = "no such thing here"
    status = carry(receiver)
    assert status.state is PushState.FAILED
    assert "no such thing here" in (status.error or "")
    assert has(receiver, FILES[:1])
    report = receiver.reports.read(status.id)
    assert report is not None
    assert [row["Outcome"] for row in report["Instances"]].count("undone") == 3
    receiver.restart()
    assert carry(receiver).error == status.error


def test_a_wrong_md5_is_found_before_anything_is_imported(receiver: Receiver) -> None:
    damaged = [*FILES[:5], FILES[5][:-1] + b"!"]
    status = carry(receiver, sent=damaged)
    assert status.state is PushState.RECEIVING
    (gap,) = status.missing
    assert gap.size == len(FILES[5])
    assert receiver.store.files == {}
    # It can be sent alone, or all again.
    receiver.v2.put(status.id, [(gap.start, gap.size)], Codec.NONE, None, memoryview(FILES[5]))
    receiver.v2.commit(status.id)
    assert receiver.v2.status(status.id, PATIENCE).state is PushState.COMMITTED
    assert has(receiver, FILES)


def test_wrong_bytes_are_refused_before_it_exists(receiver: Receiver) -> None:
    with pytest.raises(WrongSize):
        carry(receiver, sent=FILES[:5])
    with pytest.raises(BadFile):
        receiver.v2.carry(
            creation2_of(FILES), None, Codec.ZSTD, memoryview(b"no zstd"), received=7, wait=PATIENCE
        )
    assert receiver.metrics.created == 0
    assert receiver.metrics.available == 2


def test_it_needs_a_slot(receiver: Receiver) -> None:
    for token in ("c" * 32, "d" * 32):
        receiver.v2.create(creation2_of(FILES, token))
    with pytest.raises(Busy, match="MaxPushTransactions"):
        carry(receiver)


def test_it_is_refused_as_any_other(tmp_path: Path) -> None:
    with (
        running_receiver(tmp_path, max_manifest_instances=5) as few,
        pytest.raises(TooLarge, match="MaxManifest"),
    ):
        carry(few)
    with (
        running_receiver(tmp_path, max_staging_size=100) as small,
        pytest.raises(TransferError, match="MaxStaging"),
    ):
        carry(small)
    shut = Receiver(tmp_path, read_only=True)
    with pytest.raises(ReadOnly):
        carry(shut)
    shut.stop()


def test_beyond_the_memory_for_all_a_transfer_has_a_file(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.stop()
    monkeypatch.setattr(memory_staging.MemoryStaging.__init__, "__defaults__", (sum(map(len, FILES)),))
    receiver.start()
    begun, go_on = hold_imports(receiver)
    carry(receiver, wait=0)
    others = [dicom("another", 1000)]
    carry(receiver, others, token="c" * 32, wait=0)
    assert begun.wait(PATIENCE)
    wait_until(lambda: len(list(receiver.root.glob("*/area"))) == 1)
    go_on.set()
    assert carry(receiver).state is PushState.COMMITTED
    assert carry(receiver, others, token="c" * 32).state is PushState.COMMITTED
    # And its memory is free again.
    assert carry(receiver, FILES, token="d" * 32).state is PushState.COMMITTED
    assert list(receiver.root.glob("*/area")) == []


def crash(receiver: Receiver, *, after: int) -> None:
    """Die when so many are imported: nothing that is done from then on reaches the disk."""
    begun, _ = hold_imports(receiver, after=after)
    carry(receiver, wait=0)
    assert begun.wait(PATIENCE)
    receiver.stop()
    receiver.store.before_add = lambda identifier: None


def test_a_part_that_was_imported_before_a_crash_is_undone_and_sent_again(receiver: Receiver) -> None:
    receiver.store.put(FILES[0])
    crash(receiver, after=2)
    assert len(receiver.store.files) > 1
    receiver.start()
    receiver.pushes.recover()
    wait_until(lambda: has(receiver, FILES[:1]))
    status = carry(receiver)
    assert status.state is PushState.COMMITTED
    assert status.report == {"Stored": 5, "AlreadyStored": 1, "FilteredOut": 0}
    assert has(receiver, FILES)


def test_bytes_that_are_sent_again_as_buckets_are_kept_beyond_their_request(receiver: Receiver) -> None:
    crash(receiver, after=0)
    receiver.start()
    receiver.pushes.recover()
    wait_until(lambda: receiver.registry.all()[0].state is PushState.RECEIVING)
    status = receiver.v2.create(creation2_of(FILES, TOKEN))
    assert sum(item.size for item in status.missing) == sum(map(len, FILES))
    memory = bytearray(b"".join(FILES))
    receiver.v2.put(status.id, [(0, len(memory))], Codec.NONE, None, memoryview(memory))
    # Orthanc frees the body of a request when it has been answered, and others write there.
    memory[:] = bytes(len(memory))
    receiver.v2.commit(status.id)
    wait_until(lambda: receiver.registry.all()[0].state is not PushState.COMMITTING)
    assert receiver.registry.all()[0].state is PushState.COMMITTED
    assert has(receiver, FILES)


def test_a_sender_that_comes_back_before_the_recovery_is_served(receiver: Receiver) -> None:
    crash(receiver, after=2)
    receiver.start()
    assert carry(receiver).state is PushState.COMMITTED
    assert has(receiver, FILES)


def test_all_that_was_imported_before_a_crash_is_committed(receiver: Receiver) -> None:
    crash(receiver, after=2)
    for data in FILES:
        receiver.store.put(data)
    receiver.start()
    receiver.pushes.recover()
    wait_until(lambda: receiver.metrics.committed == 1)
    status = carry(receiver)
    assert status.report == {"Stored": 6, "AlreadyStored": 0, "FilteredOut": 0}
    assert receiver.store.removed == []


def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is fsynced from now on."""
    names: list[str] = []
    monkeypatch.setattr("os.fsync", lambda fd: names.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name))
    return names


def test_its_report_need_not_be_synced_and_survives_a_power_failure(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = synced(monkeypatch)
    status = carry(receiver)
    report = receiver.reports.read(status.id)
    assert report is not None
    assert not [name for name in names if name.endswith(".json")]
    receiver.stop()
    for path in (receiver.root / "reports").iterdir():
        path.write_bytes(b"")  # its name reached the disk
    receiver.start()
    assert receiver.reports.read(status.id) == report
    assert receiver.reports.read(TOKEN) == report
    assert [name for name in names if name.endswith(".json")]
    assert carry(receiver).report == {"Stored": 6, "AlreadyStored": 0, "FilteredOut": 0}


def test_its_report_is_synced_before_it_is_forgotten(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    carry(receiver)
    receiver.clock.seconds += Settings().push_idle_timeout + 1
    names = synced(monkeypatch)
    receiver.pushes.expire()
    assert [name for name in names if name.endswith(".json")]


def test_a_report_that_was_deleted_because_it_is_old_does_not_come_back(receiver: Receiver) -> None:
    status = carry(receiver)
    for path in (receiver.root / "reports").iterdir():
        path.unlink()
    receiver.stop()
    receiver.clock.seconds += 31 * 86400
    receiver.start()
    assert receiver.reports.read(status.id) is None


def test_a_crash_before_the_import_leaves_nothing(receiver: Receiver) -> None:
    def die(identifiers: object) -> None:
        raise RuntimeError("dead")

    receiver.store.before_md5s = die
    receiver.pushes.registry._closing.cancel()
    with pytest.raises(Busy):
        carry(receiver, wait=0)
    receiver.stop()
    receiver.store.before_md5s = lambda cancellation: None
    receiver.start()
    assert receiver.registry.all() == []
    assert carry(receiver).state is PushState.COMMITTED


def test_one_that_is_not_continued_expires(receiver: Receiver) -> None:
    status = carry(receiver)
    receiver.clock.seconds += Settings().push_idle_timeout + 1
    receiver.pushes.expire()
    with pytest.raises(TransferError):
        receiver.v2.status(status.id)
    receiver.restart()
    # Its log goes with the next file; until then it is remembered once more.
    assert len(receiver.registry.all()) <= 1
    assert carry(receiver, token="e" * 32).state is PushState.COMMITTED


def test_the_creation_of_version_2_finds_it_too(receiver: Receiver) -> None:
    whole = carry(receiver)
    assert dataclasses.replace(receiver.v2.create(creation2_of(FILES)), rows=whole.rows) == whole
