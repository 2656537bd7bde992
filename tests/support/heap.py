"""What a server's process has in use of its memory, without the holes that its allocators keep.

What is resident goes up by 10 MB and more at a burst of requests, and stays: holes in pages that are used in part,
which ``malloc_trim`` does not give back either (measured: 15 MB more resident, 3 MB more in use). What leaks is in use.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.orthanc_server import OrthancServer

SCRIPT = Path(__file__).with_name("measured_script.py")
"""``PythonScript`` of a server of which ``used`` is asked; it needs ``rig.script_environment``."""
_BLOCK = 95
"""Bytes that one of Python's small objects takes, on average (``sys._debugmallocstats``)."""


def used(server: OrthancServer) -> int:
    """Bytes that malloc has given out, and Python to its small objects (estimated by their number)."""
    told = server.get("measured/heap")
    return int(told["Malloc"]) + _BLOCK * int(told["Blocks"])
