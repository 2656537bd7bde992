"""The page ``/transfers/app/``: its files, with what browsers should know of them; and the peers that it shows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from orthanc_transfers.core import paths
from orthanc_transfers.core.errors import NotFound
from orthanc_transfers.jobs.services import Services
from orthanc_transfers.rest.http import Request, Response, json_response
from orthanc_transfers.rest.peer_status import peer_states

INDEX = "index.html"

_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}

# Nothing but what comes from this very server; the small images within Bootstrap's style sheet are data: addresses.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'self'"
)

_ALWAYS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    # The address of the page may hold a token.
    "Referrer-Policy": "no-referrer",
}


class PageRoutes:
    """``files``: what the page is made of, by its name below ``/transfers/app/``."""

    def __init__(self, files: Mapping[str, bytes], services: Services, *, peers_in_database: bool) -> None:
        self._files = files
        self._services = services
        self._peers_in_database = peers_in_database
        self._tags = {name: f'"{hashlib.sha256(text).hexdigest()[:32]}"' for name, text in files.items()}

    def file(self, request: Request) -> Response:
        """``GET /transfers/app/`` and ``/transfers/app/assets/{name}``. Raises ``NotFound``."""
        name = f"assets/{request.groups[0]}" if request.groups else INDEX
        if name not in self._files:
            raise NotFound(f"the page has no file {name[:100]!r}: load {paths.PAGE}/ again")
        tag = self._tags[name]
        # All files but the first one have a hash of their content in their names.
        lasting = "no-cache" if name == INDEX else "private, max-age=31536000, immutable"
        headers = {**_ALWAYS, "Cache-Control": lasting, "ETag": tag}
        if tag in (
            one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")
        ):
            return Response(status=304, headers=headers)
        return Response(self._files[name], _TYPES[name.rpartition(".")[2]], headers)

    def peers(self, request: Request) -> Response:
        """``GET /transfers/peers/status``: all peers, asked now."""
        found = peer_states(self._services, plugins_only=False)
        return json_response(
            {
                "InDatabase": self._peers_in_database,
                "Peers": [{"ID": name, **status.to_json()} for name, status in sorted(found.items())],
            }
        )
