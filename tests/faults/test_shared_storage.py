"""A cluster whose staging is on storage that it shares: no node locks or maps a file there, as NFS may not allow it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.cluster_rig import PATIENCE, node_environment
from tests.faults.failpoint_hooks import FOLDER
from tests.faults.failpoints import Failpoint
from tests.faults.rig import SCRIPT
from tests.support.cluster import OrthancCluster
from tests.support.dicom_data import ct_study, multi_frame, small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, start_together
from tests.support.postgresql import postgresql_is_installed
from tests.support.rules import STABLE, history, remove_rules, set_rule
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.orthanc,
    pytest.mark.faults,
    pytest.mark.skipif(not postgresql_is_installed(), reason="orthanc-postgresql is not installed"),
]

JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"


def large() -> list[bytes]:
    """More than any push of one request, and more than are imported at once."""
    return [multi_frame(6_000_000, seed=number) for number in range(7)]


@pytest.fixture(scope="module")
def a(make_shared_server: MakeServer) -> OrthancServer:
    return make_shared_server("a")


@pytest.fixture(scope="module")
def cluster(
    a: OrthancServer, make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OrthancCluster]:
    b = make_shared_server("b")  # to which it sends by itself
    with OrthancCluster(
        tmp_path_factory.mktemp("cluster"),
        size=2,
        # What a node stores is not what it was sent: it keeps a record of that.
        orthanc={**STABLE, "IngestTranscoding": JPEG_LOSSLESS},
        script=SCRIPT,
        environment=node_environment(),
        peers={"b": b},
    ) as cluster:
        for node in cluster.nodes:
            (node.folder / FOLDER).mkdir(parents=True, exist_ok=True)
        a.add_peer("c", a, Url=cluster.url)
        start_together(a, b)
        yield cluster


def shared_folder(cluster: OrthancCluster) -> Path:
    return cluster.folder / "storage" / "Transfers"


class Watched:
    """What the kernel says of files of a folder: which are locked, by whomever, or mapped by nodes."""

    def __init__(self, cluster: OrthancCluster) -> None:
        self._folder = shared_folder(cluster)
        self._pids = [node.pid for node in cluster.nodes]
        self.locked: set[str] = set()
        self.mapped: set[str] = set()

    def look(self) -> None:
        names: dict[str, str] = {}
        for folder, _, files in os.walk(self._folder):
            for name in files:
                try:
                    names[str(os.stat(os.path.join(folder, name)).st_ino)] = name
                except FileNotFoundError:
                    continue
        for line in Path("/proc/locks").read_text().splitlines():
            inode = next(field for field in line.split() if field.count(":") == 2).rsplit(":", 1)[1]
            if inode in names:
                self.locked.add(names[inode])
        for pid in self._pids:
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                if str(self._folder) in line:
                    self.mapped.add(line.split(maxsplit=5)[5])


@contextmanager
def watched(cluster: OrthancCluster) -> Iterator[Watched]:
    """Looked at again and again."""
    watched, over = Watched(cluster), threading.Event()

    def work() -> None:
        while not over.wait(0.02):
            watched.look()

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(work)
        try:
            yield watched
        finally:
            over.set()
        watching.result()


def test_no_file_is_locked_or_mapped_whatever_is_received_listed_and_sent_on(
    a: OrthancServer, cluster: OrthancCluster
) -> None:
    for node in cluster.nodes:
        set_rule(node)
    with watched(cluster) as seen:
        for data in ([*ct_study(20, size=128), *small_instances(50)], large(), list(ct_study(70))):
            studies = {one["ParentStudy"] for one in a.upload_all(data)}
            known = a.wait_for_job(a.send([resource("Study", one) for one in studies], "c")["ID"])
            assert known["State"] == "Success", known
            for node in cluster.nodes:
                assert node.get("transfers/status")
        # Orthanc tells of what is stable where it was received.
        wait_until(lambda: any(map(history, cluster.nodes)), "a rule has sent something", PATIENCE)
        for node in cluster.nodes:
            remove_rules(node)
    assert (seen.locked, seen.mapped) == ({"lock"}, set())
    kept = {path.name for path in shared_folder(cluster).rglob("*.sqlite")}
    assert kept == {"transfers.sqlite", "rules.sqlite", "changed.sqlite"}


def test_a_file_that_is_cut_while_it_is_imported_is_an_error_and_not_the_end_of_orthanc(
    a: OrthancServer, cluster: OrthancCluster
) -> None:
    a.clear()
    cluster.clear()
    studies = {one["ParentStudy"] for one in a.upload_all(large())}
    points = [Failpoint(node, "OrthancStore.add before", "wait") for node in cluster.nodes]
    job = a.send([resource("Study", one) for one in studies], "c")["ID"]
    try:
        wait_until(lambda: any(point.reached for point in points), "an import", PATIENCE)
        seen = Watched(cluster)
        seen.look()
        assert not seen.mapped
        for area in shared_folder(cluster).rglob("area"):
            os.truncate(area, 0)
    finally:
        for point in points:
            point.disarm()
    known = a.wait_for_job(job)
    assert known["State"] == "Failure", known
    assert "shorter than its manifest" in known["Content"]["Error"]
    assert "nothing was kept" in known["Content"]["Error"]
    assert all(node.running for node in cluster.nodes)
    assert cluster.any_node().instances() == []
    a.post(f"jobs/{job}/resubmit")
    known = a.wait_for_job(job)
    assert known["State"] == "Success", known
    assert sorted(cluster.any_node().instances()) == sorted(a.instances())
