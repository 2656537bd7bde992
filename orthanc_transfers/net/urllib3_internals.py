"""The private methods of urllib3 that are relied on: all of them are in this file.

Everything else goes through what urllib3 documents or leaves to subclasses: ``connect``, ``request``,
``getresponse``, ``is_connected``, ``urlopen``, ``ConnectionCls``, ``QueueCls``. ``pyproject.toml`` bounds the version
of urllib3 by those that were tried, and ``tests/net/test_urllib3_internals.py`` says what is gone from a newer one.
"""

from __future__ import annotations

import socket
from typing import Any

from orthanc_transfers.net.sockets import SocketFactory


class ConnectsThroughFactory:
    """Mixed into urllib3's connections: their sockets come from a ``SocketFactory``."""

    sockets: SocketFactory
    address: str
    """The host to connect to: that of the peer, or of a proxy."""

    def _new_conn(self: Any) -> socket.socket:
        # ``connect`` would be public, but opens the socket, asks a proxy for a tunnel and does TLS's handshake in one.
        # The socket must be known before it is connected, or an abort could not cut a connect that hangs; it is
        # never handed out that early, not to ``socket_options`` either.
        return self.sockets.connect(self.address, self.port, self.timeout)  # type: ignore[no-any-return]


def new_connection(pool: Any) -> Any:
    """A connection, not open yet, with all the options of a pool."""
    # Only a request makes one in public, and here one is made ahead of its request. ``ConnectionCls`` can be called,
    # but a pool passes it a dozen options, others in each version.
    return pool._new_conn()
