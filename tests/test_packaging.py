"""The wheel holds all of the package, and nothing else."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import orthanc_transfers
from orthanc_transfers.companion import ARCHITECTURES, file_name
from tests.support.orthanc_server import CHECKOUT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel made from this checkout."""
    return make_wheel(tmp_path_factory.mktemp("wheel"))


def make_wheel(folder: Path) -> Path:
    # Not isolated: that would fetch hatchling each time.
    options = ["-q", "--no-deps", "--no-build-isolation", "--wheel-dir", folder]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, CHECKOUT], check=True)
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_holds_every_file_of_the_package_and_its_licence_alone(wheel: Path) -> None:
    package = CHECKOUT / "orthanc_transfers"
    expected = {
        str(path.relative_to(CHECKOUT))
        for path in package.rglob("*")
        if path.is_file()
        and not {"__pycache__", "app_src"}
        & set(path.parts)  # the page's sources: the wheel has what is built of them
        and path.suffix != ".so"
    }
    # Made by the build, for all architectures.
    expected |= {f"orthanc_transfers/companion/{file_name(one)}" for one in ARCHITECTURES}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    information = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert names - information == expected
    assert any(name.endswith("/licenses/LICENSE") for name in information)


def test_two_builds_make_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    assert make_wheel(tmp_path).read_bytes() == wheel.read_bytes()


def test_the_version_is_that_of_the_package_and_one_that_old_clients_accept(wheel: Path) -> None:
    assert f"-{orthanc_transfers.__version__}-" in wheel.name
    # A known client compares major and minor apart and asks for 1.6.
    major, minor = map(int, orthanc_transfers.__version__.split(".")[:2])
    assert major == 1
    assert minor >= 7


def test_every_dependency_of_the_wheel_is_installed_by_make_setup() -> None:
    for requirement in importlib.metadata.requires("orthanc-transfers") or []:
        if "extra ==" not in requirement:
            (name,) = re.findall(r"^[\w.-]+", requirement)
            assert importlib.metadata.version(name)


def test_the_licence_is_the_whole_agpl() -> None:
    text = (CHECKOUT / "LICENSE").read_text()
    assert text.lstrip().startswith("GNU AFFERO GENERAL PUBLIC LICENSE\n                       Version 3")
    assert "END OF TERMS AND CONDITIONS" in text
