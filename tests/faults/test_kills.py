"""Either Orthanc is killed (SIGKILL) at any point of a transfer, and started again: nothing else is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.faults.world import Mode, Trap, World, broken_world, common
from tests.support.fixtures import MakeServer

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]


@pytest.fixture(scope="module")
def world(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with broken_world(make_shared_server, tmp_path_factory.mktemp("nginx")) as made:
        yield made


@dataclass(frozen=True)
class Kill:
    """At which point the sender or the receiver dies: ``place`` of ``trapped.py``, at the ``nth`` time."""

    mode: Mode
    side: str
    point: str
    """Of the transfer, in words."""
    place: str
    nth: int = 1
    version: int = 2

    def __str__(self) -> str:
        version = "" if self.version == 2 else "-v1"
        return f"{self.mode}{version}-{self.side}-{self.point.replace(',', '').replace(' ', '-')}"


KILLS = [
    # The receiver of a push.
    Kill("push", "receiver", "asked to create", "Passive.create_push_2 before"),
    Kill("push", "receiver", "area laid down", "Staging.create after"),
    Kill("push", "receiver", "created, not answered", "Passive.create_push_2 after"),
    Kill("push", "receiver", "first bucket came", "Passive.put_ranges before"),
    Kill("push", "receiver", "bucket written, not journalled", "Area.write after", 20),
    Kill("push", "receiver", "bucket journalled, not answered", "Passive.put_ranges after", 50),
    Kill("push", "receiver", "asked to commit", "Passive.commit_push_2 before"),
    Kill("push", "receiver", "commit answered, nothing verified", "Commit.run before"),
    Kill("push", "receiver", "verified, nothing noted", "Area.note_committing before"),
    Kill("push", "receiver", "verified and noted", "Area.note_committing after"),
    Kill("push", "receiver", "importing the first", "OrthancStore.add before"),
    Kill("push", "receiver", "half is imported", "OrthancStore.add after", 20),
    Kill("push", "receiver", "all is imported", "OrthancStore.add after", 46),
    Kill("push", "receiver", "outcome not noted", "Area.note_outcome before"),
    Kill("push", "receiver", "outcome noted, no report", "Area.note_outcome after"),
    Kill("push", "receiver", "outcome not answered", "Reports.write after"),
    # Its sender.
    Kill("push", "sender", "listed", "OrthancStore.manifest after"),
    Kill("push", "sender", "created", "RequestsTransport.request POST push after"),
    Kill("push", "sender", "first bucket read", "Source.pieces after"),
    Kill("push", "sender", "some buckets arrived", "RequestsTransport.request PUT push after", 50),
    Kill("push", "sender", "about to commit", "RequestsTransport.request POST commit before"),
    Kill("push", "sender", "commit began", "RequestsTransport.request POST commit after"),
    Kill("push", "sender", "asks for the outcome", "RequestsTransport.request GET push before"),
    Kill("push", "sender", "knows the outcome", "RequestsTransport.request GET push after"),
    Kill("push", "sender", "report kept", "Reports.write after"),
    # The receiver of a pull, which has the job.
    Kill("pull", "receiver", "knows the list", "RequestsTransport.request POST lookup after"),
    Kill("pull", "receiver", "area laid down", "Staging.create after"),
    Kill(
        "pull", "receiver", "bucket fetched, not written", "RequestsTransport.request POST chunks after", 20
    ),
    Kill("pull", "receiver", "bucket written, not journalled", "Area.write after", 30),
    Kill("pull", "receiver", "bucket journalled", "Area.note after", 50),
    Kill("pull", "receiver", "all fetched, nothing verified", "Commit.run before"),
    Kill("pull", "receiver", "verified and noted", "Area.note_committing after"),
    Kill("pull", "receiver", "half is imported", "OrthancStore.add after", 20),
    Kill("pull", "receiver", "all is imported", "Area.note_outcome before"),
    Kill("pull", "receiver", "outcome noted", "Area.note_outcome after"),
    # Its sender.
    Kill("pull", "sender", "asked for the list", "Passive.lookup before"),
    Kill("pull", "sender", "list not answered", "Passive.lookup after"),
    Kill("pull", "sender", "asked for a bucket", "Passive.post_chunks before"),
    Kill("pull", "sender", "bucket read, not answered", "Passive.post_chunks after", 50),
    # Version 1, which a C++ peer speaks: its receiver is ours here.
    Kill("push", "receiver", "bucket journalled, not answered", "Passive.put_bucket after", 20, version=1),
    Kill("push", "receiver", "half is imported", "OrthancStore.add after", 20, version=1),
    Kill("push", "receiver", "commit not answered", "Passive.commit_push after", version=1),
    Kill("push", "sender", "about to create", "RequestsTransport.request POST push before", version=1),
    Kill("push", "sender", "creation noted", "SentRecord.write after", version=1),
    Kill("push", "sender", "bucket answered, not noted", "SentRecord.note before", 50, version=1),
    Kill("push", "sender", "buckets noted", "SentRecord.note after", 50, version=1),
    Kill("push", "sender", "about to commit", "RequestsTransport.request POST commit before", version=1),
    Kill("push", "sender", "commit answered", "RequestsTransport.request POST commit after", version=1),
    Kill("pull", "receiver", "bucket written, not journalled", "Area.write after", 20, version=1),
    Kill("pull", "sender", "bucket read, not answered", "Passive.get_chunks after", 20, version=1),
]


@pytest.mark.parametrize("kill", KILLS, ids=str)
def test_a_transfer_goes_on_after_an_orthanc_was_killed_and_started_again(world: World, kill: Kill) -> None:
    transfer = world.transfer(kill.mode, kill.version)
    victim = transfer.source if kill.side == "sender" else transfer.target
    trap = Trap(victim, kill.place, f"kill {kill.nth}")
    transfer.start_saved()
    trap.has_killed()
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
