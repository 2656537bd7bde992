"""Pushes as senders of version 1 see them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.core.codec import Codec, Compression, encode
from orthanc_transfers.core.errors import (
    BadFile,
    BadRequest,
    Busy,
    Canceled,
    Conflict,
    Corrupted,
    ImportRefused,
    NotFound,
    UnknownTransaction,
    WrongSize,
)
from orthanc_transfers.core.model import Chunk
from orthanc_transfers.receiver import protocol_v1
from orthanc_transfers.runtime import threads
from tests.receiver.push_client import FILES, put_all
from tests.receiver.receiving_world import (
    PATIENCE,
    World,
    creation_of,
    dicom,
    hold_imports,
    identify,
    receiver,
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with receiver(tmp_path / "staging") as world:
        yield world


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


# --- slots


def test_a_push_held_for_too_long_is_turned_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol_v1, "_HOLD_SHARE", 0.02)
    with receiver(tmp_path, max_push_transactions=1, peer_commit_timeout=1) as world:
        world.v1.create(creation_of(FILES))
        with pytest.raises(Busy):
            world.v1.create(creation_of(FILES))


# --- numbers


def test_a_stop_in_the_middle_of_a_commit_is_quick_and_told_to_version_1(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "GRACE", 0.05)
    begun, go_on = hold_imports(world, hang=True)
    identifier = world.v1.create(creation_of(FILES))
    put_all(world, identifier)
    with ThreadPoolExecutor(1) as pool:
        commit = pool.submit(world.v1.commit, identifier)
        assert begun.wait(PATIENCE)
        world.stop()
        with pytest.raises(Canceled):
            commit.result(PATIENCE)
        go_on.set()
