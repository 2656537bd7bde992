"""The requests that are being responded to, so that a server can wait for them before it stops.

Orthanc waits for its handlers, but once its HTTP server is told to stop no response is written any more (civetweb's
``push_all``): a client whose request was under way gets nothing.
"""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import replace

from orthanc_transfers.rest.http import Handler, Request, Response

QUIET = 4.0
"""Seconds in which there should be a moment without a request, unless a server is very busy."""


class UnderWay:
    """Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._open: set[int] = set()

    def wrap(self, handler: Handler) -> Handler:
        """The same handler, whose requests count until their responses are written."""

        def handle(request: Request) -> Response:
            with self._changed:
                number = next(self._numbers)
                self._open.add(number)
            try:
                response = handler(request)
            except BaseException:
                self._end(number)
                raise

            def written() -> None:
                self._end(number)
                response.written()

            return replace(response, written=written)

        return handle

    def settle(self, seconds: float) -> bool:
        """Wait until all that have begun by now have ended, for so many seconds at most. Returns whether they have.

        Others come as long as they are let: then it waits, for ``QUIET`` seconds of these at most, for a moment
        without any, or the last ones would be cut short.
        """
        end = time.monotonic() + seconds
        with self._changed:
            mine = frozenset(self._open)
            ended = self._changed.wait_for(lambda: not mine & self._open, seconds)
            self._changed.wait_for(lambda: not self._open, min(QUIET, max(0.0, end - time.monotonic())))
            return ended

    def _end(self, number: int) -> None:
        with self._changed:
            self._open.discard(number)
            self._changed.notify_all()
