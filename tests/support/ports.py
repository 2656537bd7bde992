"""TCP ports for the servers that tests start, each given to one server only, whatever else is tested on this machine.

Another run of tests must not get the port of a server that is down for a moment: it would take that one, once it is
back, for its own, and empty it. So each process takes ports in blocks, and says so by a Unix socket with an abstract
name, which belongs to the same network namespace as the ports, and goes with the process.
"""

from __future__ import annotations

import functools
import random
import socket
import threading
from pathlib import Path

BLOCK = 64


class Ports:
    """Those from ``first`` to ``stop``. Thread-safe."""

    def __init__(self, first: int, stop: int) -> None:
        self._blocks = [range(one, one + BLOCK) for one in range(first, stop - BLOCK + 1, BLOCK)]
        self._lock = threading.Lock()
        self._mine: dict[range, socket.socket] = {}
        self._left: list[int] = []

    def take(self) -> int:
        """One that is free. Never the same again, until no block is left."""
        with self._lock:
            while True:
                if not self._left:
                    self._left = self._more()
                port = self._left.pop()
                if port_is_free(port):
                    return port

    def _more(self) -> list[int]:
        for block in random.SystemRandom().sample(self._blocks, len(self._blocks)):
            if block not in self._mine and (claim := _claim(block)) is not None:
                self._mine[block] = claim
                return list(block)
        if not self._mine:
            raise OSError("other processes have all ports that are meant for the servers of tests")
        return [port for block in self._mine for port in block]


def _claim(block: range) -> socket.socket | None:
    """What keeps others from the block while it is open; ``None`` if another has it."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0orthanc-transfers-tests/ports/{block.start}")
    except OSError:
        claim.close()
        return None
    return claim


@functools.cache
def _ports() -> Ports:
    # Below those that the kernel gives to outgoing connections: one of them would be taken now and then before its
    # server has started, or while it is stopped, and Orthanc ends then (status 255).
    # Where all ports are ephemeral, some have to be taken all the same.
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return Ports(10_000, max(20_000, ephemeral))


def free_port() -> int:
    """A free TCP port for a server that may stop and start again."""
    return _ports().take()


def port_is_free(port: int) -> bool:
    """Whether a server may listen on that port of any address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True
