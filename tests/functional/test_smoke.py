"""Each kind of transfer once, end to end: real DICOM between two real Orthancs, as `make demo` shows it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orthanc_transfers.net.tls import MAX_AGE
from tests.support import dicom_data
from tests.support.certificates import make_certificate
from tests.support.fixtures import MakeServer
from tests.support.nginx import Nginx
from tests.support.orthanc_client import OrthancError, resource
from tests.support.orthanc_server import (
    CHECKOUT,
    OrthancServer,
    configured_pair,
    pair,
    running,
    start_together,
)
from tests.support.ports import port_is_free

pytestmark = pytest.mark.orthanc

TwoServers = tuple[OrthancServer, OrthancServer]


def fill(server: OrthancServer) -> list[dict[str, str]]:
    """Small, large and odd instances; the resources to transfer."""
    files = [
        *dicom_data.ct_study(20, series=2),
        *dicom_data.small_instances(50),
        dicom_data.multi_frame(10_000_000),
        *(path.read_bytes() for path in dicom_data.real_files()),
    ]
    stored = server.upload_all(files)
    assert all(item["Status"] == "Success" for item in stored)
    return [
        resource("Patient", identifier) for identifier in sorted({item["ParentPatient"] for item in stored})
    ]


def test_what_is_sent_arrives_whole(two_servers: TwoServers) -> None:
    a, b = two_servers
    resources = fill(a)
    job = a.wait_for_job(a.send(resources, "b")["ID"])
    assert job["State"] == "Success", job
    assert b.md5s() == a.md5s()


def test_what_is_pulled_arrives_whole(two_servers: TwoServers) -> None:
    a, b = two_servers
    resources = fill(a)
    job = b.wait_for_job(b.pull(resources, "a")["ID"])
    assert job["State"] == "Success", job
    assert b.md5s() == a.md5s()


def test_with_remote_self_what_is_sent_is_pulled_by_the_peer(make_server: MakeServer) -> None:
    a, b = make_server("a"), make_server("b")
    pair(a, b, pull_mode=True)
    start_together(a, b)
    resources = fill(a)
    answer = a.send(resources, "b", Compression="gzip")
    assert answer["URL"] == f"{b.url}jobs/{answer['RemoteJob']}"
    job = b.wait_for_job(answer["RemoteJob"])
    assert job["State"] == "Success", job
    assert job["Type"] == "PullTransfer"
    assert b.md5s() == a.md5s()


# How nginx tells of each request: the number of its connection, and "r" if that resumed a session, else ".".
HANDSHAKES = "log_format handshakes '$connection $ssl_session_reused';"


def test_over_https_with_a_certificate_that_is_checked(make_server: MakeServer, tmp_path: Path) -> None:
    certificate, folder, began = make_certificate(tmp_path), tmp_path / "nginx", time.monotonic()
    a, b = make_server("a"), make_server("b", user="alice", password="wonder")
    a.configuration["HttpsCACertificates"] = str(certificate)
    few = f"access_log {folder}/access.log handshakes; keepalive_requests 2;"
    with Nginx(folder, b, certificate=certificate, http=HANDSHAKES, server=few) as nginx:
        a.add_peer("b", b, Url=nginx.url)
        start_together(a, b)
        resources = fill(a)
        job = a.wait_for_job(a.send(resources, "b")["ID"])
        assert job["State"] == "Success", job
        assert b.md5s() == a.md5s()
        # What B has now, A fetches back.
        a.clear()
        job = a.wait_for_job(a.pull(resources, "b")["ID"])
        assert job["State"] == "Success", job
        assert a.md5s() == b.md5s()
        connections = dict(line.split() for line in nginx.access_log.splitlines())
    assert sorted(set(connections.values())) == [".", "r"], connections
    # One, and another each minute: certificates are read anew then.
    assert list(connections.values()).count(".") <= 1 + (time.monotonic() - began) / MAX_AGE, connections


def test_an_untrusted_certificate_is_refused(make_server: MakeServer, tmp_path: Path) -> None:
    a, b = (
        make_server("a", configuration={"Transfers": {"MaxHttpRetries": 0, "MaxOutage": 0}}),
        make_server("b"),
    )
    with Nginx(tmp_path / "nginx", b, certificate=make_certificate(tmp_path)) as nginx:
        a.add_peer("b", b, Url=nginx.url)
        start_together(a, b)
        (stored,) = a.upload_all(dicom_data.small_instances(1))
        job = a.wait_for_job(a.send([resource("Instance", stored["ID"])], "b")["ID"])
        assert job["State"] == "Failure"
        assert "certificate" in job["Content"]["Error"]
        assert b.instances() == []


def test_the_configurations_of_docker_compose_work_as_they_are_with_logins(tmp_path: Path) -> None:
    a, b = configured_pair(tmp_path)
    with running(a, b):
        assert a.get("transfers/peers") == {"B": "installed", "B-pull": "bidirectional"}
        assert b.get("transfers/peers") == {"A": "installed", "A-pull": "bidirectional"}
        (stored,) = a.upload_all(dicom_data.small_instances(1))
        instance = [resource("Instance", stored["ID"])]
        assert a.wait_for_job(a.send(instance, "B")["ID"])["State"] == "Success"
        assert b.md5s() == a.md5s()
        b.clear()
        answer = a.send(instance, "B-pull")
        assert b.wait_for_job(answer["RemoteJob"])["State"] == "Success"
        assert b.md5s() == a.md5s()


def test_the_demo_says_that_all_is_well_and_leaves_nothing_running(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, CHECKOUT / "scripts" / "demo.py", "--exit", "--folder", tmp_path],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All is well" in done.stdout
    assert done.stderr == ""
    for file in tmp_path.glob("*/orthanc.json"):
        assert port_is_free(json.loads(file.read_text())["HttpPort"])


def test_an_orthanc_on_the_port_of_another_is_not_taken_for_it(make_server: MakeServer) -> None:
    first = make_server("first").start()
    second = make_server("second", http_port=first.http_port)
    with pytest.raises(OrthancError, match=f"'first', listens on port {first.http_port} of second"):
        second.start()
    second.kill()
