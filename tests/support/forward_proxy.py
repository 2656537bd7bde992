"""A forward HTTP proxy, as companies have it: forwards plain requests, tunnels encrypted ones."""

from __future__ import annotations

import contextlib
import select
import socket
import socketserver
import threading
from typing import Any
from urllib.parse import urlsplit


class ForwardProxy:
    """Listens on a free port of this machine. ``asked`` holds method and target of each request."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.authorizations: set[str] = set()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> ForwardProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    proxy: ForwardProxy


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self._serve()

    def _serve(self) -> None:
        line = self.rfile.readline().decode("latin-1")
        if not line.strip():
            return
        method, target, version = line.split()
        headers: list[tuple[str, str]] = []
        while (header := self.rfile.readline().decode("latin-1").rstrip("\r\n")) != "":
            name, _, value = header.partition(":")
            headers.append((name.lower(), value.strip()))
        proxy = self.server.proxy
        proxy.asked.append((method, target))
        proxy.authorizations.update(value for name, value in headers if name == "proxy-authorization")
        if method == "CONNECT":
            host, _, port = target.partition(":")
            with socket.create_connection((host, int(port)), 10) as upstream:
                self.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\n")
                self._relay(upstream)
            return
        address = urlsplit(target)
        path = address.path + (f"?{address.query}" if address.query else "")
        # One request for each connection: the end of the answer is the end of the connection.
        kept = [item for item in headers if not item[0].startswith("proxy-") and item[0] != "connection"]
        head = "".join(f"{name}: {value}\r\n" for name, value in [*kept, ("connection", "close")])
        with socket.create_connection((address.hostname or "", address.port or 80), 10) as upstream:
            upstream.sendall(f"{method} {path} {version}\r\n{head}\r\n".encode("latin-1"))
            self._relay(upstream)

    def _relay(self, upstream: socket.socket) -> None:
        client: Any = self.connection
        # What the reader has read ahead.
        self.connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            ahead = self.rfile.peek()
            upstream.sendall(ahead)
        self.connection.setblocking(True)
        while True:
            for ready in select.select([client, upstream], [], [], 30)[0]:
                data = ready.recv(1 << 16)
                if not data:
                    return
                (upstream if ready is client else client).sendall(data)
