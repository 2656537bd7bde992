"""Transfers that have instances in common and are committed at the same time: each is whole, or not there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from orthanc_transfers.core.errors import Canceled, ImportRefused
from orthanc_transfers.core.model import PushState
from orthanc_transfers.receiver.incoming import IncomingTransfer
from orthanc_transfers.receiver.states import FINISHED
from tests.receiver.receiving_world import PATIENCE, World, dicom, fill, identify, receiver, wait_until

COMMON = dicom("common", 3000)
FIRST, REFUSED, SECOND = dicom("first", 3000), dicom("refused", 3000), dicom("second", 3000)
WHOLE = {identify(COMMON), identify(SECOND)}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    # One thread each, so that instances are imported in the order of their files.
    with receiver(tmp_path / "staging", commit_threads_count=1) as world:
        yield world


@dataclass
class Gate:
    """Where the import of an instance waits."""

    reached: threading.Event
    go_on: threading.Event


class Gates:
    """Lets the imports of instances wait until they are told to go on."""

    def __init__(self, world: World, *files: bytes) -> None:
        self._gates = {identify(one): Gate(threading.Event(), threading.Event()) for one in files}
        world.store.before_add = self._pass

    def _pass(self, identifier: str) -> None:
        gate = self._gates.get(identifier)
        if gate is not None:
            gate.reached.set()
            assert gate.go_on.wait(PATIENCE)

    def wait(self, file: bytes) -> None:
        assert self._gates[identify(file)].reached.wait(PATIENCE)

    def open(self, file: bytes) -> None:
        self._gates[identify(file)].go_on.set()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def receive(world: World, token: str, *files: bytes) -> IncomingTransfer:
    transfer = world.pull(files, token * 32)
    fill(transfer, files)
    return transfer


def fails(commit: Future[object]) -> None:
    with pytest.raises(ImportRefused):
        commit.result(PATIENCE)


def test_what_another_transfer_counts_on_is_not_undone_after_its_end(
    world: World, pool: ThreadPoolExecutor
) -> None:
    world.store.refused[identify(REFUSED)] = "no"
    gates = Gates(world, REFUSED)
    failing, good = receive(world, "a", COMMON, FIRST, REFUSED), receive(world, "b", COMMON, SECOND)
    commit = pool.submit(failing.commit)
    gates.wait(REFUSED)
    good.commit()
    gates.open(REFUSED)
    fails(commit)
    assert set(world.store.files) == WHOLE


def test_what_another_transfer_counts_on_is_not_undone_while_it_is_committed(
    world: World, pool: ThreadPoolExecutor
) -> None:
    world.store.refused[identify(REFUSED)] = "no"
    gates = Gates(world, REFUSED, SECOND)
    failing, good = receive(world, "a", COMMON, FIRST, REFUSED), receive(world, "b", COMMON, SECOND)
    commit = pool.submit(failing.commit)
    gates.wait(REFUSED)
    other = pool.submit(good.commit)
    gates.wait(SECOND)
    gates.open(REFUSED)
    fails(commit)
    gates.open(SECOND)
    other.result(PATIENCE)
    assert good.state is PushState.COMMITTED
    assert set(world.store.files) == WHOLE


def left_alone(world: World, pool: ThreadPoolExecutor) -> tuple[IncomingTransfer, Future[object], Gates]:
    """One that is being committed, and will fail, after another one with which it has ``COMMON`` was undone."""
    world.store.refused[identify(REFUSED)] = "no"
    world.store.refused[identify(SECOND)] = "no"
    gates = Gates(world, REFUSED, SECOND)
    one, two = receive(world, "a", COMMON, FIRST, REFUSED), receive(world, "b", COMMON, SECOND)
    commit = pool.submit(one.commit)
    gates.wait(REFUSED)
    other = pool.submit(two.commit)
    gates.wait(SECOND)
    gates.open(REFUSED)
    fails(commit)
    return two, other, gates


def test_what_two_transfers_have_in_common_goes_with_the_last_that_is_undone(
    world: World, pool: ThreadPoolExecutor
) -> None:
    _, other, gates = left_alone(world, pool)
    gates.open(SECOND)
    fails(other)
    assert world.store.files == {}


def test_what_was_there_before_stays_however_many_are_undone(world: World, pool: ThreadPoolExecutor) -> None:
    world.store.put(COMMON)
    world.store.refused[identify(REFUSED)] = "no"
    world.store.refused[identify(SECOND)] = "no"
    gates = Gates(world, REFUSED, SECOND)
    one, two = receive(world, "a", COMMON, FIRST, REFUSED), receive(world, "b", COMMON, SECOND)
    commits = [pool.submit(one.commit), pool.submit(two.commit)]
    for file in (REFUSED, SECOND):
        gates.wait(file)
    for file in (REFUSED, SECOND):
        gates.open(file)
    for commit in commits:
        fails(commit)
    assert set(world.store.files) == {identify(COMMON)}


def restart(world: World, pool: ThreadPoolExecutor, gates: Gates, commit: Future[object]) -> None:
    """Stop in the middle of the import of ``SECOND``, as a killed process would, and go on."""
    stopping = pool.submit(world.stop)
    wait_until(lambda: world.registry._closing.requested)
    gates.open(SECOND)
    with pytest.raises(Canceled):
        commit.result(PATIENCE)
    stopping.result(PATIENCE)
    world.start()
    world.pushes.recover()


def ended(world: World, transfer: IncomingTransfer) -> PushState:
    (again,) = [one for one in world.registry.all() if one.id == transfer.id]
    wait_until(lambda: again.state in FINISHED)
    return again.state


def test_what_was_left_to_a_commit_goes_with_it_also_after_a_restart(
    world: World, pool: ThreadPoolExecutor
) -> None:
    two, other, gates = left_alone(world, pool)
    assert set(world.store.files) == {identify(COMMON)}
    restart(world, pool, gates, other)
    assert ended(world, two) is PushState.FAILED
    assert world.store.files == {}


def test_what_another_commit_has_kept_stays_also_after_a_restart(
    world: World, pool: ThreadPoolExecutor
) -> None:
    world.store.refused[identify(SECOND)] = "no"
    gates = Gates(world, SECOND)
    failing, good = receive(world, "a", COMMON, SECOND), receive(world, "b", COMMON, FIRST)
    commit = pool.submit(failing.commit)
    gates.wait(SECOND)
    good.commit()
    restart(world, pool, gates, commit)
    assert ended(world, failing) is PushState.FAILED
    assert set(world.store.files) == {identify(COMMON), identify(FIRST)}
