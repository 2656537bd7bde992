"""A response whose status is not 200 -> ``PeerStatus``."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import requests

from orthanc_transfers.core.errors import PeerStatus
from orthanc_transfers.net.error_text import FOREIGN

# Bytes kept of the body.
MAX_BODY = 64 * 1024


def error_of(peer: str, request: str, response: requests.Response) -> PeerStatus:
    """What to raise for the response to a request that reads ``GET /path``."""
    body = b""
    with contextlib.suppress(*FOREIGN):
        body = response.raw.read(MAX_BODY)
    headers = last_headers(response)
    status = response.status_code
    sentence = f"peer {peer!r} answered {request} with {status}"
    if reason := _orthanc_error(body) or response.reason:
        sentence += f": {reason}"
    if status in (401, 403):
        sentence += "; check the user and the password of this peer"
    return PeerStatus(sentence, peer, status, headers=headers, body=body, retry_after=_retry_after(headers))


def last_headers(response: requests.Response) -> dict[str, str]:
    """The headers, with names in lower case; of several equal ones, the last."""
    # The headers of ``response`` itself join those of the same name, which no cookie survives.
    return {name.lower(): value for name, value in response.raw.headers.iteritems()}


def _orthanc_error(body: bytes) -> str:
    """The message and the details of Orthanc's JSON error; empty if the body is no such JSON."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(value, dict):
        return ""
    texts = [value.get("Message"), value.get("Details")]
    return ": ".join(dict.fromkeys(text for text in texts if isinstance(text, str) and text))


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """The header ``Retry-After``, in seconds; ``None`` if there is none that can be read."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        until = parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None
    try:
        # The clock of the peer is the one that counts.
        now = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except ValueError:
        now = time.time()
    return max(0.0, until - now)
