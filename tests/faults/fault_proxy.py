"""A proxy in front of an Orthanc that breaks what passes, as a plan says. On raw sockets, so that it can.

Each request is read whole, forwarded over a connection of its own, and its answer given back over the
kept-alive connection of the client: unless the plan has a fault for it.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.support.orthanc_server import OrthancServer

KINDS = {
    "capabilities": r"GET /+transfers/capabilities$",
    "lookup": r"POST /+transfers/lookup$",
    "chunks": r"(GET /+transfers/chunks/|POST /+transfers/v2/chunks$)",
    "whole": r"POST /+transfers/v2/(push|pull)/whole$",
    "create": r"POST /+transfers/(v2/)?push$",
    "put": r"PUT /+transfers/(v2/)?push/",
    "commit": r"POST /+transfers/(v2/)?push/[^/]+/commit$",
    "status": r"GET /+transfers/v2/push/",
    "drop": r"DELETE /+transfers/",
    "report": r"GET /+transfers/reports/",
}
"""The requests between two peers, by what they are for."""

_VERSION_2 = re.compile("/+transfers/(capabilities$|v2/)")
_BLOCK = 1 << 16
_BACKLOG = 64


class Broken(Exception):
    """The connection to the client ends here."""


@dataclass
class Message:
    """A request, or an answer: its first line, its headers, its body."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    def encode(self) -> bytes:
        """As it goes over the wire, over a connection that may be used again."""
        kept = [item for item in self.headers if item[0].lower() not in ("connection", "content-length")]
        kept += [("Content-Length", str(len(self.body))), ("Connection", "keep-alive")]
        head = "".join(f"{name}: {value}\r\n" for name, value in kept)
        return f"{self.line}\r\n{head}\r\n".encode("latin-1") + self.body


@dataclass
class Exchange:
    """One request on its way, in the hands of a fault."""

    proxy: FaultProxy
    client: socket.socket
    request: Message

    def ask(self) -> Message:
        """What the Orthanc behind answers."""
        with self.proxy.connect() as upstream:
            upstream.sendall(self.request.encode())
            answer = _read(upstream.makefile("rb"))
        if answer is None:
            raise Broken
        return answer

    def forward_only(self, size: int) -> None:
        """Let the Orthanc behind have the first bytes of the request, and no more."""
        with self.proxy.connect() as upstream:
            upstream.sendall(self.request.encode()[:size])
            _make_abrupt(upstream)

    def reply(self, data: bytes) -> None:
        self.client.sendall(data)

    def reset(self) -> None:
        """End the connection by RST."""
        _make_abrupt(self.client)
        raise Broken

    def close(self) -> None:
        """End the connection in good order (FIN)."""
        raise Broken

    def rest(self, seconds: float | None = None) -> None:
        """Do nothing for a while; ``None``: until the client or the proxy disconnects."""
        if seconds is not None:
            self.proxy.ended.wait(seconds)
            return
        self.client.settimeout(0.2)
        while not self.proxy.ended.is_set():
            with contextlib.suppress(TimeoutError):
                if not self.client.recv(_BLOCK):
                    break
        raise Broken


@dataclass(frozen=True)
class Fault:
    """Something to do to a request instead of letting it pass. ``do`` may raise ``Broken``."""

    name: str
    do: Callable[[Exchange], None]

    def __str__(self) -> str:
        return self.name


@dataclass
class FaultProxy:
    """Listens on a free port of this machine, in front of ``server``.

    ``version=1``: what is behind it looks like the C++ plugin. ``choose`` is asked for each request, with its
    kind (of ``KINDS``, else its method), which fault it is to suffer. Use as a context.
    """

    server: OrthancServer
    version: int = 2
    choose: Callable[[str], Fault | None] = lambda kind: None
    suffered: list[tuple[str, str]] = field(default_factory=list)
    """The kinds of the requests that were broken, each with the name of its fault."""

    def __post_init__(self) -> None:
        self.ended = threading.Event()
        self.refused = 0
        """Connections that came while it was cut."""
        self._cut = threading.Event()
        self._lock = threading.Lock()
        self._clients: set[socket.socket] = set()
        self._accepting = threading.Event()
        self._accepting.set()
        self._fillers: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.heal()
        # Wakes the thread that accepts.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._hang_up()

    def spoil(self, fault: Fault, *kinds: str, times: float = 1) -> None:
        """From now on, the first ``times`` requests of each of these kinds (all, if none is named) suffer."""
        assert set(kinds) <= set(KINDS)
        left = dict.fromkeys(kinds or KINDS, times)
        lock = threading.Lock()

        def choose(kind: str) -> Fault | None:
            with lock:
                if left.get(kind, 0) <= 0:
                    return None
                left[kind] -= 1
                return fault

        self.choose = choose

    def forget(self) -> None:
        """Break nothing any more, and forget what was broken."""
        self.choose = lambda kind: None
        self.heal()
        self.suffered.clear()

    def cut(self) -> None:
        """Reset all connections, and from now on each new one."""
        self._cut.set()
        self._hang_up()

    def drop(self) -> None:
        """Reset all connections, and from now on neither accept nor refuse one, as if the machine were off."""
        self._accepting.clear()
        # Once the queue is full, the kernel ignores what comes. (The thread that accepts takes one, and stands still.)
        self._listener.listen(0)
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self._listener.getsockname())
            self._fillers.append(filler)
        self._hang_up()

    def heal(self) -> None:
        """Let connections live again."""
        self._cut.clear()
        if not self._accepting.is_set():
            self._listener.listen(_BACKLOG)
            self._accepting.set()
        while self._fillers:
            self._fillers.pop().close()

    def connect(self) -> socket.socket:
        """A connection to the Orthanc behind."""
        return socket.create_connection(("127.0.0.1", self.server.http_port), 60)

    def _hang_up(self) -> None:
        with self._lock:
            clients = list(self._clients)
        for client in clients:
            with contextlib.suppress(OSError):
                _make_abrupt(client)
                client.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self.ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._accepting.wait()
            if self._cut.is_set():
                self.refused += 1
                _make_abrupt(client)
                client.close()
                continue
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._clients.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        # Broken, or gone: either side may end a connection at any time.
        with contextlib.suppress(Broken, OSError):
            reader = client.makefile("rb")
            while (request := _read(reader)) is not None and not self._cut.is_set():
                self._pass(Exchange(self, client, request))
        with self._lock:
            self._clients.discard(client)
        # The reader holds the socket as well: without this the connection would stay open.
        reader.close()
        client.close()

    def _pass(self, exchange: Exchange) -> None:
        method, path, _ = exchange.request.line.split(" ", 2)
        if self.version == 1 and _VERSION_2.match(path):
            exchange.reply(response("404 Not Found", b"{}", "application/json"))
            return
        kind = kind_of(method, path)
        fault = self.choose(kind)
        if fault is None:
            exchange.reply(exchange.ask().encode())
            return
        self.suffered.append((kind, fault.name))
        fault.do(exchange)


def kind_of(method: str, path: str) -> str:
    """What a request is for, of ``KINDS``; else its method."""
    target = f"{method} {path.partition('?')[0]}"
    return next((kind for kind, pattern in KINDS.items() if re.match(pattern, target)), method)


def _make_abrupt(connection: socket.socket) -> None:
    """Its end will be a RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _read(reader: Any) -> Message | None:
    """The next message; ``None`` if the connection ended."""
    line = reader.readline().decode("latin-1").rstrip("\r\n")
    if not line:
        return None
    headers: list[tuple[str, str]] = []
    while text := reader.readline().decode("latin-1").rstrip("\r\n"):
        name, _, value = text.partition(":")
        headers.append((name, value.strip()))
    size = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
    body = reader.read(size)
    return Message(line, headers, body) if len(body) == size else None


def response(status: str, body: bytes, content_type: str, *headers: tuple[str, str]) -> bytes:
    return Message(f"HTTP/1.1 {status}", [("Content-Type", content_type), *headers], body).encode()
