"""The database of a cluster is away for a while, for all nodes or for one: transfers wait, and go on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pytest

from tests.faults.cluster_rig import EVERY, PATIENCE
from tests.faults.failpoint_hooks import FOLDER
from tests.faults.failpoints import Failpoint, check_name
from tests.faults.rig import SCRIPT, script_environment
from tests.support.cluster import OrthancCluster
from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import StatusError, resource
from tests.support.orthanc_server import OrthancServer
from tests.support.postgresql import postgresql_is_installed
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.orthanc,
    pytest.mark.faults,
    pytest.mark.skipif(not postgresql_is_installed(), reason="orthanc-postgresql is not installed"),
]

AWAY = 30.0 if EVERY else 10.0
"""Seconds: longer than a lease."""

PHASES = {
    "create": "PeerRoutes.create_push_v2 before",
    "transfer": "PeerRoutes.put_ranges before",
    "verify": "Commit.run before",
    "import": "OrthancStore.add before",
    "outcome": "Area.journal_outcome before",
}


@pytest.fixture(scope="module")
def site(
    make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[OrthancServer, OrthancCluster]]:
    folder: Path = tmp_path_factory.mktemp("cluster")
    options = {"BucketSize": 64}
    with OrthancCluster(
        folder, size=2, transfers=options, script=SCRIPT, environment=script_environment()
    ) as cluster:
        for node in cluster.nodes:
            (node.folder / FOLDER).mkdir(parents=True, exist_ok=True)
        a = make_shared_server("a", configuration={"Transfers": options})
        a.add_peer("c", a, Url=cluster.url)
        a.start()
        yield a, cluster


def be_away(cluster: OrthancCluster, points: Sequence[Failpoint]) -> None:
    """Without its database all goes on from there, for a while."""
    cluster.database.stop()
    try:
        for point in points:
            point.disarm()
        time.sleep(AWAY)  # it is about time that passes
    finally:
        cluster.database.start()


def responds(node: OrthancServer) -> None:
    """Orthanc itself does: of 1.13, the first request on each of its connections fails after that (503)."""

    def asked() -> bool:
        with contextlib.suppress(StatusError):
            return node.get("instances") is not None
        return False

    wait_until(asked, f"{node.name} responds", 60)


def begun(a: OrthancServer, cluster: OrthancCluster, phase: str) -> tuple[str, list[Failpoint]]:
    """A push whose node waits in that phase: its job, and what it waits for."""
    a.clear()
    cluster.clear()
    (study,) = {one["ParentStudy"] for one in a.upload_all(ct_study(24, size=192))}
    name = check_name(PHASES[phase])
    points = [Failpoint(node, name, "wait") for node in cluster.nodes]
    job = a.send([resource("Study", study)], "c")["ID"]
    wait_until(lambda: any(point.reached for point in points), f"a node gets to {name}", 60)
    return job, points


def is_whole(a: OrthancServer, cluster: OrthancCluster, job: str) -> None:
    """The push succeeds, by itself, and all nodes are well."""
    known = a.wait_for_job(job, timeout=240)
    assert known["State"] == "Success", known
    for node in cluster.nodes:
        assert node.running
        responds(node)
        assert node.md5s() == a.md5s()
    wait_until(lambda: not list(cluster.folder.rglob("area")), "nothing is staged", 60)


@pytest.mark.parametrize("phase", PHASES)
def test_a_push_goes_on_when_the_database_is_back(
    site: tuple[OrthancServer, OrthancCluster], phase: str
) -> None:
    a, cluster = site
    job, points = begun(a, cluster, phase)
    be_away(cluster, points)
    is_whole(a, cluster, job)


def test_pulls_from_the_cluster_and_of_a_node_go_on_when_the_database_is_back(
    site: tuple[OrthancServer, OrthancCluster],
) -> None:
    a, cluster = site
    a.clear()
    cluster.clear()
    node = cluster.nodes[0]
    node.put("peers/a", {"Url": a.url})
    (theirs,) = {one["ParentStudy"] for one in node.upload_all(ct_study(16, size=192))}
    (ours,) = {one["ParentStudy"] for one in a.upload_all(ct_study(16, size=192))}
    asked = [Failpoint(one, "PeerRoutes.post_chunks before", "wait") for one in cluster.nodes]
    fetched = Failpoint(node, "RequestsTransport.send POST chunks after", "wait 4")
    jobs = [
        (a, a.pull([resource("Study", theirs)], "c", Compression="none")["ID"]),
        (node, node.pull([resource("Study", ours)], "a", Compression="none")["ID"]),
    ]
    wait_until(lambda: any(one.reached for one in asked), "the cluster is asked", 60)
    fetched.wait_reached()
    be_away(cluster, [*asked, fetched])
    for server, job in jobs:
        known = server.wait_for_job(job, timeout=240)
        assert known["State"] == "Success", known
    assert len(a.instances()) == 32
    for one in cluster.nodes:
        responds(one)
        assert one.md5s() == a.md5s()
    wait_until(lambda: not list(cluster.folder.rglob("area")), "nothing is staged", PATIENCE)


@pytest.mark.parametrize("phase", ["create", "verify", "import"])
def test_a_push_goes_on_though_the_connections_of_orthanc_alone_were_cut(
    site: tuple[OrthancServer, OrthancCluster], phase: str
) -> None:
    a, cluster = site
    job, points = begun(a, cluster, phase)
    # As long after a restart of the database: ours have noticed it, and Orthanc only does when it uses its own.
    with psycopg.connect(cluster.database.uri, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND application_name <> 'orthanc-transfers' AND backend_type = 'client backend'"
        )
    for point in points:
        point.disarm()
    is_whole(a, cluster, job)
