"""The connections below ``transport.py``: urllib3's, made cuttable, tuned, and safe to use again.

A server may close a kept-alive connection at any moment, Orthanc does after one idle second. So one that
idled for long is not used again, and a request that dies on a used one before any byte of an answer is
repeated at once on a fresh connection, if repeating cannot do harm (RFC 9110, 9.2.2).
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import urllib3.connection
import urllib3.connectionpool
from urllib3.exceptions import ProtocolError

from orthanc_transfers.core.errors import Canceled
from orthanc_transfers.net.congestion import CongestionControl

# Seconds. Orthanc's server forgets a connection that was idle for one (``KeepAliveTimeout``).
REUSABLE = 0.8

# The same for a request that must not be repeated: so much less that, whatever the delay of
# the network, it does not meet a connection that is just being closed.
SURELY_REUSABLE = 0.3

# Seconds for TCP's handshake: four attempts of Linux. A time-out that is longer is meant for an answer.
CONNECT_TIMEOUT = 20.0


class ConnectTimedOut(TimeoutError):
    """No connection within ``seconds``."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no connection after {seconds:g} s")
        self.seconds = seconds


class Stale(ConnectionError):
    """A used connection turned out to be closed before any byte of an answer came."""


class Now(threading.local):
    """The request of the calling thread."""

    repeatable = False
    """Whether it may be done twice."""
    reusable = 0.0
    """Seconds from which on a connection has idled too long for it."""


class Line:
    """Makes sockets for one transport, and can cut those on which requests are under way.

    ``congestion_control`` is TCP's: ``auto`` (see ``congestion.py``), ``system``, or a name.
    """

    def __init__(self, congestion_control: str) -> None:
        self.congestion_control = CongestionControl(congestion_control)
        self.round_trip: float | None = None
        """Seconds that the fastest handshake of TCP took."""
        self._lock = threading.Lock()
        self._held: dict[int, list[socket.socket]] = {}
        self.now = Now()
        self._cut = False

    @contextlib.contextmanager
    def request(self, repeatable: bool) -> Iterator[None]:
        """What the calling thread connects or uses within may be cut. Raises ``Canceled`` after ``cut``.

        ``repeatable``: the request may be done twice.
        """
        thread = threading.get_ident()
        with self._lock:
            if self._cut:
                raise Canceled("stopped on request")
            self._held[thread] = []
        self.now.repeatable = repeatable
        self.now.reusable = REUSABLE if repeatable else SURELY_REUSABLE
        try:
            yield
        finally:
            with self._lock:
                for handle in self._held.pop(thread):
                    handle.close()

    def hold(self, sock: socket.socket) -> None:
        """Let a socket be cut until the request of this thread ends. Raises ``Canceled`` after ``cut``."""
        # A handle of our own: TLS takes the first one over, HTTP closes it before the end of some answers.
        handle = socket.socket(fileno=os.dup(sock.fileno()))
        with self._lock:
            self._held[threading.get_ident()].append(handle)
            if self._cut:
                raise Canceled("stopped on request")

    def cut(self) -> None:
        """End all requests under way, and those to come."""
        with self._lock:
            self._cut = True
            for handles in self._held.values():
                for handle in handles:
                    # Not connected yet, or no more: then there is nothing to wait for either.
                    with contextlib.suppress(OSError):
                        handle.shutdown(socket.SHUT_RDWR)

    def _note_round_trip(self, seconds: float) -> None:
        with self._lock:
            self.round_trip = seconds if self.round_trip is None else min(self.round_trip, seconds)

    def connect(self, host: str, port: int, timeout: float | None) -> socket.socket:
        """A connection to the first address of ``host`` that answers. Raises ``OSError``."""
        limit = CONNECT_TIMEOUT if timeout is None else min(timeout, CONNECT_TIMEOUT)
        failure: OSError | None = None
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host.strip("[]"), port, 0, socket.SOCK_STREAM
        ):
            sock = socket.socket(family, kind, protocol)
            try:
                # A request is written as its head, then its body, which should not wait for an acknowledgement.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                sock.settimeout(limit)
                self.hold(sock)
                began = time.monotonic()
                sock.connect(address)
                self._note_round_trip(time.monotonic() - began)
                self.congestion_control.tend(sock)
                sock.settimeout(timeout)
                return sock
            except TimeoutError:
                sock.close()
                failure = ConnectTimedOut(limit)
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
        raise failure or OSError("the name has no address")


class _Cuttable:
    """Mixed into urllib3's connections."""

    line: Line
    used = False
    """Whether an answer came over this connection already."""
    idle_since = 0.0
    """Seconds of the monotonic clock."""

    def _new_conn(self: Any) -> socket.socket:
        self.used = False
        return self.line.connect(self._dns_host, self.port, self.timeout)  # type: ignore[no-any-return]

    def request(self: Any, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        if self.used:
            self.line.hold(self.sock)
        try:
            super().request(method, url, *args, **kwargs)  # type: ignore[misc]
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            # Then urllib3, as it does without TLS, reads what the server had to say before it hung up:
            # an early answer, or that it wants a certificate.
            raise BrokenPipeError from None

    def getresponse(self: Any) -> Any:
        try:
            return super().getresponse()  # type: ignore[misc]
        except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            if self.used:
                raise Stale from error
            raise


class _HTTPConnection(_Cuttable, urllib3.connection.HTTPConnection):
    pass


class _HTTPSConnection(_Cuttable, urllib3.connection.HTTPSConnection):
    @property
    def is_connected(self: Any) -> bool:
        if super().is_connected or self.sock is None:
            return self.sock is not None
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


class _Pool:
    """Mixed into urllib3's pools."""

    line: Line

    def __init__(self: Any, *args: Any, line: Line, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.line = line

    def urlopen(self: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().urlopen(method, url, *args, **kwargs)  # type: ignore[misc]
        except ProtocolError as error:
            if not (self.line.now.repeatable and any(isinstance(cause, Stale) for cause in error.args)):
                raise
        self.line.now.reusable = 0.0
        return super().urlopen(method, url, *args, **kwargs)  # type: ignore[misc]

    def open(self: Any, timeout: float | None) -> None:
        """Open a connection ahead of its request, unless there are enough. Raises as ``urlopen``."""
        # Not one that waits: the next request is to find it, and not to open another.
        waiting = self.pool
        if waiting is None:
            return  # closed meanwhile
        with waiting.mutex:
            if None not in waiting.queue:
                return
            waiting.queue.remove(None)
        connection = self._new_conn()
        try:
            connection.timeout = timeout
            self._validate_conn(connection)
        finally:
            # Its end may be closed when the request comes, like that of any other which waited.
            self._put_conn(connection)

    def _new_conn(self: Any) -> Any:
        connection = super()._new_conn()  # type: ignore[misc]
        connection.line = self.line
        return connection

    def _get_conn(self: Any, timeout: float | None = None) -> Any:
        # urllib3 itself drops one whose end the server has closed already.
        connection = super()._get_conn(timeout)  # type: ignore[misc]
        if connection.used and time.monotonic() - connection.idle_since >= self.line.now.reusable:
            connection.close()
        return connection

    def _put_conn(self: Any, connection: Any) -> None:
        if connection is not None:
            connection.used = not connection.is_closed
            connection.idle_since = time.monotonic()
            if connection.used:
                self.line.congestion_control.tend(connection.sock)
            if self.pool is not None and self.pool.full():
                # More requests at once than connections to keep is nothing to warn about, as urllib3 would.
                connection.close()
                return
        super()._put_conn(connection)  # type: ignore[misc]

    def _validate_conn(self: Any, connection: Any) -> None:
        # Instead of urllib3's, which warns at each request of a peer that is not to be verified.
        if connection.is_closed:
            connection.connect()


class HTTPPool(_Pool, urllib3.connectionpool.HTTPConnectionPool):
    """Connections to one peer, over HTTP."""

    ConnectionCls = _HTTPConnection


class HTTPSPool(_Pool, urllib3.connectionpool.HTTPSConnectionPool):
    """Connections to one peer, over HTTPS."""

    ConnectionCls = _HTTPSConnection
