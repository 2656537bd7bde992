"""Versions of Orthanc, compared."""

from __future__ import annotations

import re

READ_ONLY = (1, 12, 5)
"""The first version that knows the option ``ReadOnly``; those before ignore it."""

LABELS = (1, 12, 0)
"""The first version that has labels."""

UIDS_ARE_QUICK = (1, 13, 0)
"""The first version known to search for SOP Instance UIDs without a walk through all instances (1.12.7 takes one)."""


def at_least(version: str, least: tuple[int, int, int]) -> bool:
    """Whether Orthanc's ``version`` ("1.12.5", "1.12.5+dfsg", "mainline-2c1f") is ``least`` or later.

    What is not made of numbers was built from the sources, and is taken for the latest.
    """
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    return numbers is None or tuple(map(int, numbers.groups())) >= least
