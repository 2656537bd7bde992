"""Clients written for the C++ plugin work with this one: the setting of its public tests, and orthanc-api-client."""

from __future__ import annotations

from typing import Any

import pytest
from orthanc_api_client import JobStatus, JobType, OrthancApiClient, ResourceType
from orthanc_api_client.transfers import RemoteJob

from tests.support.dicom_data import small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer
from tests.support.ports import free_port

pytestmark = pytest.mark.orthanc

LOGIN = {"Username": "alice", "Password": "orthanctest"}


@pytest.fixture(scope="module")
def shared(make_shared_server: MakeServer) -> OrthancServer:
    """One Orthanc whose peers are itself, but one that is not there: so the public tests of the C++ plugin have it."""
    server = make_shared_server(
        "alone",
        user=LOGIN["Username"],
        password=LOGIN["Password"],
        configuration={"HttpTimeout": 2, "OverwriteInstances": True, "SaveJobs": False, "StableAge": 1},
    )
    itself = {"Url": server.url, **LOGIN}
    server.configuration["OrthancPeers"] = {
        "peer": [f"http://127.0.0.1:{free_port()}/", *LOGIN.values()],
        "self": itself,
        "transfers-simple": itself,
        "transfers-bidirectional": {**itself, "RemoteSelf": "transfers-bidirectional"},
    }
    return server.start()


@pytest.fixture
def server(shared: OrthancServer) -> OrthancServer:
    """The same for all tests of this file, empty at the start of each."""
    shared.clear()
    return shared


@pytest.fixture
def client(server: OrthancServer) -> OrthancApiClient:
    return OrthancApiClient(server.url, user=LOGIN["Username"], pwd=LOGIN["Password"])


def one_instance(server: OrthancServer) -> list[dict[str, str]]:
    (stored,) = server.upload_all(small_instances(1))
    return [resource("Instance", stored["ID"])]


def succeeded(server: OrthancServer, identifier: str) -> dict[str, Any]:
    job = server.wait_for_job(identifier)
    assert (job["State"], job["ID"]) == ("Success", identifier), job
    return job


# -- The world of the public tests ---------------------------------------------------------------------


def test_peers_that_are_oneself_are_asked_while_one_is_unreachable(server: OrthancServer) -> None:
    assert server.get("transfers/peers") == {
        "peer": "disabled",
        "self": "installed",
        "transfers-simple": "installed",
        "transfers-bidirectional": "bidirectional",
    }


@pytest.mark.parametrize(
    ("route", "kind", "priority"), [("pull", "PullTransfer", 10), ("send", "PushTransfer", -10)]
)
def test_what_comes_from_oneself_counts_one_query(
    server: OrthancServer, route: str, kind: str, priority: int
) -> None:
    body = {
        "Resources": one_instance(server),
        "Peer": "transfers-simple",
        "Compression": "gzip",
        "Priority": priority,
    }
    job = succeeded(server, server.post(f"transfers/{route}", body)["ID"])
    assert (job["Type"], job["Priority"]) == (kind, priority)
    expected = {
        "Compression": "gzip",
        "CompletedHttpQueries": 1,
        "Peer": "transfers-simple",
        "TotalInstances": 1,
    }
    assert {key: job["Content"][key] for key in expected} == expected


def test_to_oneself_in_pull_mode_the_job_is_here_and_has_a_priority_of_its_own(server: OrthancServer) -> None:
    answer = server.send(one_instance(server), "transfers-bidirectional", Compression="gzip", Priority=42)
    assert answer == {
        "Peer": "transfers-bidirectional",
        "RemoteJob": answer["RemoteJob"],
        "URL": f"{server.url}jobs/{answer['RemoteJob']}",
    }
    job = succeeded(server, answer["RemoteJob"])
    assert (job["Type"], job["Priority"]) == ("PullTransfer", 0)
    expected = {
        "Compression": "gzip",
        "CompletedHttpQueries": 1,
        "Peer": "transfers-bidirectional",
        "TotalInstances": 1,
    }
    assert {key: job["Content"][key] for key in expected} == expected


# -- orthanc-api-client ---------------------------------------------------------------------------------


def test_a_client_finds_the_plugin_and_takes_it_for_a_late_one(client: OrthancApiClient) -> None:
    assert client.has_loaded_plugin("transfers")
    assert client.is_plugin_version_at_least("transfers", 1, 0)
    assert client.is_plugin_version_at_least("transfers", 1, 6)
    assert client.is_plugin_version_at_least("transfers", 1, 7, 0)


@pytest.mark.parametrize("compress", [True, False])
def test_a_client_sends_and_waits(server: OrthancServer, client: OrthancApiClient, compress: bool) -> None:
    (stored,) = server.upload_all(small_instances(1))
    # Its waiting raises if the job fails.
    client.transfers.send(
        "transfers-simple", stored["ParentStudy"], ResourceType.STUDY, compress, polling_interval=0.05
    )
    job = client.transfers.send_async(
        "transfers-simple", [stored["ParentSeries"]], ResourceType.SERIES, compress
    )
    job.wait_completed(polling_interval=0.05)
    assert (job.info.status, job.info.type) == (JobStatus.SUCCESS, JobType.PUSH_TRANSFER)
    assert job.content["Compression"] == ("gzip" if compress else "none")


def test_a_client_is_told_of_the_remote_job_in_pull_mode(
    server: OrthancServer, client: OrthancApiClient
) -> None:
    (stored,) = server.upload_all(small_instances(1))
    job = client.transfers.send_async("transfers-bidirectional", stored["ID"], ResourceType.INSTANCE)
    assert isinstance(job, RemoteJob)
    assert client.get_json(job.remote_url.removeprefix(server.url))["ID"] == job.remote_job_id
    succeeded(server, job.remote_job_id)
