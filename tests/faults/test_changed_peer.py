"""A peer that is corrected, or deleted, while a job waits for it."""

from __future__ import annotations

import pytest

from tests.faults.fault_proxy import FaultProxy
from tests.faults.protocol_matrix import Transfer
from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, start_together
from tests.support.ports import free_port
from tests.support.slowly import slowly
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]


@pytest.fixture(scope="module", params=[False, True], ids=["in memory", "in the database"])
def shared(
    make_shared_server: MakeServer, request: pytest.FixtureRequest
) -> tuple[OrthancServer, OrthancServer]:
    """``a`` sends and fetches, ``b`` is its peer once it is at the right address."""
    name = "a-database" if request.param else "a"
    a = make_shared_server(
        name,
        configuration={
            "OrthancPeersInDatabase": request.param,
            # About 2 s for a study.
            "Transfers": {"BucketSize": 64, "Threads": 1, "MaxPeerBandwidth": 4},
            "ConcurrentJobs": 4,
        },
    )
    b = make_shared_server(f"b-of-{name}")
    start_together(a, b)
    return a, b


@pytest.fixture
def servers(
    shared: tuple[OrthancServer, OrthancServer],
) -> tuple[OrthancServer, OrthancServer]:
    for server in shared:
        server.clear()
    return shared


def study(server: OrthancServer, seed: int) -> list[dict[str, str]]:
    return [resource("Study", server.upload_all(ct_study(8, size=256, seed=seed))[0]["ParentStudy"])]


def start_both(a: OrthancServer, b: OrthancServer) -> tuple[Transfer, Transfer]:
    return (
        Transfer(a, a.send(study(a, 1), "b")["ID"]),
        Transfer(a, a.pull(study(b, 2), "b")["ID"]),
    )


def wait_for_its_wait(transfer: Transfer) -> None:
    wait_until(
        lambda: transfer.content().get("Waiting", "").startswith("Waiting for peer 'b' since"), "it waits"
    )


def test_jobs_that_wait_use_the_new_address_at_once(servers: tuple[OrthancServer, OrthancServer]) -> None:
    a, b = servers
    a.put("peers/b", {"Url": f"http://127.0.0.1:{free_port()}/"})
    transfers = start_both(a, b)
    for transfer in transfers:
        wait_for_its_wait(transfer)
    a.put("peers/b", {"Url": b.url})
    for transfer in transfers:
        assert "Waiting" not in transfer.succeed()
    assert a.md5s() == b.md5s()
    assert f"peer b was changed, it is tried at {b.url}" in a.log


def test_what_had_arrived_is_not_sent_again(servers: tuple[OrthancServer, OrthancServer]) -> None:
    a, b = servers
    with FaultProxy(b) as proxy:
        a.put("peers/b", {"Url": proxy.url})
        with slowly(a, kbs=100):
            transfer = Transfer(a, a.send(study(a, 1), "b")["ID"])
            wait_until(lambda: transfer.content().get("CompletedHttpQueries", 0) >= 3, "a few buckets")
            proxy.cut()
            wait_for_its_wait(transfer)
        transaction = transfer.content()["Transaction"]
        a.put("peers/b", {"Url": b.url})
        assert transfer.succeed()["Transaction"] == transaction
    assert a.md5s() == b.md5s()


def test_a_deleted_peer_ends_the_wait(servers: tuple[OrthancServer, OrthancServer]) -> None:
    a, b = servers
    a.put("peers/b", {"Url": f"http://127.0.0.1:{free_port()}/"})
    transfers = start_both(a, b)
    for transfer in transfers:
        wait_for_its_wait(transfer)
    a.delete("peers/b")
    for transfer in transfers:
        assert transfer.failure() == (
            "peer 'b' was deleted while this job waited for it: configure it again, then resubmit the job"
        )
    a.put("peers/b", {"Url": b.url})
    for transfer in transfers:
        transfer.again().succeed()
    assert a.md5s() == b.md5s()
