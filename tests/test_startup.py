"""What the log says when the plugin is not loaded. On real Orthancs: functional/test_loading.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import orthanc_transfers
from orthanc_transfers._startup import as_text, described, one_line
from orthanc_transfers.core.errors import ConfigurationError

HERE = Path(__file__)


class FakeOrthanc(SimpleNamespace):
    """The module ``orthanc``: keeps what is logged."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.infos: list[str] = []
        super().__init__(LogError=self.errors.append, LogInfo=self.infos.append)


@pytest.fixture
def orthanc(monkeypatch: pytest.MonkeyPatch) -> FakeOrthanc:
    fake = FakeOrthanc()
    monkeypatch.setitem(sys.modules, "orthanc", fake)  # type: ignore[arg-type]
    return fake


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ImportError(), f"ImportError ({HERE}:"),
        (RuntimeError("two\nlines\tand \x1b[31m"), f"RuntimeError: two lines and \\x1b[31m ({HERE}:"),
        (
            OSError(13, "Permission denied", "/x"),
            f"PermissionError: [Errno 13] Permission denied: '/x' ({HERE}:",
        ),
        (ConfigurationError("a sentence"), "a sentence"),
        (ConfigurationError(), f"ConfigurationError ({HERE}:"),
    ],
)
def test_an_error_is_one_line_with_its_type_and_where_it_was_raised(error: BaseException, text: str) -> None:
    said = described(raised(error))
    assert said.startswith(text)
    assert one_line(said) == said


def test_a_file_name_is_shown_as_people_read_it() -> None:
    assert as_text("/Gr\udcc3\udcb6\udcc3\udc9fe") == "/Größe"
    assert as_text("\udcff") == "\\xff"
    assert as_text("\ud800 ö") == "\\ud800 ö"


def test_an_older_python_is_named(orthanc: FakeOrthanc, monkeypatch: pytest.MonkeyPatch) -> None:
    class Version(tuple[int, int, int]):
        major, minor = 3, 9

    monkeypatch.setattr(sys, "version_info", Version((3, 9, 2)))
    orthanc_transfers.register()
    (error,) = orthanc.errors
    assert "needs Python 3.11 or later" in error
    assert error.endswith("which is 3.9")


def test_what_an_older_python_must_understand_has_nothing_newer_in_it() -> None:
    """Real: the grammar of that Python, which this one can be told to keep to."""
    import ast

    package = Path(orthanc_transfers.__file__).parent
    for name in ("entry.py", "__init__.py", "_startup.py", "_version.py"):
        ast.parse((package / name).read_text(), feature_version=(3, 7))


def test_the_traceback_is_for_the_verbose_log(orthanc: FakeOrthanc, monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("orthanc_transfers.plugin.load", load)
    orthanc_transfers.register()
    (error,), (info,) = orthanc.errors, orthanc.infos
    assert "Traceback" not in error
    assert "Traceback" in info


def test_an_interrupt_from_the_keyboard_is_left_to_orthanc(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("orthanc_transfers.plugin.load", load)
    with pytest.raises(KeyboardInterrupt):
        orthanc_transfers.register()


def test_reading_the_version_needs_nothing_but_python() -> None:
    code = "import orthanc_transfers; print(orthanc_transfers.__version__)"
    subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=HERE.parents[1], check=True, stdout=subprocess.DEVNULL
    )
