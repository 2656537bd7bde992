"""A node of a cluster dies, is stopped or cut off at any point of a push: others go on with it by themselves."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.cluster_rig import (
    ASKED,
    EVERY,
    PATIENCE,
    POINTS,
    ClusterRig,
    cluster_rig,
    goes_on_after_a_kill,
    goes_on_after_a_stop,
    some,
)
from tests.faults.failpoints import FaultPoint
from tests.support.cpp_client import CppClient
from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.postgresql import postgresql_is_installed
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.orthanc,
    pytest.mark.faults,
    pytest.mark.skipif(not postgresql_is_installed(), reason="orthanc-postgresql is not installed"),
]


@pytest.fixture(scope="module")
def rig(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterRig]:
    with cluster_rig(make_shared_server, tmp_path_factory.mktemp("cluster")) as rig:
        yield rig


@pytest.fixture(scope="module")
def rig_of_own_disks(
    make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClusterRig]:
    with cluster_rig(make_shared_server, tmp_path_factory.mktemp("cluster"), shared=False) as rig:
        yield rig


@pytest.mark.parametrize("kill", POINTS, ids=str)
def test_a_push_goes_on_by_itself_when_the_node_that_has_it_is_killed(
    rig: ClusterRig, kill: FaultPoint
) -> None:
    goes_on_after_a_kill(rig, kill)


@pytest.mark.parametrize("kill", some(ASKED, 1, 3), ids=str)
def test_a_pull_goes_on_by_itself_when_the_node_that_is_asked_is_killed(
    rig: ClusterRig, kill: FaultPoint
) -> None:
    goes_on_after_a_kill(rig, kill)


@pytest.mark.skipif(not EVERY, reason="takes more than a minute: see EVERY_POINT")
def test_a_strict_cpp_peer_waits_for_a_commit_that_takes_longer_than_any_timeout_between_nodes(
    rig: ClusterRig,
) -> None:
    rig.disarm_all()
    rig.cluster.clear()
    data = list(ct_study(6, size=64))
    files = {stored["ID"]: one for stored, one in zip(rig.a.upload_all(data), data, strict=True)}
    points = rig.arm("OrthancStore.add before", "wait")
    with rig.cluster.proxy_of_version_1(timeout=300) as proxy, ThreadPoolExecutor(3) as pool:
        # The same node does not have them all, nor is it asked for all commits.
        pushes = [pool.submit(CppClient(proxy.url).push, files, "gzip") for _ in range(3)]
        wait_until(lambda: any(one.reached for one in points), "it is imported", PATIENCE)
        time.sleep(65)  # it is about time that passes
        rig.disarm_all()
        for push in pushes:
            push.result(PATIENCE)
    for node in rig.cluster.nodes:
        assert node.md5s() == {one: hashlib.md5(data).hexdigest() for one, data in files.items()}


@pytest.mark.parametrize("kill", some(POINTS, 7, 10, 13, 17), ids=str)
def test_a_push_starts_over_by_itself_when_the_node_that_has_its_bytes_is_killed(
    rig_of_own_disks: ClusterRig, kill: FaultPoint
) -> None:
    goes_on_after_a_kill(rig_of_own_disks, kill)


@pytest.mark.parametrize("stop", some(POINTS, 7, 12, 14, 17), ids=str)
def test_a_node_that_was_stopped_finishes_nothing_that_another_took_over(
    rig: ClusterRig, stop: FaultPoint
) -> None:
    goes_on_after_a_stop(rig, stop)
