"""Routes that measure the link between two peers with made-up bytes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from orthanc_transfers.core import paths
from orthanc_transfers.core.buffers import size_of
from orthanc_transfers.core.errors import Canceled, Conflict, PeerUnreachable, TooLarge
from orthanc_transfers.interfaces import PeerRequest, PeerTransport
from orthanc_transfers.jobs.services import Services
from orthanc_transfers.rest.http import Request, Response, json_response
from orthanc_transfers.runtime.deadline import Deadline

# Bytes of one request.
MAX_SIZE = 16 * 1024 * 1024

# Bytes of the requests, one after the other: the first ones let TCP find the speed of the link.
_SIZES = (256 * 1024, 1024 * 1024, 4 * 1024 * 1024, MAX_SIZE)

# Seconds in one direction after which no larger request follows, and for all.
_LONG_ENOUGH = 1.5
_MAX_DURATION = 60.0

# Random, so that nothing on the way makes it smaller.
_BLOCK = os.urandom(256 * 1024)


@dataclass(frozen=True, slots=True)
class _Speed:
    size: int
    seconds: float

    def to_json(self) -> dict[str, float]:
        return {
            "Bytes": self.size,
            "Seconds": round(self.seconds, 4),
            "BytesPerSecond": round(self.size / max(self.seconds, 1e-6)),
        }


class MeasureRoutes:
    """Both sides of a measurement."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def send_bytes(self, request: Request) -> Response:
        """``GET /transfers/v2/measure/{size}``."""
        size = int(request.groups[0])
        _check(size)
        return Response(_made_up(size), "application/octet-stream")

    def take_bytes(self, request: Request) -> Response:
        """``POST /transfers/v2/measure``: whatever it is, it is forgotten."""
        _check(request.body.nbytes)
        return json_response({"Size": request.body.nbytes})

    def measure(self, request: Request) -> Response:
        """``POST /transfers/peers/{name}/measure``: the speed of the link in both directions, within the limits set."""
        peer = request.groups[0]
        transport = self._services.peers.connect(peer, 1)
        try:
            capabilities = self._services.capabilities.capabilities(transport)
            if capabilities is None or not capabilities.measurable:
                raise Conflict(
                    f"the link to peer {peer} cannot be measured: update the transfers plugin there"
                )
            with Deadline("measure", _MAX_DURATION, transport.abort):
                download = _measured(lambda size: _download(transport, size))
                upload = _measured(lambda size: _upload(transport, size))
        except Canceled:
            raise PeerUnreachable(
                f"the link to peer {peer} is too slow to be measured within {_MAX_DURATION:g} seconds", peer
            ) from None
        finally:
            transport.close()
        return json_response(
            {
                "Peer": peer,
                "RoundTripSeconds": transport.round_trip,
                "Download": download.to_json(),
                "Upload": upload.to_json(),
            }
        )


def _measured(travel: Callable[[int], None]) -> _Speed:
    """The speed of the last and largest request, once it took long enough."""
    began = time.monotonic()
    for size in _SIZES:
        before = time.monotonic()
        travel(size)
        now = time.monotonic()
        if now - began >= _LONG_ENOUGH:
            break
    return _Speed(size, now - before)


def _download(transport: PeerTransport, size: int) -> None:
    transport.send(PeerRequest("GET", paths.measured_bytes(str(size)), limit=size))


def _upload(transport: PeerTransport, size: int) -> None:
    body = [_BLOCK] * (size // len(_BLOCK))
    assert size_of(body) == size
    transport.send(PeerRequest("POST", paths.MEASURE, body=body, repeatable=True))


def _made_up(size: int) -> bytes:
    return (_BLOCK * -(-size // len(_BLOCK)))[:size]


def _check(size: int) -> None:
    if size > MAX_SIZE:
        raise TooLarge(f"at most {MAX_SIZE} bytes are measured in one request, not {size}")
