"""Linux's ``struct tcp_info`` (linux/tcp.h): round trip, retransmissions and rate of a TCP connection."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

# Bytes of its first fields, which kernels since 4.6 have.
_SIZE = 152
# Its states TCP_SYN_SENT, and TCP_CLOSE before that (net/tcp_states.h).
_CONNECTING = (2, 7)
# Offsets of 32-bit fields.
_SEGMENT, _RTT, _WINDOW, _TOTAL_RETRANSMITTED, _SHORTEST_RTT = 16, 68, 80, 100, 148


class Sample(NamedTuple):
    """One look at a connection: round trips in microseconds, segments retransmitted since it was opened."""

    rtt: int
    shortest: int
    retransmitted: int
    rate: float = 0.0
    """Bytes per second that it may send: a window each round trip."""


class Waiting(NamedTuple):
    """How long a connection waits for the other side."""

    connecting: bool
    retransmits: int
    """Retransmissions in a row that were not acknowledged."""
    probes: int
    """The same of keepalive and window probes."""


def read_waiting(sock: socket.socket) -> Waiting | None:
    """What a connection waits for; ``None`` if the kernel does not tell."""
    try:
        state, _, retransmits, probes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 4)
    except (OSError, ValueError):
        return None
    return Waiting(state in _CONNECTING, retransmits, probes)


def read_tcp_info(sock: socket.socket) -> Sample | None:
    """A sample of a connection; ``None`` if the kernel does not provide these fields."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE)
    except OSError:
        return None
    if len(info) < _SIZE:
        return None
    segment, rtt, window, retransmitted, shortest = (
        struct.unpack_from("=I", info, offset)[0]
        for offset in (_SEGMENT, _RTT, _WINDOW, _TOTAL_RETRANSMITTED, _SHORTEST_RTT)
    )
    return Sample(rtt, shortest, retransmitted, 1e6 * segment * window / max(rtt, 1))
