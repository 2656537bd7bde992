"""Jobs that wait for a peer that is down hold no thread of Orthanc's jobs engine, and go on by themselves."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import pytest

from tests.faults.fault_proxy import FaultProxy
from tests.faults.protocol_matrix import Transfer
from tests.support.dicom_data import small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import StatusError, resource
from tests.support.orthanc_server import OrthancServer, start_together
from tests.support.ports import free_port
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

OUTAGE = 3600
"""Seconds that a job waits for a peer: whatever waits for such a job does not end within a test."""

WAITING = re.compile(r"Waiting for peer 'dead' since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d: peer 'dead' .+")


@dataclass(frozen=True)
class World:
    """``a`` runs the jobs, two at once, as by default; ``b`` is its peer, and also ``dead`` while that is healed."""

    a: OrthancServer
    b: OrthancServer
    dead: FaultProxy
    study: str
    """In ``a``."""
    theirs: str
    """In ``b``."""

    def start(self, count: int) -> list[Transfer]:
        """So many jobs with the dead peer, pushes and pulls by turns."""
        ways = cycle([(self.a.send, self.study), (self.a.pull, self.theirs)])
        return [
            Transfer(self.a, way([resource("Study", study)], "dead")["ID"])
            for way, study in islice(ways, count)
        ]


@pytest.fixture(scope="module")
def shared(make_shared_server: MakeServer) -> Iterator[World]:
    a = make_shared_server("a", configuration={"JobsHistorySize": 100, "Transfers": {"MaxOutage": OUTAGE}})
    b = make_shared_server("b")
    a.add_peer("b", b)
    with FaultProxy(b) as dead:
        a.add_peer("dead", b, Url=dead.url)
        start_together(a, b)
        study, theirs = (
            server.upload_all(small_instances(2, seed=seed))[0]["ParentStudy"]
            for server, seed in ((a, 1), (b, 2))
        )
        yield World(a, b, dead, study, theirs)


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    """The same servers for all tests of this file; the peer is down at the start of each."""
    shared.dead.cut()
    yield shared
    shared.dead.heal()


def parked(transfers: list[Transfer], timeout: float = 60) -> None:
    jobs: dict[str, dict[str, Any]] = {}

    def says_so(transfer: Transfer) -> bool:
        job = jobs[transfer.job] = transfer.server.job(transfer.job)
        return job["State"] == "Paused" and bool(WAITING.fullmatch(job["Content"].get("Waiting", "")))

    try:
        wait_until(lambda: all(map(says_so, transfers)), "they wait for their peer, and say so", timeout)
    except TimeoutError as error:
        raise TimeoutError(f"{error}: {list(jobs.values())}") from None


def seconds_held(transfer: Transfer) -> float:
    """How long a job has had one of the threads of Orthanc's engine."""
    seconds: float = transfer.server.job(transfer.job)["EffectiveRuntime"]
    return seconds


def nothing_is_held_up(world: World) -> None:
    """These end before the peer is back, which is only after them: so none waits for a job that waits for it."""
    a = world.a
    assert a.request("GET", f"studies/{world.study}/archive").status_code == 200
    a.post(f"studies/{world.study}/anonymize", {})
    others = [
        a.send([resource("Study", world.study)], "b"),
        a.pull([resource("Study", world.theirs)], "b"),
    ]
    for other in others:
        assert a.wait_for_job(other["ID"])["State"] == "Success"


@pytest.mark.parametrize("count", [2, 50])
def test_jobs_with_a_dead_peer_hold_up_nobody_and_go_on_when_it_is_back(world: World, count: int) -> None:
    transfers = world.start(count)
    nothing_is_held_up(world)
    parked(transfers)
    held = [seconds_held(transfer) for transfer in transfers]
    tried = world.dead.refused
    wait_until(lambda: world.dead.refused > tried, "an attempt")
    nothing_is_held_up(world)
    assert [seconds_held(transfer) for transfer in transfers] == held, (
        "waiting takes no thread, nor do attempts"
    )
    world.dead.heal()
    for transfer in transfers:
        assert "Waiting" not in transfer.succeed()


@pytest.fixture
def deaf() -> Iterator[str]:
    """The address of a peer that neither accepts nor refuses connections, as a machine that is off."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as stack:
        # Its queue is full: further connections are ignored.
        for _ in range(3):
            connection = stack.enter_context(socket.socket())
            connection.setblocking(False)
            connection.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


def test_a_peer_that_neither_accepts_nor_refuses_connections_holds_up_nobody_either(
    world: World, deaf: str
) -> None:
    a = world.a
    a.put("peers/dead", {"Url": deaf})
    transfers = world.start(4)
    nothing_is_held_up(world)
    parked(transfers)
    world.dead.heal()
    a.put("peers/dead", {"Url": world.dead.url})
    for transfer in transfers:
        transfer.succeed()


def test_nor_does_one_whose_password_only_orthanc_knows(make_server: MakeServer, deaf: str) -> None:
    # Its own client then sends the requests, and would wait for as long as this test waits for anything.
    a = make_server("c", configuration={"OrthancPeersInDatabase": True, "HttpTimeout": 600}).start()
    a.put("peers/dead", {"Url": deaf, "Username": "me", "Password": "secret"})
    study = a.upload_all(small_instances(2, seed=5))[0]["ParentStudy"]
    transfers = [Transfer(a, a.send([resource("Study", study)], "dead")["ID"]) for _ in range(2)]
    assert a.request("GET", f"studies/{study}/archive").status_code == 200
    parked(transfers)


def test_one_job_tries_the_peer_for_all(world: World) -> None:
    before = world.dead.refused
    transfers = world.start(10)
    parked(transfers)
    # The first two may each try twice before it is known; then there is one attempt after 0.5 s, 1 s, 2 s…
    wait_until(lambda: world.dead.refused >= before + 5, "further attempts")
    assert world.dead.refused <= before + 10
    world.dead.heal()
    for transfer in transfers:
        transfer.succeed()


def test_what_a_user_paused_or_canceled_stays_so(world: World) -> None:
    transfers = world.start(6)
    parked(transfers)
    paused, canceled, *others = transfers
    for transfer, command in ((paused, "pause"), (canceled, "cancel")):
        assert world.a.post(f"jobs/{transfer.job}/{command}") == {}
    assert world.a.job(canceled.job)["State"] == "Failure"
    world.dead.heal()
    for transfer in others:
        transfer.succeed()
    assert world.a.job(paused.job)["State"] == "Paused"
    assert world.a.job(canceled.job)["State"] == "Failure"
    world.a.post(f"jobs/{paused.job}/resume")
    paused.succeed()
    canceled.again().succeed()


def test_a_user_who_resumes_a_job_that_waits_lets_the_peer_be_tried(world: World) -> None:
    transfers = world.start(2)
    parked(transfers)
    world.a.post(f"jobs/{transfers[0].job}/resume")
    parked(transfers)
    world.dead.heal()
    world.a.post(f"jobs/{transfers[0].job}/resume")
    for transfer in transfers:
        transfer.succeed()


def test_jobs_that_waited_go_on_after_a_restart_but_not_one_that_a_user_paused(world: World) -> None:
    transfers = world.start(6)
    parked(transfers)
    paused, *others = transfers
    world.a.post(f"jobs/{paused.job}/pause")
    world.a.restart()
    parked(others)
    world.a.restart()
    world.dead.heal()
    for transfer in others:
        transfer.succeed()
    assert world.a.job(paused.job)["State"] == "Paused"
    world.a.post(f"jobs/{paused.job}/resume")
    paused.succeed()


@pytest.mark.parametrize("max_outage", [0, 2])
def test_after_max_outage_all_jobs_fail_as_one_alone_does(make_server: MakeServer, max_outage: int) -> None:
    port = free_port()
    a = make_server(
        "a",
        configuration={
            "Transfers": {"MaxOutage": max_outage},
            "OrthancPeers": {"dead": [f"http://127.0.0.1:{port}/"]},
        },
    ).start()
    study = a.upload_all(small_instances(1))[0]["ParentStudy"]
    transfers = [Transfer(a, a.send([resource("Study", study)], "dead")["ID"]) for _ in range(5)]
    given_up = f"; given up after {max_outage} s" if max_outage else ""
    for transfer in transfers:
        assert transfer.failure() == (
            f"peer 'dead' cannot be reached at 127.0.0.1:{port}: connection refused{given_up}"
        )


@pytest.mark.parametrize("command", ["pause", "cancel"])
def test_commands_to_other_jobs_are_answered_as_by_orthanc_itself(world: World, command: str) -> None:
    with pytest.raises(StatusError) as unknown:
        world.a.post(f"jobs/none/{command}")
    assert unknown.value.status == 400
    job = world.a.post(f"studies/{world.study}/archive", {"Asynchronous": True})["ID"]
    world.a.wait_for_job(job)
    answer = world.a.request("POST", f"jobs/{job}/{command}")
    assert (answer.status_code, answer.json()) == (200, {})
