"""Times as Orthanc writes them."""

from __future__ import annotations

from datetime import datetime


def orthanc_moment(text: str) -> datetime:
    """``20261127T102030.123456``."""
    return datetime.strptime(text, "%Y%m%dT%H%M%S.%f")
