"""Request, Response and Route: what a handler sees of HTTP, whatever serves it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.content_encoding import (
    ACCEPT_ENCODING,
    CONTENT_ENCODING,
    accepts,
    restore,
    shrink,
)
from orthanc_transfers.core.safe_json import parse_json

MAX_VALUES = 1_000_000
"""Maximum number of values in the JSON of a request: four for each chunk of the largest bucket of tiny instances."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    ``groups`` are the groups of the route's pattern, ``query`` the arguments behind ``?`` (the last one
    wins), ``headers`` have lower-case names. ``body`` is valid until the handler returns, not longer. ``handed_on``: it
    comes from another node of this cluster.
    """

    method: str
    path: str
    groups: tuple[str, ...] = ()
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: memoryview = field(default_factory=lambda: memoryview(b""))
    handed_on: bool = False

    def json(self, max_values: int = MAX_VALUES) -> Any:
        """The body as JSON. Raises ``BadFile`` (400) if it is not, ``TooLarge`` (413) if there is more in it."""
        return parse_json(restore(self.body, self.headers.get(CONTENT_ENCODING)), max_values)


@dataclass(frozen=True, slots=True)
class Response:
    """One response; errors are raised. ``content_type`` counts with status 200 only.

    ``written`` is called once it has been written, or could not be.
    """

    body: Buffer = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    written: Callable[[], None] = lambda: None


Handler = Callable[[Request], Response]


@dataclass(frozen=True, slots=True)
class Route:
    """``pattern`` is a regular expression that matches the whole path, as in Orthanc's SDK."""

    pattern: str
    methods: Mapping[str, Handler]


def json_response(value: Any) -> Response:
    """A response in JSON, formatted as by Orthanc's own routes."""
    return Response(json.dumps(value, indent=1).encode() + b"\n")


def terse_json_response(value: Any) -> Response:
    """A response for another of ours: without indentation, which Python writes ten times as slowly."""
    return Response(_terse(value))


def compact_json_response(request: Request, value: Any) -> Response:
    """A response that may name many instances: without indentation, which takes long, and compressed if accepted."""
    text = _terse(value)
    body, headers = shrink(text) if accepts(request.headers.get(ACCEPT_ENCODING)) else (text, {})
    return Response(body, headers=headers)


def _terse(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


RouteTable = Sequence[Route]
