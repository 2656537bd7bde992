"""Transfers leave threads of a peer's HTTP server (``HttpThreadsCount``) to its other clients."""

from __future__ import annotations

import pytest

from tests.support.counting_proxy import CountingProxy
from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import start_together

pytestmark = pytest.mark.orthanc


@pytest.mark.parametrize("way", ["push", "pull"])
@pytest.mark.parametrize(("threads", "transfers", "most"), [(8, 2, 5), (1, 4, 4)])
def test_transfers_hold_few_connections(
    make_server: MakeServer, way: str, threads: int, transfers: int, most: int
) -> None:
    few = {"HttpThreadsCount": threads}
    a = make_server("a", configuration={"ConcurrentJobs": 8, **(few if way == "pull" else {})})
    b = make_server("b", configuration={"ConcurrentJobs": 8, **(few if way == "push" else {})})
    busy, worker = (b, a) if way == "push" else (a, b)
    with CountingProxy(busy) as proxy:
        worker.add_peer(busy.name, busy, Url=proxy.url)
        start_together(a, b)
        studies = [a.upload_all(ct_study(15, seed=number))[0]["ParentStudy"] for number in range(transfers)]
        a.forget_connections()
        b.forget_connections()
        order = a.send if way == "push" else b.pull
        jobs = [order([resource("Study", one)], busy.name, Compression="none")["ID"] for one in studies]
        for job in jobs:
            assert worker.wait_for_job(job)["State"] == "Success"
        assert proxy.accepted >= transfers
        assert proxy.most <= most
    assert a.md5s() == b.md5s()


@pytest.mark.parametrize("way", ["push", "pull"])
@pytest.mark.parametrize(("threads", "transfers"), [(4, 6), (8, 12)])
def test_many_transfers_of_one_server_share_what_the_peer_can_spare(
    make_server: MakeServer, way: str, threads: int, transfers: int
) -> None:
    few = {"HttpThreadsCount": threads}
    many = {"ConcurrentJobs": transfers, "Transfers": {"BucketSize": 256, "MaxPushTransactions": transfers}}
    a = make_server("a", configuration={**many, **(few if way == "pull" else {})})
    b = make_server("b", configuration={**many, **(few if way == "push" else {})})
    busy, worker = (b, a) if way == "push" else (a, b)
    with CountingProxy(busy) as proxy:
        worker.add_peer(busy.name, busy, Url=proxy.url)
        start_together(a, b)
        # Some are one request, and some are many.
        studies = [
            a.upload_all(ct_study(2 if number % 2 else 12, size=256, seed=number))[0]["ParentStudy"]
            for number in range(transfers)
        ]
        a.forget_connections()
        b.forget_connections()
        order = a.send if way == "push" else b.pull
        jobs = [order([resource("Study", one)], busy.name, Compression="none")["ID"] for one in studies]
        for job in jobs:
            assert worker.wait_for_job(job)["State"] == "Success"
        assert proxy.accepted >= threads // 2
        assert proxy.most <= threads // 2
    assert a.md5s() == b.md5s()


def test_several_servers_take_turns(make_server: MakeServer) -> None:
    threads, transfers = 4, 2
    receiver = make_server(
        "b", configuration={"HttpThreadsCount": threads, "Transfers": {"MaxPushTransactions": 9}}
    )
    senders = [
        make_server(f"a{number}", configuration={"ConcurrentJobs": 4, "Transfers": {"BucketSize": 128}})
        for number in range(3)
    ]
    with CountingProxy(receiver) as proxy:
        for sender in senders:
            sender.add_peer("b", receiver, Url=proxy.url)
        start_together(receiver, *senders)
        studies = [
            (sender, sender.upload_all(ct_study(12, size=256, seed=10 * seed + number))[0]["ParentStudy"])
            for seed, sender in enumerate(senders)
            for number in range(transfers)
        ]
        for server in (receiver, *senders):
            server.forget_connections()
        jobs = [
            (sender, sender.send([resource("Study", one)], "b", Compression="none")["ID"])
            for sender, one in studies
        ]
        for sender, job in jobs:
            assert sender.wait_for_job(job)["State"] == "Success"
        # Who has no turn asks from time to time, over a connection that it closes at once.
        assert proxy.most <= threads // 2 + len(senders) - 1
    assert len(receiver.instances()) == 12 * transfers * len(senders)
