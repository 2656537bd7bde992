"""The transfer methods that are compared. Each is a job of Orthanc's jobs engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.orthanc_server import OrthancServer

Resources = Sequence[dict[str, str]]

STORE = "peer store"
"""Orthanc's own way, by which the others are judged."""


@dataclass(frozen=True)
class Method:
    """``begin`` asks a server for the job, and gives its identifier. ``pulls``: the receiver is asked."""

    begin: Callable[[OrthancServer, Resources], str]
    ours: bool = False
    pulls: bool = False
    stand_in: bool = False
    """Needs servers whose script is ``zlib_level_6_script.py``."""


def _core(path: str) -> Method:
    # Orthanc wants Synchronous, its DICOMweb plugin knows it too.
    def begin(server: OrthancServer, resources: Resources) -> str:
        body = {"Resources": [one["ID"] for one in resources], "Synchronous": False}
        return str(server.post(path, body)["ID"])

    return Method(begin)


def _ours(direction: str, compression: str, *, stand_in: bool = False) -> Method:
    def begin(server: OrthancServer, resources: Resources) -> str:
        ask: Callable[..., dict[str, Any]] = server.send if direction == "push" else server.pull
        peer = "b" if direction == "push" else "a"
        return str(ask(resources, peer, Compression=compression)["ID"])

    return Method(begin, ours=True, pulls=direction == "pull", stand_in=stand_in)


METHODS: dict[str, Method] = {
    STORE: _core("peers/b/store"),
    "C-STORE": _core("modalities/b/store"),
    "STOW": _core("dicom-web/servers/b/stow"),
    **{f"push {name}": _ours("push", name) for name in ("auto", "zstd", "gzip", "none")},
    **{f"pull {name}": _ours("pull", name) for name in ("auto", "zstd", "gzip", "none")},
    **{f"{direction} zlib 6": _ours(direction, "gzip", stand_in=True) for direction in ("push", "pull")},
}

LOCAL = ("local import", "import inside")
"""Not transfers, but the limit of any receiver: see ``importing``."""
