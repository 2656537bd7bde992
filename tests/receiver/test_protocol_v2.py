"""Pushes as senders of version 2 see them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
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
from tests.receiver.push_client import AREA, FILES, outcome, send
from tests.receiver.receiving_world import (
    PATIENCE,
    World,
    creation2_of,
    hold_imports,
    identify,
    receiver,
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with receiver(tmp_path / "staging") as world:
        yield world


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


def test_an_interrupted_commit_rolls_forward_once_orthanc_has_started(world: World) -> None:
    begun, _ = hold_imports(world)
    status = world.v2.create(creation2_of(FILES))
    send(world, status)
    world.v2.commit(status.id)
    assert begun.wait(PATIENCE)
    world.stop()
    world.store.before_add = lambda identifier: None
    world.start()
    assert world.v2.status(status.id).state is PushState.COMMITTING
    world.pushes.recover()
    assert outcome(world, status.id).state is PushState.COMMITTED
    assert len(world.store.files) == 6


# --- numbers


def test_an_empty_manifest_of_version_2_succeeds(world: World) -> None:
    status = world.v2.create(PushCreationV2("c" * 32, Manifest([])))
    world.v2.commit(status.id)
    assert outcome(world, status.id).state is PushState.COMMITTED


def test_an_empty_file_that_cannot_be_right_fails_instead_of_being_asked_for_for_ever(world: World) -> None:
    manifest = Manifest([Instance("a" * 40, 0, "0" * 32)])
    status = world.v2.create(PushCreationV2("c" * 32, manifest))
    world.v2.commit(status.id)
    assert outcome(world, status.id).state is PushState.FAILED


def test_one_bucket_of_version_2_may_fill_several_gaps(world: World) -> None:
    status = world.v2.create(creation2_of(FILES))
    first, second = Range(100, 1600), Range(2000, 2500)
    rest = [Range(0, 100), Range(1600, 2000), Range(2500, len(AREA))]
    for ranges in ([first, second], rest):
        body = b"".join(AREA[item.start : item.stop] for item in ranges)
        ranges = [(item.start, item.size) for item in ranges]
        world.v2.put(status.id, ranges, Codec.NONE, xxh3([body]), memoryview(body))
    assert world.v2.status(status.id).missing == ()


def test_nothing_of_a_bucket_is_taken_if_one_of_its_ranges_lies_beyond_the_area(world: World) -> None:
    status = world.v2.create(creation2_of(FILES))
    ranges = [(0, 10), (len(AREA), 1)]
    with pytest.raises(BadRequest):
        world.v2.put(status.id, ranges, Codec.NONE, None, memoryview(bytes(11)))
    assert world.v2.status(status.id).missing == status.missing


# --- pushes that grow


def beginning(count: int) -> PushCreationV2:
    whole = creation2_of(FILES)
    return replace(whole, manifest=Manifest(whole.manifest.instances[:count]), more=len(FILES) - count)


def test_a_push_that_grows_is_committed_when_it_is_complete_and_not_before(world: World) -> None:
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
    for index in (1, 4):
        world.store.put(FILES[index])
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
