"""A transfer whose job was lost in a crash: what becomes of it.

Orthanc writes a new job into its database about 0.1 s after it was submitted, and all of them every 10 s. If it
is killed before that, the job does not come back: as if ``SaveJobs`` were off, which these tests use.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.failpoints import Failpoint, Mode
from tests.faults.rig import Rig, Transfer, start_rig
from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import OrthancServer

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

IDLE = 6
"""Seconds that an abandoned push is kept."""


@pytest.fixture(scope="module")
def rig(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Its Orthancs save no jobs."""
    folder = tmp_path_factory.mktemp("nginx")
    with start_rig(make_shared_server, folder, save_jobs=False, PushIdleTimeout=IDLE) as made:
        yield made


@pytest.fixture(scope="module")
def patient(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """The same, where nothing expires."""

    def make(name: str, **options: Any) -> OrthancServer:
        return make_shared_server(f"patient-{name}", **options)

    with start_rig(make, tmp_path_factory.mktemp("nginx"), save_jobs=False) as made:
        yield made


def lost(transfer: Transfer, name: str, nth: int) -> None:
    """Kill the server of the job at some point, and start it again, without the job."""
    failpoint = Failpoint(transfer.rig.a, name, f"kill {nth}")
    job = transfer.start()
    failpoint.wait_killed()
    transfer.rig.a.start()
    assert transfer.rig.a.request("GET", f"jobs/{job}").status_code == 404


@pytest.mark.parametrize("version", [2, 1])
def test_of_a_push_whose_job_was_lost_on_the_way_nothing_is_there(rig: Rig, version: int) -> None:
    transfer = rig.transfer("push", version)
    lost(transfer, "RequestsTransport.send PUT push after", 50)
    # It is kept for a while, in case that its sender comes back.
    transfer.is_not_there(timeout=60 + 5 * IDLE)
    transfer.start()
    transfer.succeed()
    transfer.is_whole()


def test_of_a_pull_whose_job_was_lost_on_the_way_nothing_is_kept(patient: Rig) -> None:
    transfer = patient.transfer("pull")
    lost(transfer, "RequestsTransport.send POST chunks after", 50)
    transfer.is_not_there()
    transfer.start()
    transfer.succeed()
    transfer.is_whole()


@pytest.mark.parametrize(
    ("mode", "name", "nth"),
    [
        ("push", "RequestsTransport.send POST commit after", 1),
        ("pull", "OrthancStore.add after", 20),
    ],
)
def test_a_transfer_whose_job_was_lost_during_the_import_becomes_whole(
    rig: Rig, mode: Mode, name: str, nth: int
) -> None:
    transfer = rig.transfer(mode)
    lost(transfer, name, nth)
    transfer.becomes_whole()
