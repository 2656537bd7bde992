"""Pushes as their senders see them, in both versions of the protocol."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.core.checksum import xxh3
from orthanc_transfers.core.codec import Codec, Compression, encode
from orthanc_transfers.core.errors import (
    BadFile,
    BadRequest,
    Busy,
    Canceled,
    Conflict,
    Corrupted,
    ImportRefused,
    NoSpace,
    NotFound,
    TooLarge,
    UnknownTransaction,
    WrongSize,
)
from orthanc_transfers.core.messages_v2 import PushCreationV2, PushStatus
from orthanc_transfers.core.model import Chunk, Instance, Manifest, PushState
from orthanc_transfers.core.ranges import Range
from tests.receiver.receiving_world import (
    PATIENCE,
    World,
    creation2_of,
    creation_of,
    dicom,
    identify,
    receiver,
    wait_until,
)

FILES = [dicom(f"file-{number}", 3000 + 17 * number) for number in range(6)]
AREA = b"".join(FILES)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with receiver(tmp_path / "staging") as world:
        yield world


def put_all(world: World, identifier: str) -> None:
    for index, data in enumerate(FILES):
        world.v1.put(identifier, index, memoryview(data))


def create_any(world: World, version: int) -> None:
    if version == 1:
        world.v1.create(creation_of(FILES))
    else:
        world.v2.create(creation2_of(FILES))


def send(world: World, status: PushStatus, codec: Codec = Codec.NONE, area: bytes = AREA) -> None:
    for item in status.missing:
        body = b"".join(encode([memoryview(area)[item.start : item.stop]], codec))
        world.v2.put(status.id, [(item.start, item.size)], codec, xxh3([body]), memoryview(body))


def outcome(world: World, identifier: str) -> PushStatus:
    wait_until(lambda: world.v2.status(identifier).state is not PushState.COMMITTING)
    return world.v2.status(identifier)


def hold_imports(world: World) -> tuple[threading.Event, threading.Event]:
    begun, go_on = threading.Event(), threading.Event()

    def hold(identifier: str) -> None:
        begun.set()
        go_on.wait(PATIENCE)

    world.store.before_add = hold
    return begun, go_on


# --- version 1


@pytest.mark.parametrize("gzip", [False, True])
def test_a_push_of_version_1_arrives(world: World, gzip: bool) -> None:
    identifier = world.v1.create(creation_of(FILES, gzip=gzip))
    for index, data in reversed(list(enumerate(FILES))):
        body = b"".join(encode([data], Codec.GZIP if gzip else Codec.NONE))
        world.v1.put(identifier, index, memoryview(body))
    world.v1.commit(identifier)
    assert sorted(world.store.files.values()) == sorted(FILES)


def test_a_bucket_of_version_1_is_scattered_over_the_area(world: World) -> None:
    names = [identify(data) for data in FILES]
    buckets = [
        [Chunk(names[0], 100, len(FILES[0]) - 100), Chunk(names[3], 0, 50)],
        [Chunk(names[5], 0, len(FILES[5])), Chunk(names[1], 0, len(FILES[1]))],
        [Chunk(names[3], 50, len(FILES[3]) - 50), Chunk(names[0], 0, 100)],
        [Chunk(names[2], 0, len(FILES[2])), Chunk(names[4], 0, len(FILES[4]))],
    ]
    identifier = world.v1.create(creation_of(FILES, *buckets))
    for index in (2, 0, 3, 1, 1, 0):
        body = b"".join(
            FILES[names.index(chunk.id)][chunk.offset : chunk.offset + chunk.size] for chunk in buckets[index]
        )
        world.v1.put(identifier, index, memoryview(body))
    world.v1.commit(identifier)
    assert sorted(world.store.files.values()) == sorted(FILES)


def test_a_bucket_too_large_for_memory_is_taken_in_parts_once_it_was_looked_at_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orthanc_transfers.core.codec.MAX_PART_SIZE", 1000)
    bucket = [Chunk(identify(data), 0, len(data)) for data in reversed(FILES)]
    creation = replace(creation_of(FILES, bucket), compression=Compression.GZIP)
    identifier = world.v1.create(creation)
    body = b"".join(encode(list(reversed(FILES)), Codec.GZIP))
    with pytest.raises(BadFile):
        world.v1.put(identifier, 0, memoryview(body[:-1] + bytes([body[-1] ^ 1])))
    with pytest.raises(WrongSize):
        world.v1.put(identifier, 0, memoryview(b"".join(encode(FILES[1:], Codec.GZIP))))
    world.v1.put(identifier, 0, memoryview(body))
    world.v1.commit(identifier)
    assert sorted(world.store.files.values()) == sorted(FILES)


def test_a_bucket_may_name_the_same_bytes_twice(world: World) -> None:
    name = identify(FILES[0])
    identifier = world.v1.create(
        creation_of(FILES[:1], [Chunk(name, 0, len(FILES[0])), Chunk(name, 0, len(FILES[0]))])
    )
    world.v1.put(identifier, 0, memoryview(FILES[0] + bytes(len(FILES[0]))))
    world.v1.commit(identifier)
    assert list(world.store.files.values()) == [FILES[0]]


def test_a_push_of_nothing_succeeds(world: World) -> None:
    identifier = world.v1.create(creation_of([]))
    world.v1.commit(identifier)
    assert world.store.files == {}


def test_an_outcome_of_version_1_is_remembered(world: World) -> None:
    identifier = world.v1.create(creation_of(FILES))
    put_all(world, identifier)
    world.v1.commit(identifier)
    for _ in range(2):
        world.v1.commit(identifier)
        world.pushes.drop(identifier)
        with pytest.raises(Conflict):
            world.v1.put(identifier, 0, memoryview(FILES[0]))
        world.restart()
    assert len(world.store.added) == len(FILES)


def test_a_refusal_of_version_1_is_remembered(world: World) -> None:
    world.store.refused[identify(FILES[2])] = "the disk is full"
    identifier = world.v1.create(creation_of(FILES))
    put_all(world, identifier)
    for _ in range(2):
        with pytest.raises(ImportRefused, match="the disk is full"):
            world.v1.commit(identifier)
        world.restart()
    assert world.store.files == {}


def test_a_wrong_md5_of_version_1_is_told_at_the_commit_and_may_be_mended(world: World) -> None:
    identifier = world.v1.create(creation_of(FILES))
    put_all(world, identifier)
    other = world.v1.create(creation_of(FILES))
    put_all(world, other)
    third = world.v1.create(creation_of(FILES))
    world.v1.put(third, 1, memoryview(bytes(len(FILES[1]))))
    for index in (0, 2, 3, 4, 5):
        world.v1.put(third, index, memoryview(FILES[index]))
    for _ in range(2):
        with pytest.raises(Corrupted, match=f"MD5 of instance {identify(FILES[1])}") as raised:
            world.v1.commit(third)
        assert (raised.value.status, raised.value.code) == (500, 20)
    assert world.store.files == {}
    world.v1.put(third, 1, memoryview(FILES[1]))
    world.v1.commit(third)
    assert len(world.store.files) == len(FILES)


def test_a_commit_of_version_1_without_all_buckets_names_what_is_missing(world: World) -> None:
    identifier = world.v1.create(creation_of(FILES))
    world.v1.put(identifier, 0, memoryview(FILES[0]))
    with pytest.raises(Corrupted, match=f"{identify(FILES[1])} was not received") as raised:
        world.v1.commit(identifier)
    assert (raised.value.status, raised.value.code) == (500, 20)
    put_all(world, identifier)
    world.v1.commit(identifier)


def test_the_errors_of_version_1(world: World) -> None:
    name = identify(FILES[0])
    size = len(FILES[0])
    identifier = world.v1.create(
        creation_of(
            FILES,
            [Chunk(name, 0, size)],
            [Chunk("f" * 40, 0, 1)],
            [Chunk(name, 1, size)],
            [Chunk(name, -1, 1)],
        )
    )

    def fails(expected: type[Exception], status: int, code: int, index: int, body: bytes) -> None:
        with pytest.raises(expected) as raised:
            world.v1.put(identifier, index, memoryview(body))
        error: Any = raised.value
        assert (error.status, error.code) == (status, code)

    fails(BadRequest, 400, 3, 4, b"")
    fails(BadRequest, 400, 3, -1, b"")
    fails(NotFound, 404, 17, 1, b"x")
    fails(BadRequest, 400, 3, 2, FILES[0])
    fails(BadRequest, 400, 3, 3, b"x")
    fails(WrongSize, 500, 9, 0, FILES[0] + b"x")
    fails(WrongSize, 500, 9, 0, FILES[0][1:])
    for call in (
        lambda: world.v1.put("no", 0, memoryview(b"")),
        lambda: world.v1.commit("no"),
        lambda: world.pushes.drop("no"),
    ):
        with pytest.raises(UnknownTransaction) as raised:
            call()
        assert raised.value.status == 404


def test_garbage_instead_of_gzip_is_refused(world: World) -> None:
    identifier = world.v1.create(creation_of(FILES, gzip=True))
    with pytest.raises(BadFile):
        world.v1.put(identifier, 0, memoryview(b"\0" * 100))


def test_a_push_dropped_by_its_sender_leaves_nothing(world: World) -> None:
    identifier = world.v1.create(creation_of(FILES))
    put_all(world, identifier)
    world.pushes.drop(identifier)
    assert world.leftovers() == set()
    with pytest.raises(UnknownTransaction):
        world.v1.commit(identifier)
    assert world.metrics.aborted == 1


def test_a_push_of_version_1_that_is_being_committed_cannot_be_dropped(world: World) -> None:
    begun, go_on = hold_imports(world)
    identifier = world.v1.create(creation_of(FILES))
    put_all(world, identifier)
    with ThreadPoolExecutor(1) as pool:
        commit = pool.submit(world.v1.commit, identifier)
        assert begun.wait(PATIENCE)
        with pytest.raises(Conflict):
            world.pushes.drop(identifier)
        go_on.set()
        commit.result(PATIENCE)
    assert len(world.store.files) == len(FILES)


def test_a_push_of_version_1_goes_on_after_a_restart(world: World) -> None:
    identifier = world.v1.create(creation_of(FILES, gzip=True))
    bodies = [b"".join(encode([data], Codec.GZIP)) for data in FILES]
    for index in (0, 4):
        world.v1.put(identifier, index, memoryview(bodies[index]))
    world.restart()
    for index in (1, 2, 3, 5):
        world.v1.put(identifier, index, memoryview(bodies[index]))
    world.v1.commit(identifier)
    assert sorted(world.store.files.values()) == sorted(FILES)


def test_instances_that_are_stored_already_are_received_and_count(world: World) -> None:
    world.store.put(FILES[0])
    world.store.put(dicom("file-1", 10))
    identifier = world.v1.create(creation_of(FILES))
    put_all(world, identifier)
    world.v1.commit(identifier)
    assert len(world.store.files) == len(FILES)


# --- version 2


@pytest.mark.parametrize("codec", list(Codec))
def test_a_push_of_version_2_arrives(world: World, codec: Codec) -> None:
    status = world.v2.create(creation2_of(FILES))
    assert (status.state, status.missing) == (PushState.RECEIVING, (Range(0, len(AREA)),))
    assert status.path == f"/transfers/v2/push/{status.id}"
    send(world, status, codec)
    assert world.v2.status(status.id).missing == ()
    world.v2.commit(status.id)
    done = outcome(world, status.id)
    assert (done.state, done.imported, done.total) == (PushState.COMMITTED, 6, 6)
    assert done.report == {"Stored": 6, "AlreadyStored": 0, "FilteredOut": 0}
    assert sorted(world.store.files.values()) == sorted(FILES)


def test_the_commit_of_version_2_answers_at_once_and_begins_once(world: World) -> None:
    begun, go_on = hold_imports(world)
    status = world.v2.create(creation2_of(FILES))
    send(world, status)
    for _ in range(3):
        assert world.v2.commit(status.id).state is PushState.COMMITTING
    assert begun.wait(PATIENCE)
    with pytest.raises(Conflict):
        world.v2.put(status.id, [(0, 1)], Codec.NONE, None, memoryview(b"x"))
    world.pushes.drop(status.id)
    go_on.set()
    assert outcome(world, status.id).state is PushState.COMMITTED
    assert world.v2.commit(status.id).state is PushState.COMMITTED
    assert len(world.store.added) == 6
    world.pushes.drop(status.id)
    assert world.v2.status(status.id).state is PushState.COMMITTED


def test_the_same_token_gives_the_same_push_before_and_after_the_end(world: World) -> None:
    first = world.v2.create(creation2_of(FILES))
    body = memoryview(AREA)[:100]
    world.v2.put(first.id, [(0, 100)], Codec.NONE, None, body)
    again = world.v2.create(creation2_of(FILES))
    assert (again.id, again.missing) == (first.id, (Range(100, len(AREA)),))
    world.restart()
    again = world.v2.create(creation2_of(FILES))
    assert (again.id, again.missing) == (first.id, (Range(100, len(AREA)),))
    send(world, again)
    world.v2.commit(first.id)
    assert outcome(world, first.id).state is PushState.COMMITTED
    assert world.v2.create(creation2_of(FILES)).state is PushState.COMMITTED
    with pytest.raises(Conflict):
        world.v2.create(creation2_of(FILES[1:]))


def test_what_is_there_already_is_not_missing(world: World) -> None:
    for data in FILES[:2]:
        world.store.put(data)
    status = world.v2.create(creation2_of(FILES))
    assert (status.already_stored, status.already_stored_size) == (2, len(FILES[0] + FILES[1]))
    assert status.missing == (Range(len(FILES[0] + FILES[1]), len(AREA)),)
    send(world, status)
    world.v2.commit(status.id)
    assert outcome(world, status.id).report == {"Stored": 4, "AlreadyStored": 2, "FilteredOut": 0}


def test_when_all_is_there_already_nothing_has_to_be_sent(world: World) -> None:
    for data in FILES:
        world.store.put(data)
    status = world.v2.create(creation2_of(FILES))
    assert status.missing == ()
    world.v2.commit(status.id)
    assert outcome(world, status.id).state is PushState.COMMITTED
    assert world.store.added == []


def test_what_vanished_meanwhile_is_asked_for_at_the_commit(world: World) -> None:
    for data in FILES:
        world.store.put(data)
    status = world.v2.create(creation2_of(FILES))
    world.store.files.clear()
    world.v2.commit(status.id)
    status = outcome(world, status.id)
    assert (status.state, status.missing) == (PushState.RECEIVING, (Range(0, len(AREA)),))
    send(world, status)
    world.v2.commit(status.id)
    assert outcome(world, status.id).state is PushState.COMMITTED
    assert len(world.store.files) == 6


def test_a_commit_with_missing_bytes_says_what_is_missing(world: World) -> None:
    status = world.v2.create(creation2_of(FILES))
    again = world.v2.commit(status.id)
    assert (again.state, again.missing) == (PushState.RECEIVING, status.missing)


def test_an_instance_with_a_wrong_md5_is_asked_for_again(world: World) -> None:
    status = world.v2.create(creation2_of(FILES))
    bad = AREA[: len(FILES[0])] + bytes(len(FILES[1])) + AREA[len(FILES[0] + FILES[1]) :]
    send(world, status, area=bad)
    status = world.v2.commit(status.id)
    hole = Range(len(FILES[0]), len(FILES[0] + FILES[1]))
    assert (status.state, status.missing) == (PushState.RECEIVING, (hole,))
    send(world, status)
    world.v2.commit(status.id)
    assert outcome(world, status.id).state is PushState.COMMITTED


def test_a_bucket_that_was_damaged_on_its_way_is_refused_at_once(world: World) -> None:
    status = world.v2.create(creation2_of(FILES))
    with pytest.raises(Corrupted) as raised:
        world.v2.put(status.id, [(0, 3)], Codec.NONE, xxh3([b"abd"]), memoryview(b"abc"))
    assert (raised.value.status, raised.value.code) == (500, 20)
    assert world.v2.status(status.id).missing == status.missing


@pytest.mark.parametrize(
    ("offset", "size"), [(len(AREA), 1), (0, len(AREA) + 1), (-1, 1), (10**18, 1), (0, -1)]
)
def test_bytes_beyond_the_area_are_refused(world: World, offset: int, size: int) -> None:
    status = world.v2.create(creation2_of(FILES))
    with pytest.raises(BadRequest):
        world.v2.put(status.id, [(offset, size)], Codec.NONE, None, memoryview(b"x" * 5))


def test_a_refusal_is_told_with_its_reason(world: World) -> None:
    world.store.refused[identify(FILES[2])] = "the disk is full"
    status = world.v2.create(creation2_of(FILES))
    send(world, status)
    world.v2.commit(status.id)
    failed = outcome(world, status.id)
    assert failed.state is PushState.FAILED
    assert failed.error is not None
    assert identify(FILES[2]) in failed.error
    assert "the disk is full" in failed.error
    assert world.store.files == {}
    assert world.v2.create(creation2_of(FILES)).state is PushState.FAILED


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


def test_an_interrupted_commit_rolls_forward_once_orthanc_has_started(world: World) -> None:
    begun, go_on = hold_imports(world)
    status = world.v2.create(creation2_of(FILES))
    send(world, status)
    world.v2.commit(status.id)
    assert begun.wait(PATIENCE)
    world.stop()
    go_on.set()
    world.store.before_add = lambda identifier: None
    world.start()
    assert world.v2.status(status.id).state is PushState.COMMITTING
    world.pushes.recover()
    assert outcome(world, status.id).state is PushState.COMMITTED
    assert len(world.store.files) == 6


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


# --- places


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


def test_a_full_server_holds_version_1_until_a_place_is_free(tmp_path: Path) -> None:
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


def test_a_push_held_for_too_long_is_sent_away(tmp_path: Path) -> None:
    with receiver(tmp_path, max_push_transactions=1, peer_commit_timeout=1) as world:
        world.v1.create(creation_of(FILES))
        with pytest.raises(Busy):
            world.v1.create(creation_of(FILES))


@pytest.mark.parametrize("version", [1, 2])
def test_a_creation_that_fails_gives_its_place_back(tmp_path: Path, version: int) -> None:
    with receiver(tmp_path, max_push_transactions=1, max_staging_size=10) as world:
        for _ in range(2):
            with pytest.raises(NoSpace):
                create_any(world, version)
        assert world.metrics.available == 1


def test_the_same_creation_many_times_at_once_takes_one_place(tmp_path: Path) -> None:
    with receiver(tmp_path, max_push_transactions=8) as world:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: world.v2.create(creation2_of(FILES)), range(8)))
        assert len({answer.id for answer in answers}) == 1
        assert world.metrics.available == 7
        assert world.metrics.created == 1


def test_pushes_found_after_a_restart_keep_their_places(tmp_path: Path) -> None:
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
    with receiver(tmp_path, push_idle_timeout=1) as world:
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


def test_a_stop_in_the_middle_of_a_commit_is_quick_and_told_to_version_1(world: World) -> None:
    begun, go_on = hold_imports(world)
    identifier = world.v1.create(creation_of(FILES))
    put_all(world, identifier)
    with ThreadPoolExecutor(1) as pool:
        commit = pool.submit(world.v1.commit, identifier)
        assert begun.wait(PATIENCE)
        world.stop()
        with pytest.raises(Canceled):
            commit.result(PATIENCE)
        go_on.set()


def test_an_empty_manifest_of_version_2_succeeds(world: World) -> None:
    status = world.v2.create(PushCreationV2("c" * 32, Manifest([])))
    world.v2.commit(status.id)
    assert outcome(world, status.id).state is PushState.COMMITTED


def test_an_empty_file_that_cannot_be_right_fails_instead_of_being_asked_for_for_ever(world: World) -> None:
    manifest = Manifest([Instance("a" * 40, 0, "0" * 32)])
    status = world.v2.create(PushCreationV2("c" * 32, manifest))
    world.v2.commit(status.id)
    assert outcome(world, status.id).state is PushState.FAILED


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
    with receiver(tmp_path, push_idle_timeout=1) as world:
        world.v2.create(creation2_of(FILES))
        with monkeypatch.context() as patched:
            patched.setattr(world.registry, "expire", lambda: 1 / 0)
            wait_until(lambda: "transfers-expiry failed" in caplog.text)
        world.clock.seconds += 2
        wait_until(lambda: not world.leftovers())


def test_one_bucket_of_version_2_may_fill_several_gaps(world: World) -> None:
    status = world.v2.create(creation2_of(FILES))
    first, second = Range(100, 1600), Range(2000, 2500)
    rest = [Range(0, 100), Range(1600, 2000), Range(2500, len(AREA))]
    for ranges in ([first, second], rest):
        body = b"".join(AREA[item.start : item.stop] for item in ranges)
        places = [(item.start, item.size) for item in ranges]
        world.v2.put(status.id, places, Codec.NONE, xxh3([body]), memoryview(body))
    assert world.v2.status(status.id).missing == ()


def test_nothing_of_a_bucket_is_taken_if_one_of_its_places_lies_beyond_the_area(world: World) -> None:
    status = world.v2.create(creation2_of(FILES))
    places = [(0, 10), (len(AREA), 1)]
    with pytest.raises(BadRequest):
        world.v2.put(status.id, places, Codec.NONE, None, memoryview(bytes(11)))
    assert world.v2.status(status.id).missing == status.missing


# --- pushes that grow


def beginning(count: int) -> PushCreationV2:
    whole = creation2_of(FILES)
    return replace(whole, manifest=Manifest(whole.manifest.instances[:count]), more=len(FILES) - count)


def test_a_push_that_grows_is_committed_when_it_is_whole_and_not_before(world: World) -> None:
    status = world.v2.create(beginning(2))
    send(world, status)
    with pytest.raises(Conflict, match="the rest of its list"):
        world.v2.commit(status.id)
    grown = world.v2.create(creation2_of(FILES))
    assert grown.id == status.id
    assert list(grown.missing) == [Range(len(FILES[0] + FILES[1]), len(AREA))]
    send(world, grown)
    world.v2.commit(status.id)
    assert outcome(world, status.id).state is PushState.COMMITTED
    assert sorted(world.store.files.values()) == sorted(FILES)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_push_that_grows_is_found_again_after_a_restart(world: World, when: str) -> None:
    for place in (1, 4):
        world.store.put(FILES[place])
    status = world.v2.create(beginning(3))
    send(world, status)
    if when == "after":
        world.v2.create(creation2_of(FILES))
    world.restart()
    grown = world.v2.create(creation2_of(FILES))
    assert (grown.id, grown.already_stored) == (status.id, 2)
    assert sum(item.size for item in grown.missing) == len(FILES[3]) + len(FILES[5])
    send(world, grown)
    world.v2.commit(status.id)
    assert outcome(world, status.id).state is PushState.COMMITTED


def test_the_whole_list_twice_at_once_is_the_same_push(world: World) -> None:
    status = world.v2.create(beginning(2))
    began, go_on = threading.Event(), threading.Event()

    def wait(_: Any) -> None:
        began.set()
        assert go_on.wait(PATIENCE)

    world.store.before_md5s = wait
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(world.v2.create, creation2_of(FILES))
        assert began.wait(PATIENCE)
        second = pool.submit(world.v2.create, creation2_of(FILES))
        go_on.set()
        assert first.result(PATIENCE).id == second.result(PATIENCE).id == status.id
