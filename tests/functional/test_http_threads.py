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
