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
from tests.receiver.memory_receiver import (
    PATIENCE,
    Receiver,
    dicom,
    fill,
    identify,
    running_receiver,
    wait_until,
)

COMMON = dicom("common", 3000)
FIRST, REFUSED, SECOND = dicom("first", 3000), dicom("refused", 3000), dicom("second", 3000)
WHOLE = {identify(COMMON), identify(SECOND)}


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    # One thread each, so that instances are imported in the order of their files.
    with running_receiver(tmp_path / "staging", commit_threads_count=1) as receiver:
        yield receiver


@dataclass
class Gate:
    """Where the import of an instance waits."""

    reached: threading.Event
    go_on: threading.Event


class Gates:
    """Lets the imports of instances wait until they are told to go on."""

    def __init__(self, receiver: Receiver, *files: bytes) -> None:
        self._gates = {identify(one): Gate(threading.Event(), threading.Event()) for one in files}
        receiver.store.before_add = self._pass

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


def receive(receiver: Receiver, token: str, *files: bytes) -> IncomingTransfer:
    transfer = receiver.pull(files, token * 32)
    fill(transfer, files)
    return transfer


def fails(commit: Future[object]) -> None:
    with pytest.raises(ImportRefused):
        commit.result(PATIENCE)


def test_what_another_transfer_counts_on_is_not_undone_after_its_end(
    receiver: Receiver, pool: ThreadPoolExecutor
) -> None:
    receiver.store.refused[identify(REFUSED)] = "no"
    gates = Gates(receiver, REFUSED)
    failing, good = receive(receiver, "a", COMMON, FIRST, REFUSED), receive(receiver, "b", COMMON, SECOND)
    commit = pool.submit(failing.commit)
    gates.wait(REFUSED)
    good.commit()
    gates.open(REFUSED)
    fails(commit)
    assert set(receiver.store.files) == WHOLE


def test_what_another_transfer_counts_on_is_not_undone_while_it_is_committed(
    receiver: Receiver, pool: ThreadPoolExecutor
) -> None:
    receiver.store.refused[identify(REFUSED)] = "no"
    gates = Gates(receiver, REFUSED, SECOND)
    failing, good = receive(receiver, "a", COMMON, FIRST, REFUSED), receive(receiver, "b", COMMON, SECOND)
    commit = pool.submit(failing.commit)
    gates.wait(REFUSED)
    other = pool.submit(good.commit)
    gates.wait(SECOND)
    gates.open(REFUSED)
    fails(commit)
    gates.open(SECOND)
    other.result(PATIENCE)
    assert good.state is PushState.COMMITTED
    assert set(receiver.store.files) == WHOLE


def left_alone(
    receiver: Receiver, pool: ThreadPoolExecutor
) -> tuple[IncomingTransfer, Future[object], Gates]:
    """One that is being committed, and will fail, after another one with which it has ``COMMON`` was undone."""
    receiver.store.refused[identify(REFUSED)] = "no"
    receiver.store.refused[identify(SECOND)] = "no"
    gates = Gates(receiver, REFUSED, SECOND)
    one, two = receive(receiver, "a", COMMON, FIRST, REFUSED), receive(receiver, "b", COMMON, SECOND)
    commit = pool.submit(one.commit)
    gates.wait(REFUSED)
    other = pool.submit(two.commit)
    gates.wait(SECOND)
    gates.open(REFUSED)
    fails(commit)
    return two, other, gates


def test_what_two_transfers_have_in_common_goes_with_the_last_that_is_undone(
    receiver: Receiver, pool: ThreadPoolExecutor
) -> None:
    _, other, gates = left_alone(receiver, pool)
    gates.open(SECOND)
    fails(other)
    assert receiver.store.files == {}


def test_what_was_there_before_stays_however_many_are_undone(
    receiver: Receiver, pool: ThreadPoolExecutor
) -> None:
    receiver.store.put(COMMON)
    receiver.store.refused[identify(REFUSED)] = "no"
    receiver.store.refused[identify(SECOND)] = "no"
    gates = Gates(receiver, REFUSED, SECOND)
    one, two = receive(receiver, "a", COMMON, FIRST, REFUSED), receive(receiver, "b", COMMON, SECOND)
    commits = [pool.submit(one.commit), pool.submit(two.commit)]
    for file in (REFUSED, SECOND):
        gates.wait(file)
    for file in (REFUSED, SECOND):
        gates.open(file)
    for commit in commits:
        fails(commit)
    assert set(receiver.store.files) == {identify(COMMON)}


def restart(receiver: Receiver, pool: ThreadPoolExecutor, gates: Gates, commit: Future[object]) -> None:
    """Stop in the middle of the import of ``SECOND``, as a killed process would, and go on."""
    stopping = pool.submit(receiver.stop)
    wait_until(lambda: receiver.registry._closing.requested)
    gates.open(SECOND)
    with pytest.raises(Canceled):
        commit.result(PATIENCE)
    stopping.result(PATIENCE)
    receiver.start()
    receiver.pushes.recover()


def ended(receiver: Receiver, transfer: IncomingTransfer) -> PushState:
    (again,) = [one for one in receiver.registry.all() if one.id == transfer.id]
    wait_until(lambda: again.state in FINISHED)
    return again.state


def test_what_was_left_to_a_commit_goes_with_it_also_after_a_restart(
    receiver: Receiver, pool: ThreadPoolExecutor
) -> None:
    two, other, gates = left_alone(receiver, pool)
    assert set(receiver.store.files) == {identify(COMMON)}
    restart(receiver, pool, gates, other)
    assert ended(receiver, two) is PushState.FAILED
    assert receiver.store.files == {}


def test_what_another_commit_has_kept_stays_also_after_a_restart(
    receiver: Receiver, pool: ThreadPoolExecutor
) -> None:
    receiver.store.refused[identify(SECOND)] = "no"
    gates = Gates(receiver, SECOND)
    failing, good = receive(receiver, "a", COMMON, SECOND), receive(receiver, "b", COMMON, FIRST)
    commit = pool.submit(failing.commit)
    gates.wait(SECOND)
    good.commit()
    restart(receiver, pool, gates, commit)
    assert ended(receiver, failing) is PushState.FAILED
    assert set(receiver.store.files) == {identify(COMMON), identify(FIRST)}
