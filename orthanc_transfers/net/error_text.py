"""Why a request got no response: the errors of four libraries, in words for a user."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from http.client import HTTPException, IncompleteRead, RemoteDisconnected

import requests
import urllib3.exceptions

from orthanc_transfers.net.connections import Stale
from orthanc_transfers.net.sockets import ConnectTimedOut

# Parts of OpenSSL's reasons for errors that a retry cannot fix.
_HOPELESS = (
    "CERTIFICATE",
    "UNKNOWN_CA",
    "WRONG_VERSION_NUMBER",
    "PROTOCOL",
    "HANDSHAKE_FAILURE",
    "NO_SHARED_CIPHER",
)

FOREIGN = (requests.RequestException, OSError, urllib3.exceptions.HTTPError, HTTPException)
"""All that a request may raise: ``requests`` does not map everything."""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and all its causes, the outermost first."""
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        cause = waiting.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        inner = [*cause.args, getattr(cause, "reason", None), cause.__cause__, cause.__context__]
        waiting.extend(item for item in inner if isinstance(item, BaseException))


def reason_of(error: BaseException, seconds: float) -> tuple[str, bool]:
    """What happened, in words, and whether a retry is pointless. ``seconds`` is the timeout of the request."""
    # The innermost says most; the errors of urllib3 and requests around it only wrap it.
    for cause in reversed(list(_causes(error))):
        match cause:
            case RemoteDisconnected() | ssl.SSLEOFError() | ssl.SSLZeroReturnError():
                return "the connection was closed before a response", False
            case ssl.SSLError():
                return words(cause), any(part in (cause.reason or "").upper() for part in _HOPELESS)
            case ConnectTimedOut():
                return f"no connection after {cause.seconds:g} s", False
            case TimeoutError(errno=None) | urllib3.exceptions.ReadTimeoutError():
                return f"timed out after {seconds:g} s", False
            case socket.gaierror():
                return f"its name is unknown ({cause.strerror})", False
            case IncompleteRead():
                return "the connection was closed in the middle of a response", False
            case OSError() if not isinstance(cause, (requests.RequestException, Stale)):
                return words(cause), False
            case HTTPException():
                return "what it sent is not HTTP", False
    return f"the request failed ({type(error).__name__})", False


def words(error: OSError) -> str:
    """An error of the system or of TLS, in words that begin with a small letter."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or error.strerror or 'failed').replace('_', ' ').lower()}"
    return os.strerror(error.errno).lower() if error.errno else str(error)
