"""HTTP requests that no library would send."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping

from tests.support.orthanc_server import OrthancServer


def raw_request(
    server: OrthancServer,
    method: str,
    path: str | bytes,
    body: bytes = b"",
    headers: Mapping[str, str | bytes] | None = None,
) -> tuple[int, bytes]:
    """The status of the answer, 0 if there is none, and all that came. Nothing of it is checked or encoded."""
    lines = [b" ".join((method.encode(), _bytes(path), b"HTTP/1.1")), b"Host: somewhere"]
    lines += [b"%s: %s" % (name.encode(), _bytes(value)) for name, value in (headers or {}).items()]
    lines += [b"Content-Length: %d" % len(body), b"Connection: close", b"", b""]
    received = b""
    with socket.create_connection(("127.0.0.1", server.http_port), 60) as connection:
        with contextlib.suppress(OSError):  # it may be refused before it is read whole
            connection.sendall(b"\r\n".join(lines) + body)
        with contextlib.suppress(ConnectionError):
            while block := connection.recv(1 << 16):
                received += block
    return int(received.split(b" ", 2)[1]) if received.startswith(b"HTTP/1.") else 0, received


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
