"""The link to a peer: near, far or slow, told by TCP's round trip and by how long requests last."""

from __future__ import annotations

# Seconds of a round trip up to which a peer is near: few connections fill the network in between.
_NEAR = 0.005
# Seconds of a round trip from which on a link is long.
_FAR = 0.03
# Seconds that a request lasts at least where the network may be the limit: on a fast link it ends sooner.
_SLOW = 0.25


def far(round_trip: float | None) -> bool:
    """Whether a link is known to be long; ``round_trip`` in seconds, ``None`` if unknown."""
    return round_trip is not None and round_trip >= _FAR


def near(round_trip: float | None) -> bool:
    """Whether a link is known to be short: a request that lasts long there waits for a CPU, or behind a proxy."""
    return round_trip is not None and round_trip <= _NEAR


def slow(seconds: float) -> bool:
    """Whether a request lasted so long that the network may be the limit."""
    return seconds >= _SLOW
