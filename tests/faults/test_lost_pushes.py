"""A peer of version 1 knows no way to ask for a push again: one whose creation was not answered starts over.

What was answered, its sender keeps on disk: Orthanc saves the job every 10 s only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from orthanc_transfers.jobs.ack_log import AckLogs
from orthanc_transfers.jobs.resume import ResumeState
from tests.faults.failpoints import Failpoint
from tests.faults.rig import THREADS, Rig, Transfer, staging, start_rig
from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import OrthancServer

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

IDLE = 6
"""Seconds that an abandoned push is kept."""


@pytest.fixture(scope="module")
def rig(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with start_rig(make_shared_server, tmp_path_factory.mktemp("nginx"), PushIdleTimeout=IDLE) as made:
        yield made


@pytest.fixture(scope="module")
def patient(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Where no push is abandoned, however long a start takes."""

    def make(name: str, **options: Any) -> OrthancServer:
        return make_shared_server(f"patient-{name}", **options)

    with start_rig(make, tmp_path_factory.mktemp("nginx")) as made:
        yield made


@pytest.mark.parametrize(
    ("side", "name", "nth"),
    [
        ("receiver", "PeerRoutes.create_push_v1 after", 1),
        ("sender", "RequestsTransport.send POST push after", 1),
    ],
)
def test_a_push_of_version_1_starts_over_if_its_sender_does_not_know_of_it(
    rig: Rig, side: str, name: str, nth: int
) -> None:
    transfer = rig.transfer("push", 1)
    victim = rig.a if side == "sender" else rig.b
    failpoint = Failpoint(victim, name, f"kill {nth}")
    transfer.start_saved()
    failpoint.wait_killed()
    victim.start()
    transfer.succeed()
    # The one that was not continued is dropped in time.
    transfer.is_whole(timeout=60 + 5 * IDLE)


def test_a_push_of_version_1_sends_each_bucket_once_but_those_in_flight_however_often_its_sender_dies(
    patient: Rig,
) -> None:
    rig = patient
    transfer = rig.transfer("push", 1)
    failpoint = Failpoint(rig.a, "AckLog.append after", "kill 30")
    transfer.start_saved()
    failpoint.wait_killed()
    token, recorded = on_disk(rig)
    answered = buckets(transfer)
    assert len(recorded) >= 30
    assert 0 <= len(set(answered) - recorded) < 4 * THREADS

    failpoint = Failpoint(rig.a, "AckLog.append after", "kill 30")
    rig.a.start()
    failpoint.wait_killed()
    again = buckets(transfer)[len(answered) :]
    assert not recorded & set(again)
    assert on_disk(rig) == (token, recorded | on_disk(rig)[1])
    recorded = on_disk(rig)[1]
    assert len(recorded) >= 60

    answered = buckets(transfer)
    rig.a.start()
    transfer.succeed()
    again = buckets(transfer)[len(answered) :]
    assert not recorded & set(again)
    assert len(set(again)) == len(again)
    transfer.is_whole()
    assert transfer.sent_again() <= 2 * transfer.in_flight()


def buckets(transfer: Transfer) -> list[int]:
    """The numbers of the buckets that were sent and answered well, in the order of the answers."""
    found = [
        re.fullmatch("//?transfers/push/[0-9a-f-]+/([0-9]+)", seen.uri)
        for seen in transfer.proxy.requests
        if seen.status == 200
    ]
    return [int(match[1]) for match in found if match]


def on_disk(rig: Rig) -> tuple[str, set[int]]:
    """What the sender has recorded of its only push: its token, and the buckets that arrived."""
    (path,) = (staging(rig.a) / "sent").iterdir()
    return path.name, ResumeState({"Token": path.name}, AckLogs(path.parent)).completed()
