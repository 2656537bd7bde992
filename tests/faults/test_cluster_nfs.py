"""The nodes of a cluster have their storage on NFS, each on a machine of its own with a client of its own.

They run with ``EVERY_POINT=1`` only (``make test-cluster``), and where there is all that ``NfsMachines`` needs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.cluster_rig import (
    ASKED,
    EVERY,
    POINTS,
    ClusterRig,
    cluster_rig,
    goes_on_after_a_cut,
    goes_on_after_a_kill,
    goes_on_after_a_power_failure,
    goes_on_after_a_stop,
)
from tests.faults.failpoints import FaultPoint
from tests.support.dicom_data import ct_study, small_instances
from tests.support.fixtures import MakeServer
from tests.support.nfs_machines import NfsMachines, why_not
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer
from tests.support.postgresql import postgresql_is_installed
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.orthanc,
    pytest.mark.faults,
    pytest.mark.skipif(not EVERY, reason="takes long: see EVERY_POINT"),
    pytest.mark.skipif(not postgresql_is_installed(), reason="orthanc-postgresql is not installed"),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NfsMachines]:
    shared = tmp_path_factory.mktemp("cluster") / "storage"
    with NfsMachines(f"nfs-{os.getpid()}", 3, shared) as network, network.at_the_hub():
        yield network


@pytest.fixture(scope="module")
def rig(make_shared_server: MakeServer, network: NfsMachines) -> Iterator[ClusterRig]:
    with cluster_rig(make_shared_server, network.shared.parent, network=network) as rig:
        yield rig


@pytest.fixture(scope="module")
def outside(make_shared_server: MakeServer, network: NfsMachines) -> OrthancServer:
    """A server that the nodes reach."""
    return make_shared_server(
        "outside", host=network.hub_address, configuration={"RemoteAccessAllowed": True}
    ).start()


@pytest.fixture(autouse=True)
def nothing_is_left(network: NfsMachines) -> Iterator[None]:
    """No bytes of a transfer, nothing half made or half deleted, no file that was deleted while it was open."""
    yield
    wait_until(lambda: not left(network.shared), "nothing is left", 60)


def left(shared: Path) -> list[Path]:
    """What is of no use any more in the staging of all nodes."""
    return [path for path in shared.glob("Transfers/**/*") if path.name == "area" or path.name[0] == "."]


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_pushed_arrives_once(rig: ClusterRig, version: int) -> None:
    rig.disarm_all()
    rig.a.clear()
    rig.cluster.clear()
    rig.proxies[version].forget()
    node = rig.cluster.any_node()
    since = node.get("changes", params={"last": ""})["Last"]
    # One that is cut, one that is mapped, and such as are pushed in one request.
    data = [*ct_study(30, size=192), *ct_study(2, size=1600), *small_instances(100)]
    studies = sorted({one["ParentStudy"] for one in rig.a.upload_all(data)})
    for study in studies:
        known = rig.a.wait_for_job(rig.a.send([resource("Study", study)], f"b{version}")["ID"])
        assert known["State"] == "Success", known
    assert len({seen.upstream for seen in rig.proxies[version].requests if "/push" in seen.uri}) > 1
    for one in rig.cluster.nodes:
        assert one.md5s() == rig.a.md5s()
    changes = node.get("changes", params={"since": since, "limit": 100_000})["Changes"]
    stored = [one["ID"] for one in changes if one["ChangeType"] == "NewInstance"]
    assert sorted(stored) == sorted(rig.a.instances())


def test_what_is_pulled_arrives(rig: ClusterRig, outside: OrthancServer) -> None:
    rig.cluster.clear()
    outside.clear()
    (study,) = {one["ParentStudy"] for one in outside.upload_all(ct_study(30, size=192))}
    node = rig.cluster.any_node()
    node.put("peers/outside", {"Url": outside.url})
    known = node.wait_for_job(node.pull([resource("Study", study)], "outside")["ID"])
    assert known["State"] == "Success", known
    for one in rig.cluster.nodes:
        assert one.md5s() == outside.md5s()


@pytest.mark.parametrize("kill", POINTS, ids=str)
def test_a_push_goes_on_by_itself_when_the_node_that_has_it_is_killed(
    rig: ClusterRig, kill: FaultPoint
) -> None:
    goes_on_after_a_kill(rig, kill)


@pytest.mark.parametrize("kill", ASKED, ids=str)
def test_a_pull_goes_on_by_itself_when_the_node_that_is_asked_is_killed(
    rig: ClusterRig, kill: FaultPoint
) -> None:
    goes_on_after_a_kill(rig, kill)


@pytest.mark.parametrize(
    "failure",
    [
        *POINTS,
        # Its sender cannot be asked for bytes again.
        FaultPoint("push", "receiver", "half is imported", "OrthancStore.add after", 20, version=1),
    ],
    ids=str,
)
def test_a_push_goes_on_by_itself_when_the_machine_of_its_node_loses_its_power(
    rig: ClusterRig, failure: FaultPoint
) -> None:
    goes_on_after_a_power_failure(rig, failure)


@pytest.mark.parametrize("stop", POINTS, ids=str)
def test_a_node_that_was_stopped_finishes_nothing_that_another_took_over(
    rig: ClusterRig, stop: FaultPoint
) -> None:
    goes_on_after_a_stop(rig, stop)


@pytest.mark.parametrize("cut", POINTS, ids=str)
def test_a_push_goes_on_without_a_node_that_is_cut_off(rig: ClusterRig, cut: FaultPoint) -> None:
    goes_on_after_a_cut(rig, cut)
