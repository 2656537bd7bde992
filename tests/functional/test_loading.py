"""Every way to load the plugin that the README names, in a real Orthanc."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import orthanc_transfers
from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import CHECKOUT, ENTRY, OrthancServer, StatusError

pytestmark = pytest.mark.orthanc


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site-packages of a virtual environment in which pip installed this package, and nothing else."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run([venv / "bin" / "python", "-m", "pip", "install", "-q", CHECKOUT], check=True)
    (packages,) = venv.glob("lib/python3.*/site-packages")
    assert not packages.joinpath("pytest").exists()
    return packages


def assert_loaded(server: OrthancServer) -> None:
    assert "transfers" in server.get("plugins")
    assert server.get("plugins/transfers")["Version"] == orthanc_transfers.__version__
    assert server.get("transfers/peers") == {}


def script(folder: Path, text: str) -> Path:
    file = folder / "my_script.py"
    file.write_text(text)
    return file


def test_from_a_checkout_that_make_setup_made_ready(make_server: MakeServer) -> None:
    server = make_server("checkout", script=ENTRY)
    # Nothing of this test's own environment helps: Orthanc is started by systemd as a rule.
    server.environment.update(PYTHONPATH="", VIRTUAL_ENV="", PATH=os.defpath)
    assert_loaded(server.start())


def test_from_a_virtual_environment_in_which_pip_installed_it(
    make_server: MakeServer, installed: Path
) -> None:
    assert_loaded(make_server("installed", script=installed / "orthanc_transfers" / "entry.py").start())


def test_from_a_script_of_the_user_that_goes_on_to_work(
    make_server: MakeServer, installed: Path, tmp_path: Path
) -> None:
    users = script(
        tmp_path,
        f"""
import site
import orthanc

site.addsitedir({str(installed)!r})
import orthanc_transfers

def hello(output, uri, **request):
    output.AnswerBuffer("hello", "text/plain")

changes = []

def on_change(change, level, resource):
    changes.append(change)

def seen(output, uri, **request):
    output.AnswerBuffer(str(changes), "application/json")

orthanc.RegisterRestCallback("/hello", hello)
orthanc.RegisterRestCallback("/seen", seen)
orthanc.RegisterOnChangeCallback(on_change)
orthanc_transfers.register()
""",
    )
    server = make_server("script", script=users).start()
    assert_loaded(server)
    assert server.get("hello") == "hello"
    # Orthanc allows one such callback per script: the user's own still hears that Orthanc started.
    assert 10 in server.get("seen")


def test_a_bad_value_of_the_configuration_is_named_in_the_log_and_orthanc_starts_without_the_plugin(
    make_server: MakeServer,
) -> None:
    server = make_server("bad", configuration={"Transfers": {"Threads": "many"}}).start()
    with pytest.raises(StatusError, match="404"):
        server.get("transfers/peers")
    assert "Threads" in server.log
    assert "Traceback" not in server.log
