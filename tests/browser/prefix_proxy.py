"""A reverse proxy that serves an Orthanc below a prefix, and can answer some paths itself."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import requests

PREFIX = "/orthanc/"

# Headers of one connection or of its encoding, not of what is sent over it.
_OF_CONNECTION = {
    "host",
    "connection",
    "keep-alive",
    "content-length",
    "content-encoding",
    "accept-encoding",
    "transfer-encoding",
}


class PrefixProxy:
    """Serves the Orthanc at ``target`` below ``/orthanc/`` of ``url``, as an administrator's nginx would.

    A path in ``answers`` (``"transfers/peers"``) is answered from there, with a status and a body, as an
    Orthanc would that is not at hand.
    ``tokens`` are the headers ``token`` of all requests.
    ``asked`` are method and path of all requests below ``/orthanc/``.
    ``strays`` are the paths that were asked for outside ``/orthanc/``.
    """

    def __init__(self, target: str) -> None:
        self.answers: dict[str, tuple[int, str]] = {}
        self.asked: list[tuple[str, str]] = []
        self.strays: list[str] = []
        self.tokens: list[str | None] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                proxy._serve(self, target)

            def do_POST(self) -> None:
                proxy._serve(self, target)

            def do_PUT(self) -> None:
                proxy._serve(self, target)

            def do_DELETE(self) -> None:
                proxy._serve(self, target)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}{PREFIX}"

    def __enter__(self) -> PrefixProxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, handler: BaseHTTPRequestHandler, target: str) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.tokens.append(handler.headers.get("token"))
        given = {name: value for name, value in handler.headers.items() if name.lower() not in _OF_CONNECTION}
        status, headers, answer = self._answer(handler.command, handler.path, body, target, given)
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(answer)))
        handler.end_headers()
        handler.wfile.write(answer)

    def _answer(
        self, method: str, address: str, body: bytes, target: str, given: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        if not address.startswith(PREFIX):
            self.strays.append(address)
            return 404, {}, b""
        path = address.removeprefix(PREFIX)
        self.asked.append((method, path))
        if path.split("?")[0] in self.answers:
            status, text = self.answers[path.split("?")[0]]
            return status, {"Content-Type": "application/json"}, text.encode()
        answer = requests.request(
            method, target + path, data=body, headers=given, allow_redirects=False, timeout=60
        )
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in _OF_CONNECTION}
        return answer.status_code, kept, answer.content
