"""What is compared: ways to bring a study from one Orthanc to another. Each is a job of Orthanc's engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.orthanc_server import OrthancServer, resource

LOCAL = "local import"
"""Not a transfer: the same files, read into memory, imported into the receiver by a client beside it, 4 threads."""


@dataclass(frozen=True)
class Side:
    """``start`` begins it, given sender, receiver and study, and answers who has the job and its identifier."""

    start: Callable[[OrthancServer, OrthancServer, str], tuple[OrthancServer, str]]
    ours: bool = False
    part: int = 1
    """It sends one instance of so many, because all would take too long; its time is multiplied by that."""
    version_1: bool = False


def _push(compression: str) -> Callable[[OrthancServer, OrthancServer, str], tuple[OrthancServer, str]]:
    def start(a: OrthancServer, b: OrthancServer, study: str) -> tuple[OrthancServer, str]:
        return a, a.send([resource("Study", study)], "b", Compression=compression)["ID"]

    return start


def _pull(compression: str) -> Callable[[OrthancServer, OrthancServer, str], tuple[OrthancServer, str]]:
    def start(a: OrthancServer, b: OrthancServer, study: str) -> tuple[OrthancServer, str]:
        return b, b.pull([resource("Study", study)], "a", Compression=compression)["ID"]

    return start


def _post(path: str, **more: Any) -> Callable[[OrthancServer, OrthancServer, str], tuple[OrthancServer, str]]:
    def start(a: OrthancServer, b: OrthancServer, study: str) -> tuple[OrthancServer, str]:
        return a, a.post(path, {"Resources": [study], "Synchronous": False, "Asynchronous": True, **more})[
            "ID"
        ]

    return start


def _store_a_part(a: OrthancServer, b: OrthancServer, study: str) -> tuple[OrthancServer, str]:
    instances = sorted(one["ID"] for one in a.get(f"studies/{study}/instances"))[::_PART]
    return a, a.post("peers/b/store", {"Resources": instances, "Synchronous": False, "Asynchronous": True})[
        "ID"
    ]


_PART = 20
STORE_A_PART = f"peer store ({_PART} × a {_PART}th)"

SIDES: dict[str, Side] = {
    "peer store": Side(_post("peers/b/store")),
    STORE_A_PART: Side(_store_a_part, part=_PART),
    "C-STORE": Side(_post("modalities/b/store")),
    "STOW": Side(_post("dicom-web/servers/b/stow")),
    **{f"push {name}": Side(_push(name), ours=True) for name in ("auto", "zstd", "gzip", "none")},
    **{f"pull {name}": Side(_pull(name), ours=True) for name in ("auto", "zstd", "gzip", "none")},
    "push zlib 6": Side(_push("gzip"), ours=True, version_1=True),
    "pull zlib 6": Side(_pull("gzip"), ours=True, version_1=True),
}
