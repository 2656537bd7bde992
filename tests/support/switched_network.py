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
        ip("-n", self._of(0), "link", "set", self._port(host), "nomaster")

    def heal(self, host: int) -> None:
        """Carry again."""
        ip("-n", self._of(0), "link", "set", self._port(host), "master", "switch")

    def _of(self, host: int) -> str:
        return f"{self._name}-{host}"

    def _make(self) -> None:
        hub = self._of(0)
        ip("netns", "add", hub)
        ip("-n", hub, "link", "set", "lo", "up")
        ip("-n", hub, "link", "add", "switch", "type", "bridge")
        ip("-n", hub, "address", "add", f"{self.hub_address}/24", "dev", "switch")
        ip("-n", hub, "link", "set", "switch", "up")
        for host in self._hosts:
            self._connect(host)
            ip("-n", hub, "link", "set", self._port(host), "up")
            self.heal(host)

    def _connect(self, host: int) -> None:
        """Make a host, and its port at the switch."""
        there = self._of(host)
        ip("netns", "add", there)
        ip("-n", there, "link", "set", "lo", "up")
        ip(
            *("-n", self._of(0), "link", "add", self._port(host), "type", "veth"),
            *("peer", "name", "eth0", "netns", there),
        )
        ip("-n", there, "address", "add", f"{self.address(host)}/24", "dev", "eth0")
        ip("-n", there, "link", "set", "eth0", "up")

    def _port(self, host: int) -> str:
        return f"port{host}"

    def _remove(self) -> None:
        for host in (*self._hosts, 0):
            # Its devices go with it.
            subprocess.run(["ip", "netns", "delete", self._of(host)], check=False, capture_output=True)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
