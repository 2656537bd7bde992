"""urllib3's connections and pools, made safe to reuse and able to open connections early.

A server may close a kept-alive connection at any moment, Orthanc does after one idle second. So one that
idled for long is not used again, and a request that dies on a used one before any byte of a response is
repeated at once on a fresh connection, if repeating cannot do harm (RFC 9110, 9.2.2).
"""

from __future__ import annotations

import queue
import ssl
import threading
import time
from typing import Any

import urllib3.connection
import urllib3.connectionpool
from urllib3.exceptions import NewConnectionError, ProtocolError

from orthanc_transfers.core.connection_share import CONNECTIONS_HEADER
from orthanc_transfers.net.sockets import SocketFactory
from orthanc_transfers.net.tls_sessions import ResumingContext
from orthanc_transfers.net.urllib3_internals import ConnectsThroughFactory, new_connection

# Seconds. Orthanc's server closes a connection that was idle for one (``KeepAliveTimeout``).
MAX_IDLE = 0.8

# The same for a request that must not be repeated: so much less that, whatever the delay of
# the network, it does not meet a connection that is just being closed.
MAX_IDLE_UNREPEATABLE = 0.3


class Stale(ConnectionError):
    """A used connection turned out to be closed before any byte of a response came."""


class _Reusable(ConnectsThroughFactory):
    """Mixed into urllib3's connections."""

    used = False
    """Whether a response came over this connection already, or could have."""
    idle_since = 0.0
    """Seconds of the monotonic clock."""
    last = False
    """Whether it is closed after the present response: the server has no thread to spare for an idle one."""

    def __init__(self, host: str, port: int | None = None, *, sockets: SocketFactory, **options: Any) -> None:
        super().__init__(host, port, **options)  # type: ignore[call-arg]
        self.address = host
        self.sockets = sockets

    @property
    def is_connected(self: Any) -> bool:
        # urllib3 asks when it takes an idle connection from its pool, and drops one that is not.
        return not self.too_old and super().is_connected  # type: ignore[misc]

    @property
    def too_old(self) -> bool:
        """Whether the connection was idle for too long to carry the request of this thread."""
        current = self.sockets.current
        limit = MAX_IDLE if current.repeatable else MAX_IDLE_UNREPEATABLE
        return self.used and (current.fresh_only or time.monotonic() - self.idle_since >= limit)

    def connect(self) -> None:
        self.used = False
        super().connect()  # type: ignore[misc]

    def request(self: Any, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        if self.is_closed:
            self.connect()
        elif self.used:
            self.sockets.hold(self.sock)
        self.last = (kwargs.get("headers") or {}).get("Connection") == "close"
        try:
            super().request(method, url, *args, **kwargs)  # type: ignore[misc]
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            # Then urllib3, as it does without TLS, reads what the server had to say before it hung up:
            # an early response, or that it wants a certificate.
            raise BrokenPipeError from None

    def getresponse(self: Any) -> Any:
        try:
            response = super().getresponse()  # type: ignore[misc]
        except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            if self.used:
                raise Stale from error
            raise
        self.last = self.last or response.headers.get(CONNECTIONS_HEADER) == "0"
        return response

    def park(self: Any) -> None:
        """Wait in the pool for the next request."""
        if self.last:
            self.close()
        self.used = not self.is_closed
        self.idle_since = time.monotonic()
        if self.used:
            self.sockets.congestion_control.apply(self.sock)


class _HTTPConnection(_Reusable, urllib3.connection.HTTPConnection):
    def connect(self) -> None:
        try:
            super().connect()
        except (BrokenPipeError, ConnectionResetError) as error:
            # Within a request, urllib3 would take either for a server that responds before it has read everything.
            raise NewConnectionError(self, "no connection") from error


class _HTTPSConnection(_Reusable, urllib3.connection.HTTPSConnection):
    def getresponse(self: Any) -> Any:
        first = not self.used
        response = super().getresponse()
        if first and isinstance(self.sock, ssl.SSLSocket) and isinstance(self.ssl_context, ResumingContext):
            self.ssl_context.remember(self.sock)
        return response

    def connect(self) -> None:
        super().connect()
        # Or urllib3 would warn at each request of a peer that, as Orthanc's configuration says, is not verified.
        self.is_verified = True

    @property
    def is_connected(self: Any) -> bool:
        if super().is_connected or self.sock is None or self.too_old:
            return self.sock is not None and not self.too_old
        # There is something to read. After a TLS handshake that may be tickets (RFC 8446, 4.6.1).
        timeout = self.sock.gettimeout()
        self.sock.settimeout(0)
        try:
            self.sock.recv(1)
        except ssl.SSLWantReadError:
            return True
        except OSError:
            pass
        finally:
            self.sock.settimeout(timeout)
        return False


class IdleConnections:
    """What a pool of urllib3 takes its connections from: a stack of idle ones, and slots for new ones.

    A pool fills it with ``None``, one for each slot. Thread-safe, never blocks.
    """

    def __init__(self, maxsize: int = 0) -> None:
        self._size = maxsize
        self._lock = threading.Lock()
        self._idle: list[_Reusable] = []
        self._slots = 0

    def put(self, connection: _Reusable | None, block: bool = True, timeout: float | None = None) -> None:
        """Park a connection, or free the slot of one that was lost."""
        if connection is not None:
            connection.park()
        with self._lock:
            full = len(self._idle) + self._slots >= self._size
            if not full and connection is not None:
                self._idle.append(connection)
            elif not full:
                self._slots += 1
        if full and connection is not None:
            # More requests at once than connections to keep is nothing to warn about, as urllib3 would.
            connection.close()  # type: ignore[attr-defined]

    def get(self, block: bool = True, timeout: float | None = None) -> _Reusable | None:
        """The connection parked last; ``None`` for a new one. Raises ``queue.Empty`` if there are enough."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        if self.take_slot():
            return None
        raise queue.Empty

    def take_slot(self) -> bool:
        """Whether there may be one more connection: the caller is to ``put`` it, or ``None``."""
        with self._lock:
            if not self._slots:
                return False
            self._slots -= 1
            return True

    def trim(self, count: int) -> None:
        """Close all but those parked last."""
        with self._lock:
            closed = self._idle[: max(0, len(self._idle) - count)]
            del self._idle[: len(closed)]
            self._slots += len(closed)
        for connection in closed:
            connection.close()  # type: ignore[attr-defined]

    def qsize(self) -> int:
        return len(self._idle) + self._slots


class _Pool:
    """Mixed into urllib3's pools."""

    QueueCls: Any = IdleConnections

    def __init__(self: Any, *args: Any, sockets: SocketFactory, **kwargs: Any) -> None:
        # What a pool does not know itself, it passes on to its connections.
        super().__init__(*args, sockets=sockets, **kwargs)  # type: ignore[call-arg]
        self.sockets = sockets

    def urlopen(self: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().urlopen(method, url, *args, **kwargs)  # type: ignore[misc]
        except ProtocolError as error:
            current = self.sockets.current
            if not (current.repeatable and any(isinstance(cause, Stale) for cause in error.args)):
                raise
        current.fresh_only = True
        return super().urlopen(method, url, *args, **kwargs)  # type: ignore[misc]

    def open(self: Any, timeout: float | None) -> None:
        """Open a connection ahead of its request, unless there are enough. Raises as ``urlopen``."""
        idle = self.pool
        # An idle one is not taken meanwhile: the next request is to find it, and not to open another.
        if idle is None or not idle.take_slot():
            return  # the pool was closed, or is full
        opened = None
        connection = new_connection(self)
        connection.timeout = timeout
        try:
            connection.connect()
            opened = connection
        finally:
            if opened is None or self.pool is None:
                connection.close()
            # The server may have closed it when the request comes, like any other that was idle.
            idle.put(opened)

    def trim(self: Any, count: int) -> None:
        """Close the idle connections, but for the last ``count``."""
        idle = self.pool
        if idle is not None:
            idle.trim(count)


class HTTPPool(_Pool, urllib3.connectionpool.HTTPConnectionPool):
    """Connections to one peer, over HTTP."""

    ConnectionCls = _HTTPConnection


class HTTPSPool(_Pool, urllib3.connectionpool.HTTPSConnectionPool):
    """Connections to one peer, over HTTPS."""

    ConnectionCls = _HTTPSConnection
