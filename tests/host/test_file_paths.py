"""Paths of Orthanc's configuration."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orthanc_transfers.core.errors import ConfigurationError
from orthanc_transfers.host.file_paths import native_path, path_option
from tests.support.orthanc_server import CHECKOUT


@pytest.mark.parametrize("path", ["", "plain", "/Größe/病院", "half a surrogate: \udcff"])
def test_a_path_keeps_its_bytes(path: str) -> None:
    assert os.fsencode(native_path(path)) == path.encode("utf-8", "surrogateescape")


def test_a_path_keeps_its_bytes_where_python_takes_file_names_for_ascii(tmp_path: Path) -> None:
    # As it is within an Orthanc without LANG; python on its own would take UTF-8 there.
    code = (
        "import sys, os; from orthanc_transfers.host.file_paths import native_path\n"
        "assert sys.getfilesystemencoding() == 'ascii'\n"
        "os.mkdir(native_path('Gr\\xf6\\xdfe \\u75c5\\u9662'))"
    )
    environment = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONPATH": str(CHECKOUT)}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True)
    assert (tmp_path / "Größe 病院").is_dir()


def test_an_option_is_relative_to_the_configuration() -> None:
    options = {"Relative": "a/b", "Absolute": "/c"}
    assert path_option(options, "Relative", Path("/etc"), "default") == Path("/etc/a/b")
    assert path_option(options, "Absolute", Path("/etc"), "default") == Path("/c")
    assert path_option(options, "Missing", Path("/etc"), "default") == Path("/etc/default")


@pytest.mark.parametrize("value", [5, None, ["x"], {}, True, "with \0"])
def test_another_value_than_a_path_is_named(value: object) -> None:
    with pytest.raises(ConfigurationError, match='"StorageDirectory" must be the path of a folder, and is'):
        path_option({"StorageDirectory": value}, "StorageDirectory", Path("/"), "default")
