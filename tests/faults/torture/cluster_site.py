"""A cluster of three nodes, one Orthanc that sends to it, one that fetches from it, and what must be true of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg

from tests.faults.rig import script_environment
from tests.faults.torture.round import Round, Violation
from tests.support import heap, process
from tests.support.cluster import OrthancCluster
from tests.support.dicom_data import ct_study
from tests.support.orthanc_client import FINISHED, StatusError
from tests.support.orthanc_server import OrthancServer
from tests.support.waiting import wait_until

TRANSFERS = {
    "BucketSize": 64,
    "Threads": 2,
    "PushIdleTimeout": 20,
    "MaxOutage": 150,
    "MaxPushTransactions": 50,
}
ORTHANC = {"ConcurrentJobs": 6, "JobsHistorySize": 500, "MaximumStorageCacheSize": 0}
TIMEOUT = 5
"""Seconds for which a request of a sender may be without a response."""

MAX_CONNECTIONS = 9
"""Of a node to the cluster's tables: what ``cluster/database.py`` keeps, and that of the lease."""

_TO_FETCH = ((1, 32), (3, 64), (8, 128), (12, 192), (24, 256))
"""Instances of the studies that are there, and pixels of a side."""


class Site:
    """``a`` sends and ``b`` fetches; each knows the cluster as ``c1`` and ``c2``, by the version of the protocol."""

    def __init__(self, a: OrthancServer, b: OrthancServer, cluster: OrthancCluster, shared: bool) -> None:
        self.a, self.b, self.cluster, self.shared = a, b, cluster, shared
        self.servers = (*cluster.nodes, a, b)

    def begin(self, into: Round, out: Round) -> dict[str, frozenset[str]]:
        """Clear all; the studies that can be fetched then, with their instances."""
        for server in (self.a, self.b, self.cluster.any_node()):
            server.clear()
        studies = {}
        for count, size in _TO_FETCH:
            files = ct_study(count, size=size, name="Phantom^There", seed=into.dice.randrange(100))
            stored = self.cluster.any_node().upload_all(files)
            studies[stored[0]["ParentStudy"]] = frozenset(one["ID"] for one in stored)
        into.there = out.sent = self.cluster.any_node().md5s()
        return studies

    def check(self, into: Round, out: Round) -> None:
        """All that must be true once all has ended. Raises ``Violation``."""
        for server in self.servers:
            if server.crashed:
                raise Violation(f"{server.name} crashed: {server.crashed}")
        self._wait(self._busy, "jobs that do not end")
        self._wait(self._staged, "left in staging")
        into.sent = self.a.md5s()
        stored = self.cluster.any_node().md5s()
        for this, found, where in ((into, stored, "the cluster"), (out, self.b.md5s(), "b")):
            complaint = this.complaint(found)
            if complaint is not None:
                raise Violation(f"at {where}: {complaint}")
        for node in self.cluster.nodes:
            if node.instances() != sorted(stored):
                raise Violation(f"{node.name} lists other instances than {self.cluster.any_node().name}")
        self._files_are_right(stored)
        self._reports_are_true(into)
        connections = self.connections()
        if connections > MAX_CONNECTIONS * len(self.cluster.nodes):
            raise Violation(f"{connections} connections to the cluster's tables")

    def connections(self) -> int:
        """Of all nodes to the cluster's tables."""
        with psycopg.connect(self.cluster.database.uri) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'orthanc-transfers'"
            ).fetchone()
        assert row is not None
        return int(row[0])

    def vitals(self) -> str:
        """What the processes have now."""
        told = [
            f"{server.name} {process.threads(server.pid)} threads, {process.open_files(server.pid)} files,"
            f" {process.memory(server.pid) >> 20} MB"
            for server in self.servers
        ]
        return f"{'; '.join(told)}; {self.connections()} connections of the nodes to their tables"

    def logs(self) -> Iterator[str]:
        """Their ends."""
        for server in self.servers:
            yield f"log of {server.name}, its end:\n{server.log_tail(120)}"

    def _wait(self, what: object, complaint: str) -> None:
        assert callable(what)
        try:
            wait_until(lambda: not what(), "", 90, every=0.2)
        except TimeoutError:
            raise Violation(f"{complaint}: {what()}") from None

    def _busy(self) -> list[str]:
        """Those that nobody waits for: the node died before it could say that it has them."""
        return [
            f"{job['ID']} of {server.name}: {job['State']}"
            for server in self.servers
            for job in server.get("jobs", params={"expand": ""})
            if job["State"] not in FINISHED
        ]

    def _staged(self) -> list[str]:
        found = []
        for server in (self.cluster, self.a, self.b):
            # Folders go while this looks at them, which os.walk passes over.
            for path, folders, files in os.walk(server.folder):
                folders[:] = [name for name in folders if len(name) > 2]  # none of Orthanc's storage
                found += [str(Path(path, name)) for name in files if name == "area"]
        return found

    def _files_are_right(self, stored: dict[str, str]) -> None:
        """Orthanc reads each file and compares it with its MD5."""
        node = self.cluster.any_node()

        def wrong(identifier: str) -> str | None:
            try:
                node.post(f"instances/{identifier}/attachments/dicom/verify-md5", {})
            except StatusError as error:
                return f"{identifier}: {error}"
            return None

        with ThreadPoolExecutor(4) as pool:
            complaints = [told for told in pool.map(wrong, stored) if told]
        if complaints:
            raise Violation(f"files are not as they were stored: {complaints}")

    def _reports_are_true(self, into: Round) -> None:
        """Any node says of each push that went through that it has each instance."""
        for wanted in into.wanted:
            if wanted.variant != "push-2" or not wanted.ended_well:
                continue
            report = into.dice.choice(self.cluster.nodes).get(f"transfers/reports/{wanted.transaction}")
            told = {row["ID"]: row["Outcome"] for row in report["Instances"]}
            if told.keys() != wanted.instances or not set(told.values()) <= {"stored", "already there"}:
                raise Violation(f"the report of {wanted} is not true: {report}")


@contextlib.contextmanager
def start_site(folder: Path, *, shared: bool) -> Iterator[Site]:
    """``shared``: the nodes' staging is on shared storage."""
    with contextlib.ExitStack() as stack:
        a, b = (
            OrthancServer(name, folder / name, configuration={"Transfers": TRANSFERS, **ORTHANC})
            for name in ("a", "b")
        )
        peers = {"a": {"Url": a.url, "Timeout": TIMEOUT}, "b": {"Url": b.url, "Timeout": TIMEOUT}}
        cluster = stack.enter_context(
            OrthancCluster(
                folder,
                shared=shared,
                transfers=TRANSFERS,
                orthanc={**ORTHANC, "OrthancPeers": peers},
                script=heap.SCRIPT,
                environment=script_environment(),
            )
        )
        first = stack.enter_context(cluster.proxy_of_version_1())
        for server in (a, b):
            stack.callback(server.remove)
            server.add_peer("c1", a, Url=first.url, Timeout=TIMEOUT)
            server.add_peer("c2", a, Url=cluster.url, Timeout=TIMEOUT)
            server.start()
        yield Site(a, b, cluster, shared)
