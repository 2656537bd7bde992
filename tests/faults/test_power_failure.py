"""Power failure of either machine during a transfer: what had not reached its disk is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.faults.failpoints import Failpoint, FaultPoint, Mode
from tests.faults.power_rig import REACHED, SMALL, Machines, Reached, running
from tests.support import process
from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import OrthancServer
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]


@pytest.fixture(scope="module")
def machines(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with running(make_shared_server, tmp_path_factory.mktemp("power")) as made:
        yield made


CUTS = [
    FaultPoint("push", "receiver", "created, not answered", "PeerRoutes.create_push_v2 after"),
    FaultPoint("push", "receiver", "half has arrived", "PeerRoutes.put_ranges after", 25),
    FaultPoint("push", "receiver", "verified and journalled", "Area.journal_committing after"),
    FaultPoint("push", "receiver", "half is imported", "OrthancStore.add after", 11),
    FaultPoint("push", "receiver", "outcome not journalled", "Area.journal_outcome before"),
    FaultPoint("push", "receiver", "outcome journalled, not answered", "Area.journal_outcome after"),
    FaultPoint("push", "sender", "half has arrived", "RequestsTransport.send PUT push after", 25),
    FaultPoint("push", "sender", "knows the outcome", "RequestsTransport.send GET push after"),
    FaultPoint("pull", "receiver", "half has arrived", "Area.journal_ranges after", 25),
    FaultPoint("pull", "receiver", "half is imported", "OrthancStore.add after", 11),
    FaultPoint("pull", "receiver", "outcome journalled", "Area.journal_outcome after"),
    FaultPoint("pull", "sender", "half has been read", "PeerRoutes.post_chunks after", 25),
    FaultPoint("push", "receiver", "half has arrived", "PeerRoutes.put_bucket after", 25, version=1),
    FaultPoint("push", "receiver", "commit not answered", "PeerRoutes.commit_push_v1 after", version=1),
    FaultPoint("pull", "receiver", "half has arrived", "Area.journal_ranges after", 25, version=1),
    FaultPoint("pull", "receiver", "half is imported", "OrthancStore.add after", 11, version=1),
    FaultPoint("pull", "sender", "half has been read", "PeerRoutes.get_chunks after", 25, version=1),
]


# What is on the disk of a sender does not change during a transfer.
@pytest.mark.parametrize(
    ("cut", "reached"),
    [(cut, reached) for cut in CUTS for reached in (REACHED if cut.side == "receiver" else REACHED[:1])],
    ids=str,
)
def test_a_transfer_goes_on_after_a_power_failure(
    machines: Machines, cut: FaultPoint, reached: Reached
) -> None:
    transfer = machines.transfer(cut.mode, cut.version)
    victim = transfer.source if cut.side == "sender" else transfer.target
    failpoint = Failpoint(victim, cut.failpoint, f"stop {cut.nth}")
    transfer.start_saved(machines.sync)
    failpoint.wait_stopped()
    machines.reach(victim, reached)
    machines.fail_power(victim)
    transfer.succeed()
    transfer.is_whole()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("mode", ["push", "pull"])
def test_what_was_reported_as_received_is_there_after_a_power_failure(
    machines: Machines, mode: Mode, version: int
) -> None:
    transfer = machines.transfer(mode, version)
    transfer.start()
    known = transfer.succeed()
    stand_still(transfer.target)
    machines.fail_power(transfer.target)
    transfer.is_whole()
    report = transfer.target.get(f"transfers/reports/{known['Transaction']}")
    assert report["State"] == "committed"


WHOLE_CUTS = [
    FaultPoint("push", "receiver", "bytes in memory", "MemoryArea.write after"),
    FaultPoint("push", "receiver", "verified and journalled", "MemoryArea.journal_committing after"),
    FaultPoint("push", "receiver", "half is imported", "OrthancStore.add after", 3),
    FaultPoint("push", "receiver", "outcome not journalled", "MemoryArea.journal_outcome before"),
    FaultPoint("push", "receiver", "outcome journalled", "MemoryArea.journal_outcome after"),
    FaultPoint("push", "receiver", "not answered", "PeerRoutes.whole_push after"),
    FaultPoint("pull", "receiver", "bytes in memory", "MemoryArea.write after"),
    FaultPoint("pull", "receiver", "verified and journalled", "MemoryArea.journal_committing after"),
    FaultPoint("pull", "receiver", "half is imported", "OrthancStore.add after", 4),
    FaultPoint("pull", "receiver", "outcome not journalled", "MemoryArea.journal_outcome before"),
    FaultPoint("pull", "receiver", "outcome journalled", "MemoryArea.journal_outcome after"),
]


@pytest.mark.parametrize("reached", REACHED)
@pytest.mark.parametrize("cut", WHOLE_CUTS, ids=str)
def test_a_transfer_in_one_request_goes_on_after_a_power_failure(
    machines: Machines, cut: FaultPoint, reached: Reached
) -> None:
    transfer = machines.transfer(cut.mode, size=SMALL)
    failpoint = Failpoint(transfer.target, cut.failpoint, f"stop {cut.nth}")
    transfer.start_saved(machines.sync)
    failpoint.wait_stopped()
    machines.reach(transfer.target, reached)
    machines.fail_power(transfer.target)
    transfer.succeed()
    transfer.is_whole()


@pytest.mark.parametrize("mode", ["push", "pull"])
def test_what_one_request_brought_and_was_reported_is_there_after_a_power_failure(
    machines: Machines, mode: Mode
) -> None:
    transfer = machines.transfer(mode, size=SMALL)
    transfer.start()
    known = transfer.succeed()
    stand_still(transfer.target)
    machines.fail_power(transfer.target)
    transfer.is_whole()
    report = transfer.target.get(f"transfers/reports/{known['Transaction']}")
    assert report["State"] == "committed"
    expected = ("whole" if mode == "push" else "lookup", "capabilities")
    assert all(seen.uri.endswith(expected) for seen in transfer.proxy.requests)


def test_an_import_of_version_1_whose_bytes_were_lost_fails_and_leaves_nothing(machines: Machines) -> None:
    transfer = machines.transfer("push", 1)
    failpoint = Failpoint(transfer.target, "OrthancStore.add after", "stop 11")
    job = transfer.start_saved(machines.sync)
    failpoint.wait_stopped()
    machines.reach(transfer.target, "journal")
    machines.fail_power(transfer.target)
    known = machines.rig.a.wait_for_job(job)
    assert known["State"] == "Failure", known
    assert "nothing was imported" in known["Content"]["Error"]
    transfer.is_not_there()
    machines.rig.a.post(f"jobs/{job}/resubmit")
    transfer.succeed()
    transfer.is_whole()


def stand_still(server: OrthancServer) -> None:
    os.kill(server.pid, signal.SIGSTOP)
    wait_until(lambda: process.is_stopped(server.pid), f"{server.name} stands still")


@pytest.mark.parametrize(
    ("name", "nth"), [("OrthancStore.remove after", 4), ("Area.journal_receiving after", 1)]
)
def test_an_import_that_was_undone_is_whole_or_not_there_after_a_power_failure(
    machines: Machines, name: str, nth: int
) -> None:
    transfer = machines.transfer("pull")
    target = transfer.target
    undoing = Failpoint(target, "OrthancStore.remove before", "stop 1")
    with Failpoint(target, "OrthancStore.add after", "wait 10") as some_are_imported:
        job = transfer.start_saved()
        some_are_imported.wait_reached()
        machines.rig.a.post(f"jobs/{job}/cancel")
        assert machines.rig.a.wait_for_job(job)["State"] == "Failure"
    undoing.wait_stopped()
    # The index has them for good now; that their files are deleted reaches the disk before the index knows of it.
    machines.sync()
    later = Failpoint(target, name, f"stop {nth}")
    os.kill(target.pid, signal.SIGCONT)
    later.wait_stopped()
    machines.reach(target, "names")
    machines.fail_power(target)
    # It goes on if Orthanc had it in its database as it was before it was canceled.
    target.wait_for_job(job)
    transfer.leaves_nothing_behind()
    transfer.is_whole_or_not_there()


@pytest.mark.parametrize("mode", ["push", "pull"])
def test_a_job_that_was_submitted_seconds_ago_survives(machines: Machines, mode: Mode) -> None:
    transfer = machines.transfer(mode)
    with Failpoint(
        machines.rig.a, "PullJob.work before" if mode == "pull" else "PushJob.work before", "wait"
    ):
        failpoint = Failpoint(machines.rig.a, "Durability.sync_index after", "stop 2")
        transfer.start()
        failpoint.wait_stopped()
        machines.fail_power(machines.rig.a)
    transfer.succeed()
    transfer.is_whole()


def test_a_pull_whose_job_was_not_on_the_disk_yet_is_whole_or_not_there(machines: Machines) -> None:
    transfer = machines.transfer("pull")
    failpoint = Failpoint(transfer.target, "Area.journal_ranges after", "stop 25")
    job = transfer.start()
    failpoint.wait_stopped()
    machines.reach(transfer.target, "names")
    machines.fail_power(transfer.target)
    # It was stopped while the job was new.
    if transfer.target.request("GET", f"jobs/{job}").status_code == 200:
        transfer.succeed()
    transfer.is_whole_or_not_there()


@pytest.fixture(scope="module")
def careless(machines: Machines) -> Machines:
    """The same, but Orthanc does not force files to disk, from now on."""
    machines.rig.b.configuration["SyncStorageArea"] = False
    machines.rig.b.restart()
    return machines


def test_what_was_reported_as_received_is_there_also_where_orthanc_forces_no_files_to_disk(
    careless: Machines,
) -> None:
    transfer = careless.transfer("push")
    transfer.start()
    transfer.succeed()
    stand_still(transfer.target)
    careless.fail_power(transfer.target)
    transfer.is_whole()


def test_instances_in_the_index_whose_files_were_lost_are_imported_again(careless: Machines) -> None:
    transfer = careless.transfer("push")
    failpoint = Failpoint(transfer.target, "OrthancStore.add after", "stop 11")
    transfer.start_saved(careless.sync)
    failpoint.wait_stopped()
    careless.reach(transfer.target, "all but Orthanc's files")
    careless.fail_power(transfer.target)
    transfer.succeed()
    transfer.is_whole()
