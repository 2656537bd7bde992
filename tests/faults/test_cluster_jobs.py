"""A node of a cluster that has jobs does not come back: others go on with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import OrthancCluster
from tests.support.dicom_data import small_instances
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

# A job is adopted once the lease of its node is over, then.
ADOPT_AFTER = 1


def jobs_of(node: OrthancServer) -> list[dict[str, Any]]:
    return [node.job(one) for one in node.get("jobs")]


def test_jobs_of_a_node_that_does_not_come_back_go_on_at_another(
    tmp_path: Path, make_server: MakeServer
) -> None:
    away = make_server("away")
    with OrthancCluster(tmp_path, size=2) as cluster:
        gone, heir = cluster.nodes
        for node in cluster.nodes:
            node.add_peer("away", away)
            node.configuration["Transfers"]["Cluster"]["AdoptAfter"] = ADOPT_AFTER
            node.restart()
        patient = gone.upload_all(small_instances(3))[0]["ParentPatient"]
        job = gone.send([resource("Patient", patient)], "away")["ID"]
        wait_until(lambda: "Waiting" in gone.job(job)["Content"], "the job waits for its peer", 30)
        gone.kill()
        wait_until(lambda: bool(jobs_of(heir)), "another node has the job", 120)
        away.start()
        (adopted,) = heir.get("jobs")
        known = heir.wait_for_job(adopted)
        assert known["State"] == "Success", known
        assert away.md5s() == heir.md5s()
        # It comes back all the same: its own job hands over, or finds that nothing is left to do; what arrived stays.
        gone.start()
        wait_until(lambda: gone.job(job)["State"] in ("Success", "Failure"), "its job has ended", 60)
        assert away.md5s() == heir.md5s()
