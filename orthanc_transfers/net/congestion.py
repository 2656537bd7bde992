"""TCP's congestion control per connection: BBR on links that lose packets while their queues are empty.

Cubic takes each lost packet for a full queue. Where packets get lost for another reason, it leaves the link
idle: at 100 ms and 0.1 % loss one connection carries 8 of 200 Mbit/s, one of BBR 189 (measured). Where nothing but
full queues loses packets, BBR is the worse one: it overfills short queues, and a sixth of all packets were sent
twice (measured, 100 ms, a queue as long).
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Callable
from functools import cache

from orthanc_transfers.net.tcp_info import Sample, read_tcp_info

AUTO = "auto"
SYSTEM = "system"

_BBR = "bbr"
_AVAILABLE = "/proc/sys/net/ipv4/tcp_available_congestion_control"

# A round trip of this many times the shortest one has met a queue.
_QUEUED_RATIO = 1.3
# Seconds without a queue, after which lost packets were not dropped by one.
_MIN_QUIET = 2.0
# Packets lost since then that make a link lossy.
_MIN_LOST = 3
# Microseconds of round trip: on a shorter link even cubic recovers at once.
_MIN_ROUND_TRIP = 5000

_logger = logging.getLogger(__name__)


class Losses:
    """Whether the link to one address loses packets although its queues are empty. Not thread-safe."""

    def __init__(self) -> None:
        self.seen = False
        self._retransmitted: dict[object, int] = {}
        self._queued: float | None = None
        self._lost = 0

    def add(self, connection: object, sample: Sample, now: float) -> None:
        """Add a sample of one connection, taken at ``now`` seconds. To be called often, for all connections."""
        # What was lost before the first look was lost while the connection found out how fast it may send.
        new = sample.retransmitted - self._retransmitted.get(connection, sample.retransmitted)
        self._retransmitted[connection] = sample.retransmitted
        if self._queued is None or sample.rtt > _QUEUED_RATIO * sample.shortest:
            self._queued = now
            self._lost = 0
        elif now - self._queued >= _MIN_QUIET and sample.shortest >= _MIN_ROUND_TRIP:
            self._lost += new
            self.seen = self.seen or self._lost >= _MIN_LOST


class CongestionControl:
    """The congestion control of the connections to one address. Thread-safe.

    ``wanted``: ``auto`` (BBR where the kernel has it, for links that lose packets), ``system`` (that of the
    machine, untouched), or a name. A refusal of the kernel is logged once, and its default stays.
    """

    def __init__(self, wanted: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._wanted = wanted
        self._clock = clock
        self._lock = threading.Lock()
        self._losses = Losses()

    def apply(self, sock: socket.socket) -> None:
        """Choose for one connection: when it is made, overriding what a route has set, and again after each request."""
        if self._wanted == SYSTEM:
            return
        try:
            here, there = sock.getsockname(), sock.getpeername()
        except OSError:
            return  # closed already
        if self._wanted != AUTO:
            _set(sock, self._wanted)
        elif _BBR in _available() and not ipaddress.ip_address(there[0].partition("%")[0]).is_loopback:
            sample = read_tcp_info(sock)
            with self._lock:
                if sample is not None:
                    self._losses.add((here[:2], there[:2]), sample, self._clock())
                lossy = self._losses.seen
            if lossy:
                _set(sock, _BBR)


def _set(sock: socket.socket, name: str) -> None:
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
    except OSError as error:
        # A container may see BBR and not be allowed to use it.
        _warn_refused(name, error.strerror or str(error))


@cache
def _available() -> frozenset[str]:
    try:
        with open(_AVAILABLE, encoding="ascii") as file:
            return frozenset(file.read().split())
    except OSError:
        return frozenset()


@cache
def _warn_refused(name: str, reason: str) -> None:
    _logger.warning(
        "CongestionControl %r is refused by the system (%s): its default is used instead", name, reason
    )
