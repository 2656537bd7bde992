"""Power failure of the receiver while labels, metadata and attachments are applied, or taken back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.beside_dicom import TAKEN, Beside
from tests.faults.failpoints import Failpoint, FaultPoint
from tests.faults.power_rig import SMALL, SMALL_SLICES, Machines, Reached, running
from tests.support.fixtures import MakeServer

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]


@pytest.fixture(scope="module")
def machines(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """Apart from those of ``test_power_failure``: where a receiver takes any of it, no pull is one request."""
    with running(make_shared_server, tmp_path_factory.mktemp("power"), AcceptMetadata=TAKEN) as made:
        yield made


EXTRAS_CUTS = [
    FaultPoint("push", "receiver", "the list is staged", "ExtrasFolder.take after"),
    FaultPoint("push", "receiver", "planned, none applied", "ExtrasFolder.keep_before after"),
    FaultPoint("push", "receiver", "half is applied", "OrthancExtras.put after", 2),
]


@pytest.mark.parametrize("reached", ["nothing", "journal"])
@pytest.mark.parametrize("cut", EXTRAS_CUTS, ids=str)
def test_labels_metadata_and_attachments_are_all_there_after_a_power_failure(
    machines: Machines, cut: FaultPoint, reached: Reached
) -> None:
    transfer = machines.transfer(cut.mode, size=SMALL)
    beside = Beside(transfer)
    machines.sync()
    failpoint = Failpoint(transfer.target, cut.failpoint, f"stop {cut.nth}")
    transfer.start_saved(machines.sync)
    failpoint.wait_stopped()
    machines.reach(transfer.target, reached)
    machines.fail_power(transfer.target)
    transfer.succeed()
    transfer.is_whole()
    beside.is_there()


@pytest.mark.parametrize("reached", ["nothing", "journal"])
def test_what_is_being_taken_back_of_them_is_as_it_was_or_all_there_after_a_power_failure(
    machines: Machines, reached: Reached
) -> None:
    transfer = machines.rig.transfer("pull", slices=SMALL_SLICES, size=SMALL)
    beside = Beside(transfer)
    machines.sync()
    taken_back = Failpoint(transfer.target, "OrthancStore.remove before", "stop 1")
    with Failpoint(transfer.target, "OrthancExtras.put after", "wait") as applied:
        job = transfer.start_saved(machines.sync)
        applied.wait_reached()
        machines.rig.a.post(f"jobs/{job}/cancel")
        assert machines.rig.a.wait_for_job(job)["State"] == "Failure"
    taken_back.wait_stopped()
    machines.reach(transfer.target, reached)
    machines.fail_power(transfer.target)
    # It goes on if Orthanc had it in its database as it was before it was canceled.
    transfer.target.wait_for_job(job)
    transfer.leaves_nothing_behind()
    if transfer.is_whole_or_not_there():
        beside.is_there()
    else:
        beside.is_as_before()
