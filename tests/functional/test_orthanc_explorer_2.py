"""The requests that Orthanc Explorer 2 is known to send, and what it reads of the responses."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import StatusError, resource
from tests.support.orthanc_server import OrthancServer, start_together
from tests.support.waiting import wait_until

pytestmark = pytest.mark.orthanc

Servers = tuple[OrthancServer, OrthancServer]


@pytest.fixture(scope="module")
def shared(make_shared_server: MakeServer) -> Servers:
    """``a`` pushes to ``push``, and lets ``pull``, the same, fetch."""
    a = make_shared_server("a", configuration={"HttpTimeout": 5})
    b = make_shared_server("b", configuration={"HttpTimeout": 5})
    a.add_peer("push", b)
    a.add_peer("pull", b, RemoteSelf="a")
    b.add_peer("a", a)
    start_together(a, b)
    return a, b


@pytest.fixture
def servers(shared: Servers) -> Servers:
    for server in shared:
        server.clear()
    return shared


def order(resources: list[Any], peer: str) -> dict[str, Any]:
    """As Orthanc Explorer 2 writes it."""
    return {"Resources": resources, "Compression": "gzip", "Peer": peer, "Synchronous": False}


def study_of(server: OrthancServer, instances: int = 3) -> str:
    return str(server.upload_all(ct_study(instances))[0]["ParentStudy"])


@pytest.mark.parametrize("route", ["send", "pull"])
def test_no_resources_are_refused(servers: Servers, route: str) -> None:
    a, _ = servers
    with pytest.raises(StatusError, match="empty") as refused:
        a.post(f"transfers/{route}", order([], "push"))
    assert refused.value.status == 400


@pytest.mark.parametrize("level", ["Patient", "Study", "Series", "Instance"])
def test_plain_identifiers_are_found_at_their_level(servers: Servers, level: str) -> None:
    a, b = servers
    stored = a.upload_all(ct_study(3))[0]
    identifier = stored["ID"] if level == "Instance" else stored[f"Parent{level}"]
    job = a.wait_for_job(a.post("transfers/send", order([identifier], "push"))["ID"])
    assert job["State"] == "Success"
    assert job["Content"]["Resources"] == [{"Level": level, "Type": level, "ID": identifier}]
    assert len(b.instances()) == (1 if level == "Instance" else 3)
    # And fetched the same way, where the other knows it.
    b.clear()
    job = b.wait_for_job(b.post("transfers/pull", order([identifier], "a"))["ID"])
    assert job["State"] == "Success"
    assert len(b.instances()) == (1 if level == "Instance" else 3)


@pytest.mark.parametrize(
    "identifier", ["00000000-11111111-22222222-33333333-44444444", "../system", "<script>"]
)
@pytest.mark.parametrize(("route", "peer"), [("send", "push"), ("pull", "push")])
def test_an_identifier_that_nobody_knows_is_refused(
    servers: Servers, route: str, peer: str, identifier: str
) -> None:
    a, _ = servers
    with pytest.raises(StatusError, match="no patient, study, series or instance") as refused:
        a.post(f"transfers/{route}", order([identifier], peer))
    assert refused.value.status == 404


def test_a_send_by_which_a_peer_pulls_has_a_job_here(servers: Servers) -> None:
    a, b = servers
    study = study_of(a)
    response = a.post("transfers/send", order([resource("Study", study)], "pull"))
    assert set(response) == {"ID", "Path", "Peer", "RemoteJob", "URL"}
    job = a.wait_for_job(response["ID"])
    assert (job["State"], job["Type"], job["Progress"]) == ("Success", "PushTransfer", 100)
    content = job["Content"]
    assert content["Resources"] == [{"Level": "Study", "Type": "Study", "ID": study}]
    assert content["RemoteJob"] == response["RemoteJob"]
    assert content["TotalInstances"] == 3
    assert content["Report"]["Stored"] == 3
    assert a.md5s() == b.md5s()
    assert b.job(response["RemoteJob"])["State"] == "Success"


def test_without_that_key_the_response_is_that_of_the_cpp_plugin(servers: Servers) -> None:
    a, b = servers
    before = set(a.get("jobs"))
    response = a.send([resource("Study", study_of(a))], "pull")
    assert set(response) == {"Peer", "RemoteJob", "URL"}
    assert b.wait_for_job(response["RemoteJob"])["State"] == "Success"
    assert set(a.get("jobs")) == before


def test_the_job_here_fails_with_the_error_of_the_job_there_and_is_resubmitted(servers: Servers) -> None:
    a, b = servers
    files = list(ct_study(3))
    study = a.upload_all(files)[0]["ParentStudy"]
    a.delete(f"studies/{study}")
    response = a.post("transfers/send", order([resource("Study", study)], "pull"))
    job = a.wait_for_job(response["ID"])
    assert job["State"] == "Failure"
    there = b.job(response["RemoteJob"])["Content"]["Error"]
    assert there in job["Content"]["Error"]
    if "ErrorDetails" in job:
        assert job["ErrorDetails"] == job["Content"]["Error"]
    a.upload_all(files)
    a.post(f"jobs/{response['ID']}/resubmit", {})
    assert a.wait_for_job(response["ID"])["State"] == "Success"
    assert a.md5s() == b.md5s()


def test_pause_resume_and_cancel_are_passed_on(servers: Servers) -> None:
    a, b = servers
    study = study_of(a)
    # Nothing can be fetched: b waits for a peer that does not respond, so the job there stays.
    b.put("peers/a", {"Url": "http://127.0.0.1:1/"})
    try:
        response = a.post("transfers/send", order([resource("Study", study)], "pull"))
        here, there = response["ID"], response["RemoteJob"]
        wait_until(lambda: "Waiting" in a.job(here)["Content"], "the job here says what it waits for")
        a.post(f"jobs/{here}/pause", {})
        wait_until(lambda: a.job(here)["State"] == "Paused", "the job here is paused")
        wait_until(lambda: b.job(there)["State"] == "Paused", "the job there is paused")
        a.stop()
        a.start()
        a.post(f"jobs/{here}/resume", {})
        wait_until(lambda: a.job(here)["State"] == "Running", "the job here runs")
        a.post(f"jobs/{here}/cancel", {})
        wait_until(lambda: b.job(there)["State"] == "Failure", "the job there is canceled")
    finally:
        b.put("peers/a", {"Url": a.url})


def test_any_job_is_shown_and_deleted_as_orthanc_does(servers: Servers) -> None:
    a, _ = servers
    study = study_of(a)
    job = a.post(f"studies/{study}/archive", {"Asynchronous": True})["ID"]
    assert a.wait_for_job(job)["Type"] == "Archive"
    for method in ("get", "delete"):
        with pytest.raises(StatusError) as refused:
            getattr(a, method)("jobs/00000000-0000-0000-0000-000000000000")
        assert refused.value.status == 404
