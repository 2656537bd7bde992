"""Pushes as senders of version 1 see them."""

from __future__ import annotations

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
from orthanc_transfers.receiver import protocol_v1, pushes
from orthanc_transfers.runtime import threads
from tests.receiver.memory_receiver import (
    PATIENCE,
    Receiver,
    creation_of,
    dicom,
    hold_imports,
    identify,
    running_receiver,
    wait_until,
)
from tests.receiver.push_client import FILES, put_all

# --- version 1


@pytest.mark.parametrize("gzip", [False, True])
def test_a_push_of_version_1_arrives(receiver: Receiver, gzip: bool) -> None:
    identifier = receiver.v1.create(creation_of(FILES, gzip=gzip))
    for index, data in reversed(list(enumerate(FILES))):
        body = b"".join(encode([data], Codec.GZIP if gzip else Codec.NONE))
        receiver.v1.put(identifier, index, memoryview(body))
    receiver.v1.commit(identifier)
    assert sorted(receiver.store.files.values()) == sorted(FILES)


def test_a_bucket_of_version_1_is_scattered_over_the_area(receiver: Receiver) -> None:
    names = [identify(data) for data in FILES]
    buckets = [
        [Chunk(names[0], 100, len(FILES[0]) - 100), Chunk(names[3], 0, 50)],
        [Chunk(names[5], 0, len(FILES[5])), Chunk(names[1], 0, len(FILES[1]))],
        [Chunk(names[3], 50, len(FILES[3]) - 50), Chunk(names[0], 0, 100)],
        [Chunk(names[2], 0, len(FILES[2])), Chunk(names[4], 0, len(FILES[4]))],
    ]
    identifier = receiver.v1.create(creation_of(FILES, *buckets))
    for index in (2, 0, 3, 1, 1, 0):
        body = b"".join(
            FILES[names.index(chunk.id)][chunk.offset : chunk.offset + chunk.size] for chunk in buckets[index]
        )
        receiver.v1.put(identifier, index, memoryview(body))
    receiver.v1.commit(identifier)
    assert sorted(receiver.store.files.values()) == sorted(FILES)


def test_a_bucket_too_large_for_memory_is_taken_in_parts_once_it_was_looked_at_whole(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orthanc_transfers.core.codec.MAX_PART_SIZE", 1000)
    bucket = [Chunk(identify(data), 0, len(data)) for data in reversed(FILES)]
    creation = replace(creation_of(FILES, bucket), compression=Compression.GZIP)
    identifier = receiver.v1.create(creation)
    body = b"".join(encode(list(reversed(FILES)), Codec.GZIP))
    with pytest.raises(BadFile):
        receiver.v1.put(identifier, 0, memoryview(body[:-1] + bytes([body[-1] ^ 1])))
    with pytest.raises(WrongSize):
        receiver.v1.put(identifier, 0, memoryview(b"".join(encode(FILES[1:], Codec.GZIP))))
    receiver.v1.put(identifier, 0, memoryview(body))
    receiver.v1.commit(identifier)
    assert sorted(receiver.store.files.values()) == sorted(FILES)


def test_a_bucket_may_name_the_same_bytes_twice(receiver: Receiver) -> None:
    name = identify(FILES[0])
    identifier = receiver.v1.create(
        creation_of(FILES[:1], [Chunk(name, 0, len(FILES[0])), Chunk(name, 0, len(FILES[0]))])
    )
    receiver.v1.put(identifier, 0, memoryview(FILES[0] + bytes(len(FILES[0]))))
    receiver.v1.commit(identifier)
    assert list(receiver.store.files.values()) == [FILES[0]]


def test_a_push_of_nothing_succeeds(receiver: Receiver) -> None:
    identifier = receiver.v1.create(creation_of([]))
    receiver.v1.commit(identifier)
    assert receiver.store.files == {}


def test_an_outcome_of_version_1_is_remembered(receiver: Receiver) -> None:
    identifier = receiver.v1.create(creation_of(FILES))
    put_all(receiver, identifier)
    receiver.v1.commit(identifier)
    for _ in range(2):
        receiver.v1.commit(identifier)
        receiver.pushes.drop(identifier)
        with pytest.raises(Conflict):
            receiver.v1.put(identifier, 0, memoryview(FILES[0]))
        receiver.restart()
    assert len(receiver.store.added) == len(FILES)


def test_a_refusal_of_version_1_is_remembered(receiver: Receiver) -> None:
    receiver.store.refused[identify(FILES[2])] = "the disk is full"
    identifier = receiver.v1.create(creation_of(FILES))
    put_all(receiver, identifier)
    for _ in range(2):
        with pytest.raises(ImportRefused, match="the disk is full"):
            receiver.v1.commit(identifier)
        receiver.restart()
    assert receiver.store.files == {}


def test_a_wrong_md5_of_version_1_is_told_at_the_commit_and_may_be_mended(receiver: Receiver) -> None:
    identifier = receiver.v1.create(creation_of(FILES))
    put_all(receiver, identifier)
    other = receiver.v1.create(creation_of(FILES))
    put_all(receiver, other)
    third = receiver.v1.create(creation_of(FILES))
    receiver.v1.put(third, 1, memoryview(bytes(len(FILES[1]))))
    for index in (0, 2, 3, 4, 5):
        receiver.v1.put(third, index, memoryview(FILES[index]))
    for _ in range(2):
        with pytest.raises(Corrupted, match=f"MD5 of instance {identify(FILES[1])}") as raised:
            receiver.v1.commit(third)
        assert (raised.value.status, raised.value.code) == (500, 20)
    assert receiver.store.files == {}
    receiver.v1.put(third, 1, memoryview(FILES[1]))
    receiver.v1.commit(third)
    assert len(receiver.store.files) == len(FILES)


def test_a_commit_of_version_1_without_all_buckets_names_what_is_missing(receiver: Receiver) -> None:
    identifier = receiver.v1.create(creation_of(FILES))
    receiver.v1.put(identifier, 0, memoryview(FILES[0]))
    with pytest.raises(Corrupted, match=f"{identify(FILES[1])} was not received") as raised:
        receiver.v1.commit(identifier)
    assert (raised.value.status, raised.value.code) == (500, 20)
    put_all(receiver, identifier)
    receiver.v1.commit(identifier)


def test_the_errors_of_version_1(receiver: Receiver) -> None:
    name = identify(FILES[0])
    size = len(FILES[0])
    identifier = receiver.v1.create(
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
            receiver.v1.put(identifier, index, memoryview(body))
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
        lambda: receiver.v1.put("no", 0, memoryview(b"")),
        lambda: receiver.v1.commit("no"),
        lambda: receiver.pushes.drop("no"),
    ):
        with pytest.raises(UnknownTransaction) as raised:
            call()
        assert raised.value.status == 404


def test_garbage_instead_of_gzip_is_refused(receiver: Receiver) -> None:
    identifier = receiver.v1.create(creation_of(FILES, gzip=True))
    with pytest.raises(BadFile):
        receiver.v1.put(identifier, 0, memoryview(b"\0" * 100))


def test_a_push_dropped_by_its_sender_leaves_nothing(receiver: Receiver) -> None:
    identifier = receiver.v1.create(creation_of(FILES))
    put_all(receiver, identifier)
    receiver.pushes.drop(identifier)
    assert receiver.leftovers() == set()
    with pytest.raises(UnknownTransaction):
        receiver.v1.commit(identifier)
    assert receiver.metrics.aborted == 1


def test_a_push_of_version_1_that_is_being_committed_cannot_be_dropped(receiver: Receiver) -> None:
    begun, go_on = hold_imports(receiver)
    identifier = receiver.v1.create(creation_of(FILES))
    put_all(receiver, identifier)
    with ThreadPoolExecutor(1) as pool:
        commit = pool.submit(receiver.v1.commit, identifier)
        assert begun.wait(PATIENCE)
        with pytest.raises(Conflict):
            receiver.pushes.drop(identifier)
        go_on.set()
        commit.result(PATIENCE)
    assert len(receiver.store.files) == len(FILES)


def test_a_push_of_version_1_goes_on_after_a_restart(receiver: Receiver) -> None:
    identifier = receiver.v1.create(creation_of(FILES, gzip=True))
    bodies = [b"".join(encode([data], Codec.GZIP)) for data in FILES]
    for index in (0, 4):
        receiver.v1.put(identifier, index, memoryview(bodies[index]))
    receiver.restart()
    for index in (1, 2, 3, 5):
        receiver.v1.put(identifier, index, memoryview(bodies[index]))
    receiver.v1.commit(identifier)
    assert sorted(receiver.store.files.values()) == sorted(FILES)


def test_instances_that_are_stored_already_are_received_and_count(receiver: Receiver) -> None:
    receiver.store.put(FILES[0])
    receiver.store.put(dicom("file-1", 10))
    identifier = receiver.v1.create(creation_of(FILES))
    put_all(receiver, identifier)
    receiver.v1.commit(identifier)
    assert len(receiver.store.files) == len(FILES)


# --- slots


def test_a_push_held_for_too_long_is_turned_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol_v1, "_HOLD_SHARE", 0.02)
    with running_receiver(tmp_path, max_push_transactions=1, peer_commit_timeout=1) as receiver:
        receiver.v1.create(creation_of(FILES))
        with pytest.raises(Busy):
            receiver.v1.create(creation_of(FILES))


# --- numbers


def test_a_stop_in_the_middle_of_a_commit_is_quick_and_told_to_version_1(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "GRACE", 0.05)
    begun, go_on = hold_imports(receiver, hang=True)
    identifier = receiver.v1.create(creation_of(FILES))
    put_all(receiver, identifier)
    with ThreadPoolExecutor(1) as pool:
        commit = pool.submit(receiver.v1.commit, identifier)
        assert begun.wait(PATIENCE)
        receiver.stop()
        with pytest.raises(Canceled):
            commit.result(PATIENCE)
        go_on.set()


def test_a_commit_that_takes_its_time_goes_on_and_can_be_asked_for_again(receiver: Receiver) -> None:
    identifier = receiver.v1.create(creation_of(FILES))
    for index, data in enumerate(FILES):
        receiver.v1.put(identifier, index, memoryview(data))
    _, go_on = hold_imports(receiver)
    assert not receiver.v1.commit(identifier, 0.05)
    assert not receiver.v1.commit(identifier, 0.05)
    go_on.set()
    assert receiver.v1.commit(identifier, PATIENCE)
    assert receiver.v1.commit(identifier)
    assert set(receiver.store.files) == {identify(data) for data in FILES}


def test_a_server_about_to_stop_lets_commits_end_and_begins_none(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushes, "_LAST", PATIENCE)
    monkeypatch.setattr(pushes, "LONGEST_END", PATIENCE)
    running, later = receiver.v1.create(creation_of(FILES)), receiver.v1.create(creation_of(FILES[:1]))
    put_all(receiver, running)
    receiver.v1.put(later, 0, memoryview(FILES[0]))
    begun, go_on = hold_imports(receiver)
    with ThreadPoolExecutor(2) as pool:
        commit = pool.submit(receiver.v1.commit, running)
        assert begun.wait(PATIENCE)
        end = pool.submit(receiver.pushes.end_commits)
        wait_until(lambda: receiver.pushes.ending)
        with pytest.raises(Busy):
            receiver.v1.commit(later)
        assert not end.done()
        go_on.set()
        end.result(PATIENCE)
        assert commit.result(PATIENCE)
    assert len(receiver.store.files) == len(FILES)
