"""What the kernel says of a TCP connection: Linux's ``struct tcp_info`` (linux/tcp.h)."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

# Its first fields, which kernels since 4.6 have.
_SIZE = 152
# Places of fields of 32 bits.
_SEGMENT, _RTT, _WINDOW, _TOTAL_RETRANSMITTED, _SHORTEST_RTT = 16, 68, 80, 100, 148


class Sample(NamedTuple):
    """Microseconds, segments sent again since its beginning, and bytes a second that it may send."""

    rtt: int
    shortest: int
    retransmitted: int
    rate: float = 0.0
    """A window each round trip."""


def look_at(sock: socket.socket) -> Sample | None:
    """``None`` if the kernel does not say so much."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE)
    except OSError:
        return None
    if len(info) < _SIZE:
        return None
    segment, rtt, window, retransmitted, shortest = (
        struct.unpack_from("=I", info, place)[0]
        for place in (_SEGMENT, _RTT, _WINDOW, _TOTAL_RETRANSMITTED, _SHORTEST_RTT)
    )
    return Sample(rtt, shortest, retransmitted, 1e6 * segment * window / max(rtt, 1))
