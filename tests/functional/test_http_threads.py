"""Transfers leave threads of a peer's HTTP server (``HttpThreadsCount``) to its other clients."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, start_together

pytestmark = pytest.mark.orthanc


def connections(server: OrthancServer) -> int:
    """Those that clients hold to the HTTP server."""
    count = 0
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for row in Path(table).read_text().splitlines()[1:]:
            fields = row.split()
            port = int(fields[1].rpartition(":")[2], 16)
            count += port == server.http_port and fields[3] == "01"
    return count


@pytest.mark.parametrize("way", ["push", "pull"])
@pytest.mark.parametrize(("threads", "transfers", "most"), [(8, 2, 7), (1, 4, 4)])
def test_transfers_hold_few_connections(
    make_server: MakeServer, way: str, threads: int, transfers: int, most: int
) -> None:
    few = {"HttpThreadsCount": threads}
    a = make_server("a", configuration={"ConcurrentJobs": 8, **(few if way == "pull" else {})})
    b = make_server("b", configuration={"ConcurrentJobs": 8, **(few if way == "push" else {})})
    a.add_peer("b", b)
    b.add_peer("a", a)
    start_together(a, b)
    studies = [a.upload_all(ct_study(15, seed=number))[0]["ParentStudy"] for number in range(transfers)]
    a.forget_connections()
    b.forget_connections()
    busy, worker = (b, a) if way == "push" else (a, b)
    held = 0
    ended = threading.Event()

    def count() -> None:
        nonlocal held
        while not ended.wait(0.01):
            held = max(held, connections(busy))

    counting = threading.Thread(target=count)
    counting.start()
    try:
        if way == "push":
            jobs = [a.send([resource("Study", one)], "b", Compression="none")["ID"] for one in studies]
        else:
            jobs = [b.pull([resource("Study", one)], "a", Compression="none")["ID"] for one in studies]
        for job in jobs:
            assert worker.wait_for_job(job)["State"] == "Success"
    finally:
        ended.set()
        counting.join()
    assert 0 < held <= most
    assert a.md5s() == b.md5s()
