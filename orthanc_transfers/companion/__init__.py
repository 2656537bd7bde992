"""The companion: a shared library by which Orthanc's own list of plugins names ``transfers``.

``companion.c`` is built for each architecture when the package is built (``scripts/build_companion.py``).
"""

from __future__ import annotations

import platform
from pathlib import Path

ARCHITECTURES = ("aarch64", "x86_64")
"""Those it is built for, as ``platform.machine()`` names them."""


FOLDER = Path(__file__).parent


PREFIX = "transfers-companion-"
"""How the name of the library begins: not like the C++ plugin's, for which it must not be taken."""


def file_name(architecture: str) -> str:
    """Of the library for an architecture."""
    return f"{PREFIX}{architecture}.so"


def library() -> Path | None:
    """The library for this machine, ``None`` if there is none."""
    path = FOLDER / file_name(platform.machine())
    return path if path.is_file() else None
