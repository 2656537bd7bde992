"""The test harness: Orthancs start, stop, die and come back, and leave nothing behind."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.support.certificates import make_certificate
from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.nginx import Nginx
from tests.support.orthanc_client import OrthancError, StatusError
from tests.support.orthanc_server import CHECKOUT, load_configuration
from tests.support.waiting import wait_until

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
        wait_until(lambda: "GET /system" in nginx.access_log, "the request is logged", 10)


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
