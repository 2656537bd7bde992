"""Jobs that wait for a slot of a busy receiver (``MaxPushTransactions``) hold no thread of Orthanc's jobs engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.faults.protocol_matrix import Transfer
from tests.support.dicom_data import small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, start_together
from tests.support.raw_push import RawPush
from tests.support.recording_proxy import RecordingProxy
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]


@dataclass(frozen=True)
class World:
    """``a`` sends, two jobs at once, as by default; its peers ``b-1`` and ``b-2``, by version, are one Orthanc."""

    a: OrthancServer
    b: OrthancServer
    study: str
    """In ``a``."""
    theirs: str
    """In ``b``."""


@pytest.fixture(scope="module")
def world(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    a = make_shared_server("a", configuration={"JobsHistorySize": 100})
    b = make_shared_server("b", configuration={"Transfers": {"MaxPushTransactions": 1}})
    with RecordingProxy(tmp_path_factory.mktemp("nginx"), b, version=1) as old:
        a.add_peer("b-1", b, Url=old.url)
        a.add_peer("b-2", b)
        start_together(a, b)
        study, theirs = (
            server.upload_all(small_instances(2, seed=seed))[0]["ParentStudy"]
            for server, seed in ((a, 1), (b, 2))
        )
        yield World(a, b, study, theirs)


def take_the_slot(world: World) -> RawPush:
    other = RawPush(world.b, 2, list(small_instances(1, seed=3)))
    assert other.create().status_code == 200
    return other


def send(world: World, version: int, count: int) -> list[Transfer]:
    study = [resource("Study", world.study)]
    return [Transfer(world.a, world.a.send(study, f"b-{version}")["ID"]) for _ in range(count)]


def parked(transfers: list[Transfer]) -> None:
    def says_so(transfer: Transfer) -> bool:
        job = transfer.server.job(transfer.job)
        return job["State"] == "Paused" and "it is busy with other transfers" in job["Content"].get(
            "Waiting", ""
        )

    wait_until(lambda: all(map(says_so, transfers)), "they wait for a slot, and say so")


@pytest.mark.parametrize(("version", "count"), [(1, 6), (2, 12)])
def test_jobs_for_a_busy_peer_hold_up_nobody_and_go_on_in_their_turn(
    world: World, version: int, count: int
) -> None:
    a = world.a
    other = take_the_slot(world)
    transfers = send(world, version, count)
    # All this ends before there is a slot, which is only after it.
    assert a.request("GET", f"studies/{world.study}/archive").status_code == 200
    a.post(f"studies/{world.study}/anonymize", {})
    pull = Transfer(a, a.pull([resource("Study", world.theirs)], f"b-{version}")["ID"])
    pull.succeed()
    parked(transfers)
    other.drop()
    for transfer in transfers:
        assert "Waiting" not in transfer.succeed()


def test_what_a_user_paused_or_canceled_in_the_line_stays_so(world: World) -> None:
    other = take_the_slot(world)
    first, paused, canceled, last = transfers = send(world, 2, 4)
    parked(transfers)
    world.a.post(f"jobs/{paused.job}/pause")
    world.a.post(f"jobs/{canceled.job}/cancel")
    other.drop()
    first.succeed()
    last.succeed()
    assert world.a.job(paused.job)["State"] == "Paused"
    assert world.a.job(canceled.job)["State"] == "Failure"
    world.a.post(f"jobs/{paused.job}/resume")
    paused.succeed()
    canceled.again().succeed()


def test_jobs_that_waited_for_a_slot_go_on_after_a_restart_but_not_one_that_a_user_paused(
    world: World,
) -> None:
    other = take_the_slot(world)
    paused, *others = transfers = send(world, 2, 4)
    parked(transfers)
    world.a.post(f"jobs/{paused.job}/pause")
    world.a.restart()
    parked(others)
    other.drop()
    for transfer in others:
        transfer.succeed()
    assert world.a.job(paused.job)["State"] == "Paused"
    world.a.post(f"jobs/{paused.job}/resume")
    paused.succeed()
