"""The sockets on which Orthanc's HTTP server listens.

The bytes of a pull leave through connections that the server accepts. These take over the congestion control
of the socket on which they arrived (Linux, ``tcp_create_openreq_child``; tried on 6.1 and 6.18).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from orthanc_transfers.transfer.congestion import set_congestion_control


def tune_listeners(port: int, congestion_control: str) -> int:
    """Give connections accepted on a port from now on that congestion control; answers how many sockets listen."""
    count = 0
    for listener in _listeners(port):
        with listener:
            set_congestion_control(listener, congestion_control)
            count += 1
    return count


def _listeners(port: int) -> Iterator[socket.socket]:
    """The sockets of this process that listen on a port, each as a handle of its own, to be closed."""
    for name in os.listdir("/proc/self/fd"):
        # Descriptors come and go meanwhile, and most are not of sockets.
        with contextlib.suppress(OSError):
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            sock = socket.socket(fileno=os.dup(int(name)))
            try:
                if _listens(sock, port):
                    yield sock
                    continue
            except OSError:
                pass
            sock.close()


def _listens(sock: socket.socket, port: int) -> bool:
    return (
        sock.family in (socket.AF_INET, socket.AF_INET6)
        and sock.type == socket.SOCK_STREAM
        and bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        and sock.getsockname()[1] == port
    )
