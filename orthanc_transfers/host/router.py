"""Registers the routes on Orthanc's HTTP server, and converts its requests and our responses."""

from __future__ import annotations

import contextlib
import ctypes
import http
import json
import logging
from collections.abc import Callable
from functools import partial

from orthanc_transfers.core.errors import Busy, TransferError
from orthanc_transfers.host.native.buffers import borrowed
from orthanc_transfers.host.native.sdk import Sdk
from orthanc_transfers.host.native.structures import Code, HttpMethod, HttpRequest
from orthanc_transfers.rest.http import Request, Response, Route, RouteTable
from orthanc_transfers.runtime import threads

logger = logging.getLogger(__name__)

# Orthanc's own conversion of its error codes into HTTP statuses; 500 for all others.
# (Tried on 1.10.1 and 1.12.7.)
ORTHANC_STATUSES = {
    3: 400,
    5: 400,
    7: 404,
    8: 400,
    12: 400,
    13: 404,
    15: 400,
    17: 404,
    21: 404,
    28: 400,
    29: 401,
    34: 406,
    36: 503,
    41: 416,
    42: 503,
    43: 409,
    3000: 415,
}


class Router:
    """Serves routes: Orthanc's request -> ``Request`` -> handler -> ``Response`` -> Orthanc's response."""

    def __init__(self, sdk: Sdk) -> None:
        self._sdk = sdk

    def register(self, routes: RouteTable) -> None:
        """Serve the routes from now on. To be called while Orthanc loads its plugins."""
        for route in routes:
            self._sdk.register_route(route.pattern, self._callback(route))

    def _callback(self, route: Route) -> Callable[[int, str, HttpRequest], int]:
        handlers = {HttpMethod[method]: handler for method, handler in route.methods.items()}
        allowed = ",".join(route.methods)

        def serve(output: int, path: str, native: HttpRequest) -> int:
            handler = handlers.get(native.method)
            if handler is None:
                self._sdk.send_method_not_allowed(output, allowed)
                return Code.SUCCESS
            request = _request(path, native)
            try:
                # Orthanc's HTTP server gives its threads stacks of 100 KB (tried): isal's compressor alone has three
                # times that on its own, and a DNS look-up, TLS or deep JSON come near. A thread of ours has 8 MB.
                response = threads.call("route", partial(handler, request))
                try:
                    self._answer(output, response)
                finally:
                    response.written()
            except TransferError as error:
                if error.status >= 500 and not isinstance(error, Busy):
                    # Orthanc logs only its own description of the code, or nothing.
                    logger.warning("%s %s: %s", request.method, path, error)
                return self._refuse(output, request, error)
            except Exception as error:
                logger.exception("%s %s failed", request.method, path)
                return self._refuse(output, request, TransferError(f"{type(error).__name__}: {error}"))
            finally:
                # Orthanc frees the memory now: a handler that keeps the body gets an exception, not a crash.
                with contextlib.suppress(BufferError):
                    request.body.release()
            return Code.SUCCESS

        return serve

    def _answer(self, output: int, response: Response) -> None:
        for name, value in response.headers.items():
            self._sdk.set_header(output, name, value)
        if response.status == http.HTTPStatus.OK:
            self._sdk.answer(output, response.body, response.content_type)
        else:
            self._sdk.send_status(output, response.status, response.body)

    def _refuse(self, output: int, request: Request, error: TransferError) -> int:
        """Respond with an error, in Orthanc's own JSON wherever its code means our status."""
        details = str(error)
        if ORTHANC_STATUSES.get(error.code, 500) == error.status and not isinstance(error, Busy):
            self._sdk.set_error_details(output, details)
            return error.code
        if isinstance(error, Busy):
            self._sdk.set_header(output, "Retry-After", str(max(1, round(error.retry_after))))
        self._sdk.send_status(output, error.status, self._error_body(request, error))
        return Code.SUCCESS

    def _error_body(self, request: Request, error: TransferError) -> bytes:
        """The body that Orthanc would send, with the keys of its own errors."""
        reason = http.HTTPStatus(error.status).phrase
        body = {
            "Details": str(error),
            "HttpError": reason,
            "HttpStatus": error.status,
            "Message": reason,
            "Method": request.method,
            "OrthancError": self._sdk.describe(error.code),
            "OrthancStatus": error.code,
            "Uri": request.path,
        }
        return json.dumps(body, indent=1).encode() + b"\n"


def _request(path: str, native: HttpRequest) -> Request:
    return Request(
        method=HttpMethod(native.method).name,
        path=path,
        groups=tuple(_strings(native.groups, native.groupsCount)),
        query=dict(
            zip(
                _strings(native.getKeys, native.getCount),
                _strings(native.getValues, native.getCount),
                strict=True,
            )
        ),
        headers={
            name.lower(): value
            for name, value in zip(
                _strings(native.headersKeys, native.headersCount),
                _strings(native.headersValues, native.headersCount),
                strict=True,
            )
        },
        body=borrowed(native.body, native.bodySize),
    )


def _strings(values: ctypes._Pointer[ctypes.c_char_p], count: int) -> list[str]:
    return [(value or b"").decode(errors="replace") for value in values[:count]]
