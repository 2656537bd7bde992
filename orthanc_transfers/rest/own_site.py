"""Keeps pages of other sites from using the browser of a user who is logged in here (CSRF).

A browser sends such a page's form with the user's password, but never as JSON without asking this server
first (CORS), which allows nothing; and it says where the request comes from. Clients that are no browsers say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from orthanc_transfers.core.errors import ForeignSite, NotJson
from orthanc_transfers.rest.http import Handler, Request, Response

_FORMS = ("", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain")
"""What a form, or a script without permission, can send (the "simple" content types of CORS)."""

_OWN = ("same-origin", "none")
"""Values of ``Sec-Fetch-Site`` for a page of this very address, and for a user who typed the address."""


def require_own_site(request: Request) -> None:
    """For what changes something: JSON, and from a page of this server if from any.

    Raises ``NotJson`` (415), ``ForeignSite`` (403).
    """
    if _content_type(request) != "application/json":
        raise NotJson(
            "this request changes something, so that it needs the header Content-Type: application/json"
        )
    if _from_elsewhere(request):
        raise _refused(request)


def refuse_foreign_forms(request: Request) -> None:
    """For routes that known clients call with any content type: refuse what a page of another site made a browser send.

    Raises ``ForeignSite`` (403).
    """
    if _content_type(request) in _FORMS and _from_elsewhere(request):
        raise _refused(request)


def own_site(handler: Handler) -> Handler:
    """The handler behind ``require_own_site``."""

    def guarded(request: Request) -> Response:
        require_own_site(request)
        return handler(request)

    return guarded


def no_foreign_forms(handler: Handler) -> Handler:
    """The handler behind ``refuse_foreign_forms``."""

    def guarded(request: Request) -> Response:
        refuse_foreign_forms(request)
        return handler(request)

    return guarded


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _from_elsewhere(request: Request) -> bool:
    headers = request.headers
    site = headers.get("sec-fetch-site")
    if site is not None:
        # A browser's own word, which no page can set. It knows nothing of proxies that change Host.
        return site not in _OWN
    origin = headers.get("origin")
    if origin is None:
        return False
    try:
        netloc = urlsplit(origin).netloc.lower()
    except ValueError:
        return True
    return not netloc or netloc not in _own_addresses(headers)


def _own_addresses(headers: Mapping[str, str]) -> set[str]:
    """By which names the client may know this server: with the port, unless it is the usual one."""
    named = [headers.get("host", ""), *headers.get("x-forwarded-host", "").split(",")]
    found = set()
    for name in filter(None, (one.strip().lower() for one in named)):
        # An origin leaves out the port of its scheme, some proxies do not.
        found |= {name, name.removesuffix(":80"), name.removesuffix(":443")}
    return found


def _refused(request: Request) -> ForeignSite:
    origin = request.headers.get("origin", "another site")
    return ForeignSite(
        f"this request comes from a page of {origin[:100]!r}, not from this Orthanc: if it is the same server behind a"
        " proxy, let the proxy pass Host on, or set X-Forwarded-Host"
    )
