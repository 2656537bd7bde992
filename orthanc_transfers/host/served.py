"""The connections that Orthanc's HTTP server has accepted: the bytes of a pull leave through them.

They are not ours, but they are in our process, and each can be given a congestion control. (The socket on which
the server listens could pass it on to all; but then a route that has one of its own would win, and those who
look at images would get it too, though nobody pulls.)
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

from orthanc_transfers.transfer.congestion import SYSTEM, CongestionControl

# Seconds between two looks at most: one costs some microseconds for each open file of the process.
_PERIOD = 0.1

# Addresses of which it is remembered whether the line to them loses packets.
_MOST_PLACES = 100


class ServedConnections:
    """Those to one port of this process. ``congestion_control`` is as in the configuration."""

    def __init__(self, port: int, congestion_control: str) -> None:
        self._port = port
        self._congestion_control = congestion_control
        self._lock = threading.Lock()
        self._looked = -_PERIOD
        self._places: dict[str, CongestionControl] = {}

    def tune(self) -> None:
        """Give the present connections that congestion control; to be called before much is answered."""
        if self._congestion_control == SYSTEM:
            return
        with self._lock:
            now = time.monotonic()
            if now - self._looked < _PERIOD:
                return
            self._looked = now
        for connection, remote in _connections(self._port):
            with connection:
                self._of(remote).tend(connection)

    def _of(self, remote: str) -> CongestionControl:
        with self._lock:
            if len(self._places) >= _MOST_PLACES:
                self._places.clear()
            return self._places.setdefault(remote, CongestionControl(self._congestion_control))


def _connections(port: int) -> Iterator[tuple[socket.socket, str]]:
    """The connections to a port of this process, each as a handle to be closed, with the address of the other end."""
    for name in os.listdir("/proc/self/fd"):
        # Descriptors come and go meanwhile, and most are not of sockets.
        with contextlib.suppress(OSError):
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            sock = socket.socket(fileno=os.dup(int(name)))
            try:
                remote = _remote(sock, port)
            except OSError:
                remote = None
            if remote is None:
                sock.close()
            else:
                yield sock, remote


def _remote(sock: socket.socket, port: int) -> str | None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        return None
    if sock.getsockname()[1] != port:
        return None
    return str(sock.getpeername()[0])
