"""A fake peer with the C++ plugin: version 1 of the protocol to the letter, and stricter than the original.

It stands in for the C++ plugin, which is not available here: a request that the C++ plugin would not understand is
refused, and every request is recorded whole.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

LARGEST = 2**31 - 1
"""Offsets and sizes of chunks that are fetched have 32 bits, with a sign."""

_ID = "([.0-9a-f-]+)"


@dataclass(frozen=True)
class Asked:
    """One request. ``target`` is the path with its query; ``headers`` have lower-case names."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class _Push:
    compression: str
    md5s: dict[str, str]
    files: dict[str, bytearray]
    buckets: list[list[tuple[str, int, int]]]
    missing: set[int] = field(default_factory=set)


class _Refused(Exception):
    """``status`` as Orthanc answers it."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _CutError(Exception):
    """The connection ends without an answer."""


class CppPeer:
    """Listens on a free port of this machine.

    ``files`` can be fetched, by their identifiers; ``stored`` is what was pushed and committed. ``cookies`` are set
    by the answer to a creation. ``status`` is that of the answer to a bucket. ``committed`` is called when a
    push is stored, before that is answered: if it says so, the answer is lost.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.stored: dict[str, bytes] = {}
        self.cookies: tuple[str, ...] = ()
        self.status = 200
        self.committed: Callable[[], bool] = lambda: False
        self.originator = str(uuid.uuid4())
        self.asked: list[Asked] = []
        self._pushes: dict[str, _Push] = {}
        self.hold: Callable[[Asked], None] = lambda asked: None
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.peer = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def __enter__(self) -> CppPeer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def of(self, method: str, pattern: str) -> list[Asked]:
        """The requests of a method whose whole target is of that pattern."""
        return [one for one in self.asked if one.method == method and re.fullmatch(pattern, one.target)]

    @property
    def routes(self) -> Iterator[str]:
        """What was asked, in order, with the identifiers left out."""
        for one in self.asked:
            yield f"{one.method} " + re.sub("[0-9a-f]{8}-[-.0-9a-f]*", "*", one.target)

    @contextmanager
    def holding(self, pattern: str) -> Iterator[Callable[[], bool]]:
        """Serve no request whose whole target is of that pattern before the end; gives whether there is one."""
        reached, over = threading.Event(), threading.Event()

        def hold(asked: Asked) -> None:
            if re.fullmatch(pattern, asked.target):
                reached.set()
                over.wait()

        self.hold = hold
        try:
            yield reached.is_set
        finally:
            over.set()

    # -- The routes ---------------------------------------------------------------------------------

    def serve(self, asked: Asked) -> tuple[bytes, str, dict[str, list[str]]]:
        """Body, content type and headers of the answer. Raises ``_Refused``, ``_CutError``."""
        if "transfer-encoding" in asked.headers or "expect" in asked.headers:
            raise _Refused(411)
        for pattern, methods in _ROUTES.items():
            found = re.fullmatch(pattern, asked.target)
            if found:
                if asked.method not in methods:
                    raise _Refused(405)
                answer = methods[asked.method](self, asked, *found.groups())
                if isinstance(answer, bytes):
                    return answer, "application/octet-stream", {}
                return json.dumps(answer, indent=3).encode(), "application/json", self._headers(asked)
        raise _Refused(404)

    def _headers(self, asked: Asked) -> dict[str, list[str]]:
        return {"Set-Cookie": list(self.cookies)} if asked.target == "/transfers/push" else {}

    def plugins(self, asked: Asked) -> Any:
        return ["transfers", "web-viewer"]

    def lookup(self, asked: Asked) -> Any:
        there = {**self.files, **self.stored}
        named = {one["ID"] for one in asked.json if one["Level"] == "Instance"}
        if not named <= there.keys():
            raise _Refused(404)
        # A study, whichever, has them all.
        wanted = named if len(named) == len(asked.json) else there.keys()
        files = {one: there[one] for one in sorted(wanted)}
        total = sum(map(len, files.values()))
        return {
            "CountInstances": len(files),
            "Instances": [
                {"ID": one, "MD5": hashlib.md5(data).hexdigest(), "Size": str(len(data))}
                for one, data in files.items()
            ],
            "Originator": self.originator,
            "TotalSize": str(total),
            "TotalSizeMB": round(total / 2**20),
        }

    def chunks(self, asked: Asked, identifiers: str, query: str) -> bytes:
        arguments = dict(parse_qsl(query, strict_parsing=True))
        offset, size = int(arguments["offset"]), int(arguments["size"])
        if not (0 <= offset <= LARGEST and 0 < size <= LARGEST):
            raise _Refused(400)
        whole = b"".join(self.files[one] for one in identifiers.split("."))
        piece = whole[offset : offset + size]
        if len(piece) != size:
            raise _Refused(400)
        if arguments["compression"] == "none":
            return piece
        encoder = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        return encoder.compress(piece) + encoder.flush()

    def create(self, asked: Asked) -> Any:
        body = asked.json
        if body["Compression"] not in ("none", "gzip"):
            raise _Refused(400)
        files = {one["ID"]: bytearray(_number(one["Size"])) for one in body["Instances"]}
        md5s = {one["ID"]: one["MD5"] for one in body["Instances"]}
        buckets = [
            [(chunk["ID"], _number(chunk["Offset"]), _number(chunk["Size"])) for chunk in bucket]
            for bucket in body["Buckets"]
        ]
        identifier = str(uuid.uuid4())
        self._pushes[identifier] = _Push(body["Compression"], md5s, files, buckets, set(range(len(buckets))))
        return {"ID": identifier, "Path": f"/transfers/push/{identifier}"}

    def put(self, asked: Asked, identifier: str, index: str) -> Any:
        push = self._push(identifier)
        data = memoryview(asked.body if push.compression == "none" else _gunzip(asked.body))
        bucket = push.buckets[int(index)]
        if len(data) != sum(size for _, _, size in bucket):
            raise _Refused(500)
        for name, offset, size in bucket:
            push.files[name][offset : offset + size], data = data[:size], data[size:]
        push.missing.discard(int(index))
        return {}

    def commit(self, asked: Asked, identifier: str) -> Any:
        push = self._push(identifier)
        if push.missing or any(
            hashlib.md5(data).hexdigest() != push.md5s[name] for name, data in push.files.items()
        ):
            raise _Refused(500)
        self.stored.update((name, bytes(data)) for name, data in push.files.items())
        del self._pushes[identifier]
        if self.committed():
            raise _CutError
        return {}

    def drop(self, asked: Asked, identifier: str) -> Any:
        self._push(identifier)
        del self._pushes[identifier]
        return {}

    def pull(self, asked: Asked) -> Any:
        identifier = str(uuid.uuid4())
        return {"ID": identifier, "Path": f"/jobs/{identifier}"}

    def _push(self, identifier: str) -> _Push:
        try:
            return self._pushes[identifier]
        except KeyError:
            raise _Refused(404) from None


_ROUTES: dict[str, dict[str, Callable[..., Any]]] = {
    "/plugins": {"GET": CppPeer.plugins},
    "/transfers/lookup": {"POST": CppPeer.lookup},
    rf"/transfers/chunks/{_ID}\?(.*)": {"GET": CppPeer.chunks},
    "/transfers/push": {"POST": CppPeer.create},
    f"/transfers/push/{_ID}/([0-9]+)": {"PUT": CppPeer.put},
    f"/transfers/push/{_ID}/commit": {"POST": CppPeer.commit},
    f"/transfers/push/{_ID}": {"DELETE": CppPeer.drop},
    "/transfers/pull": {"POST": CppPeer.pull},
}


def _number(text: Any) -> int:
    if not isinstance(text, str):
        raise _Refused(400)
    return int(text)


def _gunzip(body: bytes) -> bytes:
    # The size is taken from the last four bytes, and there is one member.
    decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
    data = decoder.decompress(body)
    if not decoder.eof or decoder.unused_data or int.from_bytes(body[-4:], "little") != len(data):
        raise _Refused(400)
    return data


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    peer: CppPeer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, body)
        peer = self.server.peer
        peer.asked.append(asked)
        peer.hold(asked)
        status, more = 200, dict[str, list[str]]()
        try:
            body, content_type, more = peer.serve(asked)
            if self.command == "PUT":
                status = peer.status
        except _CutError:
            self.close_connection = True
            return
        except _Refused as error:
            status, content_type = error.status, "application/json"
            body = json.dumps({"HttpStatus": status, "Message": "refused"}).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, values in more.items():
            for value in values:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815  (the names that the library looks for)

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""
