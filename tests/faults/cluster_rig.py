"""A cluster and an Orthanc that sends to it; a node of the cluster is killed, stopped or cut off on purpose.

With ``EVERY_POINT=1`` in the environment each happens at each of the ``POINTS`` (``make test-cluster``); else at some,
and leases are shorter than those of the product, so that it does not take so long. ``SILENCE=60``: a node that is
stopped or cut off is that for a minute at least.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from tests.faults.failpoint_hooks import FOLDER
from tests.faults.failpoints import Failpoint, FaultPoint
from tests.faults.rig import BUCKET, KB, SCRIPT, THREADS, Rig, Transfer, script_environment, staging
from tests.support import process
from tests.support.cluster import OrthancCluster
from tests.support.dicom_data import ct_study, small_instances
from tests.support.fixtures import MakeServer
from tests.support.nfs_machines import NfsMachines
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer
from tests.support.recording_proxy import RecordingProxy
from tests.support.switched_network import SwitchedNetwork
from tests.support.waiting import wait_until

PATIENCE = 150.0

EVERY = os.environ.get("EVERY_POINT") == "1"

POINTS = [
    FaultPoint("push", "receiver", "asked to create", "PeerRoutes.create_push_v2 before"),
    FaultPoint("push", "receiver", "claimed, nothing laid down", "PostgresOwnership.claim after"),
    FaultPoint("push", "receiver", "area laid down", "Staging.create after"),
    FaultPoint("push", "receiver", "created, not answered", "PeerRoutes.create_push_v2 after"),
    FaultPoint("push", "receiver", "first bucket came", "PeerRoutes.put_ranges before"),
    FaultPoint("push", "receiver", "bucket not handed on", "HandingOn.send before", 6),
    FaultPoint("push", "receiver", "bucket handed on, not answered", "HandingOn.send after", 12),
    FaultPoint("push", "receiver", "bucket written, not journalled", "Area.write after", 20),
    FaultPoint("push", "receiver", "bucket journalled, not answered", "PeerRoutes.put_ranges after", 30),
    FaultPoint("push", "receiver", "asked to commit", "PeerRoutes.commit_push_v2 before"),
    FaultPoint("push", "receiver", "commit answered, nothing verified", "Commit.run before"),
    FaultPoint("push", "receiver", "verified, nothing journalled", "Area.journal_committing before"),
    FaultPoint("push", "receiver", "verified and journalled", "Area.journal_committing after"),
    FaultPoint("push", "receiver", "importing the first", "OrthancStore.add before"),
    FaultPoint("push", "receiver", "half is imported", "OrthancStore.add after", 20),
    FaultPoint("push", "receiver", "all is imported", "OrthancStore.add after", 46),
    FaultPoint("push", "receiver", "outcome in the database only", "PostgresOwnership.end after"),
    FaultPoint("push", "receiver", "outcome not journalled", "Area.journal_outcome before"),
    FaultPoint("push", "receiver", "outcome journalled, no report", "Area.journal_outcome after"),
    FaultPoint("push", "receiver", "outcome not answered", "Reports.write after"),
]
"""Of a push: it is created, transferred, verified, imported and answered."""

_WRITTEN_THROUGH = next(index for index, one in enumerate(POINTS) if one.point == "verified and journalled")
"""From there on another machine sees all bytes, on NFS too."""

ASKED = [
    FaultPoint("pull", "sender", "asked for the list", "PeerRoutes.lookup before"),
    FaultPoint("pull", "sender", "list not answered", "PeerRoutes.lookup after"),
    FaultPoint("pull", "sender", "asked for a bucket", "PeerRoutes.post_chunks before", 5),
    FaultPoint("pull", "sender", "bucket read, not answered", "PeerRoutes.post_chunks after", 10),
    FaultPoint("pull", "sender", "bucket read, not answered", "PeerRoutes.get_chunks after", 10, version=1),
]
"""Of a pull from the cluster."""

SILENCE = float(os.environ.get("SILENCE", "0"))
"""Seconds for which a node stands still, or is cut off, at least."""


def some(points: Sequence[FaultPoint], *indices: int) -> Sequence[FaultPoint]:
    """Those of ``points``; all of them where that is asked for."""
    return points if EVERY else [points[index] for index in indices]


def node_environment() -> dict[str, str]:
    """Of a node with failpoints."""
    return script_environment() | ({} if EVERY else {"CLUSTER_LEASE": "4"})


@dataclass
class ClusterRig:
    """``a`` has the jobs; it knows the cluster as ``b1`` and ``b2``, by the version of the protocol."""

    a: OrthancServer
    cluster: OrthancCluster
    proxies: dict[int, RecordingProxy]
    shared: bool
    known: dict[str, int] = field(default_factory=dict)
    """How often each node had lost its transfers before this one."""

    def transfer(self, point: FaultPoint) -> Transfer:
        """A study at one side, two of whose instances the other one has. Nothing is started."""
        for node in self.cluster.nodes:
            self.disarm(node)
            if not node.running:
                node.start()
            self.known[node.name] = losses(node)
        with contextlib.suppress(FileNotFoundError):
            self._victim.rmdir()
        self.a.clear()
        self.cluster.clear()
        for proxy in self.proxies.values():
            # Else a node that died a moment ago would not be asked for 10 s.
            proxy.reload()
            proxy.forget()
        node = self.cluster.nodes[0]
        source, target = (self.a, node) if point.mode == "push" else (node, self.a)
        files = list(ct_study(point.slices, size=192, series=2))
        (study,) = {one["ParentStudy"] for one in source.upload_all(files)}
        target.upload_all([*files[:2], *small_instances(2)])
        for server in (self.a, node):
            staging(server).mkdir(parents=True, exist_ok=True)
        return Transfer(Rig(self.a, node, self.proxies), point.mode, point.version, source, target, study)

    @property
    def _victim(self) -> Path:
        return self.cluster.folder / "victim"

    def disarm(self, node: OrthancServer) -> None:
        for failpoint in (node.folder / FOLDER).glob("*"):
            failpoint.unlink()

    def arm(self, name: str, action: str) -> list[Failpoint]:
        """At every node: whichever gets there first is killed, or stopped; each waits."""
        only_one = "" if action.startswith("wait") else f" {self._victim}"
        return [Failpoint(node, name, f"{action}{only_one}") for node in self.cluster.nodes]

    def disarm_all(self) -> None:
        for node in self.cluster.nodes:
            self.disarm(node)

    def first(self, condition: Callable[[OrthancServer], bool], what: str) -> OrthancServer:
        """A node of which that is true, once there is one."""

        def found() -> OrthancServer | None:
            return next((node for node in self.cluster.nodes if condition(node)), None)

        node: OrthancServer = wait_until(found, what, PATIENCE)
        return node

    def has_ended(self, transfer: Transfer) -> bool:
        """Whether a job has, whatever nodes are dead."""
        for node in self.cluster.nodes:
            if not node.running:
                node.kill()  # from now on it is known to have been meant
        return self.a.job(transfer.job)["State"] in ("Success", "Failure")

    def is_whole(self, transfer: Transfer, *, without: Sequence[OrthancServer] = ()) -> None:
        """Each instance is there, byte by byte, as any node that runs says; and all that was there before."""
        expected = {**transfer.before, **transfer.wanted}
        for node in self.cluster.nodes if transfer.mode == "push" else [self.a]:
            if not node.running or node in without:
                continue
            found = node.md5s()
            lost, strange = expected.keys() - found.keys(), found.keys() - expected.keys()
            assert found == expected, (
                f"{node.name}: {len(lost)} are missing, {len(strange)} too many: {strange}"
            )
            for identifier, md5 in expected.items():
                assert hashlib.md5(node.download(f"instances/{identifier}/file")).hexdigest() == md5

    def is_a_node(self, node: OrthancServer) -> bool:
        """Whether the cluster has it, and no other node has taken over from it."""
        with psycopg.connect(self.cluster.database.uri, autocommit=True) as connection:
            query = "SELECT 1 FROM orthanc_transfers.nodes WHERE name = %s AND adopted_by IS NULL"
            return connection.execute(query, (node.name,)).fetchone() is not None

    def leaves_nothing(self) -> None:
        """No bytes of a transfer are staged any more."""
        wait_until(lambda: not list(self.cluster.folder.rglob("area")), "nothing is staged", 60)

    def takes_part_again(self, victims: Sequence[OrthancServer]) -> None:
        """Nodes that were silent, and have lost what they had, receive like the others. Adds a study to both sides."""
        wait_until(
            lambda: all(losses(node) > self.known[node.name] for node in victims), "they learn that", PATIENCE
        )
        (study,) = {one["ParentStudy"] for one in self.a.upload_all(ct_study(3, size=64))}
        for _ in range(3):
            known = self.a.wait_for_job(self.a.send([resource("Study", study)], "b2")["ID"])
            assert known["State"] == "Success", known


def losses(node: OrthancServer) -> int:
    """How often a node has learnt that another one has its transfers."""
    return node.log.count("another one has its transfers now")


@contextmanager
def cluster_rig(
    make_shared_server: MakeServer,
    folder: Path,
    *,
    shared: bool = True,
    network: SwitchedNetwork | None = None,
) -> Iterator[ClusterRig]:
    """Started. ``shared`` and ``network`` as in ``OrthancCluster``."""
    options = {"BucketSize": BUCKET // KB, "Threads": THREADS}
    with OrthancCluster(
        folder,
        shared=shared,
        transfers=options,
        script=SCRIPT,
        environment=node_environment(),
        network=network,
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


def goes_on_after_a_kill(rig: ClusterRig, point: FaultPoint) -> None:
    """A push whose node is killed there ends whole, by itself."""
    transfer = rig.transfer(point)
    rig.arm(point.failpoint, f"kill {point.nth}")
    transfer.start_saved()
    rig.first(lambda node: not node.running, "a node dies")
    died = time.monotonic()
    rig.disarm_all()
    wait_until(lambda: rig.has_ended(transfer), "the transfer ends", PATIENCE)
    print(f"{point}: the transfer had ended {time.monotonic() - died:.1f} s after the death")
    transfer.succeed()
    rig.is_whole(transfer)
    for node in rig.cluster.nodes:
        if not node.running:
            node.start()  # what others had taken over is deleted from its own disk
    if rig.shared:
        assert transfer.sent_again() <= transfer.in_flight()
    rig.leaves_nothing()


def goes_on_after_a_power_failure(rig: ClusterRig, point: FaultPoint) -> None:
    """A push ends whole, by itself, whose node is there when its machine loses its power. Needs ``NfsMachines``."""
    transfer, victim = _held(rig, point)
    victim.kill()
    rig.disarm_all()
    wait_until(lambda: rig.has_ended(transfer), "the transfer ends", PATIENCE)
    victim.start()
    transfer.succeed()
    rig.is_whole(transfer)
    rig.leaves_nothing()


def _held(rig: ClusterRig, point: FaultPoint) -> tuple[Transfer, OrthancServer]:
    """A transfer that has begun, and the node that waits there."""
    transfer = rig.transfer(point)
    points = rig.arm(point.failpoint, f"wait {point.nth}")
    transfer.start_saved()
    nodes = rig.cluster.nodes
    return transfer, rig.first(lambda node: points[nodes.index(node)].reached, "a node gets there")


def goes_on_after_a_stop(rig: ClusterRig, point: FaultPoint) -> None:
    """A push whose node is stopped there ends whole, by itself; the node finishes nothing of it when it goes on."""
    transfer = rig.transfer(point)
    rig.arm(point.failpoint, f"stop {point.nth}")
    transfer.start_saved()
    rig.first(lambda node: process.is_stopped(node.pid), "a node stops")
    rig.disarm_all()
    try:
        _ends_without(
            rig,
            transfer,
            point,
            lambda node: process.is_stopped(node.pid),
            rig.cluster.go_on,
            imports=point.failpoint.startswith("OrthancStore.add"),
        )
    finally:
        for node in rig.cluster.nodes:
            rig.cluster.go_on(node)


def goes_on_after_a_cut(rig: ClusterRig, point: FaultPoint) -> None:
    """The same where the node is cut off from all others, the database and its clients, and goes on alone."""
    transfer, victim = _held(rig, point)
    rig.cluster.cut_off(victim)
    try:
        rig.disarm_all()
        # It goes on until its lease is over; what it cannot write into the index then may still be under way.
        imports = point.failpoint.startswith(("Area.journal_committing", "OrthancStore.add"))
        _ends_without(rig, transfer, point, lambda node: node is victim, rig.cluster.heal, imports=imports)
    finally:
        rig.cluster.heal(victim)
    victim.restart()


def _ends_without(
    rig: ClusterRig,
    transfer: Transfer,
    point: FaultPoint,
    is_away: Callable[[OrthancServer], bool],
    bring_back: Callable[[OrthancServer], None],
    *,
    imports: bool,
) -> None:
    """``imports``: who is away may be just importing something, and finish that."""
    began = time.monotonic()
    transfer.succeed(PATIENCE)
    victims = [node for node in rig.cluster.nodes if is_away(node)]
    others = [node for node in rig.cluster.nodes if node not in victims]
    rig.is_whole(transfer, without=victims)
    nfs = isinstance(rig.cluster.network, NfsMachines)
    if rig.shared and not (nfs and POINTS.index(point) < _WRITTEN_THROUGH):
        assert transfer.sent_again() <= transfer.in_flight()
    # Whatever they do when they go on: none of this is their own any more.
    if not imports:
        others[0].delete(f"studies/{transfer.study}")
    time.sleep(max(0.0, SILENCE - (time.monotonic() - began)))  # it is about time that passes
    # Who only hands requests on is not missed before its lease is over.
    wait_until(lambda: not any(map(rig.is_a_node, victims)), "others take over from them", PATIENCE)
    for victim in victims:
        bring_back(victim)
    rig.takes_part_again(victims)
    wanted = transfer.wanted.keys()
    found = others[0].md5s().keys()
    kept = {*transfer.before, *rig.a.md5s()}
    assert found == (kept | wanted if imports else kept - wanted)
    rig.leaves_nothing()
