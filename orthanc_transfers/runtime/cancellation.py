"""Cancellation token: one flag that ends waits at once and calls back."""

from __future__ import annotations

import threading
from collections.abc import Callable

from orthanc_transfers.core.errors import Canceled


class Cancellation:
    """Set once, by ``cancel``. Callbacks run in the thread that cancels, the last added first."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    def cancel(self) -> None:
        """Set the flag, and call the callbacks. Once; later calls do nothing."""
        with self._lock:
            if self._event.is_set():
                return
            self._event.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in reversed(callbacks):
            callback()

    def check(self) -> None:
        """Raise ``Canceled`` if it was requested."""
        if self._event.is_set():
            raise Canceled("stopped on request")

    def wait(self, seconds: float) -> None:
        """Sleep; raise ``Canceled`` at once when it is, or was, requested."""
        if self._event.wait(seconds):
            raise Canceled("stopped on request")

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Run something when canceled (at once if it already is). Returns a function that unregisters it."""
        with self._lock:
            if not self._event.is_set():
                self._callbacks.append(callback)
                return lambda: self._forget(callback)
        callback()
        return lambda: None

    def _forget(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)
