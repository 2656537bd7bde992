"""A real Orthanc whose script shows the parts of ``host/`` one by one."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import CHECKOUT, OrthancServer

SCRIPT = Path(__file__).with_name("orthanc_script.py")


def with_script(
    make: MakeServer, name: str, *, user: str | None = None, password: str | None = None, **configuration: Any
) -> OrthancServer:
    """A server (not started) that runs ``orthanc_script.py`` with the packages of this interpreter."""
    path = os.pathsep.join([str(CHECKOUT), sysconfig.get_path("purelib")])
    return make(
        name,
        script=SCRIPT,
        configuration=configuration,
        environment={"PYTHONPATH": path},
        user=user,
        password=password,
    )


@pytest.fixture
def make_host(make_server: MakeServer) -> Callable[..., OrthancServer]:
    """Makes servers for one test: a name, and what to lay over their configuration."""
    return lambda name, **configuration: with_script(make_server, name, **configuration)


@pytest.fixture(scope="module")
def host(make_shared_server: MakeServer) -> OrthancServer:
    """One server for all tests of a file."""
    return with_script(make_shared_server, "host").start()
