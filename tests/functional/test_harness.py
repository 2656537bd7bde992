"""The test harness: Orthancs start, stop, die and come back, and leave nothing behind."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.support.certificates import make_certificate
from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.nginx import Nginx
from tests.support.orthanc_client import OrthancError, StatusError
from tests.support.orthanc_server import CHECKOUT, load_configuration
from tests.support.recording_proxy import RecordingProxy

pytestmark = pytest.mark.orthanc


def test_data_survives_a_stop_and_a_kill(make_server: MakeServer) -> None:
    server = make_server("a", script=None).start()
    files = list(ct_study(3, size=64))
    server.upload_all(files)
    expected = {hashlib.md5(file).hexdigest() for file in files}
    assert set(server.md5s().values()) == expected
    server.restart()
    assert set(server.md5s().values()) == expected
    server.kill()
    assert not server.running
    server.start()
    assert set(server.md5s().values()) == expected


def test_a_login(make_server: MakeServer) -> None:
    server = make_server("a", script=None, user="alice", password="wonder").start()
    assert server.get("system")["Name"] == "a"
    with pytest.raises(StatusError, match="401"):
        server.get("system", auth=("alice", "wrong"))


def test_https_by_nginx(make_server: MakeServer, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    server = make_server("a", script=None).start()
    with Nginx(tmp_path / "nginx", server, certificate=certificate) as nginx:
        answer = requests.get(nginx.url + "system", verify=str(certificate), timeout=10)
        assert answer.json()["Name"] == "a"
        assert "GET /system" in nginx.access_log


@pytest.fixture(params=[False, True], ids=["http", "https"])
def late(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RecordingProxy]:
    """Writes 500 lines elsewhere, after each answer, before the one that is looked for."""
    folder = tmp_path / "nginx"
    location = f"{'access_log /dev/null; ' * 500} access_log {folder}/access.log requests; return 204;"
    certificate = make_certificate(tmp_path) if request.param else None
    with RecordingProxy(folder, "127.0.0.1:1", certificate=certificate, location=location) as proxy:
        yield proxy


def test_what_nginx_has_answered_is_in_its_log_at_once(late: RecordingProxy) -> None:
    with client_of(late) as client:
        for number in range(100):
            assert client.get(f"{late.url}{number}", timeout=10).ok
            assert [seen.uri for seen in late.requests] == [f"/{one}" for one in range(number + 1)]


def test_what_nginx_has_answered_is_forgotten_for_good(late: RecordingProxy) -> None:
    with client_of(late) as client:
        for _ in range(100):
            assert client.get(late.url, timeout=10).ok
            late.forget()
            assert late.requests == []


def client_of(nginx: Nginx) -> requests.Session:
    client = requests.Session()
    # Else a bundle named by the environment goes before its own.
    client.trust_env = False
    if nginx.certificate is not None:
        client.verify = str(nginx.certificate)
    return client


def test_the_log_of_an_nginx_that_does_not_run_can_be_read(tmp_path: Path) -> None:
    with Nginx(tmp_path / "nginx", "127.0.0.1:1", server="return 204;") as nginx:
        assert requests.get(f"{nginx.url}seen", timeout=10).ok
        assert "GET /seen " in nginx.access_log
        os.killpg(nginx.processes()[0], signal.SIGSTOP)
        assert "GET /seen " in nginx.access_log
    assert "GET /seen " in nginx.access_log


def test_an_orthanc_that_cannot_start_says_why(make_server: MakeServer) -> None:
    server = make_server("a", script=None, configuration={"HttpPort": "a name"})
    with pytest.raises(OrthancError, match="HttpPort"):
        server.start()


def test_no_orthanc_outlives_the_process_that_started_it() -> None:
    program = (
        "from tests.support.orthanc_server import OrthancServer\n"
        "server = OrthancServer('a', script=None).start()\n"
        "print(server.pid, server.folder)\n"
        "raise SystemExit(3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    pid, folder = done.stdout.split()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
    assert not Path(folder).exists()


def test_comments_in_a_configuration_are_dropped_but_not_those_within_text(tmp_path: Path) -> None:
    file = tmp_path / "orthanc.json"
    file.write_text('{"Url": "http://b/", // where\n /* both */ "Name": "a \\"/*b*/\\""}')
    assert load_configuration(file) == {"Url": "http://b/", "Name": 'a "/*b*/"'}
