"""The transfer methods that are compared. Each is a job of Orthanc's jobs engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Resources = Sequence[dict[str, str]]

STORE = "peer store"
"""Orthanc's own way, by which the others are judged."""


@dataclass(frozen=True)
class Method:
    """``order`` gives the path and the body of the POST that begins the job. ``pulls``: the receiver is asked."""

    order: Callable[[Resources], tuple[str, dict[str, Any]]]
    ours: bool = False
    pulls: bool = False
    stand_in: bool = False
    """Needs servers whose script is ``zlib_level_6_script.py``."""


def _core(path: str) -> Method:
    # Orthanc wants Synchronous, its DICOMweb plugin knows it too.
    return Method(
        lambda resources: (path, {"Resources": [one["ID"] for one in resources], "Synchronous": False})
    )


def _ours(direction: str, compression: str, *, stand_in: bool = False) -> Method:
    pulls = direction == "pull"
    path, peer = ("transfers/pull", "a") if pulls else ("transfers/send", "b")

    def order(resources: Resources) -> tuple[str, dict[str, Any]]:
        return path, {"Resources": list(resources), "Peer": peer, "Compression": compression}

    return Method(order, ours=True, pulls=pulls, stand_in=stand_in)


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
