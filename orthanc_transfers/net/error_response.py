"""A response whose status is not 200 -> ``PeerStatus``."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import requests

from orthanc_transfers.core.errors import PeerError, PeerStatus, PeerUnreachable
from orthanc_transfers.core.peers import without_credentials
from orthanc_transfers.net.error_text import FOREIGN

# Bytes kept of the body.
MAX_BODY = 64 * 1024

# Characters shown of a header.
MAX_SHOWN = 200

_REDIRECTS = (301, 302, 303, 307, 308)

# What a proxy says of a request that did not arrive in time.
_TIMEOUT = 408

# What proxies say of a method that their configuration does not allow.
_FORBIDDEN = (403, 405, 501)


def error_of(peer: str, request: str, response: requests.Response, *, with_body: bool) -> PeerError:
    """What to raise for the response to a request that reads ``GET /path``; ``with_body``: it has one."""
    body = b""
    with contextlib.suppress(*FOREIGN):
        body = response.raw.read(MAX_BODY)
    headers = last_headers(response)
    status = response.status_code
    location = headers.get("location")
    # Orthanc says 400 without a word of a body that had not come after HttpRequestTimeout (30 s): this server, or the
    # network, stood still. All else it says in JSON (1.10.1).
    if with_body and (status == _TIMEOUT or (status == 400 and not body)):
        return PeerUnreachable(f"peer {peer!r} did not receive all of {request} in time ({status})", peer)
    if status in _REDIRECTS and location:
        sentence = (
            f"peer {peer!r} redirects {request} to {_shown(without_credentials(location))} ({status}),"
            " which is not followed: correct the Url of this peer"
        )
    else:
        reason = _orthanc_error(body)
        sentence = f"peer {peer!r} answered {request} with {status}"
        if reason or response.reason:
            sentence += f": {reason or response.reason}"
        if not reason:
            sentence += _advice(request.partition(" ")[0], status, headers, body)
    return PeerStatus(sentence, peer, status, headers=headers, body=body, retry_after=_retry_after(headers))


def _advice(method: str, status: int, headers: Mapping[str, str], body: bytes) -> str:
    """What to do about a response in which Orthanc itself gives no reason; empty if that is not known."""
    advice = ""
    # Orthanc says 405 and 403 without a body, and all else in JSON.
    if status in _FORBIDDEN and body:
        server = headers.get("server")
        who = f"{_shown(server)} in front of it" if server else "something in front of it"
        advice = f"; that is not Orthanc, but {who}: allow {method} below /transfers/ there"
    if status in (401, 403):
        advice += f"{', or' if advice else ';'} check the user and the password of this peer"
    return advice


def _shown(text: str) -> str:
    """Text from the peer, quoted."""
    return repr(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…")


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
