"""Tunes the connections that Orthanc's HTTP server has accepted: the bytes of a pull leave through them.

They are not ours, but they are in our process: each can be given a congestion control, and be kept from buffering
more than it can carry. (The listening socket could pass a congestion control on to all; but then it would override
one that a network route has of its own, and viewers of images would get it too, even when there is no pull.)
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

from orthanc_transfers.net.congestion import CongestionControl
from orthanc_transfers.net.tcp_info import read_tcp_info

# Seconds between two scans at least: one costs some microseconds for each open file of the process.
_PERIOD = 0.1

# Remote addresses of which it is remembered whether the link to them loses packets.
_MAX_REMOTES = 100

# As in Linux's headers; Python has no name for it before 3.12.
_TCP_NOTSENT_LOWAT = 25
# Bytes that may wait in the kernel's send buffer: what the link carries in so many seconds, ...
_BUFFERED_SECONDS = 0.1
# ... but at least and at most so many.
_MIN_BUFFERED = 16 * 1024
_MAX_BUFFERED = 2**30


class ServerSockets:
    """Accepted connections to one port of this process, tuned for large responses.

    ``congestion_control`` is as in the configuration.
    """

    def __init__(self, port: int, congestion_control: str) -> None:
        self._port = port
        self._congestion_control = congestion_control
        self._lock = threading.Lock()
        self._scanned = -_PERIOD
        self._remotes: dict[str, CongestionControl] = {}

    def tune(self) -> None:
        """Tune the present connections; to be called before a large response."""
        with self._lock:
            now = time.monotonic()
            if now - self._scanned < _PERIOD:
                return
            self._scanned = now
        for connection, remote in _connections(self._port):
            with connection:
                self._control_of(remote).apply(connection)
                _limit_buffered(connection)

    def _control_of(self, remote: str) -> CongestionControl:
        with self._lock:
            if len(self._remotes) >= _MAX_REMOTES:
                self._remotes.clear()
            return self._remotes.setdefault(remote, CongestionControl(self._congestion_control))


def _limit_buffered(connection: socket.socket) -> None:
    """Let the server write no faster than the link carries.

    It closes a connection that was silent for a second (``KeepAliveTimeout``) after it has written its response: into
    the kernel's send buffer, where on a long link megabytes wait for more than that second. The next request would
    find the connection closed, and a new one starts slowly.
    """
    sample = read_tcp_info(connection)
    if sample is not None:
        waiting = max(_MIN_BUFFERED, int(_BUFFERED_SECONDS * sample.rate))
        # Refused, or broken already: then the server goes on as it would have.
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, min(waiting, _MAX_BUFFERED))


def _connections(port: int) -> Iterator[tuple[socket.socket, str]]:
    """The connections to a port of this process, each as a duplicate to be closed, with the remote address."""
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
