"""A transfer that is one request: either Orthanc is killed at any point of it, and only started again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.failpoints import Failpoint, FaultPoint
from tests.faults.rig import Rig, Transfer, start_rig
from tests.support.fixtures import MakeServer

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

COUNT = 8
SIZE = 32
"""Pixels of a side: all instances fit in one bucket."""


@pytest.fixture(scope="module")
def rig(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with start_rig(make_shared_server, tmp_path_factory.mktemp("nginx"), CommitThreadsCount=1) as made:
        yield made


def whole_requests(transfer: Transfer) -> int:
    """Requests that announce and carry all of it, answered or not."""
    size = transfer.manifest.size
    return sum(
        seen.uri.endswith("/whole") or (seen.uri.endswith("/lookup") and seen.answered > size)
        for seen in transfer.proxy.requests
    )


KILLS = [
    FaultPoint("push", "receiver", "asked", "PeerRoutes.whole_push before"),
    FaultPoint("push", "receiver", "opened, no bytes", "Staging.create after"),
    FaultPoint("push", "receiver", "bytes in memory", "MemoryArea.write after"),
    FaultPoint("push", "receiver", "verified, nothing journalled", "MemoryArea.journal_committing before"),
    FaultPoint("push", "receiver", "journalled, nothing imported", "MemoryArea.journal_committing after"),
    FaultPoint("push", "receiver", "importing the first", "OrthancStore.add before"),
    FaultPoint("push", "receiver", "half is imported", "OrthancStore.add after", 3),
    FaultPoint("push", "receiver", "all is imported", "OrthancStore.add after", COUNT - 2),
    FaultPoint("push", "receiver", "outcome not journalled", "MemoryArea.journal_outcome before"),
    FaultPoint("push", "receiver", "outcome journalled, no report", "MemoryArea.journal_outcome after"),
    FaultPoint("push", "receiver", "not answered", "PeerRoutes.whole_push after"),
    FaultPoint("push", "sender", "read, not sent", "ChunkReader.read after"),
    FaultPoint("push", "sender", "about to send", "RequestsTransport.send POST whole before"),
    FaultPoint("push", "sender", "knows the outcome", "RequestsTransport.send POST whole after"),
    FaultPoint("push", "sender", "report kept", "Reports.write after"),
    # The receiver of a pull, which has the job.
    FaultPoint("pull", "receiver", "about to ask", "RequestsTransport.send POST lookup before"),
    FaultPoint("pull", "receiver", "answered, not opened", "RequestsTransport.send POST lookup after"),
    FaultPoint("pull", "receiver", "opened, no bytes", "Staging.create after"),
    FaultPoint("pull", "receiver", "bytes in memory", "MemoryArea.write after"),
    FaultPoint("pull", "receiver", "verified, nothing journalled", "MemoryArea.journal_committing before"),
    FaultPoint("pull", "receiver", "journalled, nothing imported", "MemoryArea.journal_committing after"),
    FaultPoint("pull", "receiver", "importing the first", "OrthancStore.add before"),
    FaultPoint("pull", "receiver", "half is imported", "OrthancStore.add after", 4),
    FaultPoint("pull", "receiver", "all is imported", "OrthancStore.add after", COUNT),
    FaultPoint("pull", "receiver", "outcome not journalled", "MemoryArea.journal_outcome before"),
    FaultPoint("pull", "receiver", "outcome journalled, no report", "MemoryArea.journal_outcome after"),
    FaultPoint("pull", "receiver", "report kept", "Reports.write after"),
    # Its sender.
    FaultPoint("pull", "sender", "asked", "PeerRoutes.lookup before"),
    FaultPoint("pull", "sender", "read, not answered", "ChunkReader.read after"),
    FaultPoint("pull", "sender", "not answered", "PeerRoutes.lookup after"),
]


@pytest.mark.parametrize("kill", KILLS, ids=str)
def test_it_goes_on_after_an_orthanc_was_killed_and_started_again(rig: Rig, kill: FaultPoint) -> None:
    # Of a pull whose target has some already, the list is asked for first.
    transfer = rig.transfer(kill.mode, slices=COUNT, size=SIZE, there=2 if kill.mode == "push" else 0)
    victim = transfer.source if kill.side == "sender" else transfer.target
    failpoint = Failpoint(victim, kill.failpoint, f"kill {kill.nth}")
    transfer.start_saved()
    failpoint.wait_killed()
    victim.start()
    known = transfer.succeed()
    transfer.is_whole()
    assert whole_requests(transfer)
    counts = known["Report"]
    assert counts["Stored"] + counts["AlreadyStored"] == COUNT
    if (kill.mode, kill.failpoint) == ("pull", "MemoryArea.journal_outcome after"):
        return  # its only report would have been written then
    report = rig.a.get(f"transfers/reports/{known['Transaction']}")
    assert report["State"] == "committed"
