"""The push service: many pushes at once, slots, expiry, metrics."""

from __future__ import annotations

import threading
from collections.abc import Iterator
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
from tests.receiver.push_client import AREA, FILES, create_any, outcome, put_all, send
from tests.receiver.receiving_world import (
    PATIENCE,
    World,
    creation2_of,
    creation_of,
    hold_imports,
    receiver,
    wait_until,
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with receiver(tmp_path / "staging") as world:
        yield world


# --- version 2


def test_the_two_versions_do_not_see_each_others_pushes(world: World) -> None:
    one = world.v1.create(creation_of(FILES))
    two = world.v2.create(creation2_of(FILES)).id
    with pytest.raises(UnknownTransaction):
        world.v2.status(one)
    with pytest.raises(UnknownTransaction):
        world.v1.commit(two)


def test_a_manifest_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    with receiver(tmp_path, max_manifest_instances=5) as world:
        with pytest.raises(TooLarge):
            world.v2.create(creation2_of(FILES))
        with pytest.raises(TooLarge):
            world.v1.create(creation_of(FILES))
        assert world.v2.create(creation2_of(FILES[:5])).missing


# --- many at once


def test_different_pushes_and_buckets_do_not_wait_for_each_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one bucket is stuck on the disk, another of the same push, and another push, go through."""
    from orthanc_transfers.runtime import files

    one = world.v1.create(creation_of(FILES))
    two = world.v2.create(creation2_of(FILES))
    stuck, go_on = threading.Event(), threading.Event()
    really_write = files.write_at

    def write(fd: int, data: memoryview, offset: int) -> None:
        if threading.current_thread().name == "slow_0":
            stuck.set()
            go_on.wait(PATIENCE)
        really_write(fd, data, offset)

    monkeypatch.setattr(files, "write_at", write)
    with ThreadPoolExecutor(1, thread_name_prefix="slow") as slow:
        first = slow.submit(world.v1.put, one, 0, memoryview(FILES[0]))
        assert stuck.wait(PATIENCE)
        for index in range(1, len(FILES)):
            world.v1.put(one, index, memoryview(FILES[index]))
        send(world, two)
        world.v2.commit(two.id)
        assert outcome(world, two.id).state is PushState.COMMITTED
        assert not first.done()
        go_on.set()
        first.result(PATIENCE)
    world.v1.commit(one)


def test_many_threads_send_many_pushes(tmp_path: Path) -> None:
    with receiver(tmp_path, max_push_transactions=20) as world:
        statuses = [world.v2.create(creation2_of(FILES, token=f"{number:032x}")) for number in range(20)]
        pieces = [
            (status, Range(start, min(start + 1500, len(AREA))))
            for start in range(0, len(AREA), 1000)
            for status in statuses
        ]

        def put(piece: tuple[PushStatus, Range]) -> None:
            status, item = piece
            body = memoryview(AREA)[item.start : item.stop]
            world.v2.put(status.id, [(item.start, item.size)], Codec.NONE, None, body)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put, pieces))
        for status in statuses:
            world.v2.commit(status.id)
        for status in statuses:
            assert outcome(world, status.id).state is PushState.COMMITTED
        assert len(world.store.added) == len(FILES)


# --- slots


def test_a_full_server_tells_version_2_to_come_again(tmp_path: Path) -> None:
    with receiver(tmp_path, max_push_transactions=1) as world:
        first = world.v2.create(creation2_of(FILES))
        with pytest.raises(Busy) as raised:
            world.v2.create(creation2_of(FILES, token="c" * 32))
        assert raised.value.status == 503
        assert raised.value.retry_after > 0
        # The one in progress is not harmed, and its creation may be repeated.
        assert world.v2.create(creation2_of(FILES)).id == first.id
        send(world, first)
        world.v2.commit(first.id)
        assert outcome(world, first.id).state is PushState.COMMITTED
        assert world.v2.create(creation2_of(FILES, token="c" * 32)).id != first.id


def test_a_full_server_holds_version_1_until_a_slot_is_free(tmp_path: Path) -> None:
    with receiver(tmp_path, max_push_transactions=1) as world, ThreadPoolExecutor(1) as pool:
        first = world.v1.create(creation_of(FILES))
        held = pool.submit(world.v1.create, creation_of(FILES))
        wait_until(lambda: world.pushes.slots.queued == 1)
        assert not held.done()
        with pytest.raises(Busy):
            world.v2.create(creation2_of(FILES))
        put_all(world, first)
        world.v1.commit(first)
        second = held.result(PATIENCE)
        put_all(world, second)
        world.v1.commit(second)


@pytest.mark.parametrize("version", [1, 2])
def test_a_creation_that_fails_gives_its_slot_back(tmp_path: Path, version: int) -> None:
    with receiver(tmp_path, max_push_transactions=1, max_staging_size=10) as world:
        for _ in range(2):
            with pytest.raises(NoSpace):
                create_any(world, version)
        assert world.metrics.available == 1


def test_the_same_creation_many_times_at_once_takes_one_slot(tmp_path: Path) -> None:
    with receiver(tmp_path, max_push_transactions=8) as world:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: world.v2.create(creation2_of(FILES)), range(8)))
        assert len({answer.id for answer in answers}) == 1
        assert world.metrics.available == 7
        assert world.metrics.created == 1


def test_pushes_found_after_a_restart_keep_their_slots(tmp_path: Path) -> None:
    with receiver(tmp_path, max_push_transactions=1) as world:
        status = world.v2.create(creation2_of(FILES))
        world.restart()
        with pytest.raises(Busy):
            world.v2.create(creation2_of(FILES, token="c" * 32))
        world.pushes.drop(status.id)
        assert world.v2.create(creation2_of(FILES, token="c" * 32)).missing


def test_stopping_sends_held_creations_away(tmp_path: Path) -> None:
    with receiver(tmp_path, max_push_transactions=1) as world, ThreadPoolExecutor(1) as pool:
        world.v1.create(creation_of(FILES))
        held = pool.submit(world.v1.create, creation_of(FILES))
        wait_until(lambda: world.pushes.slots.queued == 1)
        world.pushes.close()
        with pytest.raises(Busy):
            held.result(PATIENCE)


# --- expiry


def test_a_thousand_abandoned_pushes_leave_nothing(tmp_path: Path) -> None:
    with receiver(tmp_path, max_push_transactions=1000, push_idle_timeout=60) as world:
        for number in range(1000):
            if number % 2:
                world.v2.create(creation2_of(FILES[:1], token=f"{number:032x}"))
            else:
                world.v1.create(creation_of(FILES[:1]))
        assert world.metrics.available == 0
        assert len(world.leftovers()) == 1000
        world.restart()
        world.clock.seconds += 61
        world.pushes.expire()
        assert world.leftovers() == set()
        assert world.metrics.available == 1000


def test_a_push_in_use_does_not_expire(tmp_path: Path) -> None:
    with receiver(tmp_path, push_idle_timeout=60) as world:
        one = world.v1.create(creation_of(FILES))
        two = world.v2.create(creation2_of(FILES)).id
        for _ in range(3):
            world.clock.seconds += 50
            world.v1.put(one, 0, memoryview(FILES[0]))
            world.v2.status(two)
            world.pushes.expire()
        assert world.v2.status(two).state is PushState.RECEIVING
        world.clock.seconds += 61
        world.pushes.expire()
        with pytest.raises(UnknownTransaction):
            world.v2.status(two)
        assert world.metrics.aborted == 2


def test_a_push_that_is_being_committed_does_not_expire(world: World) -> None:
    begun, go_on = hold_imports(world)
    status = world.v2.create(creation2_of(FILES))
    send(world, status)
    world.v2.commit(status.id)
    assert begun.wait(PATIENCE)
    world.clock.seconds += 10 * world.settings.push_idle_timeout
    world.pushes.expire()
    go_on.set()
    assert outcome(world, status.id).state is PushState.COMMITTED


def test_expiry_needs_no_call(tmp_path: Path) -> None:
    with receiver(tmp_path, push_idle_timeout=0.1) as world:
        world.v2.create(creation2_of(FILES))
        world.clock.seconds += 2
        wait_until(lambda: not world.leftovers())


# --- numbers


def test_the_metrics_count(world: World) -> None:
    one = world.v2.create(creation2_of(FILES), sender="transfer-1")
    world.clock.seconds += 2
    send(world, one)
    begun, go_on = hold_imports(world)
    world.v2.commit(one.id)
    assert begun.wait(PATIENCE)
    world.clock.seconds += 3
    assert world.metrics.values()["orthanc_transfers_available_push_count"] == 3
    go_on.set()
    assert outcome(world, one.id).state is PushState.COMMITTED
    two = world.v1.create(creation_of(FILES))
    world.pushes.drop(two)
    assert world.metrics.values() == {
        "orthanc_transfers_available_push_count": 4,
        "orthanc_transfers_created_push_count": 2,
        "orthanc_transfers_committed_push_count": 1,
        "orthanc_transfers_aborted_push_count": 1,
        "orthanc_transfers_push_total_received_bytes_count": len(AREA),
        "orthanc_transfers_push_total_time_spent_in_reception_ms": 2000,
        "orthanc_transfers_push_total_time_spent_in_commit_ms": 3000,
    }
    report = world.reports.read("transfer-1")
    assert report is not None
    assert report["ID"] == one.id


def test_a_server_that_stops_asks_for_patience(world: World) -> None:
    one = world.v1.create(creation_of(FILES))
    two = world.v2.create(creation2_of(FILES))
    world.pushes.close()
    with pytest.raises(Busy):
        world.v1.put(one, 0, memoryview(FILES[0]))
    with pytest.raises(Busy):
        send(world, two)
    assert world.v2.status(two.id).missing == two.missing


def test_an_error_while_expiring_does_not_end_expiry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with receiver(tmp_path, push_idle_timeout=0.1) as world:
        world.v2.create(creation2_of(FILES))
        with monkeypatch.context() as patched:
            patched.setattr(world.registry, "expire", lambda: 1 / 0)
            wait_until(lambda: "transfers-expiry failed" in caplog.text)
        world.clock.seconds += 2
        wait_until(lambda: not world.leftovers())
