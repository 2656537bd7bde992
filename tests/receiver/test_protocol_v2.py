"""Pushes as senders of version 2 see them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from orthanc_transfers.core.checksum import xxh3
from orthanc_transfers.core.codec import Codec
from orthanc_transfers.core.errors import (
    BadRequest,
    Conflict,
    Corrupted,
)
from orthanc_transfers.core.messages_v2 import PushCreationV2
from orthanc_transfers.core.model import Instance, Manifest, PushState
from orthanc_transfers.core.ranges import Range
from tests.receiver.memory_receiver import (
    PATIENCE,
    Receiver,
    creation2_of,
    hold_imports,
    identify,
)
from tests.receiver.push_client import AREA, FILES, outcome, send

# --- version 2


@pytest.mark.parametrize("codec", list(Codec))
def test_a_push_of_version_2_arrives(receiver: Receiver, codec: Codec) -> None:
    status = receiver.v2.create(creation2_of(FILES))
    assert (status.state, status.missing) == (PushState.RECEIVING, (Range(0, len(AREA)),))
    assert status.path == f"/transfers/v2/push/{status.id}"
    send(receiver, status, codec)
    assert receiver.v2.status(status.id).missing == ()
    receiver.v2.commit(status.id)
    done = outcome(receiver, status.id)
    assert (done.state, done.imported, done.total) == (PushState.COMMITTED, 6, 6)
    assert done.report == {"Stored": 6, "AlreadyStored": 0, "FilteredOut": 0}
    assert sorted(receiver.store.files.values()) == sorted(FILES)


def test_the_commit_of_version_2_responds_at_once_and_begins_once(receiver: Receiver) -> None:
    begun, go_on = hold_imports(receiver)
    status = receiver.v2.create(creation2_of(FILES))
    send(receiver, status)
    for _ in range(3):
        assert receiver.v2.commit(status.id).state is PushState.COMMITTING
    assert begun.wait(PATIENCE)
    with pytest.raises(Conflict):
        receiver.v2.put(status.id, [(0, 1)], Codec.NONE, None, memoryview(b"x"))
    receiver.pushes.drop(status.id)
    go_on.set()
    assert outcome(receiver, status.id).state is PushState.COMMITTED
    assert receiver.v2.commit(status.id).state is PushState.COMMITTED
    assert len(receiver.store.added) == 6
    receiver.pushes.drop(status.id)
    assert receiver.v2.status(status.id).state is PushState.COMMITTED


def test_the_same_token_gives_the_same_push_before_and_after_the_end(receiver: Receiver) -> None:
    first = receiver.v2.create(creation2_of(FILES))
    body = memoryview(AREA)[:100]
    receiver.v2.put(first.id, [(0, 100)], Codec.NONE, None, body)
    again = receiver.v2.create(creation2_of(FILES))
    assert (again.id, again.missing) == (first.id, (Range(100, len(AREA)),))
    receiver.restart()
    again = receiver.v2.create(creation2_of(FILES))
    assert (again.id, again.missing) == (first.id, (Range(100, len(AREA)),))
    send(receiver, again)
    receiver.v2.commit(first.id)
    assert outcome(receiver, first.id).state is PushState.COMMITTED
    assert receiver.v2.create(creation2_of(FILES)).state is PushState.COMMITTED
    with pytest.raises(Conflict):
        receiver.v2.create(creation2_of(FILES[1:]))


def test_what_is_there_already_is_not_missing(receiver: Receiver) -> None:
    for data in FILES[:2]:
        receiver.store.put(data)
    status = receiver.v2.create(creation2_of(FILES))
    assert (status.already_stored, status.already_stored_size) == (2, len(FILES[0] + FILES[1]))
    assert status.missing == (Range(len(FILES[0] + FILES[1]), len(AREA)),)
    send(receiver, status)
    receiver.v2.commit(status.id)
    assert outcome(receiver, status.id).report == {"Stored": 4, "AlreadyStored": 2, "FilteredOut": 0}


def test_when_all_is_there_already_nothing_has_to_be_sent(receiver: Receiver) -> None:
    for data in FILES:
        receiver.store.put(data)
    status = receiver.v2.create(creation2_of(FILES))
    assert status.missing == ()
    receiver.v2.commit(status.id)
    assert outcome(receiver, status.id).state is PushState.COMMITTED
    assert receiver.store.added == []


def test_what_vanished_meanwhile_is_asked_for_at_the_commit(receiver: Receiver) -> None:
    for data in FILES:
        receiver.store.put(data)
    status = receiver.v2.create(creation2_of(FILES))
    receiver.store.files.clear()
    receiver.v2.commit(status.id)
    status = outcome(receiver, status.id)
    assert (status.state, status.missing) == (PushState.RECEIVING, (Range(0, len(AREA)),))
    send(receiver, status)
    receiver.v2.commit(status.id)
    assert outcome(receiver, status.id).state is PushState.COMMITTED
    assert len(receiver.store.files) == 6


def test_a_commit_with_missing_bytes_says_what_is_missing(receiver: Receiver) -> None:
    status = receiver.v2.create(creation2_of(FILES))
    again = receiver.v2.commit(status.id)
    assert (again.state, again.missing) == (PushState.RECEIVING, status.missing)


def test_an_instance_with_a_wrong_md5_is_asked_for_again(receiver: Receiver) -> None:
    status = receiver.v2.create(creation2_of(FILES))
    bad = AREA[: len(FILES[0])] + bytes(len(FILES[1])) + AREA[len(FILES[0] + FILES[1]) :]
    send(receiver, status, area=bad)
    status = receiver.v2.commit(status.id)
    hole = Range(len(FILES[0]), len(FILES[0] + FILES[1]))
    assert (status.state, status.missing) == (PushState.RECEIVING, (hole,))
    send(receiver, status)
    receiver.v2.commit(status.id)
    assert outcome(receiver, status.id).state is PushState.COMMITTED


def test_a_bucket_that_was_damaged_on_its_way_is_refused_at_once(receiver: Receiver) -> None:
    status = receiver.v2.create(creation2_of(FILES))
    with pytest.raises(Corrupted) as raised:
        receiver.v2.put(status.id, [(0, 3)], Codec.NONE, xxh3([b"abd"]), memoryview(b"abc"))
    assert (raised.value.status, raised.value.code) == (500, 20)
    assert receiver.v2.status(status.id).missing == status.missing


@pytest.mark.parametrize(
    ("offset", "size"), [(len(AREA), 1), (0, len(AREA) + 1), (-1, 1), (10**18, 1), (0, -1)]
)
def test_bytes_beyond_the_area_are_refused(receiver: Receiver, offset: int, size: int) -> None:
    status = receiver.v2.create(creation2_of(FILES))
    with pytest.raises(BadRequest):
        receiver.v2.put(status.id, [(offset, size)], Codec.NONE, None, memoryview(b"x" * 5))


def test_a_refusal_is_told_with_its_reason(receiver: Receiver) -> None:
    receiver.store.refused[identify(FILES[2])] = "the disk is full"
    status = receiver.v2.create(creation2_of(FILES))
    send(receiver, status)
    receiver.v2.commit(status.id)
    failed = outcome(receiver, status.id)
    assert failed.state is PushState.FAILED
    assert failed.error is not None
    assert identify(FILES[2]) in failed.error
    assert "the disk is full" in failed.error
    assert receiver.store.files == {}
    assert receiver.v2.create(creation2_of(FILES)).state is PushState.FAILED


def test_an_interrupted_commit_rolls_forward_once_orthanc_has_started(receiver: Receiver) -> None:
    begun, _ = hold_imports(receiver)
    status = receiver.v2.create(creation2_of(FILES))
    send(receiver, status)
    receiver.v2.commit(status.id)
    assert begun.wait(PATIENCE)
    receiver.stop()
    receiver.store.before_add = lambda identifier: None
    receiver.start()
    assert receiver.v2.status(status.id).state is PushState.COMMITTING
    receiver.pushes.recover()
    assert outcome(receiver, status.id).state is PushState.COMMITTED
    assert len(receiver.store.files) == 6


# --- numbers


def test_an_empty_manifest_of_version_2_succeeds(receiver: Receiver) -> None:
    status = receiver.v2.create(PushCreationV2("c" * 32, Manifest([])))
    receiver.v2.commit(status.id)
    assert outcome(receiver, status.id).state is PushState.COMMITTED


def test_an_empty_file_that_cannot_be_right_fails_instead_of_being_asked_for_for_ever(
    receiver: Receiver,
) -> None:
    manifest = Manifest([Instance("a" * 40, 0, "0" * 32)])
    status = receiver.v2.create(PushCreationV2("c" * 32, manifest))
    receiver.v2.commit(status.id)
    assert outcome(receiver, status.id).state is PushState.FAILED


def test_one_bucket_of_version_2_may_fill_several_gaps(receiver: Receiver) -> None:
    status = receiver.v2.create(creation2_of(FILES))
    first, second = Range(100, 1600), Range(2000, 2500)
    rest = [Range(0, 100), Range(1600, 2000), Range(2500, len(AREA))]
    for ranges in ([first, second], rest):
        body = b"".join(AREA[item.start : item.stop] for item in ranges)
        ranges = [(item.start, item.size) for item in ranges]
        receiver.v2.put(status.id, ranges, Codec.NONE, xxh3([body]), memoryview(body))
    assert receiver.v2.status(status.id).missing == ()


def test_nothing_of_a_bucket_is_taken_if_one_of_its_ranges_lies_beyond_the_area(receiver: Receiver) -> None:
    status = receiver.v2.create(creation2_of(FILES))
    ranges = [(0, 10), (len(AREA), 1)]
    with pytest.raises(BadRequest):
        receiver.v2.put(status.id, ranges, Codec.NONE, None, memoryview(bytes(11)))
    assert receiver.v2.status(status.id).missing == status.missing


# --- pushes that grow


def beginning(count: int) -> PushCreationV2:
    whole = creation2_of(FILES)
    return replace(whole, manifest=Manifest(whole.manifest.instances[:count]), more=len(FILES) - count)


def test_a_push_that_grows_is_committed_when_it_is_complete_and_not_before(receiver: Receiver) -> None:
    status = receiver.v2.create(beginning(2))
    send(receiver, status)
    with pytest.raises(Conflict, match="the rest of its list"):
        receiver.v2.commit(status.id)
    grown = receiver.v2.create(creation2_of(FILES))
    assert grown.id == status.id
    assert list(grown.missing) == [Range(len(FILES[0] + FILES[1]), len(AREA))]
    send(receiver, grown)
    receiver.v2.commit(status.id)
    assert outcome(receiver, status.id).state is PushState.COMMITTED
    assert sorted(receiver.store.files.values()) == sorted(FILES)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_push_that_grows_is_found_again_after_a_restart(receiver: Receiver, when: str) -> None:
    for index in (1, 4):
        receiver.store.put(FILES[index])
    status = receiver.v2.create(beginning(3))
    send(receiver, status)
    if when == "after":
        receiver.v2.create(creation2_of(FILES))
    receiver.restart()
    grown = receiver.v2.create(creation2_of(FILES))
    assert (grown.id, grown.already_stored) == (status.id, 2)
    assert sum(item.size for item in grown.missing) == len(FILES[3]) + len(FILES[5])
    send(receiver, grown)
    receiver.v2.commit(status.id)
    assert outcome(receiver, status.id).state is PushState.COMMITTED


def test_the_whole_list_twice_at_once_is_the_same_push(receiver: Receiver) -> None:
    status = receiver.v2.create(beginning(2))
    began, go_on = threading.Event(), threading.Event()

    def wait(_: Any) -> None:
        began.set()
        assert go_on.wait(PATIENCE)

    receiver.store.before_md5s = wait
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(receiver.v2.create, creation2_of(FILES))
        assert began.wait(PATIENCE)
        second = pool.submit(receiver.v2.create, creation2_of(FILES))
        go_on.set()
        assert first.result(PATIENCE).id == second.result(PATIENCE).id == status.id
