"""nginx in front of an Orthanc that records each request of a peer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.nginx import Nginx
from tests.support.orthanc_server import OrthancServer
from tests.support.waiting import wait_until

_FORMAT = """
map $content_type $json_sent {{
    application/json $request_body;
    default "";
}}
log_format requests escape=json '{{"method":"$request_method","uri":"$request_uri","status":$status,'
    '"transfer":"$http_sender_transfer_id","cookie":"$http_cookie","authorization":"$http_authorization",'
    '"type":"$content_type","length":"$content_length","sent":"$json_sent",'
    '"answered":$body_bytes_sent,"announced":"$sent_http_content_length","upstream":"$upstream_addr","connection":$connection,"headers":"{headers}"}}';
client_body_buffer_size 1m;
proxy_read_timeout 600;
"""

# All that a C++ peer does not know.
_VERSION_1 = """
location = /transfers/capabilities { return 404; }
location /transfers/v2/ { return 404; }
"""


@dataclass(frozen=True)
class RecordedRequest:
    """One request, as nginx saw it; texts are empty where there was nothing."""

    method: str
    uri: str
    status: int
    transfer: str
    """The header sender-transfer-id."""
    cookie: str
    authorization: str
    type: str
    length: int
    """Bytes of the body."""
    sent: str
    """The body, if it was JSON."""
    answered: int
    """Bytes of the body of the answer."""
    announced: str
    """Bytes that the answer said it has."""
    upstream: str
    connection: int
    """Number of the TCP connection."""
    headers: str
    """The further headers asked for."""

    @property
    def succeeded(self) -> bool:
        """Whether it was answered well, and whole: a server may die between the head of an answer and its body."""
        return self.status == 200 and self.announced in ("", str(self.answered))

    @property
    def json(self) -> Any:
        return json.loads(self.sent)


class RecordingProxy(Nginx):
    """``version=1``: what is behind it looks like the C++ plugin. ``headers`` are also written down.

    ``http``, ``server`` and ``location`` are further directives, as of ``Nginx``.
    """

    def __init__(
        self,
        folder: Path,
        upstream: str | OrthancServer,
        *,
        version: int = 2,
        headers: tuple[str, ...] = (),
        certificate: Path | None = None,
        http: str = "",
        server: str = "",
        location: str = "",
    ) -> None:
        listed = ";".join(f"${{http_{name.lower().replace('-', '_')}}}" for name in headers)
        super().__init__(
            folder,
            upstream,
            certificate=certificate,
            http=_FORMAT.format(headers=listed) + http,
            server=f"access_log {folder}/access.log requests;"
            + (_VERSION_1 if version == 1 else "")
            + server,
            location=location,
        )

    @property
    def requests(self) -> list[RecordedRequest]:
        """Those answered so far, in the order of their ends."""
        # The last line may be half written.
        lines = self.access_log.split("\n")[:-1]
        return [
            RecordedRequest(**{**line, "length": int(line["length"] or 0)}) for line in map(json.loads, lines)
        ]

    def forget(self) -> None:
        """As if there had been no requests so far."""
        self.settle()
        (self.folder / "access.log").write_bytes(b"")

    def of(self, method: str, part: str = "") -> list[RecordedRequest]:
        """The requests of a method whose address contains something."""
        return [seen for seen in self.requests if seen.method == method and part in seen.uri]

    def wait_for(self, method: str, part: str, count: int = 1) -> list[RecordedRequest]:
        """These requests, once so many were answered."""

        def enough() -> list[RecordedRequest]:
            found = self.of(method, part)
            return found if len(found) >= count else []

        found: list[RecordedRequest] = wait_until(enough, f"{count} x {method} …{part}…")
        return found
