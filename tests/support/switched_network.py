"""A network of hosts at one switch, each in a network namespace; any of them can be cut off. Needs root.

The first host is ``hub``, where the switch is, too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import AbstractContextManager
from functools import cache
from typing import Self

from tests.support import namespaces

_SUBNET = "10.78.0"


@cache
def why_not() -> str | None:
    """What is missing here to make one; ``None`` if nothing is."""
    if os.getuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "there is no ip"
    try:
        with SwitchedNetwork(f"probe-{os.getpid()}", 1):
            return None
    except subprocess.CalledProcessError as error:
        return f"there are no virtual networks here: {error.stderr.strip()}"


class SwitchedNetwork:
    """``hosts`` besides the hub, numbered from 1. The names of its namespaces begin with ``name``."""

    def __init__(self, name: str, hosts: int) -> None:
        self._name = name
        self._hosts = range(1, hosts + 1)

    subnet = f"{_SUBNET}.0/24"
    hub_address = f"{_SUBNET}.254"

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def address(self, host: int) -> str:
        return f"{_SUBNET}.{host}"

    def inside(self, host: int) -> tuple[str, ...]:
        """What a command at that host begins with."""
        return namespaces.inside(self._of(host))

    def at_the_hub(self) -> AbstractContextManager[None]:
        """This thread, and what it starts, is there meanwhile."""
        return namespaces.entered(self._of(0))

    def cut(self, host: int) -> None:
        """Lose all that it sends, and all that is sent to it, from now on: nobody is told."""
        _ip("-n", self._of(0), "link", "set", f"port{host}", "nomaster")

    def heal(self, host: int) -> None:
        """Carry again."""
        _ip("-n", self._of(0), "link", "set", f"port{host}", "master", "switch")

    def _of(self, host: int) -> str:
        return f"{self._name}-{host}"

    def _make(self) -> None:
        hub = self._of(0)
        _ip("netns", "add", hub)
        _ip("-n", hub, "link", "set", "lo", "up")
        _ip("-n", hub, "link", "add", "switch", "type", "bridge")
        _ip("-n", hub, "address", "add", f"{self.hub_address}/24", "dev", "switch")
        _ip("-n", hub, "link", "set", "switch", "up")
        for host in self._hosts:
            there = self._of(host)
            _ip("netns", "add", there)
            _ip("-n", there, "link", "set", "lo", "up")
            _ip(
                *("-n", hub, "link", "add", f"port{host}", "type", "veth"),
                *("peer", "name", "eth0", "netns", there),
            )
            _ip("-n", hub, "link", "set", f"port{host}", "up")
            _ip("-n", there, "address", "add", f"{self.address(host)}/24", "dev", "eth0")
            _ip("-n", there, "link", "set", "eth0", "up")
            self.heal(host)

    def _remove(self) -> None:
        for host in (*self._hosts, 0):
            # Its devices go with it.
            subprocess.run(["ip", "netns", "delete", self._of(host)], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
