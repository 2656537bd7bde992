"""``tests/wanlab`` from Python: two network namespaces with an emulated link. Needs root, a compiler and TUN."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.support import namespaces

_WANLAB = Path(__file__).resolve().parents[1] / "wanlab" / "wanlab"

HOSTS = {"a": "10.77.0.1", "b": "10.77.0.2"}
"""The addresses of the two ends."""


def why_not() -> str | None:
    """What is missing here to make a link; ``None`` if nothing is."""
    if os.getuid() != 0:
        return "network namespaces need root"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "there is no /dev/net/tun"
    for program in ("cc", "ip"):
        if shutil.which(program) is None:
            return f"there is no {program}"
    return None


class WanLink:
    """A link that is up. ``inside(end)`` is what a command at that end begins with."""

    def __init__(self, name: str) -> None:
        self.name = name

    def inside(self, end: str) -> tuple[str, ...]:
        return namespaces.inside(f"{self.name}-{end}")

    def entered(self, end: str) -> AbstractContextManager[None]:
        """This thread, and those it starts, are at that end meanwhile."""
        return namespaces.entered(f"{self.name}-{end}")

    def stats(self) -> str:
        """The counters of the link."""
        return self._run("stats")

    def cut(self) -> None:
        """Lose everything from now on."""
        self._run("cut")

    def heal(self) -> None:
        """Carry again."""
        self._run("heal")

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(_WANLAB), "--name", self.name, *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout


@contextmanager
def wan_link(name: str, *, rtt: float, rate: float, loss: float = 0.0) -> Iterator[WanLink]:
    """A link of ``rtt`` ms, ``rate`` Mbit/s and ``loss`` %, removed at the end."""
    made = WanLink(name)
    made._run("up", "--rtt", str(rtt), "--rate", str(rate), "--loss", str(loss))
    try:
        yield made
    finally:
        made._run("down")
