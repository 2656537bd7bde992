"""What is kept of a transfer that has ended: each side remembers thousands.

Measured before it was looked after: 9.7 KB of a job, and 20 KB more on a real Orthanc, of connections and waits; 5.7 KB
of what was received.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orthanc_transfers.interfaces import Job, StepOutcome, StopReason
from tests.jobs.memory_server import Server
from tests.jobs.memory_store import file
from tests.jobs.two_peers import PeerPair, eventually, finish, make_pair, step_until
from tests.support.held import held, size, told

OF_JOB = 3500
OF_RECEIVED = 2500
"""Bytes."""

Begin = Callable[[], Job]


@pytest.fixture(params=[(way, version) for way in ("push", "pull") for version in (1, 2)])
def begin(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[PeerPair, Server, Begin]]:
    """Two servers, the one that receives, and what begins a transfer of four instances."""
    way, version = request.param
    pair = make_pair(tmp_path, version=version)
    sender, receiver = (pair.here, pair.there) if way == "push" else (pair.there, pair.here)
    sender.store.put(*(file(number) for number in range(4)))
    yield pair, receiver, pair.push if way == "push" else pair.pull
    pair.close()


def succeed(pair: PeerPair, receiver: Server, begin: Begin) -> Job:
    receiver.store.files.clear()
    job = begin()
    assert finish(job) is StepOutcome.SUCCESS
    return job


def fail(pair: PeerPair, receiver: Server, begin: Begin) -> Job:
    receiver.store.files.clear()
    sender = pair.here if receiver is pair.there else pair.there
    receiver.store.refused.add(max(sender.store.files))
    job = begin()
    assert finish(job) is StepOutcome.FAILURE
    return job


def cancel(pair: PeerPair, receiver: Server, begin: Begin) -> Job:
    hold = pair.link.hold(".*")
    job = begin()
    step_until(job, hold.reached.is_set)
    job.stop(StopReason.CANCELED)
    eventually(lambda: not pair.link.connected)
    return job


End = Callable[[PeerPair, Server, Begin], Job]


@pytest.mark.parametrize("end", [succeed, fail, cancel])
def test_a_job_that_has_ended_keeps_little(begin: tuple[PeerPair, Server, Begin], end: End) -> None:
    one, alike, _ = [end(*begin) for _ in range(3)]
    # The thread of a run, or of an undo, has ended a moment later.
    with contextlib.suppress(AssertionError):
        eventually(lambda: size(held(one, alike)) < OF_JOB)
    kept = held(one, alike)
    assert size(kept) < OF_JOB, told(kept)


@pytest.mark.parametrize("end", [succeed, fail])
def test_a_receiver_keeps_little_of_what_has_ended(begin: tuple[PeerPair, Server, Begin], end: End) -> None:
    _, receiver, _ = begin
    for _ in range(3):
        end(*begin)
    one, alike, _ = receiver.registry.all()
    kept = held(one, alike, [one._services])
    assert size(kept) < OF_RECEIVED, told(kept)
    # Nor of what an earlier process received.
    receiver.restart()
    one, alike, _ = receiver.registry.all()
    kept = held(one, alike, [one._services])
    assert size(kept) < OF_RECEIVED, told(kept)
