"""Labels, metadata and attachments are there with the transfer or not at all, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.beside_dicom import TAKEN, Beside
from tests.faults.failpoints import Failpoint, FaultPoint
from tests.faults.rig import Rig, Transfer, start_rig
from tests.support.fixtures import MakeServer

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

COUNT = 6
SIZE = 32


@pytest.fixture(scope="module")
def rig(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("nginx")
    with start_rig(make_shared_server, folder, CommitThreadsCount=1, AcceptMetadata=TAKEN) as made:
        yield made


KILLS = [
    FaultPoint("push", "receiver", "the list is staged", "ExtrasFolder.take after"),
    FaultPoint("push", "receiver", "all imported, no plan", "ExtrasFolder.keep_before before"),
    FaultPoint("push", "receiver", "planned, none applied", "ExtrasFolder.keep_before after"),
    FaultPoint("push", "receiver", "one is applied", "OrthancExtras.put after"),
    FaultPoint("push", "receiver", "all are applied", "Area.journal_outcome before"),
    FaultPoint("push", "sender", "they are sent, no commit", "RequestsTransport.send PUT attachments after"),
    FaultPoint("pull", "receiver", "half is applied", "OrthancExtras.put after", 2),
]


@pytest.mark.parametrize("kill", KILLS, ids=str)
def test_all_is_there_after_a_kill_and_a_start(rig: Rig, kill: FaultPoint) -> None:
    transfer = rig.transfer(kill.mode, slices=COUNT, size=SIZE)
    beside = Beside(transfer)
    victim = transfer.source if kill.side == "sender" else transfer.target
    failpoint = Failpoint(victim, kill.failpoint, f"kill {kill.nth}")
    transfer.start_saved()
    failpoint.wait_killed()
    victim.start()
    transfer.succeed()
    transfer.is_whole()
    beside.is_there()


def cancel(transfer: Transfer) -> None:
    transfer.rig.a.post(f"jobs/{transfer.job}/cancel")
    assert transfer.rig.a.wait_for_job(transfer.job)["State"] == "Failure"


def test_a_cancel_while_they_are_applied_takes_them_back(rig: Rig) -> None:
    transfer = rig.transfer("pull", slices=COUNT, size=SIZE)
    beside = Beside(transfer)
    with Failpoint(transfer.target, "OrthancExtras.put after", "wait") as applied:
        transfer.start_saved()
        applied.wait_reached()
        cancel(transfer)
    transfer.leaves_nothing_behind()
    transfer.is_not_there()
    beside.is_as_before()


def test_a_kill_when_they_are_taken_back_and_the_instances_are_not_leaves_no_half(rig: Rig) -> None:
    transfer = rig.transfer("pull", slices=COUNT, size=SIZE)
    beside = Beside(transfer)
    failpoint = Failpoint(transfer.target, "OrthancStore.remove before", "kill 1")
    with Failpoint(transfer.target, "OrthancExtras.put after", "wait") as applied:
        transfer.start_saved()
        applied.wait_reached()
        cancel(transfer)
    failpoint.wait_killed()
    transfer.target.start()
    transfer.leaves_nothing_behind()
    if transfer.is_whole_or_not_there():
        beside.is_there()
    else:
        beside.is_as_before()
