"""Which Orthanc knows ``ReadOnly``."""

from __future__ import annotations

import pytest

from orthanc_transfers.core.orthanc_version import READ_ONLY, at_least


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ("1.10.1", False),
        ("1.12.4", False),
        ("1.12.4+dfsg", False),
        ("1.9.99", False),
        ("1.12.5", True),
        ("1.12.10", True),
        ("1.13.0", True),
        ("1.12.5-rc1", True),
        ("2.0.0", True),
        ("10.0.0", True),
        ("mainline", True),
        ("mainline-2c1f0a", True),
    ],
)
def test_the_rule_by_number(version: str, known: bool) -> None:
    assert at_least(version, READ_ONLY) is known
