"""The peer is unreachable, for a while or for too long: the job waits, says so, and obeys pause and cancel."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest

from tests.faults.fault_proxy import FaultProxy
from tests.faults.protocol_matrix import PUSH_VARIANTS, VARIANTS, ProtocolMatrix, Transfer, start_matrix
from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, start_together
from tests.support.raw_push import RawPush
from tests.support.slowly import slowly
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

MAX_OUTAGE = 3
WAITING = re.compile(r"Waiting for peer '(\w+)' since (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d): (.+)")

ATTEMPTS = 4
NEXT = 3.0
"""After so many, the next one is 4 to 8 s away, more than so many seconds: farther than what anybody needs to hear of
a cancel."""


@pytest.fixture(scope="module")
def shared(
    make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProtocolMatrix[FaultProxy]]:
    folder = tmp_path_factory.mktemp("outage")
    # About 2 s for a study.
    transfers = {"BucketSize": 64, "Threads": 1, "MaxPeerBandwidth": 4}
    a, b = make_shared_server("a"), make_shared_server("b")
    with start_matrix(
        a,
        b,
        folder,
        folder / "staging",
        transfers,
        between=lambda _, server, version: FaultProxy(server, version),
    ) as matrix:
        yield matrix


@pytest.fixture
def matrix(shared: ProtocolMatrix[FaultProxy]) -> ProtocolMatrix[FaultProxy]:
    """The same two Orthancs for all tests of this file, empty at the start of each."""
    shared.clear()
    return shared


def study(server: OrthancServer) -> list[dict[str, str]]:
    return [resource("Study", server.upload_all(ct_study(8, size=256))[0]["ParentStudy"])]


def under_way(transfer: Transfer) -> None:
    wait_until(lambda: transfer.content().get("CompletedHttpQueries", 0) >= 2, "a few buckets")


def waits(transfer: Transfer) -> re.Match[str]:
    """What the job says of its waiting."""
    found: re.Match[str] = wait_until(
        lambda: WAITING.fullmatch(transfer.content().get("Waiting", "")), "the job waits for its peer"
    )
    return found


@pytest.mark.parametrize("variant", PUSH_VARIANTS)
def test_a_push_that_finds_no_slot_waits_until_there_is_one(
    matrix: ProtocolMatrix[FaultProxy], variant: str
) -> None:
    # Pushes that were canceled while the peer was unreachable may hold a slot still.
    others: list[RawPush] = []
    while (other := RawPush(matrix.b, 2, list(ct_study(1, size=32)))).create().status_code == 200:
        others.append(other)
    transfer = matrix.start(variant, study(matrix.a))
    if variant == "push-2":
        wait_until(lambda: "it is busy" in transfer.content().get("Waiting", ""), "it says so")
    else:
        # Its creation is held, and not answered.
        wait_until(lambda: transfer.content().get("Phase") == "Sending", "it is about to send")
        assert "Transaction" not in transfer.content()
    others[0].drop()
    transfer.succeed()
    for other in others[1:]:
        other.drop()
    assert matrix.b.md5s() == matrix.a.md5s()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_job_waits_for_a_peer_that_was_stopped_says_since_when_and_goes_on(
    matrix: ProtocolMatrix[FaultProxy], variant: str
) -> None:
    peer = matrix.b if variant.startswith("push") else matrix.a
    with slowly(matrix.a, matrix.b, kbs=100):
        transfer = matrix.start(variant, study(matrix.a))
        under_way(transfer)
        stopped = datetime.now()
        peer.stop()
        said = waits(transfer)
        assert said[1] == f"{peer.name}{variant[-1]}"
        since = datetime.fromisoformat(said[2])
        assert stopped - timedelta(seconds=2) < since <= datetime.now()
        done = transfer.content()["CompletedHttpQueries"]
        peer.start()
    content = transfer.succeed()
    assert "Waiting" not in content
    assert matrix.b.md5s() == matrix.a.md5s()
    if variant != "push-1":
        # What had arrived was not sent again.
        assert content["CompletedHttpQueries"] >= done
    matrix.nothing_is_left()


@pytest.mark.parametrize(("command", "state"), [("pause", "Paused"), ("cancel", "Failure")])
def test_jobs_that_wait_hear_of_pause_and_cancel_long_before_their_next_attempt(
    matrix: ProtocolMatrix[FaultProxy], command: str, state: str
) -> None:
    resources = [study(matrix.a) for _ in VARIANTS]

    def stop(variant: str, transfer: Transfer) -> None:
        under_way(transfer)
        matrix.proxies[variant].cut()
        waits(transfer)
        proxy = matrix.proxies[variant]
        before = proxy.refused
        wait_until(lambda: proxy.refused >= before + ATTEMPTS, "a few attempts")
        attempts, began = proxy.refused, time.monotonic()
        transfer.server.post(f"jobs/{transfer.job}/{command}")
        transfer.server.wait_for_job(transfer.job, [state])
        if time.monotonic() - began > NEXT:
            return  # on a machine that is so busy, the next attempt was due
        # It did not hear of it by trying once more; a push that is canceled tries to delete what it has sent.
        assert proxy.refused <= attempts + (command == "cancel" and variant in PUSH_VARIANTS)

    # All at once: what a job says of its waiting is seen as soon as it is said, long before the next attempt.
    with slowly(matrix.a, matrix.b, kbs=200), ThreadPoolExecutor(len(VARIANTS)) as pool:
        transfers = {
            variant: matrix.start(variant, one) for variant, one in zip(VARIANTS, resources, strict=True)
        }
        list(pool.map(stop, *zip(*transfers.items(), strict=True)))
    assert matrix.b.instances() == []
    for variant, transfer in transfers.items():
        matrix.proxies[variant].heal()
        transfer.server.post(f"jobs/{transfer.job}/{'resume' if command == 'pause' else 'resubmit'}")
    for transfer in transfers.values():
        transfer.succeed()
    assert matrix.b.md5s() == matrix.a.md5s()


@pytest.mark.parametrize("method", ["send", "pull"])
def test_a_peer_that_is_unreachable_for_longer_than_max_outage_fails_the_job_which_says_so(
    make_server: MakeServer, method: str
) -> None:
    a = make_server("a", configuration={"Transfers": {"MaxOutage": MAX_OUTAGE}})
    b = make_server("b")
    a.add_peer("b", b)
    start_together(a, b)
    here = a if method == "send" else b
    resources = study(here)
    b.stop()
    transfer = Transfer(a, getattr(a, method)(resources, "b")["ID"])
    said = waits(transfer)
    assert said[3] == f"peer 'b' cannot be reached at 127.0.0.1:{b.http_port}: connection refused"
    assert transfer.failure() == f"{said[3]}; given up after {MAX_OUTAGE} s"
    b.start()
    transfer.again().succeed()
    assert a.md5s() == b.md5s()
