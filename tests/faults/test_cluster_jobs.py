"""A node of a cluster that has jobs does not come back, or not for a while: others go on with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from tests.faults.cluster_rig import PATIENCE, node_environment, some
from tests.faults.failpoint_hooks import FOLDER
from tests.faults.failpoints import Failpoint, FaultPoint
from tests.faults.rig import SCRIPT, THREADS
from tests.support.cluster import OrthancCluster
from tests.support.cpp_peer import CppPeer
from tests.support.dicom_data import ct_study, small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import FINISHED, resource
from tests.support.orthanc_server import OrthancServer
from tests.support.postgresql import postgresql_is_installed
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.orthanc,
    pytest.mark.faults,
    pytest.mark.skipif(not postgresql_is_installed(), reason="orthanc-postgresql is not installed"),
]

# A job is adopted once the lease of its node is over, then.
ADOPT_AFTER = 1

OPTIONS = {"BucketSize": 32, "Threads": THREADS}

PULLS = [
    FaultPoint("pull", "receiver", "knows the list", "RequestsTransport.send POST lookup after"),
    FaultPoint("pull", "receiver", "some are fetched", "RequestsTransport.send POST chunks after", 20),
    FaultPoint("pull", "receiver", "all fetched, nothing verified", "Commit.run before"),
    FaultPoint("pull", "receiver", "verified and journalled", "Area.journal_committing after"),
    FaultPoint("pull", "receiver", "half is imported", "OrthancStore.add after", 20),
    FaultPoint("pull", "receiver", "outcome not journalled", "Area.journal_outcome before"),
    FaultPoint("pull", "receiver", "outcome journalled", "Area.journal_outcome after"),
]


@dataclass
class Site:
    """Two nodes, which know ``away``; a job of ``gone`` goes on at ``heir``."""

    away: OrthancServer
    cluster: OrthancCluster
    job: str = ""
    """The one of ``gone``."""
    _before: set[str] = field(default_factory=set)

    @property
    def gone(self) -> OrthancServer:
        return self.cluster.nodes[0]

    @property
    def heir(self) -> OrthancServer:
        return self.cluster.nodes[1]

    def clear(self) -> None:
        for server in (self.away, *self.cluster.nodes):
            for failpoint in (server.folder / FOLDER).glob("*"):
                failpoint.unlink()
            if not server.running:
                server.start()
        self.away.clear()
        self.cluster.clear()
        self._before = set(self.heir.get("jobs"))

    def pull(self) -> None:
        """Let ``gone`` fetch a study; it does nothing before the cluster knows the job."""
        (study,) = {one["ParentStudy"] for one in self.away.upload_all(ct_study(40, size=192))}
        with Failpoint(self.gone, "PullJob.work before", "wait"):
            self.job = self.gone.pull([resource("Study", study)], "away", Compression="none")["ID"]
            self.wait_saved()

    def wait_saved(self) -> None:
        """The cluster knows of a job."""
        with psycopg.connect(self.cluster.database.uri, autocommit=True) as connection:
            query = "SELECT 1 FROM orthanc_transfers.jobs WHERE identifier = %s"
            wait_until(lambda: connection.execute(query, (self.job,)).fetchone(), "the job is saved")

    def adopted(self) -> dict[str, Any]:
        """The job of the heir that is new, once it has one, and that has ended."""

        def new() -> list[str]:
            return [one for one in self.heir.get("jobs") if one not in self._before]

        (job,) = wait_until(new, "another node has the job", PATIENCE)
        known = self.heir.wait_for_job(job, timeout=PATIENCE)
        assert known["State"] == "Success", known
        return known

    def settles(self) -> None:
        """What the first node still has of it ends, and changes nothing."""

        def ended() -> bool:
            # Orthanc may have been killed before it saved the job.
            return self.job not in self.gone.get("jobs") or self.gone.job(self.job)["State"] in FINISHED

        wait_until(ended, "its job has ended", PATIENCE)
        for node in self.cluster.nodes:
            assert node.md5s() == self.away.md5s()
        wait_until(lambda: not list(self.cluster.folder.rglob("area")), "nothing is staged", PATIENCE)


@pytest.fixture(scope="module")
def shared(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    away = make_shared_server("away", configuration={"Transfers": OPTIONS})
    with OrthancCluster(
        tmp_path_factory.mktemp("cluster"),
        size=2,
        transfers=OPTIONS,
        script=SCRIPT,
        environment=node_environment(),
        peers={"away": away},
        options={"AdoptAfter": ADOPT_AFTER},
    ) as cluster:
        for node in cluster.nodes:
            (node.folder / FOLDER).mkdir(parents=True, exist_ok=True)
        yield Site(away, cluster)


@pytest.fixture
def site(shared: Site) -> Site:
    shared.clear()
    return shared


def test_a_push_of_a_node_that_does_not_come_back_goes_on_at_another(site: Site) -> None:
    site.away.stop()
    patient = site.gone.upload_all(small_instances(3))[0]["ParentPatient"]
    site.job = site.gone.send([resource("Patient", patient)], "away")["ID"]
    wait_until(lambda: "Waiting" in site.gone.job(site.job)["Content"], "the job waits for its peer")
    site.wait_saved()
    site.gone.kill()
    wait_until(lambda: len(set(site.heir.get("jobs"))) > 0, "another node has the job", PATIENCE)
    site.away.start()
    assert site.adopted()["Type"] == "PushTransfer"
    assert site.away.md5s() == site.heir.md5s()
    # It comes back all the same: its own job hands over, or finds that nothing is left to do; what arrived stays.
    site.gone.start()
    site.settles()


def test_a_push_of_version_1_of_a_node_that_does_not_come_back_starts_over_at_another(site: Site) -> None:
    patient = site.gone.upload_all(ct_study(20, size=192))[0]["ParentPatient"]
    with CppPeer() as peer:
        for node in site.cluster.nodes:
            node.put("peers/cpp", {"Url": peer.url})
        with peer.holding(r"/transfers/push/[0-9a-f-]+/[0-9]+") as reached:
            site.job = site.gone.send([resource("Patient", patient)], "cpp", Compression="none")["ID"]
            wait_until(reached, "it sends")
            site.wait_saved()
            site.gone.kill()
        assert site.adopted()["Content"]["Protocol"] == 1
        assert len(peer.of("POST", "/transfers/push")) == 2
        assert peer.stored == {
            one: site.heir.download(f"instances/{one}/file") for one in site.heir.instances()
        }


@pytest.mark.parametrize("kill", some(PULLS, 1, 4), ids=str)
def test_a_pull_of_a_node_that_is_killed_goes_on_at_another(site: Site, kill: FaultPoint) -> None:
    Failpoint(site.gone, kill.failpoint, f"kill {kill.nth}")
    site.pull()
    wait_until(lambda: not site.gone.running, "it dies", PATIENCE)
    site.gone.kill()  # it was meant
    assert site.adopted()["Type"] == "PullTransfer"
    assert site.heir.md5s() == site.away.md5s()
    site.gone.start()
    site.settles()


@pytest.mark.parametrize("stop", some(PULLS, 4), ids=str)
def test_a_pull_of_a_node_that_is_stopped_for_long_goes_on_at_another(site: Site, stop: FaultPoint) -> None:
    stopped = Failpoint(site.gone, stop.failpoint, f"stop {stop.nth}")
    site.pull()
    stopped.wait_stopped()
    try:
        site.adopted()
        assert site.heir.md5s() == site.away.md5s()
    finally:
        site.cluster.go_on(site.gone)
    site.settles()
