"""JSON to and from a peer, as the jobs exchange it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.content_encoding import (
    ACCEPT_ENCODING,
    CONTENT_ENCODING,
    ZSTD,
    restore,
    shrink,
)
from orthanc_transfers.core.errors import (
    BadRequest,
    PeerAnswer,
    PeerError,
    PeerStatus,
    TooLarge,
    TransferError,
)
from orthanc_transfers.core.messages_v1 import SENDER_TRANSFER_ID, LookupResponse, TransferRequest
from orthanc_transfers.core.messages_v2 import FIRST_HEADER
from orthanc_transfers.core.safe_json import parse_json
from orthanc_transfers.interfaces import PeerRequest, PeerResponse, PeerTransport

LOOKUP = "/transfers/lookup"

T = TypeVar("T")

_DROP_TIMEOUT = 5.0

log = logging.getLogger(__name__)


def identify(order: TransferRequest, cookie: str | None = None) -> dict[str, str]:
    """The headers that keep all requests of a transfer on one server behind a load balancer.

    ``cookie`` is what it set when the transfer began, maybe over a connection of before a pause.
    """
    headers = {SENDER_TRANSFER_ID: order.sender_transfer_id or ""}
    if cookie is not None:
        headers["cookie"] = cookie
    return headers


def post(
    peer: PeerTransport,
    path: str,
    value: Any,
    headers: Mapping[str, str],
    timeout: float | None = None,
    *,
    limit: int | None = None,
    small: bool = False,
    repeatable: bool = False,
) -> PeerResponse:
    """POST a value as JSON; ``small``: encoded, which only version 2 understands.

    ``repeatable`` as in ``ports.PeerTransport``.
    """
    text = json.dumps(value, separators=(",", ":")).encode()
    body, encoding = shrink(text) if small else (text, {})
    headers = {"content-type": "application/json", **encoding, **headers}
    return peer.send(
        PeerRequest(
            "POST", path, body=[body], headers=headers, timeout=timeout, limit=limit, repeatable=repeatable
        )
    )


def put(peer: PeerTransport, path: str, body: Sequence[Buffer], headers: Mapping[str, str]) -> None:
    """PUT bytes. Raises ``PeerAnswer`` as ``acknowledged``."""
    acknowledged(peer, path, peer.send(PeerRequest("PUT", path, body=body, headers=headers)))


def look_up(
    peer: PeerTransport,
    resources: Any,
    order: TransferRequest,
    timeout: float | None = None,
    first: int | None = None,
) -> LookupResponse:
    """The instances that a peer has below some resources (JSON), or the ``first`` of them, if it can tell."""
    headers = {ACCEPT_ENCODING: ZSTD, **identify(order)}
    if first is not None:
        headers[FIRST_HEADER] = str(first)
    answer = post(peer, LOOKUP, resources, headers, timeout, repeatable=True)
    return understand(peer, LOOKUP, answer, LookupResponse.parse)


def understand(peer: PeerTransport, path: str, answer: PeerResponse, parse: Callable[[Any], T]) -> T:
    """The message in an answer. Raises ``PeerAnswer`` if there is none."""
    try:
        text = restore(answer.body, answer.headers.get(CONTENT_ENCODING))
        return parse(parse_json(text))
    except (BadRequest, TooLarge) as error:
        raise PeerAnswer(f"peer {peer.name} answers {path} with nonsense: {error}", peer.name) from error


def acknowledged(peer: PeerTransport, path: str, answer: PeerResponse) -> None:
    """See that the peer itself took something, which it says by any JSON object. Raises ``PeerAnswer``."""

    def parse(value: Any) -> None:
        if not isinstance(value, dict):
            raise BadRequest("it is no JSON object")

    understand(peer, path, answer, parse)


def orthanc_code(error: PeerStatus) -> int | None:
    """What Orthanc calls its error, as in ``core.errors``; ``None`` if something else has answered."""
    try:
        value = parse_json(error.body)
    except TransferError:
        return None
    code = value.get("OrthancStatus") if isinstance(value, dict) else None
    return code if type(code) is int else None


def cookie_of(answer: PeerResponse) -> str | None:
    """The name and the value of the cookie that an answer sets."""
    return answer.headers.get("set-cookie", "").partition(";")[0].strip() or None


def drop(peer: PeerTransport, path: str, headers: Mapping[str, str]) -> None:
    """Tell a peer that a push is of no use any more. What the peer does not hear of expires there."""
    try:
        peer.send(PeerRequest("DELETE", path, headers=headers, timeout=_DROP_TIMEOUT))
    except PeerError as error:
        if not (isinstance(error, PeerStatus) and error.peer_status == 404):
            log.warning("push %s could not be deleted on peer %s: %s", path, peer.name, error)


def size_of(body: Sequence[Buffer]) -> int:
    """Bytes of a body."""
    return sum(memoryview(piece).nbytes for piece in body)
