"""Group commit: callers that come while a call is under way share the next one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future


class SharedCall:
    """Calls ``work`` so that all who ask get a call that began after they did, and one serves many. Thread-safe."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._busy = threading.Lock()
        """Held by the call under way."""
        self._next: Future[None] | None = None
        """What those wait for who came since it began."""

    def call(self) -> None:
        """Return once a call that began from now on has ended. Raises what that raised."""
        with self._lock:
            mine = self._next is None
            shared = self._next = self._next or Future[None]()
        if mine:
            with self._busy:
                with self._lock:
                    self._next = None
                try:
                    self._work()
                except BaseException as error:  # noqa: BLE001  all who share it must hear of it
                    shared.set_exception(error)
                else:
                    shared.set_result(None)
        shared.result()
