"""TCP connections to one peer: opened, timed, tuned, and cut by an abort."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

from orthanc_transfers.core.errors import Canceled
from orthanc_transfers.net.congestion import CongestionControl
from orthanc_transfers.net.tcp_info import read_waiting

# Seconds for TCP's handshake: four attempts of Linux. A timeout that is longer is meant for a response.
CONNECT_TIMEOUT = 20.0


class ConnectTimedOut(TimeoutError):
    """No connection within ``seconds``."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no connection after {seconds:g} s")
        self.seconds = seconds


# Seconds without data after which Linux asks whether the other side is still there, and between two such questions.
# After 127 of them, the most there can be, the connection is given up.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 127))

# Seconds after which a connection that is neither accepted nor refused is silent.
PATIENCE = 0.5

# Retransmissions, or questions, in a row without an acknowledgement after which a connection is silent. One may get
# lost on any link.
_UNACKNOWLEDGED = 2


class _Held:
    """The sockets of one request, the latest last."""

    def __init__(self) -> None:
        self.handles: list[socket.socket] = []
        self.since = time.monotonic()
        """When it began, or its last connection."""

    @property
    def silence(self) -> str | None:
        """See ``interfaces.PeerTransport``."""
        waiting = read_waiting(self.handles[-1]) if self.handles else None
        if waiting is None or waiting.connecting:
            # Also while its name is looked up.
            return "accepts no connection" if time.monotonic() - self.since >= PATIENCE else None
        if max(waiting.retransmits, waiting.probes) < _UNACKNOWLEDGED:
            return None
        return "acknowledges nothing"


class CurrentRequest(threading.local):
    """The request of the calling thread."""

    repeatable = False
    """Whether it may be sent twice."""
    fresh_only = False
    """Whether it must not be sent over a connection that was idle before."""


class SocketFactory:
    """Makes sockets for one transport, and can cut those on which requests are in progress.

    ``congestion_control`` is TCP's: ``auto`` (see ``congestion.py``), ``system``, or a name.
    """

    def __init__(self, congestion_control: str) -> None:
        self.congestion_control = CongestionControl(congestion_control)
        self.round_trip: float | None = None
        """Seconds of the fastest TCP handshake."""
        self.current = CurrentRequest()
        self._lock = threading.Lock()
        self._held: dict[int, _Held] = {}
        self._aborted = False
        self.lease = 0
        """Counts who used it one after the other."""

    @contextlib.contextmanager
    def request(self, repeatable: bool, lease: int = 0) -> Iterator[None]:
        """What the calling thread connects or uses inside can be cut. Raises ``Canceled`` after ``abort``.

        ``repeatable``: the request may be sent twice. ``lease``: that of the caller's time; see ``renew``.
        """
        thread = threading.get_ident()
        with self._lock:
            if self._aborted or lease != self.lease:
                raise Canceled("stopped on request")
            self._held[thread] = _Held()
        self.current.repeatable = repeatable
        self.current.fresh_only = False
        try:
            yield
        finally:
            with self._lock:
                for handle in self._held.pop(thread).handles:
                    handle.close()

    def hold(self, sock: socket.socket) -> None:
        """Let a socket be cut until the request of this thread ends. Raises ``Canceled`` after ``abort``."""
        # A handle of our own: TLS takes the first one over, HTTP closes it before the end of some responses.
        handle = socket.socket(fileno=os.dup(sock.fileno()))
        with self._lock:
            held = self._held[threading.get_ident()]
            held.handles.append(handle)
            held.since = time.monotonic()
            if self._aborted:
                raise Canceled("stopped on request")

    @property
    def silence(self) -> str | None:
        """See ``interfaces.PeerTransport``."""
        with self._lock:
            found = [held.silence for held in self._held.values()]
        return found[0] if found and all(found) else None

    def renew(self) -> bool:
        """Let another transport use it: requests of former leases are refused.

        Returns ``False``, and does nothing, while one is in progress.
        """
        with self._lock:
            if self._held:
                return False
            self.lease += 1
            self._aborted = False
            return True

    def abort(self, lease: int = 0) -> None:
        """End all requests of that lease in progress, and those to come."""
        with self._lock:
            if lease != self.lease:
                return
            self._aborted = True
            for held in self._held.values():
                for handle in held.handles:
                    # Not connected yet, or no longer: then there is nothing to wait for either.
                    with contextlib.suppress(OSError):
                        handle.shutdown(socket.SHUT_RDWR)

    def connect(self, host: str, port: int, timeout: float | None) -> socket.socket:
        """A connection to the first address of ``host`` that accepts one. Raises ``OSError``."""
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
                for option, value in _KEEPALIVE:
                    sock.setsockopt(socket.IPPROTO_TCP, option, value)
                sock.settimeout(limit)
                self.hold(sock)
                began = time.monotonic()
                sock.connect(address)
                self._keep_round_trip(time.monotonic() - began)
                self.congestion_control.apply(sock)
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

    def _keep_round_trip(self, seconds: float) -> None:
        with self._lock:
            self.round_trip = seconds if self.round_trip is None else min(self.round_trip, seconds)
