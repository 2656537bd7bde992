"""JSON to and from a peer, as the jobs exchange it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from orthanc_transfers.core.errors import BadRequest, PeerAnswer, PeerError, PeerStatus
from orthanc_transfers.core.protocol import SENDER_TRANSFER_ID, LookupAnswer, TransferRequest
from orthanc_transfers.transfer.ports import Answer, Buffer, PeerTransport

LOOKUP = "/transfers/lookup"

T = TypeVar("T")

_DROP_TIMEOUT = 5.0

log = logging.getLogger(__name__)


def identify(order: TransferRequest) -> dict[str, str]:
    """The header that keeps all requests of a transfer on one server behind a load balancer."""
    return {SENDER_TRANSFER_ID: order.sender_transfer_id or ""}


def post(
    peer: PeerTransport,
    path: str,
    value: Any,
    order: TransferRequest,
    parse: Callable[[Any], T],
    timeout: float | None = None,
) -> T:
    """POST a value as JSON, understand the answer. Raises what ``request`` does, ``PeerAnswer`` above all."""
    body = json.dumps(value, separators=(",", ":")).encode()
    headers = {"content-type": "application/json", **identify(order)}
    answer = peer.request("POST", path, body=[body], headers=headers, timeout=timeout)
    return understand(peer, path, answer, parse)


def look_up(
    peer: PeerTransport, resources: Any, order: TransferRequest, timeout: float | None = None
) -> LookupAnswer:
    """The instances that a peer has below some resources (JSON)."""
    return post(peer, LOOKUP, resources, order, LookupAnswer.parse, timeout)


def understand(peer: PeerTransport, path: str, answer: Answer, parse: Callable[[Any], T]) -> T:
    """The message in an answer. Raises ``PeerAnswer`` if there is none."""
    try:
        return parse(json.loads(bytes(answer.body)))
    except (BadRequest, ValueError, RecursionError) as error:
        raise PeerAnswer(f"peer {peer.peer} answers {path} with nonsense: {error}", peer.peer) from error


def drop(peer: PeerTransport, path: str, order: TransferRequest) -> None:
    """Tell a peer that a push is of no use any more. What the peer does not hear of expires there."""
    try:
        peer.request("DELETE", path, headers=identify(order), timeout=_DROP_TIMEOUT)
    except PeerError as error:
        if not (isinstance(error, PeerStatus) and error.peer_status == 404):
            log.warning("push %s could not be deleted on peer %s: %s", path, peer.peer, error)


def size_of(body: Sequence[Buffer]) -> int:
    """Bytes of a body."""
    return sum(memoryview(piece).nbytes for piece in body)
