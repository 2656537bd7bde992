"""What the README says of an Orthanc that no longer has the plugin."""

from __future__ import annotations

import pytest

from tests.support.dicom_data import small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.orthanc


def without_plugin(server: OrthancServer) -> None:
    server.configuration["Plugins"] = []
    del server.configuration["PythonScript"]
    server.restart()


def test_orthanc_keeps_what_was_received_and_skips_the_saved_jobs_of_a_plugin_that_was_removed(
    make_server: MakeServer,
) -> None:
    a = make_server("a").start()
    b = make_server("b").start()
    a.put("peers/B", {"Url": b.url})
    a.put("peers/unreachable", {"Url": "http://127.0.0.1:1/"})
    a.upload_all(small_instances(2))
    study = [resource("Patient", one) for one in a.get("patients")]
    a.wait_for_job(a.send(study, "B")["ID"])
    waiting = a.send(study, "unreachable")["ID"]
    wait_until(lambda: "Waiting" in a.job(waiting)["Content"], "the job waits for its peer")

    without_plugin(a)
    without_plugin(b)

    assert b.md5s() == a.md5s() != {}
    assert a.get("jobs") == []
    assert "Cannot unserialize job of type: PushTransfer" in a.log
    assert {path.name for path in (a.storage / "Transfers").iterdir()} == {"lock", "reports", "history"}
