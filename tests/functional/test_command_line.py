"""``python -m orthanc_transfers``, on real Orthancs and their configurations."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import (
    CHECKOUT,
    OrthancServer,
    pair,
    python_plugin,
    start_together,
)
from tests.support.ports import free_port

pytestmark = pytest.mark.orthanc


def command(*arguments: object) -> tuple[int, str]:
    """Exit status and output."""
    done = subprocess.run(
        [sys.executable, "-m", "orthanc_transfers", *map(str, arguments)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def servers(make_shared_server: MakeServer) -> tuple[OrthancServer, OrthancServer]:
    a = make_shared_server("a", user="alice", password="secret")
    b = make_shared_server("b")
    pair(a, b)
    a.add_peer("b-pull", b, RemoteSelf="a")
    start_together(a, b)
    return a, b


@pytest.mark.parametrize("way", ["send", "pull", "send by a pull"])
def test_a_transfer_is_started_and_shown_to_its_end(
    servers: tuple[OrthancServer, OrthancServer], way: str
) -> None:
    a, b = servers
    a.clear()
    b.clear()
    study = a.upload_all(ct_study(3))[0]["ParentStudy"]
    login = ("-u", "alice:secret")
    if way == "pull":
        status, output = command("pull", b.url, "a", "--study", study)
    else:
        status, output = command("send", a.url, *login, "b" if way == "send" else "b-pull", "--study", study)
    assert status == 0, output
    assert "done: 3 instances" in output
    assert "Stored: 3" in output
    assert "100%" in output
    assert a.md5s() == b.md5s()


def test_transfers_are_listed_at_both_ends(servers: tuple[OrthancServer, OrthancServer]) -> None:
    a, b = servers
    a.clear()
    b.clear()
    study = a.upload_all(ct_study(3))[0]["ParentStudy"]
    assert command("send", a.url, "-u", "alice:secret", "b", "--study", study)[0] == 0
    status, output = command("status", a.url, "-u", "alice:secret", "--limit", 1)
    assert status == 0, output
    assert re.fullmatch(r"\S+  Success  100%  +\d\.\d MB  to b  Done\n", output)
    status, output = command("status", b.url)
    assert status == 0, output
    assert re.search(r"^\S+  Success  100%  +\d\.\d MB  from ", output, re.MULTILINE)


def test_what_goes_wrong_is_one_sentence(servers: tuple[OrthancServer, OrthancServer]) -> None:
    a, _ = servers
    login = ("-u", "alice:secret")
    assert command("send", a.url, "b", "--study", "x") == (
        1,
        f"error: {a.url.rstrip('/')} wants another login: --user USER:PASSWORD\n",
    )
    status, output = command("send", a.url, *login, "nobody", "--study", "x")
    assert (status, output.count("\n")) == (1, 1)
    assert "nobody" in output
    status, output = command("send", a.url, *login, "b")
    assert (status, "empty" in output) == (1, True)
    status, output = command("send", f"http://127.0.0.1:{free_port()}", "b", "--study", "x")
    assert (status, "cannot be reached" in output) == (1, True)
    unknown = "00000000-11111111-22222222-33333333-44444444"
    status, output = command("send", a.url, *login, "b", "--study", unknown)
    assert (status, "failed: " in output, unknown in output) == (1, True, True)


# -- doctor ---------------------------------------------------------------------------------------------


def test_the_configuration_of_a_running_orthanc_is_well(servers: tuple[OrthancServer, OrthancServer]) -> None:
    a, b = servers
    (file,) = a.folder.glob("orthanc.json")
    status, output = command("doctor", file)
    assert status == 0, output
    assert "ok: peer b has transfers plugin" in output
    assert "nothing is in the way" in output
    # Another login.
    status, output = command("doctor", b.folder)
    assert (status, "ok: peer a has" in output) == (0, True)


WELL: dict[str, Any] = {
    "Plugins": [str(python_plugin())],
    "PythonScript": str(CHECKOUT / "orthanc_transfers" / "entry.py"),
}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"Plugins": []}, "Python plugin (libOrthancPython.so) is not among"),
        ({"Plugins": ["/nowhere/libOrthancPython.so"]}, "does not exist"),
        ({"Plugins": [str(python_plugin()), "libOrthancTransfers.so"]}, "the two exclude each other"),
        ({"PythonScript": None}, '"PythonScript" is missing'),
        ({"PythonScript": "/nowhere/entry.py"}, "cannot be read: No such file"),
        ({"Transfers": {"Threads": "many"}}, "Threads"),
        ({"OrthancPeers": {"x": []}}, "x"),
        ({"OrthancPeers": {"x": {"Url": "http://127.0.0.1:1/"}}}, "note: peer x cannot be reached"),
    ],
)
def test_the_doctor_names_what_is_wrong(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    file = tmp_path / "orthanc.json"
    file.write_text("// a comment\n" + json.dumps({**WELL, **change, "Url": "http://x/*no comment*/"}))
    status, output = command("doctor", file)
    assert sentence in output
    assert status == (0 if sentence.startswith("note") else 1)
    assert "Traceback" not in output


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert command("doctor", tmp_path / "none.json")[0] == 1
    assert "no file *.json" in command("doctor", tmp_path)[1]
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    assert "is not JSON" in command("doctor", tmp_path)[1]
