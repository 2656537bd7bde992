"""Jobs that were submitted lately: what Orthanc has saved of them is forced to disk.

Orthanc writes a new job into its database within 0.2 s, and comes round to forcing that to disk every 10 s. A loss of
power before would make it forget a job that a user has seen.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from orthanc_transfers.runtime import threads

AFTER = (0.3, 1.5)
"""Seconds after a submission at which the index is forced to disk: soon, and again should Orthanc have been slow."""

log = logging.getLogger(__name__)


class JobDurability:
    """Calls ``force``, which may raise ``OSError``, after each submission. Thread-safe; a thread runs meanwhile.

    For many jobs that are submitted at once it is called as often as for one.
    """

    def __init__(self, force: Callable[[], None], after: tuple[float, ...] = AFTER) -> None:
        self._force = force
        self._after = after
        self._lock = threading.Lock()
        self._last = 0.0
        self._running = False
        self._closed = threading.Event()

    def add(self) -> None:
        """A job was submitted at this moment. Never waits."""
        with self._lock:
            self._last = time.monotonic()
            start = not self._running
            self._running = True
        if start:
            threads.start("submitted-jobs", self._run)

    def close(self) -> None:
        """Do no more: Orthanc ends, and saves everything itself."""
        self._closed.set()

    def _run(self) -> None:
        while True:
            last = self._last
            for seconds in self._after:
                if self._closed.wait(max(0.0, last + seconds - time.monotonic())):
                    return
                try:
                    self._force()
                except OSError as error:
                    log.warning("a new job may not survive a loss of power: %s", error)
            with self._lock:
                if self._last == last:
                    self._running = False
                    return
