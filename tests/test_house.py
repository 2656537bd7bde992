"""Types and style, as tests, so that they are not forgotten."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "command",
    [("mypy",), ("ruff", "check"), ("ruff", "format", "--check")],
    ids=lambda command: " ".join(command),
)
def test_nothing_to_complain_about(command: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_script_of_the_shell_has_a_syntax_error() -> None:
    for script in [*CHECKOUT.glob("scripts/*.sh"), CHECKOUT / ".ci" / "run"]:
        subprocess.run(["bash", "-n", script], check=True)
        assert script.stat().st_mode & 0o100, f"{script} cannot be run"
