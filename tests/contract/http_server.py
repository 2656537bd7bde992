"""The same peers as in ``fake_transport``, behind real sockets of this machine, with TLS or without."""

from __future__ import annotations

import ssl
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from tests.contract.fake_transport import Asked, Behaviour


class BehaviourServer:
    """Serves a behaviour over HTTP/1.1 while its context lasts. ``connections`` counts all there were."""

    def __init__(self, behaviour: Behaviour, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[Asked] = []
        self.connections = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Small answers would otherwise wait for acknowledgements.
            wbufsize = -1

            def setup(self) -> None:
                if tls:
                    self.request = tls.wrap_socket(self.request, server_side=True)
                super().setup()
                outer.connections += 1

            def finish(self) -> None:
                with suppress(OSError):
                    super().finish()
                self.request.close()

            def serve(self) -> None:
                size = int(self.headers.get("Content-Length", 0))
                asked = Asked(
                    self.command,
                    self.path,
                    self.rfile.read(size),
                    {name.lower(): value for name, value in self.headers.items()},
                )
                outer.asked.append(asked)
                reply = behaviour(asked)
                if reply is None:
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                    for line in value.split("\n"):
                        self.send_header(name, line)
                self.end_headers()
                self.wfile.write(reply.body)

            do_GET = do_PUT = do_POST = do_DELETE = serve  # noqa: N815  names of http.server

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: Any) -> None:
                """A client that hangs up in the middle is what some tests are about."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> BehaviourServer:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
