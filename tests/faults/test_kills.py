"""Either Orthanc is killed (SIGKILL) at any point of a transfer, and only started again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.failpoints import Failpoint, FaultPoint, Mode
from tests.faults.rig import MANY, Rig, common, start_rig
from tests.support.fixtures import MakeServer

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]


@pytest.fixture(scope="module")
def rig(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with start_rig(make_shared_server, tmp_path_factory.mktemp("nginx")) as made:
        yield made


KILLS = [
    # The receiver of a push.
    FaultPoint("push", "receiver", "asked to create", "PeerRoutes.create_push_v2 before"),
    FaultPoint("push", "receiver", "area laid down", "Staging.create after"),
    FaultPoint("push", "receiver", "created, not answered", "PeerRoutes.create_push_v2 after"),
    FaultPoint("push", "receiver", "first bucket came", "PeerRoutes.put_ranges before"),
    FaultPoint("push", "receiver", "bucket written, not journalled", "Area.write after", 20),
    FaultPoint("push", "receiver", "bucket journalled, not answered", "PeerRoutes.put_ranges after", 50),
    FaultPoint("push", "receiver", "asked to commit", "PeerRoutes.commit_push_v2 before"),
    FaultPoint("push", "receiver", "commit answered, nothing verified", "Commit.run before"),
    FaultPoint("push", "receiver", "verified, nothing journalled", "Area.journal_committing before"),
    FaultPoint("push", "receiver", "verified and journalled", "Area.journal_committing after"),
    FaultPoint("push", "receiver", "importing the first", "OrthancStore.add before"),
    FaultPoint("push", "receiver", "half is imported", "OrthancStore.add after", 20),
    FaultPoint("push", "receiver", "all is imported", "OrthancStore.add after", 46),
    FaultPoint("push", "receiver", "outcome not journalled", "Area.journal_outcome before"),
    FaultPoint("push", "receiver", "outcome journalled, no report", "Area.journal_outcome after"),
    FaultPoint("push", "receiver", "outcome not answered", "Reports.write after"),
    # Its sender.
    FaultPoint("push", "sender", "listed", "OrthancStore.beginning after"),
    FaultPoint("push", "sender", "created", "RequestsTransport.send POST push after"),
    FaultPoint("push", "sender", "first bucket read", "ChunkReader.read after"),
    FaultPoint("push", "sender", "some buckets arrived", "RequestsTransport.send PUT push after", 50),
    FaultPoint("push", "sender", "about to commit", "RequestsTransport.send POST commit before"),
    FaultPoint("push", "sender", "commit began", "RequestsTransport.send POST commit after"),
    FaultPoint("push", "sender", "asks for the outcome", "RequestsTransport.send GET push before"),
    FaultPoint("push", "sender", "knows the outcome", "RequestsTransport.send GET push after"),
    FaultPoint("push", "sender", "report kept", "Reports.write after"),
    # The receiver of a pull, which has the job.
    FaultPoint("pull", "receiver", "knows the list", "RequestsTransport.send POST lookup after"),
    FaultPoint("pull", "receiver", "area laid down", "Staging.create after"),
    FaultPoint(
        "pull", "receiver", "bucket fetched, not written", "RequestsTransport.send POST chunks after", 20
    ),
    FaultPoint("pull", "receiver", "bucket written, not journalled", "Area.write after", 30),
    FaultPoint("pull", "receiver", "bucket journalled", "Area.journal_ranges after", 50),
    FaultPoint("pull", "receiver", "all fetched, nothing verified", "Commit.run before"),
    FaultPoint("pull", "receiver", "verified and journalled", "Area.journal_committing after"),
    FaultPoint("pull", "receiver", "half is imported", "OrthancStore.add after", 20),
    FaultPoint("pull", "receiver", "all is imported", "Area.journal_outcome before"),
    FaultPoint("pull", "receiver", "outcome journalled", "Area.journal_outcome after"),
    # Its sender.
    FaultPoint("pull", "sender", "asked for the list", "PeerRoutes.lookup before"),
    FaultPoint("pull", "sender", "list not answered", "PeerRoutes.lookup after"),
    FaultPoint("pull", "sender", "asked for a bucket", "PeerRoutes.post_chunks before"),
    FaultPoint("pull", "sender", "bucket read, not answered", "PeerRoutes.post_chunks after", 50),
    # More instances than are announced at once.
    FaultPoint("push", "receiver", "about to grow", "Area.grow before", slices=MANY),
    FaultPoint("push", "receiver", "grown, not answered", "Area.grow after", slices=MANY),
    FaultPoint("push", "sender", "all listed, not announced", "OrthancStore.manifest after", slices=MANY),
    FaultPoint("push", "sender", "all announced", "RequestsTransport.send POST push after", 2, slices=MANY),
    FaultPoint("pull", "receiver", "about to grow", "Area.grow before", slices=MANY),
    FaultPoint("pull", "receiver", "grown", "Area.grow after", slices=MANY),
    FaultPoint("pull", "sender", "all listed, not answered", "PeerRoutes.lookup after", 2, slices=MANY),
    # Version 1, which a C++ peer speaks: its receiver is ours here.
    FaultPoint(
        "push", "receiver", "bucket journalled, not answered", "PeerRoutes.put_bucket after", 20, version=1
    ),
    FaultPoint("push", "receiver", "half is imported", "OrthancStore.add after", 20, version=1),
    FaultPoint("push", "receiver", "commit not answered", "PeerRoutes.commit_push_v1 after", version=1),
    FaultPoint("push", "sender", "about to create", "RequestsTransport.send POST push before", version=1),
    FaultPoint("push", "sender", "creation journalled", "AckLog.write after", version=1),
    FaultPoint("push", "sender", "bucket answered, not journalled", "AckLog.append before", 50, version=1),
    FaultPoint("push", "sender", "buckets journalled", "AckLog.append after", 50, version=1),
    FaultPoint("push", "sender", "about to commit", "RequestsTransport.send POST commit before", version=1),
    FaultPoint("push", "sender", "commit answered", "RequestsTransport.send POST commit after", version=1),
    FaultPoint("pull", "receiver", "bucket written, not journalled", "Area.write after", 20, version=1),
    FaultPoint("pull", "sender", "bucket read, not answered", "PeerRoutes.get_chunks after", 20, version=1),
]


@pytest.mark.parametrize("kill", KILLS, ids=str)
def test_a_transfer_goes_on_after_an_orthanc_was_killed_and_started_again(rig: Rig, kill: FaultPoint) -> None:
    transfer = rig.transfer(kill.mode, kill.version, slices=kill.slices)
    victim = transfer.source if kill.side == "sender" else transfer.target
    failpoint = Failpoint(victim, kill.failpoint, f"kill {kill.nth}")
    transfer.start_saved()
    failpoint.wait_killed()
    # One look: nginx may be writing the line of a request that was just answered.
    asked = transfer.carried()
    arrived = transfer.arrived(asked)
    victim.start()
    transfer.succeed()
    transfer.is_whole()
    assert transfer.sent_again() <= transfer.in_flight()
    again = sum(
        common(arrived, item).size for _, ranges in transfer.carried()[len(asked) :] for item in ranges
    )
    # What a receiver of a push answered, it has, and can be asked for in version 2; else what was answered may not
    # have been written yet by the side that needs to know.
    known = kill.mode == "push" and (kill.version == 2 or kill.side == "receiver")
    assert again <= (0 if known else transfer.in_flight())


@pytest.mark.parametrize("mode", ["push", "pull"])
def test_a_job_that_was_canceled_while_it_was_paused_leaves_nothing_although_its_orthanc_ended_at_once(
    rig: Rig, mode: Mode
) -> None:
    transfer = rig.transfer(mode)
    name = "RequestsTransport.send PUT push after" if mode == "push" else "Area.journal_ranges after"
    with Failpoint(rig.a, name, "wait") as failpoint:
        transfer.start_saved()
        failpoint.wait_reached()
        rig.a.post(f"jobs/{transfer.job}/pause")
        rig.a.wait_for_job(transfer.job, ("Paused",))
    # Orthanc ends such a job without telling it.
    rig.a.post(f"jobs/{transfer.job}/cancel")
    rig.a.restart()
    assert rig.a.job(transfer.job)["State"] == "Failure"
    transfer.is_not_there()
