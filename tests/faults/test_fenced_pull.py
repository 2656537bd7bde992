"""A node of a cluster that fetches is stopped (SIGSTOP) for longer than its lease: its pull goes on by itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.failpoint_hooks import FOLDER
from tests.faults.failpoints import Failpoint
from tests.faults.rig import SCRIPT, script_environment
from tests.support.cluster import OrthancCluster
from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer
from tests.support.postgresql import postgresql_is_installed
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.orthanc,
    pytest.mark.faults,
    pytest.mark.skipif(not postgresql_is_installed(), reason="orthanc-postgresql is not installed"),
]


@pytest.fixture(scope="module")
def site(
    make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[OrthancServer, OrthancCluster]]:
    options = {"BucketSize": 64}
    a = make_shared_server("a", configuration={"Transfers": options})
    a.start()
    with OrthancCluster(
        tmp_path_factory.mktemp("cluster"),
        size=2,
        transfers=options,
        orthanc={"OrthancPeers": {"a": {"Url": a.url}}},
        script=SCRIPT,
        environment=script_environment(),
    ) as cluster:
        for node in cluster.nodes:
            (node.folder / FOLDER).mkdir(parents=True, exist_ok=True)
        yield a, cluster


@pytest.mark.parametrize(
    "point", ["Area.write after", "OrthancStore.add before"], ids=["fetching", "importing"]
)
def test_a_pull_of_a_node_that_was_stopped_goes_on_by_itself(
    site: tuple[OrthancServer, OrthancCluster], point: str
) -> None:
    a, cluster = site
    a.clear()
    cluster.clear()
    stopped, other = cluster.nodes if point.startswith("Area") else reversed(cluster.nodes)
    (study,) = {one["ParentStudy"] for one in a.upload_all(ct_study(24, size=192))}
    failpoint = Failpoint(stopped, point, "stop 12")
    job = stopped.pull([resource("Study", study)], "a")["ID"]
    failpoint.wait_stopped()
    failpoint.disarm()
    try:
        gone = f"node {stopped.name} of the cluster is gone"
        wait_until(lambda: gone in other.log, "the other node has its transfers")
    finally:
        cluster.go_on(stopped)
    known = stopped.wait_for_job(job)
    assert known["State"] == "Success", known
    assert other.md5s() == stopped.md5s() == a.md5s()
    wait_until(lambda: not list(cluster.folder.rglob("area")), "nothing is staged", 60)
