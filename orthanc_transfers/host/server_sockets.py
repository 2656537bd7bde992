"""The connections that Orthanc's HTTP server has accepted: the bytes of a pull leave through them.

They are not ours, but they are in our process: each can be given a congestion control, and be kept from taking
more than it can carry. (The socket on which the server listens could pass the one on to all; but then a route that
has one of its own would win, and those who look at images would get it too, though nobody pulls.)
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

from orthanc_transfers.net.congestion import CongestionControl
from orthanc_transfers.net.tcp_info import look_at

# Seconds between two looks at most: one costs some microseconds for each open file of the process.
_PERIOD = 0.1

# Addresses of which it is remembered whether the line to them loses packets.
_MOST_PLACES = 100

# As in Linux's headers; Python has no name for it before 3.12.
_TCP_NOTSENT_LOWAT = 25
# Bytes that may wait in the system for their turn: those of so many seconds, ...
_WAITING = 0.1
# ... but at least so many.
_LEAST_WAITING = 16 * 1024
_MOST_WAITING = 2**30


class ServerSockets:
    """Those to one port of this process, to be made fit for much that is answered.

    ``congestion_control`` is as in the configuration.
    """

    def __init__(self, port: int, congestion_control: str) -> None:
        self._port = port
        self._congestion_control = congestion_control
        self._lock = threading.Lock()
        self._looked = -_PERIOD
        self._places: dict[str, CongestionControl] = {}

    def tune(self) -> None:
        """See to the present connections; to be called before much is answered."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked < _PERIOD:
                return
            self._looked = now
        for connection, remote in _connections(self._port):
            with connection:
                self._of(remote).apply(connection)
                _hold_back(connection)

    def _of(self, remote: str) -> CongestionControl:
        with self._lock:
            if len(self._places) >= _MOST_PLACES:
                self._places.clear()
            return self._places.setdefault(remote, CongestionControl(self._congestion_control))


def _hold_back(connection: socket.socket) -> None:
    """Let the server write no faster than the line carries.

    It closes a connection that was silent for a second (``KeepAliveTimeout``) after it had written its answer: into
    the memory of the system, where on a long line megabytes wait for more than that second. The next request would
    find the connection closed, and a new one begins slowly.
    """
    sample = look_at(connection)
    if sample is not None:
        waiting = max(_LEAST_WAITING, int(_WAITING * sample.rate))
        # Refused, or broken already: then the server goes on as it would have.
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, min(waiting, _MOST_WAITING))


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
