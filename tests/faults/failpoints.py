"""Failpoints as tests see them: points of a transfer at which something happens to a server, by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from tests.faults.failpoint_hooks import FOLDER, METHODS
from tests.support import process
from tests.support.orthanc_server import OrthancServer
from tests.support.waiting import wait_until

Mode = Literal["push", "pull"]

SLICES = 48
"""Instances of 74 KB each, in a bit more than a hundred buckets."""

_NAME = re.compile(r"(\w+\.\w+)((?: [A-Z]+ [a-z]+)?) (before|after)")


def check_name(name: str) -> str:
    """The name of a failpoint as it is. Raises ``ValueError`` if no method has that failpoint."""
    match = _NAME.fullmatch(name)
    if match is None or not any(match[1] in names for names in METHODS.values()):
        raise ValueError(f"no failpoint is named {name!r}: see failpoint_hooks.METHODS")
    return name


@dataclass(frozen=True)
class FaultPoint:
    """A point of a transfer at which something happens to its sender or its receiver.

    That is the ``nth`` time that it gets to ``failpoint``; ``point`` says so in words.
    """

    mode: Mode
    side: str
    point: str
    failpoint: str
    nth: int = 1
    version: int = 2
    slices: int = SLICES

    def __post_init__(self) -> None:
        check_name(self.failpoint)

    def __str__(self) -> str:
        version = "" if self.version == 2 else "-v1"
        return f"{self.mode}{version}-{self.side}-{self.point.replace(',', '').replace(' ', '-')}"


class Failpoint:
    """A failpoint of a server, armed. As a context, it is disarmed at its end.

    ``name`` is that of a method and ``before`` or ``after``; ``action`` is ``kill N``, ``stop N``, ``wait`` or
    ``slow S``: see ``failpoint_hooks``.
    """

    def __init__(self, server: OrthancServer, name: str, action: str) -> None:
        self._server = server
        self._file = server.folder / FOLDER / check_name(name)
        self._reached = self._file.with_name(f".{name} reached")
        self._reached.unlink(missing_ok=True)
        # Appears whole.
        unfinished = self._file.with_name(f".{name}")
        unfinished.write_text(action)
        unfinished.rename(self._file)

    def __enter__(self) -> Failpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.disarm()

    def disarm(self) -> None:
        """Nothing more happens there; who waits there goes on."""
        self._file.unlink(missing_ok=True)

    @property
    def reached(self) -> bool:
        """Whether a thread got there."""
        return self._reached.exists()

    def wait_reached(self) -> None:
        """Wait until a thread got there."""
        wait_until(self._reached.exists, f"{self._server.name} gets to {self._file.name}")

    def wait_killed(self) -> None:
        """Wait for the death of the server."""
        wait_until(lambda: not self._server.running, f"{self._server.name} dies at {self._file.name}")
        assert not self._file.exists(), "it ended in another way"
        self._server.kill()  # what it had started, if anything, and it is known to have been meant

    def wait_stopped(self) -> None:
        """Wait until the server is stopped."""
        wait_until(
            lambda: process.is_stopped(self._server.pid), f"{self._server.name} stops at {self._file.name}"
        )
