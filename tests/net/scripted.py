"""Servers that misbehave byte by byte: each connection is served by the next function of a list."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

Serve = Callable[["Connection"], None]


class Connection:
    """One connection as the server sees it."""

    def __init__(self, sock: socket.socket, accepted: list[bytes]) -> None:
        self.sock = sock
        self._file = sock.makefile("rb")
        self._accepted = accepted

    def head(self) -> bytes:
        """The next request up to the empty line; empty when the client has closed."""
        lines = b""
        while line := self._file.readline():
            lines += line
            if line == b"\r\n":
                break
        self._accepted.append(lines)
        return lines

    def request(self) -> bytes:
        """The next request, whole."""
        head = self.head()
        size = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                size = int(line.split(b":")[1])
        return head + self.take(size)

    def take(self, size: int) -> bytes:
        """So many bytes of a body, fewer if the client has closed."""
        return self._file.read(size)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def until_closed(self) -> None:
        """Return when the client has hung up."""
        with suppress(OSError):
            while self._file.read(1 << 16):
                pass


class ScriptedServer:
    """Serves the first connection by the first function, and so on; more connections by the last.

    ``heads`` are those of all requests, ``tunnels`` a proxy's.
    """

    def __init__(self, script: Sequence[Serve], tls: ssl.SSLContext | None = None) -> None:
        self.heads: list[bytes] = []
        self.connections = 0
        self._script = script
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> ScriptedServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # Wakes accept().
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            serve = self._script[min(self.connections, len(self._script) - 1)]
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock, serve), daemon=True).start()

    def _serve(self, sock: socket.socket, serve: Serve) -> None:
        with suppress(OSError):
            if self._tls:
                sock = self._tls.wrap_socket(sock, server_side=True)
            connection = Connection(sock, self.heads)
            try:
                serve(connection)
            finally:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                connection._file.close()
                sock.close()


def well(connection: Connection) -> None:
    """Answers every request with 200 and ``{}``."""
    while connection.request():
        connection.send(OK)


def answering(data: bytes) -> Serve:
    def serve(connection: Connection) -> None:
        connection.request()
        connection.send(data)

    return serve
