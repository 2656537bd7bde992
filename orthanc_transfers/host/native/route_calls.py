"""Calls of Orthanc's SDK that serve routes: registering them, and responding to requests."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import byref

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.host.native import structures
from orthanc_transfers.host.native.buffers import pinned
from orthanc_transfers.host.native.calls import Calls, guarded, immortal, keep_thread_state, text, uint32
from orthanc_transfers.host.native.structures import Code, HttpRequest, Service


class RouteCalls(Calls):
    """Routes on Orthanc's HTTP server. ``output`` is the address of the response to one request."""

    def register_route(self, pattern: str, callback: Callable[[int, str, HttpRequest], int]) -> None:
        """Serve the paths that match a regular expression as a whole; several requests may run at once.

        ``callback`` gets the output, the path, and the request, which is valid until it returns. It responds
        by the methods below and returns an Orthanc code; Orthanc turns any but 0 into its usual JSON error.
        """

        def called(output: int, url: bytes, request: ctypes._Pointer[HttpRequest]) -> int:
            # One of the threads of Orthanc's HTTP server, which live as long as it.
            keep_thread_state()
            return callback(output, url.decode(errors="replace"), request.contents)

        thunk = structures.RestCallback(guarded(called, Code.PLUGIN))
        parameters = structures.RegisterRestCallback(text(pattern), immortal(thunk))
        self._call(Service.REGISTER_REST_CALLBACK_NO_LOCK, parameters, f"registering the route {pattern}")

    def answer(self, output: int, body: Buffer, content_type: str) -> None:
        """Respond 200 with a body; returns once the client has it, or is gone."""
        with pinned(body) as (address, size):
            parameters = structures.AnswerBuffer(output, address, uint32(size), text(content_type))
            # A code other than 0 means that the client disconnected: no response can reach it.
            self._invoke(self._context, Service.ANSWER_BUFFER, byref(parameters))

    def send_status(self, output: int, status: int, body: Buffer) -> None:
        """Respond another status with a body."""
        with pinned(body) as (address, size):
            parameters = structures.SendHttpStatus(output, status, address, uint32(size))
            self._invoke(self._context, Service.SEND_HTTP_STATUS, byref(parameters))

    def send_method_not_allowed(self, output: int, allowed: str) -> None:
        """Respond 405; ``allowed`` is the value of ``Allow``."""
        parameters = structures.OutputPlusArgument(output, text(allowed))
        self._invoke(self._context, Service.SEND_METHOD_NOT_ALLOWED, byref(parameters))

    def set_header(self, output: int, name: str, value: str) -> None:
        """Add a header to the response that follows. Raises ``ValueError`` for one with a line break."""
        if "\r" in value or "\n" in value:
            raise ValueError(f"a line break in the header {name}")
        parameters = structures.SetHttpHeader(output, text(name), text(value))
        self._invoke(self._context, Service.SET_HTTP_HEADER, byref(parameters))

    def set_error_details(self, output: int, details: str) -> None:
        """Set the ``Details`` of Orthanc's JSON error, made from the code that the callback returns."""
        parameters = structures.SetHttpErrorDetails(output, text(details), 0)
        self._invoke(self._context, Service.SET_HTTP_ERROR_DETAILS, byref(parameters))
