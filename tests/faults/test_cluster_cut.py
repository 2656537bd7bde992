"""A node of a cluster is cut off from the network, at any point of a push: each node is a host of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.faults.cluster_rig import POINTS, ClusterRig, cluster_rig, goes_on_after_a_cut, some
from tests.faults.failpoints import FaultPoint
from tests.support.fixtures import MakeServer
from tests.support.postgresql import postgresql_is_installed
from tests.support.switched_network import SwitchedNetwork, why_not

pytestmark = [
    pytest.mark.orthanc,
    pytest.mark.faults,
    pytest.mark.skipif(not postgresql_is_installed(), reason="orthanc-postgresql is not installed"),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]


@pytest.fixture(scope="module")
def rig(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterRig]:
    with (
        SwitchedNetwork(f"cut-{os.getpid()}", 3) as network,
        network.at_the_hub(),
        cluster_rig(make_shared_server, tmp_path_factory.mktemp("cluster"), network=network) as rig,
    ):
        yield rig


@pytest.mark.parametrize("cut", some(POINTS, 2, 7, 14), ids=str)
def test_a_push_goes_on_without_a_node_that_is_cut_off(rig: ClusterRig, cut: FaultPoint) -> None:
    goes_on_after_a_cut(rig, cut)
