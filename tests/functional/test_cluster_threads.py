"""A cluster whose HTTP servers have few threads: a request that is handed on takes one of each of two nodes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.cluster import OrthancCluster
from tests.support.cpp_client import CppClient
from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.postgresql import PostgreSQL, postgresql_is_installed
from tests.support.raw_push import orthanc_id

pytestmark = [
    pytest.mark.orthanc,
    pytest.mark.skipif(not postgresql_is_installed(), reason="orthanc-postgresql is not installed"),
]

PUSHES, REQUESTS = 4, 6
"""At once: the default of ``MaxPushTransactions``, and the most ``Threads`` of a C++ peer that its manual has."""

THREADS = PUSHES * REQUESTS // 2 + 1
SENDERS = 8


def test_nodes_do_not_wait_for_each_other_in_circles(tmp_path: Path) -> None:
    studies = [{orthanc_id(one): one for one in ct_study(20, size=128, seed=seed)} for seed in range(SENDERS)]
    with (
        OrthancCluster(tmp_path, orthanc={"HttpThreadsCount": THREADS}) as cluster,
        cluster.proxy_of_version_1(timeout=300) as proxy,
        ThreadPoolExecutor(SENDERS) as pool,
    ):
        # It makes each request once: one that is refused ends it.
        list(pool.map(lambda files: CppClient(proxy.url, REQUESTS).push(files, "none"), studies))
        assert len(cluster.any_node().instances()) == 20 * SENDERS
        for node in cluster.nodes:
            assert "does not respond" not in node.log
            assert "HttpThreadsCount" not in node.log


def test_who_has_too_few_threads_is_told(make_server: MakeServer) -> None:
    with PostgreSQL() as database:
        cluster = {"ConnectionUri": database.uri}
        options = {"HttpThreadsCount": THREADS - 1, "Transfers": {"Cluster": cluster}}
        server = make_server("a", configuration=options).start()
        (line,) = [one for one in server.log.splitlines() if "HttpThreadsCount" in one]
        assert f"set it to {THREADS} or more" in line
