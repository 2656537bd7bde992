"""The push service: many pushes at once, slots, expiry, metrics."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orthanc_transfers.core.codec import Codec
from orthanc_transfers.core.errors import (
    Busy,
    NoSpace,
    TooLarge,
    UnknownTransaction,
)
from orthanc_transfers.core.messages_v2 import PushStatus
from orthanc_transfers.core.model import PushState
from orthanc_transfers.core.ranges import Range
from tests.receiver.memory_receiver import (
    PATIENCE,
    Receiver,
    creation2_of,
    creation_of,
    hold_imports,
    running_receiver,
    wait_until,
)
from tests.receiver.push_client import AREA, FILES, create_any, outcome, put_all, send

# --- version 2


def test_the_two_versions_do_not_see_each_others_pushes(receiver: Receiver) -> None:
    one = receiver.v1.create(creation_of(FILES))
    two = receiver.v2.create(creation2_of(FILES)).id
    with pytest.raises(UnknownTransaction):
        receiver.v2.status(one)
    with pytest.raises(UnknownTransaction):
        receiver.v1.commit(two)


def test_a_manifest_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    with running_receiver(tmp_path, max_manifest_instances=5) as receiver:
        with pytest.raises(TooLarge):
            receiver.v2.create(creation2_of(FILES))
        with pytest.raises(TooLarge):
            receiver.v1.create(creation_of(FILES))
        assert receiver.v2.create(creation2_of(FILES[:5])).missing


# --- many at once


def test_different_pushes_and_buckets_do_not_wait_for_each_other(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one bucket is stuck on the disk, another of the same push, and another push, go through."""
    from orthanc_transfers.runtime import files

    one = receiver.v1.create(creation_of(FILES))
    two = receiver.v2.create(creation2_of(FILES))
    stuck, go_on = threading.Event(), threading.Event()
    really_write = files.write_at

    def write(fd: int, data: memoryview, offset: int) -> None:
        if threading.current_thread().name == "slow_0":
            stuck.set()
            go_on.wait(PATIENCE)
        really_write(fd, data, offset)

    monkeypatch.setattr(files, "write_at", write)
    with ThreadPoolExecutor(1, thread_name_prefix="slow") as slow:
        first = slow.submit(receiver.v1.put, one, 0, memoryview(FILES[0]))
        assert stuck.wait(PATIENCE)
        for index in range(1, len(FILES)):
            receiver.v1.put(one, index, memoryview(FILES[index]))
        send(receiver, two)
        receiver.v2.commit(two.id)
        assert outcome(receiver, two.id).state is PushState.COMMITTED
        assert not first.done()
        go_on.set()
        first.result(PATIENCE)
    receiver.v1.commit(one)


def test_many_threads_send_many_pushes(tmp_path: Path) -> None:
    with running_receiver(tmp_path, max_push_transactions=20) as receiver:
        statuses = [receiver.v2.create(creation2_of(FILES, token=f"{number:032x}")) for number in range(20)]
        pieces = [
            (status, Range(start, min(start + 1500, len(AREA))))
            for start in range(0, len(AREA), 1000)
            for status in statuses
        ]

        def put(piece: tuple[PushStatus, Range]) -> None:
            status, item = piece
            body = memoryview(AREA)[item.start : item.stop]
            receiver.v2.put(status.id, [(item.start, item.size)], Codec.NONE, None, body)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put, pieces))
        for status in statuses:
            receiver.v2.commit(status.id)
        for status in statuses:
            assert outcome(receiver, status.id).state is PushState.COMMITTED
        assert len(receiver.store.added) == len(FILES)


# --- slots


def test_a_full_server_tells_version_2_to_come_again(tmp_path: Path) -> None:
    with running_receiver(tmp_path, max_push_transactions=1) as receiver:
        first = receiver.v2.create(creation2_of(FILES))
        with pytest.raises(Busy) as raised:
            receiver.v2.create(creation2_of(FILES, token="c" * 32))
        assert raised.value.status == 503
        assert raised.value.retry_after > 0
        # The one in progress is not harmed, and its creation may be repeated.
        assert receiver.v2.create(creation2_of(FILES)).id == first.id
        send(receiver, first)
        receiver.v2.commit(first.id)
        assert outcome(receiver, first.id).state is PushState.COMMITTED
        assert receiver.v2.create(creation2_of(FILES, token="c" * 32)).id != first.id


def test_a_full_server_holds_version_1_until_a_slot_is_free(tmp_path: Path) -> None:
    with running_receiver(tmp_path, max_push_transactions=1) as receiver, ThreadPoolExecutor(1) as pool:
        first = receiver.v1.create(creation_of(FILES))
        held = pool.submit(receiver.v1.create, creation_of(FILES))
        wait_until(lambda: receiver.pushes.slots.queued == 1)
        assert not held.done()
        with pytest.raises(Busy):
            receiver.v2.create(creation2_of(FILES))
        put_all(receiver, first)
        receiver.v1.commit(first)
        second = held.result(PATIENCE)
        put_all(receiver, second)
        receiver.v1.commit(second)


@pytest.mark.parametrize("version", [1, 2])
def test_a_creation_that_fails_gives_its_slot_back(tmp_path: Path, version: int) -> None:
    with running_receiver(tmp_path, max_push_transactions=1, max_staging_size=10) as receiver:
        for _ in range(2):
            with pytest.raises(NoSpace):
                create_any(receiver, version)
        assert receiver.metrics.available == 1


def test_the_same_creation_many_times_at_once_takes_one_slot(tmp_path: Path) -> None:
    with running_receiver(tmp_path, max_push_transactions=8) as receiver:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: receiver.v2.create(creation2_of(FILES)), range(8)))
        assert len({answer.id for answer in answers}) == 1
        assert receiver.metrics.available == 7
        assert receiver.metrics.created == 1


def test_pushes_found_after_a_restart_keep_their_slots(tmp_path: Path) -> None:
    with running_receiver(tmp_path, max_push_transactions=1) as receiver:
        status = receiver.v2.create(creation2_of(FILES))
        receiver.restart()
        with pytest.raises(Busy):
            receiver.v2.create(creation2_of(FILES, token="c" * 32))
        receiver.pushes.drop(status.id)
        assert receiver.v2.create(creation2_of(FILES, token="c" * 32)).missing


def test_stopping_turns_held_creations_away(tmp_path: Path) -> None:
    with running_receiver(tmp_path, max_push_transactions=1) as receiver, ThreadPoolExecutor(1) as pool:
        receiver.v1.create(creation_of(FILES))
        held = pool.submit(receiver.v1.create, creation_of(FILES))
        wait_until(lambda: receiver.pushes.slots.queued == 1)
        receiver.pushes.close()
        with pytest.raises(Busy):
            held.result(PATIENCE)


# --- expiry


def test_a_hundred_abandoned_pushes_leave_nothing(tmp_path: Path) -> None:
    with running_receiver(tmp_path, max_push_transactions=100, push_idle_timeout=60) as receiver:
        for number in range(100):
            if number % 2:
                receiver.v2.create(creation2_of(FILES[:1], token=f"{number:032x}"))
            else:
                receiver.v1.create(creation_of(FILES[:1]))
        assert receiver.metrics.available == 0
        assert len(receiver.leftovers()) == 100
        receiver.restart()
        receiver.clock.seconds += 61
        receiver.pushes.expire()
        assert receiver.leftovers() == set()
        assert receiver.metrics.available == 100


def test_a_push_in_use_does_not_expire(tmp_path: Path) -> None:
    with running_receiver(tmp_path, push_idle_timeout=60) as receiver:
        one = receiver.v1.create(creation_of(FILES))
        two = receiver.v2.create(creation2_of(FILES)).id
        for _ in range(3):
            receiver.clock.seconds += 50
            receiver.v1.put(one, 0, memoryview(FILES[0]))
            receiver.v2.status(two)
            receiver.pushes.expire()
        assert receiver.v2.status(two).state is PushState.RECEIVING
        receiver.clock.seconds += 61
        receiver.pushes.expire()
        with pytest.raises(UnknownTransaction):
            receiver.v2.status(two)
        assert receiver.metrics.aborted == 2


def test_a_push_that_is_being_committed_does_not_expire(receiver: Receiver) -> None:
    begun, go_on = hold_imports(receiver)
    status = receiver.v2.create(creation2_of(FILES))
    send(receiver, status)
    receiver.v2.commit(status.id)
    assert begun.wait(PATIENCE)
    receiver.clock.seconds += 10 * receiver.settings.push_idle_timeout
    receiver.pushes.expire()
    go_on.set()
    assert outcome(receiver, status.id).state is PushState.COMMITTED


def test_expiry_needs_no_call(tmp_path: Path) -> None:
    with running_receiver(tmp_path, push_idle_timeout=0.1) as receiver:
        receiver.v2.create(creation2_of(FILES))
        receiver.clock.seconds += 2
        wait_until(lambda: not receiver.leftovers())


# --- numbers


def test_the_metrics_count(receiver: Receiver) -> None:
    one = receiver.v2.create(creation2_of(FILES), sender="transfer-1")
    receiver.clock.seconds += 2
    send(receiver, one)
    begun, go_on = hold_imports(receiver)
    receiver.v2.commit(one.id)
    assert begun.wait(PATIENCE)
    receiver.clock.seconds += 3
    assert receiver.metrics.values()["orthanc_transfers_available_push_count"] == 3
    go_on.set()
    assert outcome(receiver, one.id).state is PushState.COMMITTED
    two = receiver.v1.create(creation_of(FILES))
    receiver.pushes.drop(two)
    assert receiver.metrics.values() == {
        "orthanc_transfers_available_push_count": 4,
        "orthanc_transfers_created_push_count": 2,
        "orthanc_transfers_committed_push_count": 1,
        "orthanc_transfers_aborted_push_count": 1,
        "orthanc_transfers_push_total_received_bytes_count": len(AREA),
        "orthanc_transfers_push_total_time_spent_in_reception_ms": 2000,
        "orthanc_transfers_push_total_time_spent_in_commit_ms": 3000,
    }
    report = receiver.reports.read("transfer-1")
    assert report is not None
    assert report["ID"] == one.id


def test_a_server_that_stops_asks_for_patience(receiver: Receiver) -> None:
    one = receiver.v1.create(creation_of(FILES))
    two = receiver.v2.create(creation2_of(FILES))
    receiver.pushes.close()
    with pytest.raises(Busy):
        receiver.v1.put(one, 0, memoryview(FILES[0]))
    with pytest.raises(Busy):
        send(receiver, two)
    assert receiver.v2.status(two.id).missing == two.missing


def test_an_error_while_expiring_does_not_end_expiry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with running_receiver(tmp_path, push_idle_timeout=0.1) as receiver:
        receiver.v2.create(creation2_of(FILES))
        with monkeypatch.context() as patched:
            patched.setattr(receiver.registry, "expire", lambda: 1 / 0)
            wait_until(lambda: "transfers-expiry failed" in caplog.text)
        receiver.clock.seconds += 2
        wait_until(lambda: not receiver.leftovers())
