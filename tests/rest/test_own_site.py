"""Requests that a page of another site makes the browser of a user send."""

from __future__ import annotations

import pytest

from orthanc_transfers.core.errors import ForeignSite, NotJson
from orthanc_transfers.rest.http import Request, Response
from orthanc_transfers.rest.own_site import no_foreign_forms, own_site

JSON = {"content-type": "application/json; charset=utf-8", "host": "here:8042"}
FORM = {"content-type": "application/x-www-form-urlencoded", "host": "here:8042"}

ELSEWHERE = [
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": ""},
    {"origin": "http://here:8043"},
    {"origin": "http://here:8042.evil.example"},
    {"origin": "http://[evil"},
    {"sec-fetch-site": "cross-site", "origin": "http://here:8042"},
    {"sec-fetch-site": "same-site"},
]

HERE = [
    {},
    {"origin": "http://here:8042"},
    {"origin": "HTTP://HERE:8042"},
    {"origin": "https://public.example", "x-forwarded-host": "inner, public.example:443"},
    {"origin": "https://public.example", "sec-fetch-site": "same-origin"},
    {"sec-fetch-site": "none"},
]


def answer(request: Request) -> Response:
    return Response(b"done")


def asked(headers: dict[str, str]) -> Request:
    return Request("POST", "/transfers/actions", headers=headers)


@pytest.mark.parametrize("headers", HERE)
@pytest.mark.parametrize("kind", [JSON, FORM])
def test_clients_and_pages_of_this_server_are_served(kind: dict[str, str], headers: dict[str, str]) -> None:
    assert no_foreign_forms(answer)(asked({**kind, **headers})).body == b"done"
    if kind is JSON:
        assert own_site(answer)(asked({**kind, **headers})).body == b"done"


@pytest.mark.parametrize("headers", ELSEWHERE)
def test_pages_of_other_sites_are_not(headers: dict[str, str]) -> None:
    with pytest.raises(ForeignSite, match="Host"):
        own_site(answer)(asked({**JSON, **headers}))
    for kind in ("application/x-www-form-urlencoded", "text/plain;charset=UTF-8", "multipart/form-data", ""):
        with pytest.raises(ForeignSite):
            no_foreign_forms(answer)(asked({**FORM, "content-type": kind, **headers}))


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "", "application/jsonp"])
def test_what_changes_something_must_be_json(kind: str) -> None:
    with pytest.raises(NotJson, match="Content-Type: application/json"):
        own_site(answer)(asked({"content-type": kind, "host": "here:8042"}))
