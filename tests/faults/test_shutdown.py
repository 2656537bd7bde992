"""An Orthanc gets SIGTERM in any phase of a transfer: it stops soon, and the transfer goes on later."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.faults.failpoints import Failpoint, Mode
from tests.faults.rig import Rig, Transfer, start_rig
from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import OrthancServer
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

LONGEST = 5.0
"""Seconds from SIGTERM to the end of the process: the promise itself; or three times what it takes without transfers,
where that is more: the machine is slow, or busy."""

TROUBLE = re.compile(
    # Orthanc complains with the first of these if a client is gone before its answer.
    "(?!Exception while invoking plugin service [0-9]+: Error in the network protocol)"
    "(Traceback|Exception|Fatal Python error|Segmentation|terminate called|core dumped).*"
)

# What takes its time, and where, so that a phase lasts as long as it has to.
SLOW = {
    ("push", "Listing"): ("source", "Sdk.rest_get before", 0.3),
    ("push", "Sending"): ("target", "PeerRoutes.put_ranges before", 0.1),
    ("push", "Importing"): ("target", "OrthancStore.add before", 0.4),
    ("pull", "Listing"): ("source", "Sdk.rest_get before", 0.3),
    ("pull", "Fetching"): ("source", "PeerRoutes.post_chunks before", 0.1),
    ("pull", "Importing"): ("target", "OrthancStore.add before", 0.4),
}


@pytest.fixture(scope="module")
def rig(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with start_rig(make_shared_server, tmp_path_factory.mktemp("nginx")) as made:
        yield made


@pytest.fixture(scope="module")
def longest(rig: Rig) -> float:
    """See ``LONGEST``."""
    begin = time.monotonic()
    rig.b.stop()
    seconds = time.monotonic() - begin
    rig.b.start()
    return max(LONGEST, 3 * seconds)


def slowed(transfer: Transfer, phase: str) -> Failpoint:
    side, name, seconds = SLOW[transfer.mode, phase]
    return Failpoint(transfer.source if side == "source" else transfer.target, name, f"slow {seconds}")


def reach(transfer: Transfer, phase: str) -> None:
    """Wait until the job is in a phase, and has done something of it."""

    def reached() -> bool:
        known = transfer.rig.a.job(transfer.job)
        assert known["State"] in ("Pending", "Running"), known
        content = known["Content"]
        if content.get("Phase") != phase:
            return False
        if phase == "Importing":
            return bool(transfer.target.instances() != sorted(transfer.before))
        return phase == "Listing" or content.get("CompletedHttpQueries", 0) > 4

    wait_until(reached, f"the job is {phase}")


def stop(server: OrthancServer, longest: float) -> None:
    """Tell it to stop, and see that it does so as promised."""
    before = len(server.log)
    begin = time.monotonic()
    server.stop()
    seconds = time.monotonic() - begin
    assert server.exit_status == 0
    assert not TROUBLE.findall(server.log[before:])
    assert seconds < longest


@pytest.mark.parametrize(
    ("mode", "phase", "stopped"),
    [
        # The other one has no part in it: a push lists and a pull imports alone.
        *(("push", "Listing", "a"), ("pull", "Listing", "a"), ("pull", "Listing", "b")),
        *(
            ("push", "Sending", "a"),
            ("push", "Sending", "b"),
            ("pull", "Fetching", "a"),
            ("pull", "Fetching", "b"),
        ),
        *(("push", "Importing", "a"), ("push", "Importing", "b"), ("pull", "Importing", "a")),
    ],
)
def test_an_orthanc_stops_soon_in_every_phase_and_the_transfer_goes_on_afterwards(
    rig: Rig, longest: float, mode: Mode, phase: str, stopped: str
) -> None:
    transfer = rig.transfer(mode)
    server = {"a": rig.a, "b": rig.b}[stopped]
    with slowed(transfer, phase):
        transfer.start()
        reach(transfer, phase)
        stop(server, longest)
    server.start()
    transfer.succeed()
    transfer.is_whole()


@pytest.mark.parametrize("mode", ["push", "pull"])
def test_an_orthanc_stops_soon_while_it_looks_what_it_has_of_a_transfer(
    rig: Rig, longest: float, mode: Mode
) -> None:
    transfer = rig.transfer(mode)
    target = transfer.target
    target.upload_all(transfer.source.download(f"instances/{one}/file") for one in transfer.wanted)
    with (
        Failpoint(target, "Sdk.rest_get before", "slow 0.3"),
        Failpoint(target, "OrthancStore.md5s before", "slow 0") as looking,
    ):
        transfer.start()
        looking.wait_reached()
        stop(target, longest)
    target.start()
    transfer.succeed()
    transfer.is_whole()


@pytest.mark.parametrize("mode", ["push", "pull"])
def test_an_orthanc_stops_soon_while_its_transfer_is_paused(rig: Rig, longest: float, mode: Mode) -> None:
    transfer = rig.transfer(mode)
    phase = "Sending" if mode == "push" else "Fetching"
    with slowed(transfer, phase):
        job = transfer.start()
        reach(transfer, phase)
        rig.a.post(f"jobs/{job}/pause")
        rig.a.wait_for_job(job, ["Paused"])
    for server in (rig.a, rig.b):
        stop(server, longest)
        server.start()
    assert rig.a.job(job)["State"] == "Paused"
    rig.a.post(f"jobs/{job}/resume")
    transfer.succeed()
    transfer.is_whole()


@pytest.mark.parametrize("mode", ["push", "pull"])
def test_an_orthanc_stops_soon_while_its_transfer_waits_for_an_absent_peer(
    rig: Rig, longest: float, mode: Mode
) -> None:
    transfer = rig.transfer(mode)
    phase = "Sending" if mode == "push" else "Fetching"
    with slowed(transfer, phase):
        job = transfer.start()
        reach(transfer, phase)
        stop(rig.b, longest)
    wait_until(lambda: "Waiting" in rig.a.job(job)["Content"], "the job waits for its peer")
    stop(rig.a, longest)
    rig.a.start()
    rig.b.start()
    transfer.succeed()
    transfer.is_whole()
