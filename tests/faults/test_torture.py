"""A short run of ``make torture``."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.orthanc_server import CHECKOUT

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]


def test_a_minute_of_random_transfers_under_random_faults_violates_nothing() -> None:
    # A process of its own, as ``make torture`` starts it: it reads the children of this one.
    command = [sys.executable, "-m", "tests.faults.torture", "--seed", "3", "--rounds", "18"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 violations" in done.stdout
    for kind in ("Plain", "Recycling", "Poison", "SmallDiskRound", "DeadPeer", "SmallStudies", "Rules"):
        # A small disk cannot be mounted everywhere.
        assert f", {kind}: " in done.stdout or (kind == "SmallDiskRound" and "left out" in done.stdout)
    print(done.stdout)
