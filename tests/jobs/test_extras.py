"""What a job says of labels, metadata and attachments that cannot travel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orthanc_transfers.core.extras import Accepted
from orthanc_transfers.interfaces import Job, StepOutcome
from orthanc_transfers.receiver.extras_commit import ExtrasPolicy
from tests.jobs.memory_store import file
from tests.jobs.two_peers import PeerPair, finish, make_pair
from tests.receiver.memory_extras import MemoryExtras

KINDS = {"WithLabels": True, "WithMetadata": True, "WithAttachments": True}


@pytest.fixture(params=[1, 2])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def pair(version: int, tmp_path: Path) -> Iterator[PeerPair]:
    one = make_pair(tmp_path, version=version)
    for server in (one.here, one.there):
        server.store.put(file(1), file(2))
    one.services = replace(one.services, extras=ExtrasPolicy(MemoryExtras(), Accepted()))
    yield one
    one.close()


def order(pair: PeerPair, direction: str, **options: bool) -> Job:
    return pair.push(**options) if direction == "push" else pair.pull(**options)


@pytest.mark.parametrize("direction", ["push", "pull"])
def test_what_is_asked_for_and_the_peer_does_not_know_is_named(
    pair: PeerPair, version: int, direction: str
) -> None:
    job = order(pair, direction, **KINDS)
    assert finish(job) is StepOutcome.SUCCESS
    why = "speaks version 1" if version == 1 else "has an earlier release"
    said = job.content()["NotTransferred"]
    assert [one.split(":")[0] for one in said] == ["labels", "metadata", "attachments"]
    assert all(why in one for one in said)


@pytest.mark.parametrize("direction", ["push", "pull"])
def test_what_is_not_asked_for_is_not_spoken_of(pair: PeerPair, direction: str) -> None:
    job = order(pair, direction)
    assert finish(job) is StepOutcome.SUCCESS
    assert "NotTransferred" not in job.content()
