"""A node of a cluster dies or is stopped at any point of a transfer: others go on with it by themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.failpoint_hooks import FOLDER
from tests.faults.failpoints import Failpoint, FaultPoint
from tests.faults.rig import BUCKET, KB, SCRIPT, THREADS, Rig, Transfer, script_environment, staging
from tests.support import process
from tests.support.cluster import OrthancCluster
from tests.support.dicom_data import ct_study, small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer
from tests.support.postgresql import postgresql_is_installed
from tests.support.recording_proxy import RecordingProxy
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.orthanc,
    pytest.mark.faults,
    pytest.mark.skipif(not postgresql_is_installed(), reason="orthanc-postgresql is not installed"),
]

_PATIENCE = 120.0


@dataclass
class ClusterRig:
    """``a`` has the jobs; it knows the cluster as ``b1`` and ``b2``, by the version of the protocol."""

    a: OrthancServer
    cluster: OrthancCluster
    proxies: dict[int, RecordingProxy]
    shared: bool

    def transfer(self, kill: FaultPoint) -> Transfer:
        """A study at ``a``, two of whose instances the cluster has. Nothing is started."""
        for node in self.cluster.nodes:
            self.disarm(node)
            if not node.running:
                node.start()
        self.a.clear()
        self.cluster.clear()
        for proxy in self.proxies.values():
            proxy.forget()
        target = self.cluster.nodes[0]
        files = list(ct_study(kill.slices, size=192, series=2))
        (study,) = {one["ParentStudy"] for one in self.a.upload_all(files)}
        target.upload_all([*files[:2], *small_instances(2)])
        staging(target).mkdir(parents=True, exist_ok=True)
        rig = Rig(self.a, target, self.proxies)
        return Transfer(rig, kill.mode, kill.version, self.a, target, study)

    def disarm(self, node: OrthancServer) -> None:
        for failpoint in (node.folder / FOLDER).glob("*"):
            failpoint.unlink()

    def arm(self, name: str, action: str) -> None:
        """At every node: whichever gets there."""
        for node in self.cluster.nodes:
            Failpoint(node, name, action)

    def has_ended(self, transfer: Transfer) -> bool:
        """Whether a job has, whatever nodes are dead."""
        for node in self.cluster.nodes:
            if not node.running:
                node.kill()  # from now on it is known to have been meant
        return self.a.job(transfer.job)["State"] in ("Success", "Failure")

    def is_whole(self, transfer: Transfer) -> None:
        """Each instance is there, byte by byte, as any node that runs says; and all that was there before."""
        for node in self.cluster.nodes:
            if not node.running:
                continue
            expected = {**transfer.before, **transfer.wanted}
            assert node.md5s() == expected
            for identifier, md5 in expected.items():
                assert hashlib.md5(node.download(f"instances/{identifier}/file")).hexdigest() == md5

    def leaves_nothing(self) -> None:
        """No bytes of a transfer are staged any more."""
        wait_until(lambda: not list(self.cluster.folder.rglob("area")), "nothing is staged", 30)


@pytest.fixture(scope="module")
def rig(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterRig]:
    yield from start_rig(make_shared_server, tmp_path_factory.mktemp("cluster"), shared=True)


@pytest.fixture(scope="module")
def rig_of_own_disks(
    make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClusterRig]:
    yield from start_rig(make_shared_server, tmp_path_factory.mktemp("cluster"), shared=False)


def start_rig(make_shared_server: MakeServer, folder: Path, *, shared: bool) -> Iterator[ClusterRig]:
    options = {"BucketSize": BUCKET // KB, "Threads": THREADS}
    with OrthancCluster(
        folder,
        shared=shared,
        transfers=options,
        script=SCRIPT,
        environment=script_environment(),
    ) as cluster:
        a = make_shared_server(
            f"a-{shared}",
            script=SCRIPT,
            configuration={"ConcurrentJobs": 8, "Transfers": options},
            environment=script_environment(),
        )
        for server in (a, *cluster.nodes):
            (server.folder / FOLDER).mkdir(parents=True, exist_ok=True)
        with cluster.proxy_of_version_1() as first:
            a.add_peer("b1", a, Url=first.url)
            a.add_peer("b2", a, Url=cluster.url)
            a.start()
            yield ClusterRig(a, cluster, {1: first, 2: cluster.proxy}, shared)


KILLS = [
    FaultPoint("push", "receiver", "asked to create", "PeerRoutes.create_push_v2 before"),
    FaultPoint("push", "receiver", "area laid down", "Staging.create after"),
    FaultPoint("push", "receiver", "created, not answered", "PeerRoutes.create_push_v2 after"),
    FaultPoint("push", "receiver", "first bucket came", "PeerRoutes.put_ranges before"),
    FaultPoint("push", "receiver", "bucket written, not journalled", "Area.write after", 20),
    FaultPoint("push", "receiver", "bucket journalled, not answered", "PeerRoutes.put_ranges after", 30),
    FaultPoint("push", "receiver", "asked to commit", "PeerRoutes.commit_push_v2 before"),
    FaultPoint("push", "receiver", "commit answered, nothing verified", "Commit.run before"),
    FaultPoint("push", "receiver", "verified, nothing journalled", "Area.journal_committing before"),
    FaultPoint("push", "receiver", "verified and journalled", "Area.journal_committing after"),
    FaultPoint("push", "receiver", "importing the first", "OrthancStore.add before"),
    FaultPoint("push", "receiver", "half is imported", "OrthancStore.add after", 20),
    FaultPoint("push", "receiver", "all is imported", "OrthancStore.add after", 46),
    FaultPoint("push", "receiver", "outcome not journalled", "Area.journal_outcome before"),
    FaultPoint("push", "receiver", "outcome journalled, no report", "Area.journal_outcome after"),
    FaultPoint("push", "receiver", "outcome not answered", "Reports.write after"),
]

STOPS = [
    FaultPoint("push", "receiver", "bucket written, not journalled", "Area.write after", 20),
    FaultPoint("push", "receiver", "verified and journalled", "Area.journal_committing after"),
    FaultPoint("push", "receiver", "about to import", "OrthancStore.add before", 20),
    FaultPoint("push", "receiver", "half is imported", "OrthancStore.add after", 20),
    FaultPoint("push", "receiver", "outcome not journalled", "Area.journal_outcome before"),
]


@pytest.mark.parametrize("kill", KILLS, ids=str)
def test_a_push_goes_on_by_itself_when_the_node_that_has_it_is_killed(
    rig: ClusterRig, kill: FaultPoint
) -> None:
    goes_on(rig, kill)


@pytest.mark.parametrize("kill", KILLS[4::3], ids=str)
def test_a_push_starts_over_by_itself_when_the_node_that_has_its_bytes_is_killed(
    rig_of_own_disks: ClusterRig, kill: FaultPoint
) -> None:
    goes_on(rig_of_own_disks, kill)


def goes_on(rig: ClusterRig, kill: FaultPoint) -> None:
    transfer = rig.transfer(kill)
    rig.arm(kill.failpoint, f"kill {kill.nth}")
    transfer.start_saved()
    nodes = rig.cluster.nodes
    wait_until(lambda: not all(node.running for node in nodes), "a node dies", _PATIENCE)
    for node in nodes:
        rig.disarm(node)
    # Where several get there at once, several die.
    wait_until(lambda: rig.has_ended(transfer), "the transfer ends", _PATIENCE)
    transfer.succeed()
    rig.is_whole(transfer)
    for node in nodes:
        if not node.running:
            node.start()  # what others had taken over is deleted from its own disk
    if rig.shared:
        assert transfer.sent_again() <= transfer.in_flight()
    rig.leaves_nothing()


@pytest.mark.parametrize("stop", STOPS, ids=str)
def test_a_node_that_was_stopped_finishes_nothing_that_another_took_over(
    rig: ClusterRig, stop: FaultPoint
) -> None:
    transfer = rig.transfer(stop)
    rig.arm(stop.failpoint, f"stop {stop.nth}")
    transfer.start_saved()
    nodes = rig.cluster.nodes
    wait_until(lambda: any(process.is_stopped(node.pid) for node in nodes), "a node stops", _PATIENCE)
    (victim,) = (node for node in nodes if process.is_stopped(node.pid))
    for node in nodes:
        rig.disarm(node)
    others = [node for node in nodes if node is not victim]
    try:
        transfer.succeed(_PATIENCE)
        for node in others:
            assert node.md5s() == {**transfer.before, **transfer.wanted}
        # Whatever it does when it goes on: none of this is its own any more. But what it was just importing is.
        deleted = not stop.failpoint.startswith("OrthancStore.add")
        if deleted:
            others[0].delete(f"studies/{transfer.study}")
    finally:
        rig.cluster.go_on(victim)
    wait_until(lambda: "another one has its transfers now" in victim.log, "it learns that", _PATIENCE)
    (study,) = {one["ParentStudy"] for one in rig.a.upload_all(ct_study(3, size=64))}
    for _ in range(3):
        known = rig.a.wait_for_job(rig.a.send([resource("Study", study)], "b2")["ID"])
        assert known["State"] == "Success", known
    expected = {*transfer.before, *others[0].md5s(f"studies/{study}")}
    wanted = transfer.wanted.keys()
    assert others[0].md5s().keys() == (expected - wanted if deleted else expected | wanted)
    rig.leaves_nothing()
